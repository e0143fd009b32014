"""The command line: one file per command, which turns words into a request and a result into text."""
