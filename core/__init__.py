"""What every room needs and that knows nothing of media or models: errors, settings, files, text from outside."""
