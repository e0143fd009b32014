"""One rate for all clips: what a bucket takes of a row, windows, what is refused, and that everyone takes the same."""

import dataclasses
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from caches import FakeEncoders, build
from clips import CLIPS, write_clips
from drawn_frames import STEP, draw, shown
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import MediaError
from demo.drawing import write_video
from models.geometry import Bucket
from train_bridge.cache.cache import CacheReader
from train_bridge.cache.fingerprint import latent_key, row_key
from train_bridge.cache.ray_build import _packed, _unpacked
from train_bridge.cache.wanted import CacheItem
from train_bridge.config import BucketSettings, TrainConfig, load_config
from train_bridge.data.frames import read_frames
from train_bridge.data.rows_file import read_rows, write_rows
from train_bridge.data.spans import rate_fps, span_of, taken_span
from train_bridge.data.windows import at_rate
from train_bridge.loop.batches import VideoFrames
from train_bridge.methods.types import Batch
from train_bridge.old_runs import as_begun, load_run_config
from train_bridge.parts import Parts
from train_bridge.plan.buckets import FRAME_TOLERANCE, assign
from train_bridge.plan.plan import Rows, collect_rows
from train_bridge.plan.rates import at_family_rate
from train_bridge.types import MicroBatch, TrainRow

At8 = partial(BucketSettings, sizes_px=(32,), aspects=("1/1",), fps=8.0)


def clip(seconds: float, fps: float = 24.0, start_s: float | None = None, row_id: str = "a") -> TrainRow:
    end_s = None if start_s is None else start_s + seconds
    return TrainRow(row_id, Path("a.mp4"), "", "video", 64, 64, round(seconds * fps), seconds, start_s, end_s)


def fitted(rows: list[TrainRow], config: BucketSettings) -> list[tuple[TrainRow, list[Bucket]]]:
    """Return the rows that a run would have, each with its buckets."""
    found = assign(rows, config)
    fits = (found.options >= 0).any(axis=1)
    kept = [row for row, fit in zip(rows, fits, strict=True) if fit]
    parts, found = at_rate(kept, dataclasses.replace(found, options=found.options[fits]), config)
    return [
        (part, [found.buckets[i] for i in options if i >= 0])
        for part, options in zip(parts, found.options.tolist(), strict=True)
    ]


