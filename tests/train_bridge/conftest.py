"""Fixtures that several tests of training share."""

from training_commands import parts

__all__ = ["parts"]
