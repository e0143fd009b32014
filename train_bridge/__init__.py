"""From metadata to batches, from batches to a trained model, from a model to samples."""

import os

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # the hub reads it when it is imported, and never again
