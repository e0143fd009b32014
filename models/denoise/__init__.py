"""From noise to latents: objectives, samplers, guidance, generation loops."""
