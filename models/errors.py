"""The error for what a user asks of a model and cannot have, and what it is made from."""

from collections.abc import Mapping
from typing import Any


class ModelError(Exception):
    """A request that a model cannot meet: one line that says what, where and the fix."""


def one_line(error: Exception) -> str:
    """Return an error's text on one line, cut where libraries list every weight there is."""
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


def check_complete(report: Mapping[str, Any], where: object) -> None:
    """Refuse weights of which some are missing, where others that nothing reads may lie beside them.

    Args:
        report: what `from_pretrained` of transformers gives for `output_loading_info`.
        where: the folder, for the message.

    Raises:
        ModelError: weights are missing.
    """
    if lacking := sorted(report["missing_keys"]):
        raise ModelError(f"{where}: {len(lacking)} weights are missing ({lacking[0]}, …); fetch the folder again")
