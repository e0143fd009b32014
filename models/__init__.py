"""Networks, objectives, samplers and their costs: plain torch and diffusers, nothing of ours, no Ray."""

import os

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # the hub reads it when it is imported, and never again
