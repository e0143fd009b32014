"""The data flow from sources to table: see `pipeline` for all of it on one page."""
