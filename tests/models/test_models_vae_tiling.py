"""The VAE in tiles: a fraction of the memory for nearly the same picture."""

import pytest
import torch
from closeness import close
from hypothesis import given, settings
from hypothesis import strategies as st

from models.memory.live_memory import peak_bytes
from models.vae.tiling import in_tiles, starts
from models.vae.video_vae import PRESETS, build_vae, decode_frames, encode_moments

torch.set_num_threads(1)


@pytest.fixture
def vae():
    torch.manual_seed(0)
    # Frames normalised by themselves, and small groups: what tiles change most.
    return build_vae(PRESETS["tiny"] | {"block_out_channels": (8, 8, 16, 16), "latent_channels": 4}).eval()


def scene(height: int, width: int, frames: int = 5) -> torch.Tensor:
    """A moving pattern, the same everywhere, as far as statistics over a tile can tell."""
    y, x = torch.meshgrid(torch.arange(height) / 32, torch.arange(width) / 32, indexing="ij")
    video = []
    for time in range(frames):
        waves = [torch.sin(2 * torch.pi * (a * x + b * y + 0.1 * time)) for a, b in ((1, 0), (0, 1), (1, 2))]
        video.append(torch.stack(waves))
    return 0.8 * torch.stack(video, dim=1)[None]


@given(st.integers(1, 60), st.integers(2, 20), st.integers(1, 19), st.sampled_from([1, 2]))
@settings(max_examples=30, deadline=None)
def test_tiles_cover_the_whole_and_what_does_not_depend_on_them_is_the_same(
    blocks: int, tile: int, stride: int, scale: int
) -> None:
    stride = min(stride, tile - 1)
    length = blocks * 4
    begins = starts(length, tile * 4, stride * 4, 4)
    assert begins[0] == 0
    assert begins[-1] == max(0, length - tile * 4)
    assert all(0 < later - earlier <= stride * 4 + 2 for earlier, later in zip(begins, begins[1:], strict=False))
    assert all(begin % 4 == 0 for begin in begins)
    whole = torch.randn(1, 2, 1, length, 12, generator=torch.Generator().manual_seed(blocks))

    def enlarge(part: torch.Tensor) -> torch.Tensor:
        return part.repeat_interleave(scale, dim=-1).repeat_interleave(scale, dim=-2) * 2

    tiled = in_tiles(enlarge, whole, (tile * 4, 8), (stride * 4, 4), 4)
    assert torch.allclose(tiled, enlarge(whole), atol=1e-5)


@torch.no_grad()
def test_a_picture_no_larger_than_a_tile_is_untouched(vae) -> None:
    frames, latents = scene(32, 48), torch.randn(1, 4, 2, 4, 6)
    expected = *encode_moments(vae, frames), decode_frames(vae, latents)
    vae.enable_tiling()
    found = *encode_moments(vae, frames), decode_frames(vae, latents)
    assert all(close(a, b) for a, b in zip(expected, found, strict=True))


@torch.no_grad()
def test_tiles_decode_nearly_the_same_picture_without_seams(vae) -> None:
    latents = encode_moments(vae, scene(96, 160))[0]
    whole = decode_frames(vae, latents)
    vae.enable_tiling(64, 64, None, 48, 48)
    tiled = decode_frames(vae, latents)
    assert tiled.shape == whole.shape
    # Random weights and tiles of 8 latents: the worst there is.
    assert (tiled - whole).square().mean().sqrt() < 0.2 * whole.std()
    difference = tiled - whole
    # What tiles change, they change smoothly: no pixel differs from its neighbour's change by more than the picture.
    for axis in (-1, -2):
        assert difference.diff(dim=axis).abs().max() < whole.diff(dim=axis).abs().max()


@torch.no_grad()
def test_tiles_encode_each_place_where_it_is(vae) -> None:
    frames = scene(96, 160)
    whole = encode_moments(vae, frames)[0]
    vae.enable_tiling(64, 64, None, 48, 48)
    mean, logvar = encode_moments(vae, frames)
    assert mean.shape == logvar.shape == whole.shape
    ours = (mean - whole).norm() / whole.norm()
    theirs = vae.encode(frames).latent_dist.mean
    assert ours < 0.2
    assert theirs.shape != whole.shape or (theirs - whole).norm() / whole.norm() > ours


@torch.no_grad()
def test_tiles_need_the_memory_of_a_tile(vae) -> None:
    vae = vae.to("meta")
    latents = torch.zeros(1, 4, 2, 36, 36, device="meta")
    frames = torch.zeros(1, 3, 5, 288, 288, device="meta")
    whole = [peak_bytes(lambda: decode_frames(vae, latents)), peak_bytes(lambda: encode_moments(vae, frames))]
    vae.enable_tiling(96, 96, None, 72, 72)
    tiled = [peak_bytes(lambda: decode_frames(vae, latents)), peak_bytes(lambda: encode_moments(vae, frames))]
    assert tiled[0] < whole[0] / 3
    assert tiled[1] < whole[1] / 3
