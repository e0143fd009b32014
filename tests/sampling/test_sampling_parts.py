"""The parts of the sampling modes: where the loop begins, what it keeps, how segments are joined."""

from pathlib import Path

import numpy as np
import pytest
import torch
from closeness import close, close_pixels
from hypothesis import given, settings
from hypothesis import strategies as st

from media.measure import Extent
from models.denoise.generate import Course, Denoiser, Prompted, Source, generate_latents, steps_done
from models.denoise.image_to_video import known_ends, source_of_first
from models.denoise.long_video import join, length_of, segments_for
from models.denoise.objectives import Kind, make_objective
from models.denoise.samplers import SAMPLERS, make_scheduler
from models.denoise.video_to_video import latent_mask, lay_over
from models.errors import ModelError
from models.transformers.conditioning import Conditioning
from models.vae.video_vae import PRESETS, build_vae, encode
from sampling.media import MediaFile, Medium, size_for

torch.set_num_threads(1)
SHAPE = (4, 3, 4, 4)
PAIRS = [(name, kind) for name, sampler in SAMPLERS.items() for kind in sampler.objectives]
STEPS = 20


class Perfect:
    """A network that knows the one video there is."""

    def __init__(self, kind: Kind, data: torch.Tensor):
        self.kind, self.data, self.calls = kind, data, 0
        self.schedule = getattr(make_objective(kind), "schedule", None)

    def predict(self, model: object, latents: torch.Tensor, levels: torch.Tensor, seen: Conditioning) -> torch.Tensor:
        self.calls += 1
        if self.kind == "flow":
            return (latents - self.data) / (levels / 1000).clamp(min=1e-4).view(-1, 1, 1, 1, 1)
        alpha = self.schedule.alphas_cumprod[levels.round().long().clamp(0, 999)].view(-1, 1, 1, 1, 1)
        noise = (latents - alpha.sqrt() * self.data) / (1 - alpha).sqrt()
        return noise if self.kind == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * self.data


def draw(seed: int) -> torch.Tensor:
    return torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(seed))


def run(name: str, kind: Kind, network: Perfect, source: Source | None) -> torch.Tensor:
    scheduler = make_scheduler(make_objective(kind).scheduler_config(), STEPS, name)
    return generate_latents(
        Denoiser(network, torch.nn.Identity(), scheduler),
        Prompted(Conditioning(torch.zeros(1, 1, 1)), None, 1.0),
        SHAPE,
        Course(STEPS, source),
        torch.Generator().manual_seed(0),
    )


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_strength_0_gives_the_source_back_and_strength_1_forgets_it(name: str, kind: Kind) -> None:
    data, source = draw(1), draw(2)
    network = Perfect(kind, data)
    assert torch.equal(run(name, kind, network, Source(source, 0.0)), source)
    assert network.calls == 0
    assert close(run(name, kind, network, Source(source, 1.0)), run(name, kind, network, None))


@pytest.mark.parametrize(("name", "kind"), PAIRS)
@pytest.mark.parametrize("strength", [0.3, 0.75])
def test_a_part_of_the_steps_ends_where_all_of_them_do(name: str, kind: Kind, strength: float) -> None:
    data = draw(1)
    whole, part = Perfect(kind, data), Perfect(kind, data)
    error = (run(name, kind, whole, None) - data).abs().max()
    from_source = run(name, kind, part, Source(draw(2), strength))
    assert (from_source - data).abs().max() < max(0.02, 1.5 * float(error))
    assert 0 < part.calls < whole.calls * (strength + 0.1) + 1


@pytest.mark.parametrize(("name", "kind"), PAIRS)
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_what_a_mask_keeps_is_the_sources_and_the_rest_is_not(name: str, kind: Kind, strength: float) -> None:
    data, source = draw(1), draw(2)
    mask = torch.zeros(1, 1, *SHAPE[1:])
    mask[..., 2:] = 1
    made = run(name, kind, Perfect(kind, data), Source(source, strength, mask))
    assert torch.equal(made[..., :2], source[..., :2])
    assert (made - data)[..., 2:].abs().max() < 0.25


def test_kept_latents_have_the_noise_of_the_step_that_sees_them() -> None:
    data, source = draw(1), draw(2)
    mask = torch.zeros(1, 1, *SHAPE[1:])
    seen = []

    class Watching(Perfect):
        def predict(self, model, latents, levels, conditioning):
            seen.append((float(levels[0]) / 1000, latents.clone()))
            return super().predict(model, latents, levels, conditioning)

    run("flow_euler", "flow", Watching("flow", data), Source(source, mask=mask))
    noise = seen[0][1]  # all noise
    for sigma, latents in seen[1:]:
        assert torch.allclose(latents, (1 - sigma) * source + sigma * noise, atol=1e-5)


