"""Where files lie: a local folder or a bucket, behind one interface."""
