"""The benchmark of noise levels by score: what its clips are, and when it says that the target is missed."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.tqd import BOTH, COLOURS, KINDS_OF_DATA, MOVING, PHASES, SIZE_PX, STILL, Found, draw, missed, paint
from operators.sharpness import laplacian_variance

COLOUR = next(iter(COLOURS.values()))


def sharpness(frames: np.ndarray) -> float:
    return float(np.mean([laplacian_variance(frame.mean(axis=-1).astype(np.uint8)) for frame in frames]))


def change(frames: np.ndarray) -> float:
    return float(abs(np.diff(frames.astype(int), axis=0)).mean())


def test_each_half_of_the_data_is_good_in_one_respect_and_the_reference_in_both() -> None:
    moving, still, both = (paint(kind, COLOUR, 0.1, 0.5, SIZE_PX) for kind in (MOVING, STILL, BOTH))
    assert moving.shape == still.shape == both.shape and both.shape[1:] == (SIZE_PX, SIZE_PX, 3)
    assert change(still) == 0 and change(moving) > 0.5 and change(both) > change(moving)
    assert sharpness(moving) < 0.1 * sharpness(still)
    assert sharpness(both) == pytest.approx(sharpness(still), rel=0.3)


def test_captions_do_not_tell_the_halves_apart(tmp_path: Path) -> None:
    draw(tmp_path / "data", KINDS_OF_DATA)
    files = sorted((tmp_path / "data").glob("*.json"))
    assert len(files) == len(list((tmp_path / "data").glob("*.mp4"))) == 2 * len(COLOURS) * PHASES
    of_half = [[json.loads(f.read_text())["prompt"] for f in files if f.name.startswith(n)] for n in ("0-", "1-")]
    assert of_half[0] == of_half[1] and set(of_half[0]) == set(COLOURS)


def test_the_target_is_missed_where_one_score_is_no_nearer() -> None:
    near, far = {"motion": 1.0, "sharpness": 1.0}, {"motion": 2.0, "sharpness": 2.0}
    assert missed(Found(far, near, {"uniform": [far, far, near], "tqd": [near, near, far]})) == []
    words = missed(Found(far, near, {"uniform": [far], "tqd": [near | {"sharpness": 2.0}]}))
    assert len(words) == 1 and "sharpness" in words[0]
