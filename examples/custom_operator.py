"""Curate with an operator of your own, without changing the project.

    python -m examples.custom_operator VIDEOS OUT

It measures an existing column, `sharpness`, in another way: Tenengrad, the mean squared gradient of luma (Tenenbaum
1970; Krotkov, "Focusing", IJCV 1988), in place of the variance of the Laplacian. Its fields are keys of the recipe at
once. A column that is new needs a line in `curation/schema.py`: docs/develop.md.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pyarrow.parquet as pq

from captioners import CAPTIONERS
from configs import CONFIGS
from core.settings import key
from curation.engine.runners import InlineRunner
from curation.inputs.sources import find_sources
from curation.pipeline import curate
from curation.recipe import Tables, load_recipe
from curation.schema import BOTH
from curation.types import ClipInput, Sampling, Scorer, Scores
from operators import OPERATORS


@dataclass(frozen=True)
class Tenengrad:
    """Mean squared gradient of luma by Sobel's 3x3 filters, mean over frames, in squared grey levels."""

    rate_fps: float = key(1.0, "frames per second looked at")
    short_side_px: int = key(360, "pictures are scaled down to this short side")

    writes: ClassVar[tuple[str, ...]] = ("sharpness",)
    media: ClassVar[frozenset[str]] = BOTH
    pool: ClassVar[str | None] = None

    @property
    def sampling(self) -> Sampling | None:
        """Gray frames on a grid of time."""
        return Sampling(self.rate_fps, None, None, self.short_side_px, "gray")

    def load(self) -> Scorer:
        """Return the scoring function; a clip without frames cannot be measured, which is None and never 0."""

        def energy(gray: np.ndarray) -> float:
            across, down = (cv2.Sobel(gray, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
            return float(np.mean(across**2 + down**2))

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            values = [[energy(gray) for gray in clip.frames.pixels] for clip in clips]
            return [{"sharpness": float(np.mean(v)) if v else None} for v in values]

        return score


def main(videos: str, out: str) -> int:
    """Curate with Tenengrad in the place of sharpness; print the clips, the least sharp first."""
    tables = Tables({**OPERATORS, "sharpness": Tenengrad}, CAPTIONERS)
    overrides = ["operators.sharpness.rate_fps=2", "rules.sharpness.min=100"]
    recipe, captioner = load_recipe(CONFIGS / "default.yaml", overrides, tables)
    outcome = curate(find_sources([videos]), Path(out), recipe, captioner, InlineRunner())
    rows = pq.read_table(Path(out) / "clips", columns=["source_path", "start_s", "sharpness", "reasons"]).to_pylist()
    measured = sorted((row for row in rows if row["sharpness"] is not None), key=lambda row: row["sharpness"])
    for row in measured:
        print(row)
    return 0 if outcome.is_complete else 1


if __name__ == "__main__":
    # Decoders are processes of their own, which import the operator by its module's name: `__main__` is another there.
    from examples.custom_operator import main

    sys.exit(main(sys.argv[1], sys.argv[2]))
