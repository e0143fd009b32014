"""Borders between slices are averaged with a decoding whose borders lie elsewhere; the rest stays."""

import pytest
import torch
from vaes import signed, stirred

from models.vae.smooth import smooth_borders
from models.vae.video_vae import decode_frames, encode_moments

torch.set_num_threads(1)


@pytest.mark.parametrize(("preset", "size"), [("tiny-magvit4", 9), ("tiny-slice", 8)])
@torch.no_grad()
def test_what_overlaps_is_the_mean_of_two_decodings(preset: str, size: int) -> None:
    vae, frames = stirred(preset), signed(1, 3, 3 * size, 16, 16)
    half, rest = size // 2, size - size // 2
    soft = smooth_borders(vae, frames)
    inner = frames[:, :, half:-rest]
    assert inner.shape[2] == 2 * size
    again = decode_frames(vae, encode_moments(vae, inner)[0])
    torch.testing.assert_close(soft[:, :, half:-rest], (inner + again) / 2)
    assert torch.equal(soft[:, :, :half], frames[:, :, :half])
    assert torch.equal(soft[:, :, -rest:], frames[:, :, -rest:])


@torch.no_grad()
def test_a_video_without_borders_stays_as_it_is() -> None:
    for preset, count in (("tiny-slice", 8), ("tiny-slice", 1), ("tiny-magvit4", 9), ("tiny-image-vae", 8)):
        frames = signed(1, 3, count, 16, 16)
        assert torch.equal(smooth_borders(stirred(preset), frames), frames)
