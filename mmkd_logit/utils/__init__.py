"""Helpers below every other module."""
