"""Reads files, draws, writes the report; imports neither torch nor an mm package."""
