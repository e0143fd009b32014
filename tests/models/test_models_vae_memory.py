"""Encoding and decoding take memory that does not grow with a video's length, at published widths."""

import pytest
import torch
from vaes import signed

from models.errors import ModelError
from models.memory.live_memory import peak_bytes
from models.vae.table import PRESETS, build_vae, kind_of
from models.vae.video_vae import (
    decode_frames,
    decode_pixels,
    encode_moments,
    encode_pixels,
    frame_pieces,
    scaling_factor_of,
    to_signed,
)

torch.set_num_threads(1)
LATENTS = {"image-vae": 8, "magvit4": 6, "slice": 6, "cached-slice": 6, "magvit": 5}
"""of the short video: more than one piece"""


@pytest.mark.slow  # many small calls
@pytest.mark.parametrize("preset", LATENTS)
@torch.no_grad()
def test_sixteen_times_the_frames_take_hardly_more_memory(preset: str) -> None:
    with torch.device("meta"):
        vae = build_vae(PRESETS[preset]).eval()
    kind, peaks = kind_of(vae), []
    grid, channels = kind.grid(vae.config), kind.channels(vae.config)
    short = LATENTS[preset]
    long = 16 * short if grid.frames_per_slice or preset == "image-vae" else 16 * (short - 1) + 1
    for count in (short, long):
        frames = grid.num_frames(count)
        latents = torch.zeros(1, channels, count, 32, 32, device="meta")
        pixels = torch.zeros(1, frames, 256, 256, 3, device="meta", dtype=torch.uint8)
        made = 0

        def decode(latents: torch.Tensor = latents) -> None:
            nonlocal made
            for piece in frame_pieces(vae, latents):
                made += piece.shape[2]

        # The video itself counts, too: as bytes, which is how it is read, and how it is written.
        peaks.append([
            peak_bytes(decode) + latents.nbytes + pixels.nbytes,
            peak_bytes(lambda pixels=pixels: encode_pixels(vae, pixels)) + pixels.nbytes,
        ])
        assert made == frames
    assert grid.num_frames(long) >= 15 * grid.num_frames(short)
    for few, many in zip(*peaks, strict=True):
        assert many <= 1.1 * few


@pytest.mark.parametrize("preset", ["tiny-image-vae", "tiny-magvit4", "tiny-slice", "tiny-cached-slice", "tiny"])
@torch.no_grad()
def test_bytes_are_encoded_and_decoded_as_all_frames_at_once_are(preset: str) -> None:
    vae = build_vae(PRESETS[preset]).eval()
    count = kind_of(vae).grid(vae.config).nearest_frames(17)[1]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, count, 32, 48, 3), generator=generator, dtype=torch.uint8)
    found, wanted = encode_pixels(vae, pixels), encode_moments(vae, to_signed(pixels))
    torch.testing.assert_close(found, wanted)
    latents = found[0] * scaling_factor_of(vae)
    shown = decode_pixels(vae, latents)
    frames = ((decode_frames(vae, found[0]).clamp(-1, 1) + 1) * 127.5).round()
    assert shown.shape == tuple(pixels.shape)
    difference = (torch.from_numpy(shown).float() - frames.permute(0, 2, 3, 4, 1)).abs()
    assert float(difference.max()) <= 1
    assert float((difference > 0).float().mean()) < 0.01


def test_other_pixels_are_refused() -> None:
    vae = build_vae(PRESETS["tiny-slice"])
    with pytest.raises(ModelError, match="pixels of type torch.float32: give uint8"):
        encode_pixels(vae, signed(1, 8, 16, 16, 3, dtype=torch.float32))
    with pytest.raises(ModelError, match="12 frames are not 8n or 1; take 8 or 16"):
        encode_pixels(vae, torch.zeros(1, 12, 16, 16, 3, dtype=torch.uint8))
