"""The cache built by Ray: the same tensors, also when workers die on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from caches import FakeEncoders, assert_equal_caches, build, clip_items, contents, encoded_by
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from models.geometry import Bucket
from train_bridge.cache.build import EncodeFrames, Job, plan_latents, plan_texts
from train_bridge.cache.cache import read_index
from train_bridge.cache.ray_build import RayCacheRunner, _Encoder, _packed, _read, _unpacked, _write, book, shard_rows
from train_bridge.cache.wanted import CacheItem

torch.set_num_threads(1)


@given(cpus=st.one_of(st.integers(1, 512), st.floats(1, 64)), gpus=st.sampled_from([0, 0.5, 1, 2, 8]))
def test_bookings_leave_room_for_every_step(cpus: float, gpus: float) -> None:
    try:
        booking = book(cpus, gpus)
    except UserError as error:
        assert gpus >= 1 and "give Ray" in str(error) and "\n" not in str(error)
        assert booking_of(gpus) > cpus / 2
        return
    pool = booking.encoders * booking.encoder_cpus
    assert booking.encoders >= 1 and booking.encoders * booking.encoder_gpus <= gpus
    assert pool + max(booking.reader_cpus, booking.writer_cpus) <= cpus
    assert pool <= cpus / 2 and booking.reader_cpus > 0 and booking.writer_cpus > 0
    assert booking.reader_cpus != booking.encoder_cpus, "equal ones would be fused"


def booking_of(gpus: float) -> float:
    return int(gpus) * 0.1


def test_the_rows_of_a_shard_fit_into_the_object_store(tmp_path: Path) -> None:
    (item,) = clip_items(tmp_path, 1)
    (small,) = plan_latents({"a" * 32: item})
    (large,) = plan_latents({"a" * 32: replace(item, bucket=Bucket(49, 512, 512))})
    latent_bytes = 2 * 16 * 13 * 64 * 64 * 4
    for store_bytes in (1 << 29, 1 << 33):
        rows = shard_rows(32, [small, large], store_bytes)
        assert rows == 32 or (rows + 2) * latent_bytes > store_bytes / 8 >= rows * latent_bytes * 0.95
    assert shard_rows(32, [small], 1 << 29) == 32 and shard_rows(32, [large], 1 << 29) == 10
    assert shard_rows(32, [large], 0) == 1 and shard_rows(3, [large], 1 << 40) == 3
    assert shard_rows(32, plan_texts({"a" * 32: ""}), 1 << 29) == 18


def test_units_survive_the_way_to_a_worker(tmp_path: Path) -> None:
    items = clip_items(tmp_path, 4)
    items[1] = replace(items[1], row=replace(items[1].row, start_s=0.25, end_s=0.75))
    items[2] = CacheItem(replace(items[2].row, kind="image", row_id="ein Bild \u2014 \u65e5\u672c"), Bucket(1, 16, 16))
    units = plan_latents({f"{i:032x}": item for i, item in enumerate(items)})
    units += plan_texts({"a" * 32: "one", "b" * 32: "\u4e8c \U0001f3ac"})
    import pyarrow as pa

    assert list(_unpacked(pa.table({"unit": [_packed(unit) for unit in units]}))) == units


def test_the_steps_of_the_graph_by_hand(tmp_path: Path) -> None:
    """Reading, encoding and writing hand rows on as Ray would, one of them unreadable."""
    import pyarrow as pa

    items = clip_items(tmp_path / "clips", 3)
    items = [replace(item, bucket=Bucket(5, 16, 32)) for item in items]
    items[1].row.path.write_text("no video")
    (unit,) = plan_latents({f"{i:032x}": item for i, item in enumerate(items)})
    (read,) = _read(pa.table({"unit": [_packed(unit)]}))
    entries = json.loads(read["text"][0].as_py())
    assert [entry["error"] is None for entry in entries] == [True, False, True]
    job = Job(tmp_path / "cache", FakeEncoders(str(tmp_path / "log")), "float32", 8)
    for folder in ("shards", "parts"):
        (tmp_path / "cache" / folder).mkdir(parents=True)
    rows = list(_Encoder(job, "latent", has_gpu=False)(read))
    assert [table.num_rows for table in rows] == [1, 1, 1]
    (written,) = _write(pa.concat_tables(rows), job)
    assert written["key"].to_pylist() == [entry.key for entry in unit.entries]
    assert [row["error"] is None for row in read_index(tmp_path / "cache").to_pylist()] == [True, False, True]
    assert encoded_by(job.encoders.log)["latent"] == 2
    assert read["data"][0].as_buffer().size == 2 * 5 * 16 * 32 * 3


@pytest.mark.slow
def test_ray_leaves_the_cache_that_a_loop_leaves_also_when_an_encoder_dies(tmp_path: Path, ray_here: None) -> None:
    import ray

    items = clip_items(tmp_path / "clips", 12)
    items[4].row.path.write_text("no video")
    items.append(CacheItem(replace(items[0].row, row_id="part", start_s=0.3, end_s=0.9), Bucket(5, 16, 32)))
    inline = FakeEncoders(str(tmp_path / "log-inline"))
    on_ray = FakeEncoders(str(tmp_path / "log-ray"), exit_once=str(tmp_path / "died"))
    seen: list[tuple[int, int]] = []
    block_bytes = ray.data.DataContext.get_current().target_max_block_size
    first = build(tmp_path / "inline", items, inline)
    second = build(tmp_path / "ray", items, on_ray, RayCacheRunner(), progress=lambda *now: seen.append(now))
    assert (first.encoded, first.reused, first.failed) == (second.encoded, second.reused, second.failed)
    assert (tmp_path / "died").exists(), "the process of an encoder ended in its first pass"
    assert second.encoded == 12 + 7 and [refusal.row_id for refusal in second.failed] == ["row-4"]
    assert encoded_by(inline.log) == encoded_by(on_ray.log) == {"latent": 12, "text": 7}
    assert seen[-1] == (20, 20) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert_equal_caches(tmp_path / "inline", tmp_path / "ray")
    assert ray.data.DataContext.get_current().target_max_block_size == block_bytes, "others' settings stay"
    again = build(tmp_path / "ray", items, on_ray, RayCacheRunner())
    assert (again.encoded, again.reused, len(again.failed)) == (0, 19, 1)


@dataclass(frozen=True)
class NoWeights(FakeEncoders):
    def load_vae(self) -> EncodeFrames:
        raise UserError("vae: no such folder; give one")


@pytest.mark.slow
def test_errors_come_as_what_they_are_and_work_done_is_kept(tmp_path: Path, ray_here: None) -> None:
    items = clip_items(tmp_path / "clips", 6)
    with pytest.raises(UserError, match=r"^vae: no such folder; give one$"):
        build(tmp_path / "cache", items, NoWeights(str(tmp_path / "log")), RayCacheRunner())
    assert len(read_index(tmp_path / "cache")) == 4, "the texts are there"
    with pytest.raises(Exception, match="the encoder broke"):
        build(tmp_path / "cache", items, FakeEncoders(str(tmp_path / "log-2"), fail_after=1), RayCacheRunner())
    report = build(tmp_path / "cache", items, FakeEncoders(str(tmp_path / "log-3")), RayCacheRunner())
    assert report.reused >= 4 and report.encoded + report.reused == 6 + 4
    build(tmp_path / "whole", items, FakeEncoders(str(tmp_path / "log-whole")))
    assert_equal_caches(tmp_path / "cache", tmp_path / "whole")


KILLED = """
import sys
from pathlib import Path
from curation.engine.ray_runner import start_ray
from caches import FakeEncoders, build, clip_items
from train_bridge.cache import build as cache_build
from train_bridge.cache.ray_build import RayCacheRunner
cache_build.ROWS_PER_PASS = cache_build.TEXTS_PER_PASS = 1
folder = Path(sys.argv[1])
items = clip_items(folder / "clips", 16)
start_ray(None, cpus=2)
build(folder / "cache", items, FakeEncoders(str(folder / "log"), pause_s=0.1), RayCacheRunner(), rows_per_shard=1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [1, 12])
def test_a_killed_driver_leaves_a_cache_that_can_be_completed(tmp_path: Path, ray_here: None, wanted: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], env=environment)
    parts = tmp_path / "cache" / "parts"
    while not (parts.is_dir() and len(list(parts.glob("[!.]*"))) >= wanted):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    items = clip_items(tmp_path / "clips", 16)
    # Its workers outlive it for a moment, and may still write: shards of theirs are as whole as any.
    report = build(tmp_path / "cache", items, FakeEncoders(str(tmp_path / "again")), RayCacheRunner())
    assert report.reused >= wanted and report.encoded + report.reused == 16 + 9
    time.sleep(3)
    build(tmp_path / "cache", items, FakeEncoders(str(tmp_path / "again")))
    build(tmp_path / "whole", items, FakeEncoders(str(tmp_path / "log-whole")))
    assert_equal_caches(tmp_path / "cache", tmp_path / "whole")
    assert len(contents(tmp_path / "cache")) == 25
