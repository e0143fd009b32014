"""Faces of this program within others; each folder is one of them."""
