"""The one decode of a source, and the process in which it runs."""
