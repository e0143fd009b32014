"""Reading and writing media: probe, decode, scale, cut."""
