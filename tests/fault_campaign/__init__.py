"""Runs that are killed, cut short, flipped, starved and doubled, and what is left of them.

See ``__main__`` for the command.
"""
