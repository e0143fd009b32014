"""Encoded latents and texts on disk."""
