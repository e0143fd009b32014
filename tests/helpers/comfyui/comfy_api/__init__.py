"""A stand-in for ComfyUI's interface of nodes: as much of it as its documentation promises and our nodes use."""
