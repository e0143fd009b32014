"""Texts with masks and a second text go through cache and loss as one encoder with one text does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from caches import FakeEncoders, build, embedding
from torch import nn

from models.denoise.family_objective import family_objective
from models.transformers.conditioning import TEXT_PARTS, Conditioning, of_text, parts_of, row_of, text_parts
from models.transformers.defaults import ObjectiveFacts
from train_bridge.cache.build import Encoding, InlineRunner, build_cache
from train_bridge.cache.cache import CacheReader
from train_bridge.cache.fingerprint import text_key
from train_bridge.cache.wanted import Wanted
from train_bridge.loop.batches import to_device
from train_bridge.methods.text_to_video import TextToVideo
from train_bridge.methods.types import Batch

torch.set_num_threads(1)


def two_texts(captions: Sequence[str]) -> dict[str, torch.Tensor]:
    first = torch.stack([embedding(caption) for caption in captions])
    lengths = torch.tensor([min(len(caption), first.shape[1]) for caption in captions])
    mask = torch.arange(first.shape[1]) < lengths[:, None]
    return {"text": first, "text_mask": mask, "second_text": first[:, :2] * 3, "second_text_mask": mask[:, :2]}


@dataclass(frozen=True)
class TwoEncoders(FakeEncoders):
    """Yields all four parts."""

    def load_text(self) -> Callable[[Sequence[str]], dict[str, torch.Tensor]]:
        return two_texts


@pytest.mark.parametrize(("stored", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_cache_gives_back_every_part(tmp_path: Path, stored: str, dtype: torch.dtype) -> None:
    captions = ["a", "a cat", "a dog that runs"]
    report = build_cache(
        tmp_path / "cache",
        Wanted([], captions),
        Encoding(TwoEncoders(str(tmp_path / "log")), stored, rows_per_shard=3),
        InlineRunner(),
    )
    assert report.encoded == 4 and not report.failed
    reader = CacheReader(tmp_path / "cache", dtype=stored)
    found = parts_of(reader.texts([text_key(caption, "text-1") for caption in captions]))
    assert set(found) == set(TEXT_PARTS)
    for name, part in two_texts(captions).items():
        kept = part.to(dtype) if part.is_floating_point() else part
        assert found[name].dtype == kept.dtype and torch.equal(found[name], kept), name
    one = reader.text(text_key("a cat", "text-1"), "a cat")
    assert torch.equal(one.text_mask, two_texts(["a cat"])["text_mask"])


def test_entries_of_one_text_have_no_other_parts(tmp_path: Path) -> None:
    build(tmp_path / "cache", [], FakeEncoders(str(tmp_path / "log")))
    assert set(parts_of(CacheReader(tmp_path / "cache").text(text_key("", "text-1")))) == {"text"}


class Family:
    """Notes what it is conditioned on, and says the noise's mean and a variance in twice the channels."""

    def __init__(self) -> None:
        self.seen: list[Conditioning] = []

    def predict(
        self, model: nn.Module, latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        self.seen.append(conditioning)
        return model(torch.cat([latents, latents], dim=1).movedim(1, -1)).movedim(-1, 1)


def method(family: Family, dropout: float) -> TextToVideo:
    torch.manual_seed(0)
    facts = ObjectiveFacts("epsilon", {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}, "trained")
    objective = family_objective(facts, "epsilon", None, None)
    return TextToVideo(family, nn.Linear(8, 8), objective, "uniform", dropout, of_text(two_texts([""])), 0.18215)


def batch(rows: int = 6) -> Batch:
    latents = torch.randn(rows, 4, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    conditioning = of_text(two_texts([f"caption {row}" for row in range(rows)]))
    return Batch(
        tuple(range(rows)), torch.ones(rows), latents, torch.full_like(latents, -9.0), conditioning=conditioning
    )


@pytest.mark.parametrize("dropout", [0.0, 0.5, 1.0])
def test_dropped_rows_have_the_empty_texts_parts_all_together(dropout: float) -> None:
    family, rows = Family(), to_device(batch(), torch.device("cpu"))
    trained = method(family, dropout)
    (_, losses), *_ = trained.losses(trained.networks(), rows, 0)
    assert losses.shape == (6,) and bool(losses.isfinite().all())
    own, empty, seen = rows.conditioning, trained.empty_text, family.seen[0]
    dropped = 0
    for row in range(6):
        parts = text_parts(row_of(seen, row))
        is_empty = all(torch.equal(part, parts_of(empty)[name]) for name, part in parts.items())
        assert is_empty or all(torch.equal(part, text_parts(row_of(own, row))[name]) for name, part in parts.items())
        dropped += is_empty
    assert {0.0: dropped == 0, 0.5: 0 < dropped < 6, 1.0: dropped == 6}[dropout]


def test_mean_and_variance_are_trained_and_validated() -> None:
    family = Family()
    trained = method(family, 0.0)
    (_, losses), *_ = trained.losses(trained.networks(), batch(), 0)
    losses.sum().backward()
    gradient = trained.transformer.weight.grad
    assert gradient[:4].abs().max() > 0 and gradient[4:].abs().max() > 0
    with torch.no_grad():
        found = trained.validation_losses(trained.networks(), batch())
    assert all(bool(loss.isfinite().all()) for loss in found.values()) and len(found) == 4
