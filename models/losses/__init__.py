"""Losses beyond plain distances."""
