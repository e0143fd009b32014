"""Building the cache: what is encoded, what is not encoded again, what fails alone."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from caches import LARGE, SMALL, FakeEncoders, assert_equal_caches, build, clip_items, contents, embedding, encoded_by
from closeness import close
from drawn_frames import draw
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from models.geometry import Bucket
from train_bridge.cache import build as cache_build
from train_bridge.cache import fingerprint
from train_bridge.cache.build import BuildReport, Job, plan_latents
from train_bridge.cache.cache import CacheReader, hold_cache, read_index, shard_path
from train_bridge.cache.fingerprint import file_id, latent_key, text_key
from train_bridge.cache.wanted import CacheItem, latent_keys
from train_bridge.data.frames import read_frames
from train_bridge.types import TrainRow

torch.set_num_threads(1)


@pytest.fixture
def read_here(monkeypatch) -> None:
    """Read frames in this process: a child each time would take longer than the test."""

    class Here:
        def __call__(self, row: TrainRow, bucket: Bucket) -> np.ndarray:
            return read_frames(row, bucket)

        def close(self) -> None:
            pass

    monkeypatch.setattr(cache_build, "FrameReader", Here)


def test_the_cache_holds_what_the_encoders_give(tmp_path):
    items = clip_items(tmp_path / "clips")
    encoders = FakeEncoders(str(tmp_path / "log"))
    seen = []
    report = build(tmp_path / "cache", items, encoders, progress=lambda done, total: seen.append((done, total)))
    assert (report.encoded, report.reused, report.failed) == (10 + 5 + 1, 0, [])
    assert seen[-1] == (16, 16) and [d for d, _ in seen] == sorted(d for d, _ in seen)
    assert encoded_by(encoders.log) == {"latent": 10, "text": 6}, "five captions and the empty one, once each"
    reader = CacheReader(tmp_path / "cache")
    assert len(reader) == 16
    vae = FakeEncoders(str(tmp_path / "other")).load_vae()
    for item in items:
        key = latent_key(file_id(item.row.path), None, item.bucket, "vae-1")
        mean, logvar = reader.latent(key)
        truth = vae(torch.from_numpy(read_frames(item.row, item.bucket))[None])
        assert close(mean, truth[0][0]) and close(logvar, truth[1][0])
        assert mean.shape == (3, *item.bucket.latent_shape)
        assert torch.equal(reader.text(text_key(item.row.caption, "text-1")).text[0], embedding(item.row.caption))
    assert torch.equal(reader.text(text_key("", "text-1")).text[0], embedding(""))


def test_the_index_describes_its_rows(tmp_path):
    items = clip_items(tmp_path / "clips", 2)
    build(tmp_path / "cache", items, FakeEncoders(str(tmp_path / "log")))
    rows = {row["row_id"]: row for row in read_index(tmp_path / "cache").to_pylist()}
    large = rows["row-0"]
    assert (large["num_frames"], large["height_px"], large["width_px"]) == (9, 32, 32)
    assert (large["tokens"], large["dtype"], large["size_bytes"]) == (LARGE.tokens, "float32", 2 * 3 * 3 * 4 * 4 * 4)
    assert rows[None]["kind"] == "text" and rows[None]["tokens"] == 4


def test_a_second_run_encodes_and_reads_nothing(tmp_path, monkeypatch):
    items = clip_items(tmp_path / "clips", 4)
    encoders = FakeEncoders(str(tmp_path / "log"))
    build(tmp_path / "cache", items, encoders)
    before = encoded_by(encoders.log)
    monkeypatch.setattr(fingerprint, "file_id", lambda path: pytest.fail(f"{path} is read"))
    monkeypatch.setattr(cache_build, "FrameReader", lambda: pytest.fail("frames are read"))
    report = build(tmp_path / "cache", items, encoders)
    assert (report.encoded, report.reused) == (0, 4 + 3) and encoded_by(encoders.log) == before
    assert latent_keys(tmp_path / "cache", items, "vae-1")[0] == [
        latent_key(file_id(item.row.path), None, item.bucket, "vae-1") for item in items
    ]


@pytest.mark.parametrize(
    ("what", "latents", "texts"),
    [("file", 1, 0), ("touched", 0, 0), ("renamed", 0, 0), ("vae", 4, 0), ("text", 0, 3), ("bucket", 1, 0),
     ("code", 4, 0), ("text code", 0, 3), ("caption", 0, 1), ("span", 1, 0), ("dtype", 4, 3), ("more", 1, 0)],
)  # fmt: skip
def test_a_change_encodes_just_what_it_must(tmp_path, monkeypatch, read_here, what, latents, texts):
    items = clip_items(tmp_path / "clips", 4)
    encoders, how = FakeEncoders(str(tmp_path / "log")), {}
    build(tmp_path / "cache", items, encoders)
    before = encoded_by(encoders.log)
    first = items[0].row
    if what == "file":
        draw(first.path, 17)
    elif what == "touched":
        os.utime(first.path)
    elif what == "renamed":
        first.path.rename(first.path.with_name("other.mp4"))
        items[0] = replace(items[0], row=replace(first, path=first.path.with_name("other.mp4"), row_id="other"))
    elif what == "vae":
        encoders = replace(encoders, vae_id="vae-2")
    elif what == "text":
        encoders = replace(encoders, text_id="text-2")
    elif what == "bucket":
        items[0] = replace(items[0], bucket=SMALL)
    elif what == "code":
        monkeypatch.setattr(fingerprint, "CODE_VERSION", fingerprint.CODE_VERSION + 1)
    elif what == "text code":
        monkeypatch.setattr(fingerprint, "TEXT_CODE_VERSION", fingerprint.TEXT_CODE_VERSION + 1)
    elif what == "caption":
        items[0] = replace(items[0], row=replace(first, caption="another"))
    elif what == "span":
        items[0] = replace(items[0], row=replace(first, start_s=0.2, end_s=0.8))
    elif what == "dtype":
        how["dtype"] = "bf16"
    elif what == "more":
        items.append(CacheItem(replace(items[1].row, row_id="again"), LARGE))
        items.append(replace(items[1], row=replace(items[1].row, row_id="twice")))
    report = build(tmp_path / "cache", items, encoders, **how)
    now = encoded_by(encoders.log)
    assert (now["latent"] - before["latent"], now["text"] - before["text"]) == (latents, texts)
    assert report.encoded == latents + texts and not report.failed
    reader = CacheReader(tmp_path / "cache", dtype=how.get("dtype", "float32"))
    keys, _ = latent_keys(tmp_path / "cache", items, encoders.vae_id)
    for key in keys:
        assert key is not None and reader.latent(key)[0].dtype == (torch.bfloat16 if what == "dtype" else torch.float32)
    contents(tmp_path / "cache")


def test_what_earlier_versions_encoded_is_taken_over_under_its_new_name(tmp_path, read_here):
    """Models were named by more than is used of them; a cache from then, without the new column, serves on."""
    items, cache = clip_items(tmp_path / "clips", 4), tmp_path / "cache"
    old = FakeEncoders(str(tmp_path / "log"))
    for dtype in ("float32", "bf16"):
        build(cache, items[:3], old, dtype=dtype)
    index = pq.read_table(cache / "index.parquet")
    pq.write_table(index.drop_columns(["stored_as"]), cache / "index.parquet")
    assert build(cache, items[:3], old).encoded == 0
    new = replace(old, vae_id="vae-new", text_id="text-new", earlier=("vae-1", "text-1"))
    report = build(cache, items, new)
    assert (report.encoded, report.reused) == (1, 3 + 3)
    for encoders in (replace(new, earlier=(None, None)), old):  # the old version's run is served on, too
        assert build(cache, items[:3], encoders).encoded == 0
    report = build(cache, items[:3], replace(new, earlier=(None, None)), dtype="bf16")
    assert report.encoded == 0, "every precision was taken over"
    for dtype in ("float32", "bf16"):
        reader = CacheReader(cache, dtype=dtype)
        for item in items[:3]:
            keys = [latent_key(file_id(item.row.path), None, item.bucket, name) for name in ("vae-1", "vae-new")]
            assert torch.equal(reader.latents(keys)[0][0], reader.latents(keys)[0][1])
        texts = reader.texts([text_key("caption 1", name) for name in ("text-1", "text-new")]).text
        assert torch.equal(texts[0], texts[1])
    contents(cache)
    assert build(cache, items, replace(new, earlier=("vae-2", "text-2"), vae_id="vae-3")).encoded == 4


def test_runs_of_two_precisions_take_turns_without_encoding_anything_again(tmp_path, read_here):
    items = clip_items(tmp_path / "clips", 3)
    encoders = FakeEncoders(str(tmp_path / "log"))
    for dtype, encoded in (("float32", 6), ("bf16", 6), ("float32", 0), ("bf16", 0)):
        report = build(tmp_path / "cache", items, encoders, dtype=dtype)
        assert (report.encoded, report.reused) == (encoded, 6 - encoded)
    assert contents(tmp_path / "cache", "bf16").keys() == contents(tmp_path / "cache", "float32").keys()


def test_a_build_waits_for_another_where_it_is_asked_to(tmp_path, read_here):
    """Two runs that share a cache start together: the second goes on when the first has ended its build."""
    items = clip_items(tmp_path / "clips", 2)
    told, is_waiting, reports = [], threading.Event(), []

    def waiting(owner: str) -> None:
        told.append(owner)
        is_waiting.set()

    encoders = FakeEncoders(str(tmp_path / "log"))
    second = threading.Thread(
        target=lambda: reports.append(build(tmp_path / "cache", items, encoders, dtype="bf16", waiting=waiting))
    )
    with hold_cache(tmp_path / "cache"):
        second.start()
        assert is_waiting.wait(30)
        assert not reports and told[0].startswith(f"process {os.getpid()} on ")
    second.join(30)
    assert len(told) == 1 and [report.encoded for report in reports] == [4]


def test_bf16_is_the_rounded_float32(tmp_path, read_here):
    items = clip_items(tmp_path / "clips", 3)
    encoders = FakeEncoders(str(tmp_path / "log"))
    build(tmp_path / "a", items, encoders)
    build(tmp_path / "b", items, encoders, dtype="bf16")
    exact, rounded = contents(tmp_path / "a"), contents(tmp_path / "b")
    for key, tensors in exact.items():
        for part, tensor in tensors.items():
            assert torch.equal(tensor.to(torch.bfloat16), rounded[key][part])


def test_a_break_anywhere_is_completed(tmp_path, monkeypatch, read_here):
    monkeypatch.setattr(cache_build, "ROWS_PER_PASS", 1)
    monkeypatch.setattr(cache_build, "TEXTS_PER_PASS", 2)
    items = clip_items(tmp_path / "clips", 8)
    some = [item for item in items if item.bucket == LARGE]  # the second run has other passes than the first
    build(tmp_path / "whole", items, FakeEncoders(str(tmp_path / "log")))
    for broken_at in range(1, 6):
        cache, logs = tmp_path / f"broken-{broken_at}", [str(tmp_path / f"log-{broken_at}-{run}") for run in range(3)]
        for wanted, log, at in ((some, logs[0], broken_at), (items, logs[1], 2)):
            with pytest.raises(RuntimeError, match="encoder broke"):
                build(cache, wanted, FakeEncoders(log, fail_after=at), rows_per_shard=2)
            for row in read_index(cache).to_pylist():
                assert row["error"] or shard_path(cache, row["shard"]).is_file()
        kept = len(read_index(cache))
        assert build(cache, items, FakeEncoders(logs[2])).encoded == 8 + 5 - kept
        assert_equal_caches(cache, tmp_path / "whole")


KILLED = """
import sys
from pathlib import Path
from caches import FakeEncoders, build, clip_items
from train_bridge.cache import build as cache_build
cache_build.ROWS_PER_PASS = cache_build.TEXTS_PER_PASS = 1
folder = Path(sys.argv[1])
items = clip_items(folder / "clips", 12)
build(folder / "cache", items, FakeEncoders(str(folder / "log"), pause_s=0.02), rows_per_shard=1)
"""


def test_a_killed_build_is_completed(tmp_path):
    wanted = 3
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    parts = tmp_path / "cache" / "parts"
    while not (parts.is_dir() and len(list(parts.glob("[!.]*"))) >= wanted):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    items = clip_items(tmp_path / "clips", 12)
    kept = len(read_index(tmp_path / "cache"))
    assert kept >= wanted
    report = build(tmp_path / "cache", items, FakeEncoders(str(tmp_path / "again")))
    assert report.reused == kept and report.encoded == 12 + 7 - kept
    build(tmp_path / "whole", items, FakeEncoders(str(tmp_path / "log-whole")))
    assert_equal_caches(tmp_path / "cache", tmp_path / "whole")


def test_a_row_that_cannot_be_read_fails_alone_and_is_tried_again(tmp_path):
    items = clip_items(tmp_path / "clips", 6)
    good = items[1].row.path.read_bytes()
    items[1].row.path.write_bytes(good[: len(good) // 2])
    items[4].row.path.write_text("no video")
    items[5].row.path.unlink()
    encoders = FakeEncoders(str(tmp_path / "log"))
    report = build(tmp_path / "cache", items, encoders)
    assert sorted(refusal.row_id for refusal in report.failed) == ["row-1", "row-4", "row-5"]
    assert (report.encoded, report.reused) == (3 + 4, 0) and encoded_by(encoders.log)["latent"] == 3
    assert all(refusal.reason and refusal.fix and "\n" not in str(refusal) for refusal in report.failed)
    keys, refused = latent_keys(tmp_path / "cache", items, "vae-1")
    assert keys[5] is None and [r.row_id for r in refused] == ["row-5"]
    reader = CacheReader(tmp_path / "cache")
    assert [key in reader for key in keys[:5]] == [True, False, True, True, False]
    with pytest.raises(UserError, match=r"row-4: could not be encoded \(not a readable media file"):
        reader.latent(keys[4])
    items[1].row.path.write_bytes(good)
    report = build(tmp_path / "cache", items, encoders)
    assert (report.encoded, report.reused) == (1, 7) and len(report.failed) == 2
    contents(tmp_path / "cache")


def test_values_that_are_not_finite_are_not_kept(tmp_path):
    from PIL import Image

    Image.new("RGB", (64, 64), "white").save(tmp_path / "white.png")
    items = [CacheItem(TrainRow("white", tmp_path / "white.png", "", "image"), Bucket(1, 32, 32))]
    report = build(tmp_path / "cache", items, FakeEncoders(str(tmp_path / "log")))
    assert [(r.row_id, "not finite" in r.reason) for r in report.failed] == [("white", True)]
    assert report.encoded == 1


def test_a_second_build_at_the_same_time_is_refused(tmp_path):
    items = clip_items(tmp_path / "clips", 1)
    with (
        hold_cache(tmp_path / "cache"),
        pytest.raises(UserError, match=f"in use by process {os.getpid()} on .*; wait for it"),
    ):
        build(tmp_path / "cache", items, FakeEncoders(str(tmp_path / "log")))
    assert build(tmp_path / "cache", items, FakeEncoders(str(tmp_path / "log"))).encoded == 3


def test_a_cache_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written to"):
        build(tmp_path / "file" / "cache", [], FakeEncoders(str(tmp_path / "log")))


def test_a_lost_or_cut_shard_is_encoded_again(tmp_path, read_here):
    items = clip_items(tmp_path / "clips", 6)
    encoders = FakeEncoders(str(tmp_path / "log"))
    build(tmp_path / "cache", items, encoders)
    build(tmp_path / "whole", items, FakeEncoders(str(tmp_path / "log-whole")))
    shards = sorted((tmp_path / "cache" / "shards").iterdir())
    lost = [row for row in read_index(tmp_path / "cache").to_pylist() if row["shard"] in [s.stem for s in shards[:3]]]
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    shards[2].write_bytes(b"\xff" * 100)
    assert build(tmp_path / "cache", items, encoders).encoded == len(lost)
    assert_equal_caches(tmp_path / "cache", tmp_path / "whole")


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.sampled_from([Bucket(1, 16, 16), SMALL, LARGE, Bucket(17, 64, 64)]), max_size=60),
    pixels=st.integers(1, 200_000),
)
def test_passes_are_of_one_bucket_bounded_and_complete(shapes, pixels):
    items = {
        f"{i:032x}": CacheItem(TrainRow(str(i), Path(f"/a/{i % 7}"), "long text", "video"), bucket)
        for i, bucket in enumerate(shapes)
    }
    units = plan_latents(items, pixels)
    assert sorted(e.key for u in units for e in u.entries) == sorted(items)
    for unit in units:
        assert [e.row_id for e in unit.entries] == [i.row.row_id for i in unit.items]
        bucket = unit.items[0].bucket
        assert {item.bucket for item in unit.items} == {bucket}
        size = bucket.num_frames * bucket.height_px * bucket.width_px
        assert len(unit.items) == 1 or len(unit.items) * size <= pixels
        assert (unit.entries[0].num_frames, unit.entries[0].tokens) == (bucket.num_frames, bucket.tokens)
    tokens = [unit.items[0].bucket.tokens for unit in units]
    assert tokens == sorted(tokens, reverse=True), "the largest first"


def test_a_job_and_its_report_are_plain(tmp_path):
    job = Job(tmp_path, FakeEncoders("log"), "bf16", 4)
    assert pickle.loads(pickle.dumps(job)) == job
    assert BuildReport(1, 2, [], 0.5) == BuildReport(1, 2, [], 0.5)