def test_clips_of_any_length_show_a_motion_at_one_speed() -> None:
    rows = [clip(seconds, row_id=str(seconds)) for seconds in (1.0, 2.125, 4.0, 10.0, 25.0)]
    spread = fitted(rows, At8(fps=0.0, frames=(9, 17)))
    assert len({rate_fps(row, bucket) for row, (bucket,) in spread}) == 5, "a rate for every length"
    found = fitted(rows, At8(frames=(9, 17, 49)))
    assert {rate_fps(row, bucket) for row, (bucket,) in found} == {8.0}
    taken = {row.row_id: (bucket.num_frames, taken_span(row, bucket)) for row, (bucket,) in found}
    assert taken == {
        "2.125": (17, (0.0, 2.125)),
        "4.0": (17, (0.9375, 3.0625)),
        "10.0": (49, (1.9375, 8.0625)),
        **{f"25.0#{n + 1}": (49, (0.0625 + n * 6.25, 6.1875 + n * 6.25)) for n in range(4)},
    }
    assert [str(r) for r in assign(rows, At8(frames=(9, 17, 49))).refused] == [
        "1.0: duration_s: shorter than 9 frames at 8 fps, 1.12 s; add a shorter one to buckets.frames, "
        "or set buckets.shorter=slow_down"
    ]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.05, 60).map(lambda s: round(s, 3)), st.sampled_from([6.0, 12.0, 23.976, 25.0, 60.0]),
                  st.none() | st.floats(0, 3600).map(lambda s: round(s, 3))), max_size=8,
    ),
    st.sampled_from([4.0, 8.0, 24.0]),
    st.sets(st.sampled_from([1, 5, 9, 17, 49]), min_size=1).map(tuple),
    st.none() | st.integers(4, 60),
    st.sampled_from(["smaller_bucket", "drop"]),
    st.sampled_from(["windows", "middle", "first"]),
)  # fmt: skip
def test_what_is_taken_is_at_the_rate_and_within_the_clip(clips, fps, frames, tokens, shorter, longer) -> None:
    config = At8(frames=frames, fps=fps, tokens_per_row=tokens, shorter=shorter, longer=longer)
    rows = [clip(seconds, own, start_s, str(i)) for i, (seconds, own, start_s) in enumerate(clips)]
    found = fitted(rows, config)
    refused = {r.row_id for r in assign(rows, config).refused}
    assert {part.row_id.split("#")[0] for part, _ in found} | refused == {row.row_id for row in rows}
    for row in rows:
        begin_s, length_s = row.start_s or 0.0, row.duration_s
        spans = []
        for part, buckets in found:
            if part.row_id.split("#")[0] != row.row_id:
                continue
            for bucket in buckets:
                assert rate_fps(part, bucket) == fps
                start_s, end_s = taken_span(part, bucket)
                assert end_s - start_s == pytest.approx(bucket.num_frames / fps, abs=2e-6)
                slack_s = FRAME_TOLERANCE / 2 / fps + 1e-5  # no frame lies in it
                assert begin_s - slack_s <= start_s and end_s <= begin_s + length_s + slack_s
                assert start_s + 0.5 / fps > begin_s - 1e-5 and end_s - 0.5 / fps < begin_s + length_s + 1e-5
            spans.append(taken_span(part, max(buckets)))
            if shorter == "drop":
                assert length_s * fps + FRAME_TOLERANCE >= max(frames)
        if spans:
            most = max(b.num_frames for part, bs in found if part.row_id.split("#")[0] == row.row_id for b in bs)
            assert len(spans) == (math.floor(length_s * fps + FRAME_TOLERANCE) // most if longer == "windows" else 1)
            assert all(b[0] >= a[1] - FRAME_TOLERANCE / fps - 1e-5 for a, b in zip(spans, spans[1:], strict=False)), (
                "windows do not share frames"
            )
            if longer == "first":
                assert spans[0][0] == pytest.approx(begin_s, abs=FRAME_TOLERANCE / 2 / fps + 1e-5)


def test_a_rate_of_0_spreads_frames_over_the_whole_clip_as_ever() -> None:
    rows = [clip(10.0), clip(2.0, start_s=1.0, row_id="b")]
    for row, (bucket,) in fitted(rows, At8(fps=0.0, frames=(9,))):
        assert row in rows and row.rate_fps is None
        assert taken_span(row, bucket) == span_of(row)
        assert row_key("c" * 32, row, bucket, "vae") == latent_key("c" * 32, span_of(row), bucket, "vae")
    with pytest.raises(ValueError, match="not resolved"):
        assign(rows, BucketSettings())


def test_slow_sources_and_short_clips_are_dropped_unless_asked_for() -> None:
    slow, short, ntsc = clip(10.0, fps=6.0), clip(1.0, row_id="b"), clip(10.0, fps=7.992, row_id="c")
    config = At8(frames=(17, 49))
    assert [row.row_id for row, _ in fitted([slow, short, ntsc], config)] == ["c"]
    reasons = [(r.key, r.reason) for r in assign([slow, short], config).refused]
    assert reasons == [
        ("num_frames", "fewer frames a second than buckets.fps, 8"),
        ("duration_s", "shorter than 17 frames at 8 fps, 2.12 s"),
    ]
    ((row, (bucket,)),) = fitted([slow], dataclasses.replace(config, low_rate="repeat"))
    assert (rate_fps(row, bucket), bucket.num_frames) == (8.0, 49)
    ((row, (bucket,)),) = fitted([short], dataclasses.replace(config, shorter="slow_down"))
    assert bucket.num_frames == 17 and taken_span(row, bucket) is None and rate_fps(row, bucket) == 17.0
    (refused,) = assign([clip(0.5)], dataclasses.replace(config, shorter="slow_down")).refused
    assert "buckets.frames" in refused.fix and "slow_down" not in refused.fix, "12 frames cannot be 17"
    assert not fitted([clip(4.0)], dataclasses.replace(config, shorter="drop")), "it would fit 17 frames"
    ((row, (bucket,)),) = fitted([clip(30.0)], dataclasses.replace(config, longer="speed_up"))
    assert taken_span(row, bucket) is None and rate_fps(row, bucket) == pytest.approx(49 / 30)
    image = TrainRow("i", Path("a.png"), "", "image", 64, 64, 1, 0.0)
    for how in ("smaller_bucket", "drop", "slow_down"):
        assert fitted([image], dataclasses.replace(config, shorter=how)) == [(image, [Bucket(1, 32, 32)])]


def test_frames_of_a_rate_lie_equally_far_apart_in_the_file(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.mp4", 40, 16.0)  # 2.5 s; 9 frames at 8 a second are 1.125 s
    row = TrainRow("a", path, "", "video", 32, 32, 40, 2.5)
    ((middle, (bucket,)),) = fitted([row], At8(frames=(9,), longer="middle"))
    indices = shown(read_frames(middle, bucket))
    assert set(np.diff(indices)) == {2} and indices[0] == pytest.approx(39 - indices[-1], abs=1)
    windows = [shown(read_frames(part, bucket)) for part, _ in fitted([row], At8(frames=(9,)))]
    assert len(windows) == 2 and all(set(np.diff(w)) == {2} for w in windows)
    assert windows[0][-1] < windows[1][0] and windows[0][0] <= 2 and windows[1][-1] > 37
    ((first, _),) = fitted([row], At8(frames=(9,), longer="first"))
    assert shown(read_frames(first, bucket)) == [1, 3, 5, 7, 9, 11, 13, 15, 17]
    # 17 frames want 2.125 s, the clip has 2.07: the rate holds all the same, and every frame is one of the clip's.
    near = dataclasses.replace(row, path=draw(tmp_path / "b.mp4", 33, 16.0), num_frames=33, duration_s=33 / 16)
    ((whole, (longer,)),) = fitted([near], At8(frames=(17,)))
    assert shown(read_frames(whole, longer)) == list(range(0, 33, 2))
    with pytest.raises(MediaError, match="ends before the span"):
        read_frames(dataclasses.replace(middle, duration_s=6.0), bucket)


def test_the_cache_and_training_from_video_take_the_same_frames(tmp_path: Path) -> None:
    for name, shift in (("a", 0), ("b", 40)):
        frames = [np.full((32, 32, 3), 20 + shift + STEP * i, np.uint8) for i in range(30)]
        write_video(tmp_path / f"{name}.mp4", frames, 12.0)
    rows = [TrainRow(n, tmp_path / f"{n}.mp4", n, "video", 32, 32, 30, 2.5) for n in "ab"]
    found = fitted(rows, At8(frames=(5, 9)))
    assert [part.row_id for part, _ in found] == ["a#1", "a#2", "b#1", "b#2"]
    items = [CacheItem(part, bucket) for part, (bucket,) in found]
    encoders = FakeEncoders(str(tmp_path / "log"))
    report = build(tmp_path / "cache", items, encoders)
    assert not report.failed and report.encoded == 4 + 3, "four windows, two captions and the empty one"
    reader = CacheReader(tmp_path / "cache")
    content = {row["path"]: row["content_id"] for row in pq.read_table(tmp_path / "cache/files.parquet").to_pylist()}
    direct = VideoFrames([part for part, _ in found])
    means = []
    for place, item in enumerate(items):
        batch: Batch = direct(MicroBatch(item.bucket, (place,), (1.0,)), (0,))
        mean, _ = encoders.load_vae()(batch.frames)
        key = row_key(content[str(item.row.path)], item.row, item.bucket, encoders.vae_id)
        assert torch.allclose(reader.latent(key)[0], mean[0], atol=1e-5)
        means.append(mean)
    assert not torch.allclose(means[0], means[1], atol=0.02), "the windows differ"
    assert build(tmp_path / "cache", items, encoders).encoded == 0


def test_rates_travel_to_workers_and_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    import pyarrow as pa

    from train_bridge.cache.build import plan_latents

    config = At8(frames=(9,))
    found = assign([clip(4.0)], config)
    parts, found = at_rate([clip(4.0)], found, config)
    units = plan_latents({f"{i:032x}": CacheItem(part, found.buckets[0]) for i, part in enumerate(parts)})
    (back,) = _unpacked(pa.table({"unit": [_packed(unit) for unit in units]}))
    spans = {taken_span(part, found.buckets[0]) for part in parts}
    assert {taken_span(item.row, item.bucket) for item in back.items} == spans and len(spans) == len(parts) > 1

    none = dataclasses.replace(found, options=found.options[:0])
    write_rows(tmp_path / "rows.parquet", Rows(parts, found, (), none, (), 0), {})
    assert read_rows(tmp_path / "rows.parquet").train == parts
    table = pq.read_table(tmp_path / "rows.parquet")
    pq.write_table(table.drop_columns(["rate_fps", "letterbox"]), tmp_path / "old.parquet")
    assert {(row.rate_fps, row.letterbox) for row in read_rows(tmp_path / "old.parquet").train} == {(None, False)}


def test_windows_of_a_clip_are_held_out_together_and_counted(tmp_path: Path) -> None:
    write_clips(tmp_path, CLIPS)  # 25 frames at 12 a second
    items = json.loads((tmp_path / "metadata.json").read_text())
    items = [item | {"width": 64, "height": 64, "num_frames": 25, "fps": 12, "duration_s": 25 / 12} for item in items]
    (tmp_path / "metadata.json").write_text(json.dumps(items))
    config = TrainConfig()
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, metadata=str(tmp_path / "metadata.json"), validation=0.5),
        buckets=At8(frames=(5,)),
    )
    rows = collect_rows(config)
    sides = [{row.row_id.split("#")[0] for row in some} for some in (rows.train, rows.validation)]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 4
    assert len(rows.train) + len(rows.validation) == 12 and rows.added == 8


