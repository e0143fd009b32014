"""Rows get the shape they fit best, never more than they have, and a reason where nothing fits."""

import dataclasses
import math
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from training_commands import CONFIGS

from benchmarks.planner import mixed_rows
from core.errors import UserError
from models.geometry import Bucket
from models.vae.cached_slice_vae import CACHED_SLICE
from train_bridge.config import BucketSettings as Settings
from train_bridge.config import load_config
from train_bridge.plan.buckets import assign, shapes
from train_bridge.types import TrainRow

BucketSettings = partial(Settings, fps=0.0)  # frames spread over whole clips
ASPECTS = ("16/9", "4/3", "1/1", "3/4", "9/16", "2.39/1")


def video(width: int | None = 1920, height: int | None = 1080, frames: int | None = 90, seconds: float | None = 3.0):
    return TrainRow("v", Path("v.mp4"), "", "video", width, height, frames, seconds)


def image(width: int, height: int) -> TrainRow:
    return TrainRow("i", Path("i.jpg"), "", "image", width, height, 1, 0.0)


def only(row: TrainRow, **changes) -> list[str]:
    """Every option of one row, by name."""
    found = assign([row], BucketSettings(**changes))
    return [str(found.buckets[i]) for i in found.options[0] if i >= 0]


def test_shapes_of_known_sizes():
    assert shapes(BucketSettings(sizes_px=(512,), aspects=("1/1",))) == ((512, 512),)
    # 384x672 is EasyAnimate's own 512 shape for wide video.
    assert shapes(BucketSettings(sizes_px=(512,), aspects=("16/9", "9/16"))) == ((672, 384), (384, 672))
    assert shapes(BucketSettings(sizes_px=(1024,), aspects=("16/9",))) == ((768, 1360),)
    assert shapes(BucketSettings(sizes_px=(64,), aspects=("16/9", "1/1"))) == ((64, 64), (48, 80))
    assert shapes(BucketSettings(sizes_px=(32,))) == ((32, 16), (32, 32), (16, 32), (16, 48))  # 4/3 is 1/1 at this size
    # 32x128 and 16x144 are equally far from 6/1; the larger is taken.
    assert shapes(BucketSettings(sizes_px=(64,), aspects=("6/1",))) == ((32, 128),)
    assert shapes(BucketSettings(sizes_px=(16, 20))) == ((16, 16),)


def test_the_commonest_bucket_is_that_of_most_rows():
    found = assign(
        [video(), image(64, 64), *[video(frames=40)] * 2], BucketSettings(sizes_px=(64,), frames=(17, 33, 49))
    )
    assert [str(bucket) for bucket in found.buckets] == ["1x64x64", "33x48x80", "49x48x80"]
    assert str(found.commonest) == "33x48x80"


@given(st.integers(16, 1600), st.floats(0.1, 10).map(lambda a: round(a, 3)))
@example(16, 0.1)
@example(16, 10.0)
def test_shapes_keep_within_the_area_and_near_the_aspect(size: int, aspect: float):
    [(height, width)] = shapes(BucketSettings(sizes_px=(size,), aspects=(f"{aspect}/1",)))
    assert height % 16 == 0 and width % 16 == 0 and height >= 16 and width >= 16
    assert height * width <= size**2
    ideal = size / math.sqrt(max(aspect, 1 / aspect))  # the shorter side
    if ideal >= 64:
        assert height * width > size**2 * (1 - 16 / ideal) ** 2
        assert abs(math.log(width / height / aspect)) <= 16 / ideal
    [(turned_height, turned_width)] = shapes(BucketSettings(sizes_px=(size,), aspects=(f"1/{aspect}",)))
    # Standing and lying video have equally many tokens, so that they can share a step.
    assert turned_height * turned_width == height * width


@pytest.mark.parametrize("text", ["16x9", "16", "", "0/1", "1/0", "-16/9", "16/9/4", "a/b", "1/inf"])
def test_a_bad_aspect_is_named(text: str):
    with pytest.raises(UserError, match=r"buckets\.aspects.*not width/height; write it as 16/9"):
        assign([], BucketSettings(aspects=("1/1", text)))


def test_the_largest_size_that_does_not_enlarge():
    sizes = {"sizes_px": (256, 512, 1024), "frames": (17, 49)}
    assert only(video(1920, 1080), **sizes) == ["49x768x1360"]
    assert only(video(1280, 720), **sizes) == ["49x384x672"]
    assert only(video(672, 384), **sizes) == ["49x384x672"]  # already of that shape
    assert only(video(671, 384), **sizes) == ["49x192x336"]
    assert only(video(1080, 1920), **sizes) == ["49x1360x768"]
    assert only(image(4000, 3000), **sizes) == ["1x880x1168"]


