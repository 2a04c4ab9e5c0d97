"""Measurements of cost and accuracy."""
