"""What captions say most: the phrases that many of them share, which a captioner's habits show in."""

import re
from collections import Counter
from collections.abc import Iterable

MOST_CAPTIONS = 5_000
"""looked at; enough for every phrase in one caption of a hundred"""
WORDS = (3, 4, 5, 6)
SHOWN = 20
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def frequent_phrases(captions: Iterable[str]) -> list[tuple[str, int]]:
    """Return the phrases of three to six words that most captions hold, the commonest first.

    A phrase counts once for each caption; one that stands within a longer phrase as common as itself is left
    out, and so is one that a single caption holds.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    for caption in captions:
        said = [word.lower() for word in _WORD.findall(caption)]
        counts.update({tuple(said[i : i + n]) for n in WORDS for i in range(len(said) - n + 1)})
    shared = [(words, count) for words, count in counts.most_common(SHOWN * 20) if count > 1]
    longest_first = sorted(shared, key=lambda item: (-item[1], -len(item[0]), item[0]))
    kept: list[tuple[str, int]] = []
    for words, count in longest_first:
        phrase = " ".join(words)
        if not any(count <= other * 1.05 and f" {phrase} " in f" {longer} " for longer, other in kept):
            kept.append((phrase, count))
    return kept[:SHOWN]
