"""Rewards: scores that a gradient can be taken of, from frames and prompts."""
