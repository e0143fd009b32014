"""The cache on disk: what a kill leaves, what the reader gives."""

import os
import pickle
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from caches import SMALL, FakeEncoders, build, clip_items, contents, embedding, entry
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from train_bridge.cache.cache import CacheReader, fold, hold_cache, read_index, write_shard
from train_bridge.cache.fingerprint import text_key
from train_bridge.cache.wanted import latent_keys

torch.set_num_threads(1)


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


def test_an_error_never_replaces_tensors_and_tensors_replace_an_error(tmp_path):
    key = "a" * 32
    of_old, of_type = {"error": "x", "dtype": None}, {"error": "x"}
    for number, (first, second) in enumerate((({}, of_old), (of_old, {}), ({}, of_type), (of_type, {}))):
        cache = tmp_path / str(number)
        with hold_cache(cache):
            write_shard(cache, [entry(key, **first)])
            fold(cache)
            write_shard(cache, [entry(key, **second)])
            fold(cache)
        assert key in CacheReader(cache) and key in CacheReader(cache, dtype="float32") and key in contents(cache)
        assert len(read_index(cache)) == 1


def test_an_error_of_one_type_says_nothing_of_another(tmp_path):
    """What is not finite in bf16 may be in float32."""
    key = "a" * 32
    with hold_cache(tmp_path):
        write_shard(tmp_path, [entry(key)])
        fold(tmp_path)
        write_shard(tmp_path, [entry(key, dtype="bf16", error="not finite")])
        fold(tmp_path)
    assert key in CacheReader(tmp_path, dtype="float32") and key in CacheReader(tmp_path)
    with pytest.raises(UserError, match="could not be encoded \\(not finite\\)"):
        CacheReader(tmp_path, dtype="bf16").latent(key)


def test_a_shard_written_late_by_a_killed_run_leaves_nothing_twice(tmp_path):
    keys = [f"{i:032x}" for i in range(3)]
    with hold_cache(tmp_path):
        write_shard(tmp_path, [entry(key) for key in keys])
        fold(tmp_path)
        write_shard(tmp_path, [entry(keys[1])])
        fold(tmp_path)
    assert contents(tmp_path).keys() == set(keys)


def test_each_type_of_tensors_is_kept_and_read_by_itself(tmp_path):
    """Two runs of different precision share a cache: what one has started to read, the other's fold leaves there."""
    keys = small_cache(tmp_path, 8)
    reading = CacheReader(tmp_path, open_shards=1, dtype="float32")
    with hold_cache(tmp_path):
        for key in keys[:5]:
            write_shard(tmp_path, [entry(key, dtype="bf16")])
        fold(tmp_path)
    for key in keys:
        assert reading.latent(key)[0].dtype == torch.float32
        assert CacheReader(tmp_path).latent(key)[0].dtype == torch.float32, "the exact one, where both are there"
    other = pickle.loads(pickle.dumps(CacheReader(tmp_path, dtype="bf16")))
    assert [key in other for key in keys] == [True] * 5 + [False] * 3 and len(other) == 5
    assert other.latent(keys[0])[0].dtype == torch.bfloat16
    with pytest.raises(UserError, match="not in the cache .* as bf16; run_pipeline.py train"):
        other.latent(keys[7])
    assert len(read_index(tmp_path)) == 13 and len(contents(tmp_path, "bf16")) == 5


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["float32", "bf16", None]), st.booleans())))
def test_folding_in_any_order_loses_no_tensors(rows):
    """Whatever was written when, each key and type that ever had tensors has them, in the shard it had first."""
    first, folder = {}, tempfile.TemporaryDirectory()
    cache = Path(folder.name)
    with folder, hold_cache(cache):
        for number, dtype, failed in rows:
            failed = failed or dtype is None
            write_shard(cache, [entry(f"{number:032x}", dtype=dtype, **({"error": "x"} if failed else {}))])
            for row in fold(cache).to_pylist():
                if row["error"] is None:
                    assert first.setdefault((row["key"], row["dtype"]), row["shard"]) == row["shard"]
        found = read_index(cache).to_pylist()
    pairs = [(row["key"], row["dtype"]) for row in found]
    assert len(set(pairs)) == len(pairs)
    written = {(f"{number:032x}", dtype) for number, dtype, failed in rows if dtype and not failed}
    assert {pair for pair, row in zip(pairs, found, strict=True) if row["error"] is None} == written
    assert {key for key, _ in pairs} == {f"{number:032x}" for number, _, _ in rows}


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
    texts = reader.texts([text_key(caption, "text-1") for caption in captions]).text
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


@pytest.mark.parametrize("content", [b"", b"PAR1" + b"\xff" * 100 + b"\x20\0\0\0PAR1"])
@pytest.mark.parametrize("name", ["index.parquet", "parts/0.parquet"])
def test_a_damaged_index_is_an_error_of_one_line(tmp_path, name, content):
    small_cache(tmp_path, 4)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: cannot be read; delete it, and what it names is encoded again$"):
        CacheReader(tmp_path)
