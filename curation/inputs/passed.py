"""What was seen and not taken: counted, and told in the summary."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from core.sanitize import printable
from media.names import suffix_of

SHOWN = 12
"""most suffixes and outputs that are named"""


@dataclass(frozen=True)
class PassedOver:
    """What lay where sources were looked for and is none.

    Attributes:
        by_suffix: files by their suffix in lower case, `none` for those without; the most frequent first.
        hidden: files and folders whose names begin with a dot.
        outputs: folders that `curate` or `train` has written, which are never sources.
    """

    by_suffix: Mapping[str, int] = field(default_factory=dict)
    hidden: int = 0
    outputs: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it in words; empty where nothing was passed over."""
        words = []
        if count := sum(self.by_suffix.values()):
            named = [f"{printable(suffix, 40)} {number}" for suffix, number in self.by_suffix.items()]
            words.append(f"{count} {_plural('file', count)} ({_some(named)})")
        if self.hidden:
            words.append(f"{self.hidden} hidden")
        if self.outputs:
            named = [printable(folder, 160) for folder in self.outputs]
            words.append(f"{len(named)} {_plural('output', len(named))} of this program ({_some(named)})")
        return ", ".join(words)


@dataclass
class Passing:
    """Counts while sources are looked for; what several inputs lead to counts once."""

    files: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    outputs: dict[str, None] = field(default_factory=dict)
    _counted: set[str] = field(default_factory=set)

    def begin(self, place: str) -> bool:
        """Return whether a folder, or a file by itself, has not been counted yet; from now on it has."""
        is_new = place not in self._counted
        self._counted.add(place)
        return is_new

    def has_counted(self, place: str) -> bool:
        """Return whether a folder or file has been counted."""
        return place in self._counted

    def file(self, name: str) -> None:
        """Count a file."""
        self.files[suffix_of(name) or "none"] += 1

    def output(self, folder: str) -> None:
        """Note an output."""
        self.outputs[folder] = None

    def result(self) -> PassedOver:
        """Return the counts."""
        by_suffix = dict(sorted(self.files.items(), key=lambda item: (-item[1], item[0])))
        return PassedOver(by_suffix, self.hidden, tuple(self.outputs))


def _some(words: list[str]) -> str:
    return ", ".join([*words[:SHOWN], *([f"{len(words) - SHOWN} more"] if len(words) > SHOWN else [])])


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
