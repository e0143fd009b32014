"""The factor that brings a trained VAE's latents to unit variance, as the transformer wants them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from core.errors import UserError
from models.vae.video_vae import encode_pixels, grid_of
from train_bridge.data.rows_file import read_rows
from train_bridge.loop.batches import VideoFrames
from train_bridge.loop.job import ROWS_FILE
from train_bridge.types import MicroBatch

Progress = Callable[[int, int], None]
"""called with clips done and in all"""


@torch.no_grad()
def measure_scale(
    vae: Any, run: Path, most_clips: int, device: torch.device, progress: Progress | None = None
) -> float:
    """Return 1 / deviation of the latents of training rows, as latent diffusion does (arXiv 2112.10752, appendix G).

    Args:
        vae: is moved to the device.
        run: the run's folder, whose training rows are measured.
        most_clips: so many are encoded at most, evenly over all rows.
        device: where they are encoded.
        progress: called before the first clip and after each.

    Raises:
        UserError: none of those clips can be read, or the VAE gives numbers that are not finite.
    """
    vae.to(device).eval()
    prepared = read_rows(run / ROWS_FILE, grid_of(vae))
    rows, read = spread(len(prepared.train), most_clips), VideoFrames(prepared.train)
    count, total, squares = 0, 0.0, 0.0
    for done, row in enumerate(rows):
        if progress is not None:
            progress(done, len(rows))
        bucket = prepared.train_buckets.buckets[int(prepared.train_buckets.options[row].max())]
        batch = read(MicroBatch(bucket, (row,), (1.0,)), (0,))
        if float(batch.weights.sum()) == 0:
            continue
        assert batch.frames is not None
        mean, logvar = encode_pixels(vae, batch.frames.to(device))
        count += mean.numel()
        total += float(mean.double().sum())
        squares += float((mean.double().square() + logvar.double().exp()).sum())
    if progress is not None:
        progress(len(rows), len(rows))
    fix = "see that the files are there, or set vae.measure_scale=false"
    if not count:
        raise UserError(f"{run}: none of {len(rows)} clips can be read to measure the latents' scale; {fix}")
    variance = squares / count - (total / count) ** 2
    if not math.isfinite(variance):
        raise UserError(f"{run}: the trained VAE's latents are not finite; train anew with a lower train.learning_rate")
    return 1.0 / math.sqrt(max(variance, 1e-12))


def spread(rows: int, most: int) -> list[int]:
    """Return at most so many positions, evenly over all rows and without repetition."""
    count = min(rows, most)
    return [place * rows // count for place in range(count)]
