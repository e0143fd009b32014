"""One score per file; this table is the only list of them."""
