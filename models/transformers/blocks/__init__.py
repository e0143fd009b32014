"""Layers that several families of transformers share."""
