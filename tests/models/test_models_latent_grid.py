"""Grids of causal VAEs, of slices and of images: valid lengths, their latents, and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.geometry import MAGVIT, Bucket, LatentGrid

SLICE = LatentGrid(4, 8, 2, frames_per_slice=8)
MAGVIT4 = LatentGrid(4, 8, 2, frames_per_slice=9)
EIGHT = LatentGrid(8, 8, 2, frames_per_slice=8)
IMAGES = LatentGrid(1, 8, 2)
GRIDS = (MAGVIT, SLICE, MAGVIT4, EIGHT, IMAGES)


@pytest.mark.parametrize(
    ("grid", "frames", "latents"),
    [
        (SLICE, 1, 1), (SLICE, 8, 2), (SLICE, 24, 6), (SLICE, 144, 36), (MAGVIT4, 1, 1), (MAGVIT4, 9, 3),
        (MAGVIT4, 144, 48), (EIGHT, 8, 1), (EIGHT, 32, 4), (IMAGES, 1, 1), (IMAGES, 80, 80), (MAGVIT, 49, 13),
    ],
)  # fmt: skip
def test_published_lengths(grid: LatentGrid, frames: int, latents: int) -> None:
    assert grid.takes_frames(frames)
    assert grid.latent_frames(frames) == latents


@given(grid=st.sampled_from(GRIDS), frames=st.integers(1, 200))
def test_lengths_and_latents_belong_together(grid: LatentGrid, frames: int) -> None:
    low, high = grid.nearest_frames(frames)
    assert low <= frames < high and grid.takes_frames(low) and grid.takes_frames(high)
    assert not any(grid.takes_frames(n) for n in range(low + 1, high))
    assert grid.takes_frames(frames) == (low == frames)
    stand = grid.frames_of_latents(low)
    assert sum(stand) == low and len(stand) == grid.latent_frames(low)
    one_latent = grid is EIGHT and len(stand) == 1  # an image or a slice, which the number of latents does not tell
    assert grid.num_frames(len(stand)) == low or one_latent
    shortest = grid.shortest_with(len(stand))
    assert grid.takes_frames(shortest) and grid.latent_frames(shortest) >= len(stand)
    longest = grid.longest_with(len(stand))
    assert longest >= low and grid.latent_frames(longest) <= len(stand)


def test_a_latent_of_a_causal_slice_begins_with_one_frame() -> None:
    assert MAGVIT4.frames_of_latents(18) == (1, 4, 4, 1, 4, 4)
    assert SLICE.frames_of_latents(16) == (4, 4, 4, 4)
    assert MAGVIT.frames_of_latents(9) == (1, 4, 4)


def test_a_bucket_takes_what_its_grid_takes_and_is_named_without_it() -> None:
    assert Bucket(16, 32, 32, SLICE).latent_shape == (4, 4, 4)
    assert Bucket(16, 32, 32, SLICE).tokens == 4 * 2 * 2
    assert str(Bucket(16, 32, 32, SLICE)) == "16x32x32"
    with pytest.raises(ValueError, match="12 frames are not 8n or 1; the nearest are 8 and 16"):
        Bucket(12, 32, 32, SLICE)
    with pytest.raises(ValueError, match=r"16 frames are not 4n\+1; the nearest are 13 and 17"):
        Bucket(16, 32, 32)
    assert Bucket(1, 32, 32, SLICE) == Bucket(1, 32, 32), "the grid is the run's, not the bucket's"
