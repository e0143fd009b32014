"""Copies across a whole table."""
