"""An output folder: its table, what it owes, and what is stashed in it."""
