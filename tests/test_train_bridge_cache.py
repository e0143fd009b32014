"""The cache: what is encoded, what is not encoded again, what a kill leaves, what the reader gives."""

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_train_bridge_frames import draw

from curation.errors import UserError
from train_bridge import cache_build, fingerprint
from train_bridge.cache import CacheReader, Entry, fold, hold_cache, read_index, shard_path, write_shard
from train_bridge.cache_build import (
    BuildReport,
    CacheItem,
    CacheRunner,
    InlineRunner,
    Job,
    build_cache,
    latent_keys,
    plan_latents,
)
from train_bridge.fingerprint import content_ids, file_id, latent_key, text_key, weights_id
from train_bridge.frames import read_frames
from train_bridge.types import Bucket, TrainRow

torch.set_num_threads(1)

SMALL, LARGE = Bucket(5, 16, 32), Bucket(9, 32, 32)


@pytest.fixture
def read_here(monkeypatch) -> None:
    """Read frames in this process: a child each time would take longer than the test."""

    class Here:
        def __call__(self, row: TrainRow, bucket: Bucket) -> np.ndarray:
            return read_frames(row, bucket)

        def close(self) -> None:
            pass

    monkeypatch.setattr(cache_build, "FrameReader", Here)


@dataclass(frozen=True)
class FakeEncoders:
    """Average pooling as VAE, a hash of the bytes as text encoder; tells a file of each pass.

    Attributes:
        log: file that gets a line for each pass.
        vae_id: stands for the VAE.
        text_id: stands for the text encoder.
        fail_after: raise from this pass on.
        exit_once: file; the first pass that finds it missing makes it, and ends the process at once.
        pause_s: how long a pass takes.
    """

    log: str
    vae_id: str = "vae-1"
    text_id: str = "text-1"
    fail_after: int | None = None
    exit_once: str | None = None
    pause_s: float = 0.0

    def load_vae(self) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        def encode(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            self._note("latent", len(frames))
            assert frames.dtype == torch.uint8 and frames.ndim == 5 and frames.shape[-1] == 3
            picked = frames[:, ::4].permute(0, 4, 1, 2, 3).float() / 127.5 - 1
            mean = torch.nn.functional.avg_pool3d(picked, (1, 8, 8))
            if (frames == 255).all():
                mean = mean * float("nan")
            return mean, -mean.abs() - float(self.vae_id == "vae-2")

        return encode

    def load_text(self) -> Callable[[Sequence[str]], torch.Tensor]:
        def encode(captions: Sequence[str]) -> torch.Tensor:
            self._note("text", len(captions))
            return torch.stack([embedding(caption) for caption in captions])

        return encode

    def _note(self, kind: str, count: int) -> None:
        if self.exit_once is not None and not os.path.exists(self.exit_once):
            Path(self.exit_once).touch()
            os._exit(1)
        time.sleep(self.pause_s)
        with open(self.log, "a") as file:
            file.write(f"{kind} {count}\n")
        if self.fail_after is not None and len(Path(self.log).read_text().splitlines()) >= self.fail_after:
            raise RuntimeError("the encoder broke")


def embedding(caption: str) -> torch.Tensor:
    values = np.frombuffer(hashlib.sha512(caption.encode()).digest(), np.uint8)
    return torch.from_numpy(values.reshape(4, 16).astype(np.float32) / 255)


def encoded_by(log: str) -> dict[str, int]:
    counts = {"latent": 0, "text": 0}
    for line in Path(log).read_text().splitlines() if os.path.exists(log) else []:
        kind, count = line.split()
        counts[kind] += int(count)
    return counts


def clip_items(folder: Path, count: int = 10) -> list[CacheItem]:
    """Draw clips that all differ; every third is for the large bucket."""
    folder.mkdir(exist_ok=True)
    items = []
    for i in range(count):
        path = draw(folder / f"{i}.mp4", 12 + i, 10 + i)
        items.append(
            CacheItem(TrainRow(f"row-{i}", path, f"caption {i // 2}", "video"), LARGE if i % 3 == 0 else SMALL)
        )
    return items


def build(cache: Path, items: Sequence[CacheItem], encoders: FakeEncoders, runner: CacheRunner | None = None, **how):
    captions = [item.row.caption for item in items]
    how = {"dtype": "float32", "rows_per_shard": 3} | how
    return build_cache(cache, items, captions, encoders, runner=runner or InlineRunner(), **how)


def contents(cache: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Read all that the index names, by its own path, and see that the shards hold just that."""
    held: dict[str, dict[str, torch.Tensor]] = {}
    index = pq.read_table(cache / "index.parquet").to_pylist()
    assert not list((cache / "parts").iterdir()), "every part is folded"
    named = {row["shard"] for row in index if row["shard"]}
    assert {p.name for p in (cache / "shards").iterdir()} == {f"{name}.safetensors" for name in named}
    tensors = {}
    for name in named:
        for key, tensor in load_file(shard_path(cache, name)).items():
            assert key not in tensors, "nothing is there twice"
            tensors[key] = tensor
    for row in index:
        if row["error"] is None:
            parts = ("mean", "logvar") if row["kind"] == "latent" else ("text",)
            held[row["key"]] = {part: tensors.pop(f"{row['key']}.{part}") for part in parts}
            assert sum(t.nbytes for t in held[row["key"]].values()) == row["size_bytes"]
        else:
            assert row["shard"] is None and row["dtype"] is None
    assert not tensors, "nothing is there that the index does not know"
    return held


def assert_equal_caches(a: Path, b: Path) -> None:
    first, second = contents(a), contents(b)
    assert first.keys() == second.keys()
    for key, tensors in first.items():
        for part, tensor in tensors.items():
            assert torch.equal(tensor, second[key][part])


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
        assert torch.equal(mean, truth[0][0]) and torch.equal(logvar, truth[1][0])
        assert mean.shape == (3, *item.bucket.latent_shape)
        assert torch.equal(reader.text(text_key(item.row.caption, "text-1")), embedding(item.row.caption))
    assert torch.equal(reader.text(text_key("", "text-1")), embedding(""))


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
    reader = CacheReader(tmp_path / "cache")
    keys, _ = latent_keys(tmp_path / "cache", items, encoders.vae_id)
    for key in keys:
        assert key is not None and reader.latent(key)[0].dtype == (torch.bfloat16 if what == "dtype" else torch.float32)
    contents(tmp_path / "cache")


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
from test_train_bridge_cache import FakeEncoders, build, clip_items
from train_bridge import cache_build
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
    assert all(refusal.reason and refusal.mend and "\n" not in str(refusal) for refusal in report.failed)
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


def entry(key: str, **changes) -> tuple[Entry, dict[str, torch.Tensor]]:
    tensors = {"mean": torch.full((2, 3), float(int(key, 16) % 97)), "logvar": torch.zeros(2, 3)}
    given = Entry(key, "latent", row_id=key, dtype="float32", size_bytes=48)
    return replace(given, **changes), {} if changes.get("error") else tensors


class Killed(BaseException):
    """Stands for the instant at which a process is killed."""


@pytest.mark.parametrize("stop_at", range(12))
def test_the_index_never_names_what_is_not_there(tmp_path, monkeypatch, stop_at):
    """Stop writing and folding at each of their steps on disk: every row read names a whole shard."""
    steps = iter(range(100))

    def stopping(plain: Callable) -> Callable:
        def step(*arguments, **named):
            if next(steps) == stop_at:
                raise Killed
            return plain(*arguments, **named)

        return step

    keys = [f"{i:032x}" for i in range(6)]
    with hold_cache(tmp_path):
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", stopping(os.replace))
            patch.setattr(Path, "unlink", stopping(Path.unlink))
            try:
                for pair in zip(keys[::2], keys[1::2], strict=True):
                    write_shard(tmp_path, [entry(key) for key in pair])
                    if pair[0] != keys[0]:
                        fold(tmp_path)
            except Killed:
                pass
        found = read_index(tmp_path).to_pylist()
        reader = CacheReader(tmp_path)
        for row in found:
            assert torch.equal(reader.latent(row["key"])[0], entry(row["key"])[1]["mean"])
        assert len({row["key"] for row in found}) == len(found)
    with hold_cache(tmp_path):
        write_shard(tmp_path, [entry(key) for key in keys if key not in {row["key"] for row in found}] or [entry("f0")])
        fold(tmp_path)
    assert contents(tmp_path).keys() >= set(keys)


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


def test_an_error_never_replaces_tensors_and_tensors_replace_an_error(tmp_path):
    key = "a" * 32
    for first, second in (({}, {"error": "x", "dtype": None}), ({"error": "x", "dtype": None}, {})):
        cache = tmp_path / str(len(first))
        with hold_cache(cache):
            write_shard(cache, [entry(key, **first)])
            fold(cache)
            write_shard(cache, [entry(key, **second)])
            fold(cache)
        assert key in CacheReader(cache) and key in contents(cache)


def small_cache(folder: Path, count: int = 40, rows: int = 4) -> list[str]:
    keys = [f"{i * 7919:032x}" for i in range(count)]
    with hold_cache(folder):
        for begin in range(0, count, rows):
            write_shard(folder, [entry(key) for key in keys[begin : begin + rows]])
        fold(folder)
    return keys


def mapped_shards(cache: Path) -> int:
    return len({line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if str(cache) in line})


def test_the_reader_keeps_few_shards_mapped_and_its_tensors_outlive_them(tmp_path):
    keys = small_cache(tmp_path)
    reader = CacheReader(tmp_path, open_shards=2)
    files = len(os.listdir("/proc/self/fd"))
    order = [str(key) for key in np.random.default_rng(0).permutation(keys)]
    tensors = [reader.latent(key) for key in order]
    assert mapped_shards(tmp_path) == 2 and len(os.listdir("/proc/self/fd")) == files
    for mean, _ in tensors:
        mean.add_(1)  # what one reader of a row does to it is nobody else's business
    for key, (mean, logvar) in zip(order, tensors, strict=True):
        assert torch.equal(mean - 1, reader.latent(key)[0]) and torch.equal(logvar, reader.latent(key)[1])
    del reader
    assert mapped_shards(tmp_path) == 0
    assert float(tensors[0][0][0, 0]) == float(int(order[0], 16) % 97) + 1
    size = len(pickle.dumps(tensors[0][0]))
    assert size < 2000, "a tensor does not carry its shard about"


def test_batches_are_the_rows_stacked(tmp_path):
    items = clip_items(tmp_path / "clips", 6)
    build(tmp_path / "cache", items, FakeEncoders(str(tmp_path / "log")))
    reader = CacheReader(tmp_path / "cache")
    found, _ = latent_keys(tmp_path / "cache", items, "vae-1")
    keys = [key for key, item in zip(found, items, strict=True) if item.bucket == SMALL]
    means, logvars = reader.latents(keys)
    assert means.shape == (4, 3, *SMALL.latent_shape)
    for i, key in enumerate(keys):
        assert torch.equal(means[i], reader.latent(key)[0]) and torch.equal(logvars[i], reader.latent(key)[1])
    captions = ["caption 0", "", "caption 2"]
    texts = reader.texts([text_key(caption, "text-1") for caption in captions])
    assert torch.equal(texts, torch.stack([embedding(caption) for caption in captions]))


def test_the_reader_travels_to_threads_forks_and_pickles(tmp_path):
    keys = small_cache(tmp_path)
    reader = CacheReader(tmp_path, open_shards=2)
    truth = {key: entry(key)[1]["mean"] for key in keys}
    reader.latent(keys[0])
    copy = pickle.loads(pickle.dumps(reader))
    assert all(torch.equal(copy.latent(key)[0], truth[key]) for key in keys)
    wrong = []

    def read_all(seed: int) -> None:
        for key in np.random.default_rng(seed).permutation(np.repeat(keys, 20)):
            if not torch.equal(reader.latent(str(key))[0], truth[str(key)]):
                wrong.append(key)

    threads = [threading.Thread(target=read_all, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    child = os.fork()
    if not child:
        try:
            read_all(9)
            os._exit(len(wrong) > 0)
        except BaseException:
            os._exit(2)
    for thread in threads:
        thread.join()
    assert os.waitpid(child, 0)[1] == 0 and not wrong


def test_what_is_missing_is_said_with_row_and_mend(tmp_path):
    keys = small_cache(tmp_path, 4)
    reader = CacheReader(tmp_path)
    with pytest.raises(UserError, match=r"row-7: not in the cache .*; run_pipeline.py train"):
        reader.latent("0" * 31 + "f", "row-7")
    with pytest.raises(UserError, match="caption 'a cat': not in the cache"):
        reader.text("f" * 32, "a cat")
    with pytest.raises(UserError, match="no cache is there"):
        CacheReader(tmp_path / "nowhere")
    for shard in (tmp_path / "shards").iterdir():
        shard.unlink()
    with pytest.raises(UserError, match="has gone; run_pipeline.py train"):
        reader.latent(keys[0])
    assert "f" * 40 not in reader and "" not in reader


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 100, None])
def test_a_shard_cut_short_is_an_error_of_one_line(tmp_path, content):
    keys = small_cache(tmp_path, 4)
    (shard,) = (tmp_path / "shards").iterdir()
    shard.write_bytes(shard.read_bytes()[:-1] if content is None else content)
    with pytest.raises(UserError, match=r"not a whole safetensors file; delete it and build the cache again$"):
        CacheReader(tmp_path).latent(keys[0])


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


def test_keys_differ_in_whatever_matters_and_stay_as_they_are():
    base = ("c" * 32, None, SMALL, "vae")
    others = [
        ("d" * 32, None, SMALL, "vae"),
        ("c" * 32, (0.0, None), SMALL, "vae"),
        ("c" * 32, (0.0, 1.0), SMALL, "vae"),
        ("c" * 32, (0.0, 1.5), SMALL, "vae"),
        ("c" * 32, None, LARGE, "vae"),
        ("c" * 32, None, replace(SMALL, height_px=32, width_px=16), "vae"),
        ("c" * 32, None, SMALL, "vae2"),
    ]
    keys = [latent_key(*arguments) for arguments in (base, *others)]
    assert len(set(keys)) == len(keys) and all(len(key) == 32 for key in keys)
    assert latent_key("c" * 32, (0, 1), SMALL, "vae") == latent_key("c" * 32, (0.0, 1.0000000001), SMALL, "vae")
    assert text_key("a", "t") != text_key("a", "u") != text_key("b", "t")
    # A change here makes every user's cache worthless: raise CODE_VERSION on purpose, never by accident.
    assert fingerprint.CODE_VERSION == 1 and latent_key(*base) == "24efd82dfa9a596c3d653159100d9ea8"
    assert fingerprint.TEXT_CODE_VERSION == 1 and text_key("a", "t") == "545b729eba72708710a7fc9284fba77b"


def test_content_ids_know_unread_files(tmp_path, monkeypatch):
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file in files:
        file.write_bytes(file.name.encode() * 1000)
    memo = tmp_path / "files.parquet"
    found = content_ids([*files, tmp_path / "none", files[0]], memo)
    assert found.ids == {f: hashlib.blake2b(f.read_bytes(), digest_size=16).hexdigest() for f in files}
    assert list(found.errors) == [tmp_path / "none"]
    read = []
    plain = fingerprint.file_id
    monkeypatch.setattr(fingerprint, "file_id", lambda path: read.append(path.name) or plain(path))
    assert content_ids(files, memo).ids == found.ids and not read
    files[1].write_bytes(b"other")
    changed = content_ids(files, memo)
    assert read == ["b"] and changed.ids[files[1]] != found.ids[files[1]]
    memo.write_bytes(b"damaged")
    assert content_ids(files, memo).ids == changed.ids and sorted(read) == ["a", "b", "b", "c"]


def test_weights_are_known_by_every_part_of_their_content(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "WHOLE_BELOW_BYTES", 1000)
    monkeypatch.setattr(fingerprint, "SAMPLE_BYTES", 16)
    folder = tmp_path / "vae"
    (folder / "tokenizer").mkdir(parents=True)
    rng = np.random.default_rng(0)
    (folder / "config.json").write_text(json.dumps({"latent_channels": 4}))
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    (folder / "small.safetensors").write_bytes(rng.bytes(900))
    (folder / "large.safetensors").write_bytes(rng.bytes(5000))
    first = weights_id(folder)
    (folder / "README.md").write_text("words")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.json").write_text("{}")
    assert weights_id(folder) == first
    moved = folder.rename(tmp_path / "elsewhere")
    assert weights_id(moved) == first
    seen = {first}
    for name in ("config.json", "tokenizer/vocab.json", "small.safetensors"):
        content = bytearray((moved / name).read_bytes())
        content[len(content) // 2] ^= 1
        (moved / name).write_bytes(bytes(content))
        seen.add(weights_id(moved))
    for at in (0, 4999):  # the first and the last byte are always among the blocks
        content = bytearray((moved / "large.safetensors").read_bytes())
        content[at] ^= 1
        (moved / "large.safetensors").write_bytes(bytes(content))
        seen.add(weights_id(moved))
    with (moved / "large.safetensors").open("ab") as file:
        file.write(b"\0")
    seen.add(weights_id(moved))
    assert len(seen) == 7
    assert weights_id(moved / "large.safetensors") not in seen
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError):
        weights_id(tmp_path / "empty")


def test_a_job_and_its_report_are_plain(tmp_path):
    job = Job(tmp_path, FakeEncoders("log"), "bf16", 4)
    assert pickle.loads(pickle.dumps(job)) == job
    assert BuildReport(1, 2, [], 0.5) == BuildReport(1, 2, [], 0.5)
