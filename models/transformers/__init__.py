"""Video diffusion transformers: one file per family, listed in `table`."""
