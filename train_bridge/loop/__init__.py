"""The training loop: workers, batches, checkpoints, what is exported at the end."""
