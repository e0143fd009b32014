"""Which rows go into which buckets and steps, and what that will cost."""
