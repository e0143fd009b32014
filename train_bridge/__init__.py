"""From metadata to batches, from batches to a trained model, from a model to samples."""
