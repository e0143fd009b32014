"""Operators that make trouble when they meet the odd source; few imports, since every decoder loads them."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from captioners.template import Describe, Template
from curation.types import Caption, ClipInput, Frames, Row, Scorer, Scores
from operators.brightness import Brightness

ODD_WIDTH_PX = 98
"""The source of this width is the one that makes trouble."""


@dataclass(frozen=True)
class Trouble(Brightness):
    """Measures brightness, unless the source is odd."""

    def load(self) -> Scorer:
        usual = super().load()

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            for clip in clips:
                if clip.facts.width_px == ODD_WIDTH_PX:
                    self.trouble()
            return usual(clips)

        return score

    def trouble(self) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Crashes(Trouble):
    def trouble(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


@dataclass(frozen=True)
class Hangs(Trouble):
    def trouble(self) -> None:
        time.sleep(1000)


@dataclass(frozen=True)
class Swells(Trouble):
    def trouble(self) -> None:
        np.ones((1 << 30,), np.float64)


@dataclass(frozen=True)
class IsKilled(Trouble):
    def trouble(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Dies(Brightness):
    """A model worker that ends with the odd clip, as often as `deaths` says."""

    pool: ClassVar[str | None] = "light"
    marks: str = ""
    deaths: int = 0

    def load(self) -> Scorer:
        usual = super().load()

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            if any(clip.facts.width_px == ODD_WIDTH_PX for clip in clips):
                died = len(list(Path(self.marks).iterdir()))
                if died < self.deaths:
                    (Path(self.marks) / str(died)).touch()
                    os._exit(1)
            return usual(clips)

        return score


@dataclass(frozen=True)
class Touches(Trouble):
    """Somebody writes to the odd source while it is decoded."""

    path: str = ""

    def trouble(self) -> None:
        with open(self.path, "ab") as file:
            file.write(b"more")


@dataclass(frozen=True)
class Deletes(Touches):
    """Somebody deletes the odd source while it is decoded."""

    def trouble(self) -> None:
        Path(self.path).unlink(missing_ok=True)


@dataclass(frozen=True)
class Mortal(Template):
    """A captioner with a worker of its own, which dies once."""

    pool: ClassVar[str | None] = "captions"
    mark: str = ""

    def load(self) -> Describe:
        usual = super().load()

        def write(clips: Sequence[tuple[Row, Frames | None]]) -> list[Caption]:
            if not Path(self.mark).exists():
                Path(self.mark).touch()
                os._exit(1)
            return [
                Caption(f"{row['clip_id']}: {caption.text}", "mortal")
                for (row, _), caption in zip(clips, usual(clips), strict=True)
            ]

        return write
