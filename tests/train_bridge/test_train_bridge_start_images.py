"""What V3 and V4 see of a start image: masks and masked videos as their VAE encodes them, and tokens of CLIP."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from closeness import close

from models.conditions.inpaint import Known, condition_latents
from models.conditions.spec import ENCODED_INPAINT
from models.text.image_encoder import ClipEmbedding, ClipTokens
from models.transformers.table import build_transformer, defaults_of
from models.vae.table import PRESETS, build_vae
from models.vae.video_vae import encode
from train_bridge.method_settings import InpaintSettings
from train_bridge.methods.conditions import encode_condition, encode_start_image, show_condition

torch.set_num_threads(1)
FIRST = InpaintSettings(masks={"first_frames": 1.0}, reference_noise=False)


@pytest.fixture(scope="module")
def vae() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_vae(PRESETS["tiny-slice"]).eval().requires_grad_(False)


def some_frames(rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, 256, (rows, 8, 16, 16, 3), generator=generator, dtype=torch.uint8)


def test_mask_and_masked_video_are_both_what_the_vae_makes_of_them(vae: torch.nn.Module) -> None:
    pixels = torch.rand(1, 3, 8, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = torch.ones(1, 1, 8, 16, 16)
    mask[:, :, :2] = 0
    found = condition_latents(vae, Known(pixels, mask), spec=ENCODED_INPAINT)
    black = torch.where(mask.bool(), -1.0, pixels)
    assert close(found, torch.cat([encode(vae, mask.expand(-1, 3, -1, -1, -1)), encode(vae, black)], dim=1))
    nothing = condition_latents(vae, Known(pixels, torch.ones_like(mask)), spec=ENCODED_INPAINT)
    assert nothing.shape == found.shape == (1, 8, 2, 2, 2) and not nothing.any()


def test_rows_are_drawn_by_their_seeds_and_shown_to_people(vae: torch.nn.Module) -> None:
    frames = some_frames(3)
    together = encode_condition(vae, FIRST, frames, (1, 2, 3), ENCODED_INPAINT)
    assert close(encode_condition(vae, FIRST, frames[1:2], (2,), ENCODED_INPAINT)[0], together[1])
    assert show_condition(vae, together, ENCODED_INPAINT).shape == (3, 8, 16, 16, 3)
    all_hidden = dataclasses.replace(FIRST, masks={"all": 1.0}, zeroed=1.0)
    whole = encode_condition(vae, all_hidden, frames, (1, 2, 3), ENCODED_INPAINT)
    grey = show_condition(vae, whole, ENCODED_INPAINT)
    assert np.abs(grey.astype(int) - 127).max() <= 1


@pytest.mark.parametrize(("kind", "width", "count"), [(ClipEmbedding(), 768, 1), (ClipTokens(), 32, 16)])
def test_tokens_are_of_the_first_frame_or_another_and_seen_by_half_of_the_rows(
    tmp_path: Path, kind: ClipEmbedding | ClipTokens, width: int, count: int
) -> None:
    kind.build_tiny(tmp_path, width)
    assert kind.width(tmp_path) == width == kind.width(tmp_path / "image_encoder")
    encoder, frames = kind.load(tmp_path), some_frames(1)
    of_frames = encoder.encode_parts(frames[0].numpy())["image"]
    assert of_frames.shape == (8, count, width)
    seeds = tuple(range(60))
    found = encode_start_image(encoder, frames.expand(60, -1, -1, -1, -1), seeds)
    seen = found["image_mask"].any(1)
    assert found["image_mask"].shape == (60, count) and 0.3 < float(seen.float().mean()) < 0.7
    assert not found["image"][~seen].any()
    nearest = [int((of_frames - row).flatten(1).norm(dim=1).argmin()) for row in found["image"][seen]]
    assert 0.35 < nearest.count(0) / len(nearest) < 0.8 and len(set(nearest)) > 3
    alone = encode_start_image(encoder, frames, seeds[7:8])
    assert close(alone["image"][0], found["image"][7])


@pytest.mark.parametrize(("preset", "noisy"), [("tiny-v3", False), ("tiny-v4-inpaint", False), ("tiny-inpaint", True)])
def test_a_config_that_says_nothing_of_noise_is_read_as_its_family_has_it(
    tmp_path: Path, preset: str, noisy: bool
) -> None:
    _, model = build_transformer(preset)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("add_noise_in_inpaint_model", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert defaults_of(str(tmp_path)).reference_noise is noisy
