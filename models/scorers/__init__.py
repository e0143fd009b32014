"""Networks that score pictures and texts."""
