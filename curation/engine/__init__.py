"""How the steps run: a plain loop, or one streaming Ray Data graph."""