def test_small_rows_are_enlarged_or_refused():
    rows = [video(160, 90), video(1920, 1080), image(10, 10)]
    found = assign(rows, BucketSettings(sizes_px=(512, 256)))
    assert [str(found.buckets[i]) for i in found.options[:, 0]] == ["49x192x336", "49x384x672", "1x256x256"]
    assert found.upscaled == 2 and not found.refused
    strict = assign(rows, BucketSettings(sizes_px=(512, 256), upscale=False))
    assert strict.options.tolist() == [[-1], [0], [-1]] and strict.upscaled == 0
    assert [r.key for r in strict.refused] == ["width_px", "width_px"]
    assert "smallest size, 256; set buckets.upscale: true" in str(strict.refused[0])


def test_the_longest_length_by_frames_and_by_rate():
    lengths = {"frames": (49, 17, 33), "sizes_px": (64,)}
    assert only(video(frames=60, seconds=2.0), **lengths) == ["49x48x80"]
    assert only(video(frames=48, seconds=2.0), **lengths) == ["33x48x80"]
    # 49 frames at exactly 30 fps, with a duration that its container rounded to milliseconds.
    assert only(video(frames=49, seconds=1.633), **lengths) == ["49x48x80"]
    # Half a second at 60 fps has 30 frames, but only 15 at 30 fps.
    assert only(video(frames=30, seconds=0.5), **lengths) == []
    assert only(video(frames=30, seconds=0.5), max_fps=60.0, **lengths) == ["17x48x80"]
    # Slow film: the rate is below max_fps whatever the length, frames are what limits.
    assert only(video(frames=20, seconds=20.0), **lengths) == ["17x48x80"]


def test_short_rows_say_why_in_words_that_can_be_counted():
    rows = [video(frames=9, seconds=9.0), video(frames=16, seconds=1.0), video(frames=40, seconds=0.4)]
    refused = assign(rows, BucketSettings()).refused
    counted = Counter((r.key, r.reason) for r in refused)
    assert counted["num_frames", "fewer frames than the shortest length, 17"] == 2
    assert counted["num_frames", "fewer frames than the shortest length, 17, at 30 fps"] == 1
    assert all("buckets.frames" in r.fix and r.row_id == "v" for r in refused)
    assert "buckets.max_fps" in refused[2].fix


def test_unprobed_rows_are_refused_by_the_missing_fact():
    rows = [
        video(width=None), video(height=None), video(frames=None), video(seconds=None), video(width=0),
        TrainRow("i", Path("i.jpg"), "", "image", 64, 64), video(frames=49, seconds=math.inf),
    ]  # fmt: skip
    found = assign(rows, BucketSettings())
    assert [r.key for r in found.refused] == ["width_px", "height_px", "num_frames", "duration_s", "width_px"]
    assert all(r.reason == "not known" for r in found.refused)
    assert [str(found.buckets[i]) for i in found.options[5:, 0]] == ["1x512x512", "49x384x672"]


def test_token_length_rows_have_one_option_for_each_size():
    lengths = tuple(range(1, 146, 4))
    tokens = {"sizes_px": (256, 512, 1024), "aspects": ("1/1",), "frames": lengths, "tokens_per_row": 9472}
    assert only(video(1080, 1080, 300, 10.0), **tokens) == ["5x1024x1024", "33x512x512", "145x256x256"]
    assert only(video(1080, 1080, 60, 2.0), **tokens) == ["5x1024x1024", "33x512x512", "57x256x256"]
    assert only(video(600, 600, 300, 10.0), **tokens) == ["33x512x512", "145x256x256"]
    assert only(image(1080, 1080), **tokens) == ["1x256x256", "1x512x512", "1x1024x1024"]
    tokens["tokens_per_row"] = 1024
    assert only(image(1080, 1080), **tokens) == ["1x256x256", "1x512x512"]


