"""From metadata to rows, from rows to frames."""
