"""How much of a picture is cut away: the formula, which rows are refused or fitted in whole, and what is then read."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from demo.drawing import write_video
from models.geometry import Bucket
from train_bridge.cache.fingerprint import row_key
from train_bridge.config import BucketSettings, DataSettings
from train_bridge.data.frames import contain_size, cover_size, read_frames
from train_bridge.data.windows import letterboxed
from train_bridge.plan.buckets import assign, shapes
from train_bridge.plan.crops import cropped_of, cropped_share
from train_bridge.types import TrainRow

LIMIT = DataSettings().max_crop
Spread = partial(BucketSettings, fps=0.0)
ORDINARY = {
    "2.76": (2760, 1000), "2.55": (2550, 1000), "2.39": (2048, 858), "2.35": (1920, 817), "2.2": (2200, 1000),
    "2:1": (2000, 1000), "1.85": (1998, 1080), "16:9": (1920, 1080), "1.66": (1660, 1000), "3:2": (1500, 1000),
    "4:3": (1440, 1080), "5:4": (1350, 1080), "1:1": (1080, 1080), "4:5": (1080, 1350), "2:3": (1000, 1500),
    "9:16": (1080, 1920), "9:19.5": (1179, 2556), "9:21": (1080, 2520),
}  # fmt: skip
buckets = st.builds(lambda h, w: Bucket(1, 16 * h, 16 * w), st.integers(1, 90), st.integers(1, 90))
sizes = st.tuples(st.integers(2, 9000), st.integers(2, 9000))


def image(width: int, height: int, row_id: str = "i", path: Path = Path("i.png")) -> TrainRow:
    return TrainRow(row_id, path, "", "image", width, height, 1, 0.0)


@given(sizes, buckets)
def test_the_share_is_what_lies_outside_of_the_covered_shape(size, bucket) -> None:
    width, height = size
    scale = max(bucket.width_px / width, bucket.height_px / height)
    outside = 1 - bucket.width_px * bucket.height_px / (width * scale * height * scale)
    share = cropped_of(image(width, height), bucket)
    assert share == pytest.approx(outside, abs=1e-9) and -1e-9 <= share < 1
    # What is read is cut so, but for the rounding of a side to whole pixels.
    read_width, read_height = cover_size(width, height, bucket)
    read = 1 - bucket.width_px * bucket.height_px / (read_width * read_height)
    assert share == pytest.approx(read, abs=0.6 / min(read_width, read_height))


@given(st.floats(0.05, 20), st.floats(0.05, 20), st.floats(1, 3))
def test_the_share_grows_with_the_distance_of_aspects_alone(a, b, more) -> None:
    assert cropped_share(a, a) == pytest.approx(0, abs=1e-12)
    assert cropped_share(a, b) == pytest.approx(cropped_share(b, a)) == pytest.approx(cropped_share(1 / a, 1 / b))
    further = max(a, b) * more / min(a, b)
    assert cropped_share(further, 1) >= cropped_share(a, b) - 1e-12
    assert cropped_share(2.0, 1.0) == pytest.approx(0.5) and cropped_share(1.0, 4.0) == pytest.approx(0.75)


@pytest.mark.parametrize("size", [256, 384, 512, 768, 1024])
def test_ordinary_footage_is_not_refused(size: int) -> None:
    rows = [image(*sides, name) for name, sides in ORDINARY.items()]
    found = assign(rows, Spread(sizes_px=(size,)), LIMIT)
    assert not found.refused
    shares = [cropped_of(row, found.buckets[i]) for row, i in zip(rows, found.options[:, 0], strict=True)]
    assert max(shares) <= LIMIT
    cinema = shares[list(ORDINARY).index("2.39")]
    assert cinema < 0.06, "film has a shape of its own: in 16/9 it would lose 0.26"
    widest = max(width / height for height, width in shapes(Spread(sizes_px=(size,), aspects=("16/9", "1/1"))))
    assert cropped_share(2.39, widest) > LIMIT - 0.02


def test_a_strip_is_refused_in_words_that_can_be_counted_or_fitted_in_whole() -> None:
    rows = [image(1000, 100, "strip"), image(100, 900, "tower"), image(1920, 1080, "wide")]
    found = assign(rows, Spread(), LIMIT)
    assert (found.options >= 0).any(axis=1).tolist() == [False, False, True]
    assert {(r.key, r.reason) for r in found.refused} == {
        ("data.max_crop", "more than 25% of the picture would be cropped away")
    }
    assert "add 10/1 to buckets.aspects" in found.refused[0].fix and "data.letterbox=true" in found.refused[0].fix
    assert "add 0.111/1 to" in found.refused[1].fix
    assert not assign(rows[:1], Spread(aspects=("10/1",)), LIMIT).refused
    assert not assign(rows, Spread(), 1.0).refused, "as ever"
    kept = assign(rows, Spread(), LIMIT, letterbox=True)
    assert not kept.refused
    fitted = letterboxed(rows, kept, LIMIT)
    assert [row.letterbox for row in fitted] == [True, True, False]
    assert cropped_of(fitted[0], kept.buckets[kept.options[0, 0]]) == 0
    assert [row.letterbox for row in letterboxed(rows, assign(rows, Spread(), 1.0), 1.0)] == [False] * 3


def test_sizes_whose_shape_would_crop_too_much_are_no_options() -> None:
    # Of 32² the nearest shape to 1.6 is 2/1, which cuts a fifth; of 48² it is 3/2, which cuts a sixteenth.
    row, settings = image(1600, 1000), Spread(sizes_px=(32, 48), tokens_per_row=1000)
    assert [str(b) for b in assign([row], settings, 0.2).buckets] == ["1x16x32", "1x32x48"]
    assert [str(b) for b in assign([row], settings, 0.19).buckets] == ["1x32x48"]
    assert assign([row], settings, 0.06).refused
    (refused,) = assign([image(100, 1000)], Spread(upscale=False, sizes_px=(64, 512)), LIMIT).refused
    assert refused.key == "data.max_crop", "of the sizes that do not enlarge it, none will do"


@given(sizes, buckets)
def test_the_contained_size_is_the_largest_within(size, bucket) -> None:
    width, height = contain_size(*size, bucket)
    assert 1 <= width <= bucket.width_px and 1 <= height <= bucket.height_px
    assert width == bucket.width_px or height == bucket.height_px
    by_width = abs(height - size[1] * bucket.width_px / size[0]) <= 0.5 or height == 1
    by_height = abs(width - size[0] * bucket.height_px / size[1]) <= 0.5 or width == 1
    assert (width == bucket.width_px and by_width) or (height == bucket.height_px and by_height)


@pytest.mark.parametrize(("width", "height"), [(160, 32), (32, 160)])
def test_a_letterboxed_picture_is_whole_between_black_bars(tmp_path: Path, width: int, height: int) -> None:
    picture = np.full((height, width, 3), 200, np.uint8)
    picture[-8:, -8:] = (200, 20, 20)  # a corner that cropping would take away
    write_video(tmp_path / "a.mkv", [picture] * 3, 10, codec="ffv1", pixel_format="yuv444p")
    Image.fromarray(picture).save(tmp_path / "a.png")
    rows = [
        TrainRow("a", tmp_path / "a.mkv", "", "video", width, height, 3, 0.3, letterbox=True),
        TrainRow("a", tmp_path / "a.png", "", "image", width, height, 1, 0.0, letterbox=True),
    ]
    for row in rows:
        (frame,) = read_frames(row, Bucket(1, 80, 80))
        frame = frame if width > height else frame.transpose(1, 0, 2)
        lit = np.flatnonzero(frame.mean(axis=(1, 2)) > 60)
        assert (lit[0], lit[-1]) == (32, 47), "16 of 80 rows, in the middle"
        assert frame[:32].max() == 0 and frame[48:].max() == 0
        assert abs(frame[44:48, 76:80].reshape(-1, 3).mean(0) - (200, 20, 20)).max() < 15
        cut = replace(row, letterbox=False)
        keys = {row_key("c" * 32, one, Bucket(1, 80, 80), "vae") for one in (row, cut)}
        assert len(keys) == 2, "neither may be taken for the other in a cache"
