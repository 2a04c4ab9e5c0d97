"""The exhibits of the paper as lists of runs."""