def test_the_familys_rate_and_that_of_runs_begun_before(tmp_path: Path) -> None:
    config = TrainConfig()
    for parts in (Parts("vae", "12b"), Parts("vae", "tiny"), Parts("tiny")):
        assert at_family_rate(config, parts).buckets.fps == 8.0
    given = dataclasses.replace(config, buckets=BucketSettings(fps=0.0))
    assert at_family_rate(given, Parts("vae", "12b")) == given
    file = tmp_path / "config.yaml"
    assert as_begun(config, file) == config
    five = "aspects: [16/9, 4/3, 1/1, 3/4, 9/16]"
    for text in ("method: text_to_video\n", f"buckets: {{fps: null, {five}}}\n"):
        file.write_text(text)
        then = load_run_config(file)
        assert then.buckets.fps == 0.0 and then.data.max_crop == 1.0
        assert "2.39/1" not in then.buckets.aspects
        assert then.data.validation_by == "row", "which rows are held out stays as it was"
        assert as_begun(config, file).buckets.fps == 0.0, "the same command goes on with the run"
        asked = dataclasses.replace(config, buckets=BucketSettings(fps=8.0))
        assert as_begun(asked, file).buckets.fps == 8.0, "what is asked for is compared, and refused"
        now = as_begun(config, file)
        assert now.data == then.data and now.buckets == then.buckets
    file.write_text("buckets: {fps: 8}\n")
    assert load_run_config(file).buckets.fps == 8.0 and as_begun(config, file) == config


def test_tiny_configs_keep_spreading_frames() -> None:
    folder = Path(__file__).parents[2] / "configs"
    configs = {path.stem: load_config(path) for path in folder.glob("train_*.yaml")}
    rates = {name: one.buckets.fps for name, one in configs.items() if not one.kind.from_prompts}
    assert {name for name, fps in rates.items() if fps == 0.0} == {name for name in rates if "tiny" in name}
