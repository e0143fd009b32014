"""Long captions for a text tower with a short window: cut into chunks at sentences, so that none is truncated."""

import re
from collections.abc import Callable

# Where a text may be cut, the best places first: after sentences, after clauses, between words, anywhere.
SENTENCES = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*|\n+")  # noqa: RUF001 - the full stops of Chinese
CLAUSES = re.compile(r"(?<=[,;:])\s+|(?<=[，；：、])\s*")  # noqa: RUF001
WORDS = re.compile(r"\s+")
CHARACTERS = re.compile(r"(?<=.)(?=.)", re.DOTALL)


def chunks(text: str, most: int, count: Callable[[str], int]) -> list[str]:
    """Cut a text into chunks of whole sentences, each as long as the window allows.

    A sentence that is longer than the window is cut at its commas, then between words, then anywhere.

    Args:
        text: a caption.
        most: tokens that a chunk may have.
        count: gives the number of tokens of a text.

    Returns:
        Chunks in order; none for a text without words.
    """
    return _chunks(text.strip(), most, count, (SENTENCES, CLAUSES, WORDS, CHARACTERS)) if text.strip() else []


def _chunks(text: str, most: int, count: Callable[[str], int], places: tuple[re.Pattern[str], ...]) -> list[str]:
    if count(text) <= most or not places:
        return [text]
    here, *later = places
    parts = [part for part in here.split(text) if part]
    joiner = "" if here is CHARACTERS or not re.search(r"\s", text) else " "
    packed: list[str] = []
    for part in parts:
        if packed and count(together := packed[-1] + joiner + part) <= most:
            packed[-1] = together
        else:
            packed.extend(_chunks(part, most, count, tuple(later)))
    return packed
