"""The error for what a user asks of a model and cannot have, and what it is made from."""

from collections.abc import Mapping
from typing import Any


class ModelError(Exception):
    """A request that a model cannot meet: one line that says what, where and the mend."""


def one_line(error: Exception) -> str:
    """Give an error's text on one line, cut where libraries list every weight there is."""
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


def check_weights(report: Mapping[str, Any], where: object) -> None:
    """Refuse weights that do not fit their `config.json`; diffusers only warns and leaves their places as they were.

    Args:
        report: what `from_pretrained` gives for `output_loading_info`.
        where: the folder, for the message.

    Raises:
        ModelError: weights are missing, unknown or of other shapes.
    """
    wrong = [*report["missing_keys"], *report["unexpected_keys"], *(str(key) for key in report["mismatched_keys"])]
    if wrong:
        raise ModelError(
            f"{where}: {len(wrong)} weights do not fit config.json ({wrong[0]}); give diffusers' own files"
        )
