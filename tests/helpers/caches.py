"""Caches of drawn clips, built with encoders that need no weights; and what lies in them."""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from drawn_frames import draw
from safetensors.torch import load_file

from models.geometry import Bucket
from train_bridge.cache.build import CacheRunner, Encoding, InlineRunner, build_cache
from train_bridge.cache.cache import TORCH_DTYPES, Entry, shard_path
from train_bridge.cache.wanted import CacheItem, Wanted
from train_bridge.types import TrainRow

SMALL, LARGE = Bucket(5, 16, 32), Bucket(9, 32, 32)


@dataclass(frozen=True)
class FakeEncoders:
    """Average pooling as VAE, a hash of the bytes as text encoder; tells a file of each pass.

    Attributes:
        log: file that gets a line for each pass.
        vae_id: stands for the VAE.
        text_id: stands for the text encoder.
        earlier: what earlier versions called the two.
        fail_after: raise from this pass on.
        exit_once: file; the first pass that finds it missing makes it, and ends the process at once.
        pause_s: how long a pass takes.
    """

    log: str
    vae_id: str = "vae-1"
    text_id: str = "text-1"
    earlier: tuple[str | None, str | None] = (None, None)
    fail_after: int | None = None
    exit_once: str | None = None
    pause_s: float = 0.0

    def earlier_ids(self) -> tuple[str | None, str | None]:
        return self.earlier

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

    def load_text(self) -> Callable[[Sequence[str]], dict[str, torch.Tensor]]:
        def encode(captions: Sequence[str]) -> dict[str, torch.Tensor]:
            self._note("text", len(captions))
            return {"text": torch.stack([embedding(caption) for caption in captions])}

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


ENCODED_BY = ("dtype", "rows_per_shard", "at_once")


def build(cache: Path, items: Sequence[CacheItem], encoders: FakeEncoders, runner: CacheRunner | None = None, **how):
    captions = [item.row.caption for item in items]
    stored = {"dtype": "float32", "rows_per_shard": 3} | {k: how.pop(k) for k in ENCODED_BY if k in how}
    return build_cache(cache, Wanted(items, captions), Encoding(encoders, **stored), runner or InlineRunner(), **how)


def contents(cache: Path, dtype: str | None = None) -> dict[str, dict[str, torch.Tensor]]:
    """Read all that the index names, by its own path, and see that the shards hold just that.

    Args:
        cache: the folder.
        dtype: the type that is returned of keys that are there in several.
    """
    held: dict[str, dict[str, torch.Tensor]] = {}
    index = pq.read_table(cache / "index.parquet").to_pylist()
    assert not list((cache / "parts").iterdir()), "every part is folded"
    shards = {row["shard"] for row in index if row["shard"]}
    assert {p.name for p in (cache / "shards").iterdir()} == {f"{name}.safetensors" for name in shards}
    tensors, named = {}, set()
    for name in shards:
        for key, tensor in load_file(shard_path(cache, name)).items():
            assert (key, tensor.dtype) not in tensors, "nothing is there twice"
            tensors[key, tensor.dtype] = tensor
    for row in index:
        if row["error"] is None:
            parts = ("mean", "logvar") if row["kind"] == "latent" else ("text",)
            names = {part: (f"{row['stored_as'] or row['key']}.{part}", TORCH_DTYPES[row["dtype"]]) for part in parts}
            found = {part: tensors[name] for part, name in names.items()}
            named.update(names.values())
            assert sum(t.nbytes for t in found.values()) == row["size_bytes"]
            if dtype in (None, row["dtype"]):
                held[row["key"]] = found
        else:
            assert row["shard"] is None
    assert named == tensors.keys(), "nothing is there that the index does not know"
    return held


def assert_equal_caches(a: Path, b: Path) -> None:
    first, second = contents(a), contents(b)
    assert first.keys() == second.keys()
    for key, tensors in first.items():
        for part, tensor in tensors.items():
            assert torch.equal(tensor, second[key][part])


def entry(key: str, **changes) -> tuple[Entry, dict[str, torch.Tensor]]:
    tensors = {"mean": torch.full((2, 3), float(int(key, 16) % 97)), "logvar": torch.zeros(2, 3)}
    given = Entry(key, "latent", row_id=key, dtype="float32", size_bytes=48)
    if changes.get("dtype") == "bf16":
        tensors = {name: tensor.bfloat16() for name, tensor in tensors.items()}
        given = replace(given, size_bytes=24)
    return replace(given, **changes), {} if changes.get("error") else tensors