def test_steps_are_counted_as_diffusers_counts_them() -> None:
    assert [steps_done(50, s) for s in (0.0, 0.01, 0.5, 0.58, 0.7, 1.0)] == [0, 0, 25, 29, 35, 50]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**31))
def test_a_latent_is_generated_if_any_pixel_of_it_is(more: int, height: int, width: int, seed: int) -> None:
    shape = (1, 1, 4 * more + 1, 8 * height, 8 * width)
    pixels = (np.random.default_rng(seed).random(shape) < 0.002).astype(np.float32)
    found = latent_mask(torch.from_numpy(pixels)).numpy()[0, 0]
    assert found.shape == (more + 1, height, width)
    for frame, row, column in np.ndindex(*found.shape):
        first, last = (0, 1) if frame == 0 else (4 * frame - 3, 4 * frame + 1)
        part = pixels[0, 0, first:last, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        assert found[frame, row, column] == part.max()


def test_first_and_last_frames_are_known_and_no_other() -> None:
    first, last = torch.full((1, 3, 2, 8, 8), 0.5), torch.full((1, 3, 1, 8, 8), -0.5)
    known = known_ends(first, last, 9)
    assert known.mask[0, 0, :, 0, 0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 0]
    assert (known.pixels[:, :, :2] == 0.5).all() and (known.pixels[:, :, -1] == -0.5).all()
    assert known_ends(None, last, 9).mask.sum() == 8 * 64
    with pytest.raises(ModelError, match="3 frames are given for a video of 2"):
        known_ends(first, last, 2)


def test_the_first_frames_latents_are_those_of_the_whole_video() -> None:
    torch.manual_seed(0)
    vae = build_vae(PRESETS["tiny"]).eval()
    video = torch.rand(1, 3, 13, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        whole = encode(vae, video)
    source = source_of_first(vae, video[:, :, :5], 13)
    assert torch.allclose(source.latents[:, :, :2], whole[:, :, :2], atol=1e-5)
    assert source.mask[0, 0, :, 0, 0].tolist() == [0, 0, 1, 1]
    with pytest.raises(ModelError, match="13 frames are given"):
        source_of_first(vae, video, 9)


def test_kept_pixels_are_laid_over_exactly() -> None:
    draw_pixels = np.random.default_rng(0)
    made, given_pixels = (draw_pixels.integers(0, 256, (3, 4, 4, 3), dtype=np.uint8) for _ in range(2))
    mask = np.zeros((3, 4, 4), np.float32)
    mask[:, :, 2:] = 1
    mixed = lay_over(made, given_pixels, mask)
    assert np.array_equal(mixed[:, :, :2], given_pixels[:, :, :2])
    assert np.array_equal(mixed[:, :, 2:], made[:, :, 2:])


@given(st.integers(1, 400), st.integers(1, 20), st.data())
def test_as_many_segments_as_a_length_takes_and_no_more(length: int, n: int, data: st.DataObject) -> None:
    num_frames = 4 * n + 1
    overlap = 4 * data.draw(st.integers(0, n - 1)) + 1
    segments = segments_for(length, num_frames, overlap)
    assert length_of(segments, num_frames, overlap) >= length
    assert segments == 1 or length_of(segments - 1, num_frames, overlap) < length


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**31))
def test_segments_that_agree_join_to_the_video_they_are_of(count: int, overlap: int, seed: int) -> None:
    num_frames = overlap + 3
    whole = np.random.default_rng(seed).integers(0, 256, (length_of(count, num_frames, overlap), 2, 2, 3), np.uint8)
    step = num_frames - overlap
    parts = [whole[place * step : place * step + num_frames] for place in range(count)]
    assert close_pixels(join(parts, overlap), whole)


def test_segments_that_differ_are_blended_evenly() -> None:
    before, after = np.zeros((9, 1, 1, 3), np.uint8), np.full((9, 1, 1, 3), 240, np.uint8)
    joined = join([before, after], 5)[:, 0, 0, 0].astype(int)
    assert joined.tolist() == [0] * 4 + [40, 80, 120, 160, 200] + [240] * 4


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(32, 1024))
def test_a_size_for_an_image_keeps_area_and_aspect_as_near_as_16_allows(width: int, height: int, side: int) -> None:
    medium = Medium("image", MediaFile(Path("a"), "image", Extent(width, height, 1, 0.0)))
    found = size_for(medium, side * side)
    exact = (side * (width / height) ** 0.5, side * (height / width) ** 0.5)
    for length, ideal in zip(found, exact, strict=True):
        assert length % 16 == 0 and length >= 16
        assert abs(length - ideal) <= 8 + 1e-6 or (length == 16 and ideal < 16)
