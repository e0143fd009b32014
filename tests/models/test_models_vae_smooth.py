"""Borders between slices are averaged with a decoding whose borders lie elsewhere; the rest stays."""

import pytest
import torch
from vaes import signed, stirred

from models.denoise.samplers import SAMPLERS
from models.transformers.table import ARCHITECTURES
from models.vae.smooth import decode_smoothly, smooth_borders
from models.vae.video_vae import decode_frames, decode_pixels, encode, encode_moments, from_latents, to_pixels

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


@pytest.mark.parametrize(("preset", "size"), [("tiny-magvit4", 9), ("tiny-slice", 8)])
@torch.no_grad()
def test_what_a_sample_is_decoded_to_is_softened_and_one_slice_is_decoded_as_it_is(preset: str, size: int) -> None:
    vae = stirred(preset, torch.float32)
    long, short = (encode(vae, signed(1, 3, count, 16, 16, dtype=torch.float32)) for count in (3 * size, size))
    expected = to_pixels(smooth_borders(vae, from_latents(vae, long).clamp(-1, 1))[0]).numpy()
    made = decode_smoothly(vae, long)
    assert (abs(made.astype(int) - expected) <= 1).all()
    assert (made != decode_pixels(vae, long)[0]).any()
    assert (decode_smoothly(vae, short) == decode_pixels(vae, short)[0]).all()


def test_v2_and_v3_alone_soften_borders() -> None:
    families = {name: family.defaults({}) for name, family in ARCHITECTURES.items()}
    assert {name for name, facts in families.items() if facts.sampler.smooths} == {"v2", "v3"}
    assert all(facts.sampler.name in SAMPLERS for facts in families.values())
