"""Published weights: their table, how they are found, fetched and read."""
