"""The image VAE as a VAE of videos: diffusers' own, frame by frame, in batches that do not grow."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from vaes import NARROW, signed, stirred

from models.errors import ModelError
from models.vae.image_vae import FRAMES_AT_ONCE, GRID, IMAGE
from models.vae.table import PRESETS, build_vae, kind_of, load_vae
from models.vae.video_vae import TrainableVAE, decode_frames, encode_moments, frame_pieces, scaling_factor_of

torch.set_num_threads(1)
PRESET = "tiny-image-vae"


def test_published_shape() -> None:
    with torch.device("meta"):
        vae = build_vae(PRESETS["image-vae"])
    assert sum(parameter.numel() for parameter in vae.parameters()) == 83_653_863  # Stable Diffusion 1.5's VAE
    assert kind_of(vae) is IMAGE
    assert scaling_factor_of(vae) == 0.18215


@pytest.mark.parametrize("num_frames", [1, 2, 19])
def test_frames_are_diffusers_own_whatever_their_number(num_frames: int) -> None:
    vae = stirred(PRESET)
    frames = signed(2, 3, num_frames, 16, 24)
    rows = frames.transpose(1, 2).flatten(0, 1)
    expected = vae.encode(rows).latent_dist
    with torch.no_grad():
        mean, logvar = encode_moments(vae, frames)
        made = decode_frames(vae, mean)
        sizes = [piece.shape[2] for piece in frame_pieces(vae, mean)]
    assert mean.shape == (2, 4, num_frames, 2, 3)
    for found, wanted in ((mean, expected.mean), (logvar, expected.logvar)):
        torch.testing.assert_close(found.transpose(1, 2).flatten(0, 1), wanted, rtol=1e-5, atol=1e-5)
    wanted = vae.decode(mean.transpose(1, 2).flatten(0, 1)).sample
    torch.testing.assert_close(made.transpose(1, 2).flatten(0, 1), wanted, rtol=1e-5, atol=1e-5)
    assert sum(sizes) == num_frames
    assert max(sizes) <= FRAMES_AT_ONCE


def test_its_grid_takes_any_number_of_frames() -> None:
    assert all(GRID.takes_frames(n) and GRID.latent_frames(n) == n == GRID.num_frames(n) for n in (1, 2, 7, 80))
    assert not GRID.takes_frames(0)


def test_checkpointing_gives_the_same_gradients() -> None:
    vae, frames = stirred(PRESET), signed(1, 3, 3, 16, 16)
    found = []
    for checkpointing in (False, True):
        made, mean, _ = TrainableVAE(vae, checkpointing=checkpointing)(frames, None)
        loss = made.square().mean() + mean.square().mean()
        found.append(torch.autograd.grad(loss, list(vae.parameters()), allow_unused=True))
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-9, atol=1e-12)


def test_wide_pictures_are_walked_in_tiles() -> None:
    vae = stirred(PRESET, torch.float32)
    latents = signed(1, 4, 2, 4, 12, seed=3, dtype=torch.float32)
    with torch.no_grad():
        vae.enable_tiling()
        made = decode_frames(vae, latents)
        alone = decode_frames(vae, latents[..., :4])
        frames = signed(1, 3, 2, 32, 96, dtype=torch.float32)
        mean, _ = encode_moments(vae, frames)
        first, _ = encode_moments(vae, frames[..., :32])
    assert made.shape == (1, 3, 2, 32, 96)
    torch.testing.assert_close(made[..., :24], alone[..., :24])  # tiles of 32 px that overlap by a quarter
    torch.testing.assert_close(mean[..., :3], first[..., :3])


@pytest.mark.parametrize("safe", [True, False])
def test_folders_of_diffusers_load_and_come_back(tmp_path: Path, safe: bool) -> None:
    theirs = AutoencoderKL(**{k: v for k, v in {**PRESETS[PRESET], **NARROW}.items() if not k.startswith("_")})
    theirs.save_pretrained(tmp_path / "theirs", safe_serialization=safe)
    ours = load_vae(tmp_path / "theirs")
    assert kind_of(ours) is IMAGE
    ours.save_pretrained(tmp_path / "ours")
    again = AutoencoderKL.from_pretrained(tmp_path / "ours").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in theirs.state_dict().items())
    assert again.keys() == theirs.state_dict().keys()


def test_others_are_refused_in_one_line(tmp_path: Path) -> None:
    def refused(said: str, config: dict[str, object]) -> None:
        with pytest.raises(ModelError, match=said) as caught:
            build_vae({**PRESETS[PRESET], **config})
        assert "\n" not in str(caught.value)

    refused("knows no key 'latent_chanels'", {"latent_chanels": 4})
    refused("VAE config: .*image-vae", {"norm_num_groups": 3})
    three = {"block_out_channels": (8, 8, 8), "down_block_types": ("DownEncoderBlock2D",) * 3}
    refused("compression 4x4", {**three, "up_block_types": ("UpDecoderBlock2D",) * 3})
    refused("a mean and deviation for each channel", {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4})
    build_vae(PRESETS[PRESET]).save_pretrained(tmp_path / "vae")
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelError, match="no .safetensors beside config.json"):
        load_vae(tmp_path / "vae")
