"""The error for what a user asks of a model and cannot have."""


class ModelError(Exception):
    """A request that a model cannot meet: one line that says what, where and the mend."""