@pytest.mark.parametrize(
    ("tokens", "options"),
    [
        (9_216, ["8x1024x1024", "16x768x768", "32x512x512", "144x256x256"]),
        (36_864, ["32x1024x1024", "64x768x768", "144x512x512"]),
        (82_944, ["64x1024x1024", "144x768x768"]),
        (147_456, ["144x1024x1024"]),
    ],
)
def test_v4s_config_has_each_stage_of_its_token_length_training(tokens: int, options: list[str]):
    config = load_config(CONFIGS / "train_v4.yaml", [f"buckets.tokens_per_row={tokens}"])
    asked = dataclasses.replace(config.buckets, aspects=("1/1",), fps=0.0)
    found = assign([video(1080, 1080, 600, 20.0)], asked, grid=CACHED_SLICE.grid({}))
    names = [str(found.buckets[i]) for i in found.options[0] if i >= 0]
    assert set(options) <= set(names)
    # 144 frames of the stage's own side take all of its tokens; smaller pictures have no more frames to take.
    assert max(found.buckets[i].tokens for i in found.options[0] if i >= 0) == tokens


def test_rows_beyond_the_token_budget_name_the_smallest_bucket():
    budget = BucketSettings(sizes_px=(256, 512), aspects=("1/1",), frames=(17, 33), tokens_per_row=1000)
    [refused] = assign([video(1080, 1080)], budget).refused
    assert refused.key == "buckets.tokens_per_row"
    assert "more than 1000 tokens in the smallest bucket, 17x256x256 with 1280" in refused.reason
    assert "tokens_per_row to 1280" in refused.fix
    assert not assign([video(1080, 1080)], dataclasses.replace(budget, tokens_per_row=1280)).refused
    [refused] = assign([image(1080, 1080)], dataclasses.replace(budget, tokens_per_row=255)).refused
    assert "1x256x256 with 256" in refused.reason


def expected(row: TrainRow, config: Settings) -> tuple[set[Bucket], bool]:
    """The rules once more, a row at a time: its buckets, and whether it is enlarged for them."""
    own = math.log(row.width_px / row.height_px)
    nearest = []
    for size in sorted(config.sizes_px):
        of_size = shapes(dataclasses.replace(config, sizes_px=(size,)))
        nearest.append(min(of_size, key=lambda s: (round(abs(math.log(s[1] / s[0]) - own), 9), s[1] / s[0])))
    fitting = [(h, w) for h, w in nearest if h * w <= row.width_px * row.height_px]
    enlarged = not fitting
    if enlarged and config.upscale:
        fitting = nearest[:1]
    if config.tokens_per_row is None:
        fitting = fitting[-1:]
    most = min(row.num_frames, row.duration_s * config.max_fps + 0.5)
    lengths = [1] if row.kind == "image" else [n for n in config.frames if n <= most]
    limit = config.tokens_per_row or math.inf
    found = set()
    for h, w in fitting:
        found |= set([Bucket(n, h, w) for n in sorted(lengths) if Bucket(n, h, w).tokens <= limit][-1:])
    return found, enlarged and bool(found)


rows_strategy = st.builds(
    lambda is_image, w, h, n, d: image(w, h) if is_image else video(w, h, n, d / 10),
    st.booleans(), st.integers(8, 1500), st.integers(8, 1500), st.integers(1, 90), st.integers(0, 60),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.lists(rows_strategy, max_size=12),
    st.lists(st.sampled_from([16, 32, 64, 250, 256, 512, 700, 1024]), min_size=1, max_size=4).map(tuple),
    st.lists(st.sampled_from(ASPECTS), min_size=1).map(tuple),
    st.lists(st.sampled_from([1, 5, 17, 25, 49]), min_size=1).map(tuple),
    st.none() | st.integers(1, 20000),
    st.booleans(),
)
def test_options_follow_the_rules(rows, sizes, aspects, frames, tokens, upscale):
    config = BucketSettings(sizes, aspects, frames, tokens_per_row=tokens, upscale=upscale)
    found = assign(rows, config)
    rules = [expected(row, config) for row in rows]
    wanted = [buckets for buckets, _ in rules]
    got = [{found.buckets[i] for i in options if i >= 0} for options in found.options]
    assert got == wanted
    assert found.options.dtype == np.int32 and found.options.shape[0] == len(rows) and found.options.shape[1] >= 1
    assert found.buckets == tuple(sorted(set().union(*wanted)))  # only what some row takes
    for options in found.options.tolist():
        real = [i for i in options if i >= 0]
        assert options == sorted(set(real)) + [-1] * (len(options) - len(real))
    assert len(found.refused) == sum(not w for w in wanted)
    assert found.upscaled == sum(enlarged for _, enlarged in rules)


@pytest.mark.slow
def test_a_million_rows_take_seconds():
    import time

    rows = mixed_rows(1_000_000)
    began = time.process_time()
    found = assign(rows, BucketSettings(sizes_px=(256, 512, 1024), tokens_per_row=13312))
    assert time.process_time() - began < 10
    assert len(found.options) == len(rows)
