"""The demo: drawn footage about which everything is known, and tiny models trained on it."""
