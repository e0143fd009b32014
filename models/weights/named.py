"""Weights that a setting names: published ones by name, or a file."""

from pathlib import Path

from models.errors import ModelError
from models.weights.find import find_weights
from models.weights.table import WEIGHTS


def weights_file(named: str) -> Path:
    """Return the file of published weights by name, its content checked; or a file by its path.

    Raises:
        ModelError: neither a name of `WEIGHTS` that can be had, nor a file.
    """
    if named in WEIGHTS:
        return find_weights(named)
    if Path(named).is_file():
        return Path(named)
    raise ModelError(
        f"'{named}': neither published weights (run_pipeline.py weights list) nor a file; give one of them"
    )
