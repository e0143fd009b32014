"""Networks, objectives, samplers and their costs: plain torch and diffusers, nothing of ours, no Ray."""
