"""What a control model sees in training: a map or a camera path, and a reference image, drawn by each row's seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.errors import MediaError
from models.conditions.camera_path import CameraPath
from models.conditions.control import at_first
from models.conditions.plucker import FACTOR, camera_channels
from models.conditions.spec import ConditionSpec, PartName
from models.geometry import Bucket
from models.vae.video_vae import channels_of, encode, from_latents, grid_of, scaling_factor_of, to_signed
from train_bridge.cache.build import EncodeFrames
from train_bridge.data.controls import control_row, read_camera
from train_bridge.data.media_process import Decoders
from train_bridge.data.spans import taken_span
from train_bridge.loop.batches import VideoFrames
from train_bridge.method_settings import ControlSettings
from train_bridge.methods.conditions import condition_generator
from train_bridge.methods.types import Batch
from train_bridge.types import MicroBatch, TrainRow

CLOCK_OFF = 0.1
"""share by which a path's own times may differ from its clip's length; else they are no times"""


@dataclass(frozen=True)
class Drawn:
    """What one row sees.

    Attributes:
        path: the map.
        sees_control: else zeros in its place.
        sees_reference: else zeros in its place.
        reference_frame: which frame is the reference image.
    """

    path: Path
    sees_control: bool
    sees_reference: bool
    reference_frame: int


def draw(row: TrainRow, shares: Mapping[str, float], settings: ControlSettings, num_frames: int, seed: int) -> Drawn:
    """Draw what a row sees; it follows from the seed alone.

    Args:
        row: with at least one map.
        shares: of each map by name, in any scale; 1 for one that is not named.
        settings: shares of what is left out.
        num_frames: of the clip as it is taken.
        seed: the row's.
    """
    generator = condition_generator(seed)
    weights = torch.tensor([shares.get(name, 1.0) for name, _ in row.controls])
    which = int(torch.multinomial(weights, 1, generator=generator))
    control, reference, first, place = torch.rand(4, generator=generator).tolist()
    frame = 0 if first < settings.reference_first else min(int(place * num_frames), num_frames - 1)
    return Drawn(
        row.controls[which][1], control >= settings.zeroed, reference >= settings.reference_zeroed, frame
    )  # fmt: skip


@dataclass
class MapLatents:
    """Latents of maps that are pictures: from the cache, or encoded when they are wanted.

    Attributes:
        rows: all rows.
        cached: (row that reads a map, bucket) → posterior mean (C, f, h, w); None: it is not in a cache.
        encode: uint8 frames (B, T, H, W, 3) → mean and logvar; None with a cache.
        decoders: processes that read frames.
    """

    rows: Sequence[TrainRow]
    cached: Callable[[TrainRow, Bucket], torch.Tensor | None]
    encode: EncodeFrames | None
    decoders: Decoders

    def __post_init__(self) -> None:
        """Assign a place to each map of the rows."""
        maps = [control_row(row, path) for row in self.rows for _, path in row.controls]
        self._places = {(one.row_id, one.path): place for place, one in enumerate(maps)}
        self._frames = VideoFrames(maps, decoders=self.decoders)

    def __call__(self, row: TrainRow, path: Path, bucket: Bucket) -> torch.Tensor:
        """Return the posterior's mean (C, f, h, w), unscaled.

        Raises:
            MediaError: it cannot be read.
        """
        if self.encode is None:
            found = self.cached(control_row(row, path), bucket)
            assert found is not None
            return found.float()
        frames = self._frames.frames_of(self._places[row.row_id, path], bucket)
        return self.encode(torch.from_numpy(frames)[None])[0][0].float()


@dataclass
class ControlInputs:
    """Makes the condition of a micro-batch.

    Attributes:
        rows: all rows, by position.
        spec: what the transformer sees.
        shares: of each map by name.
        settings: shares of what is left out.
        maps: latents of maps that are pictures.
        frames: of the clips, for reference images that are not their first frame.
        vae: encodes these.
    """

    rows: Sequence[TrainRow]
    spec: ConditionSpec
    shares: Mapping[str, float]
    settings: ControlSettings
    maps: MapLatents
    frames: VideoFrames
    vae: Any

    def __call__(self, micro: MicroBatch, seeds: tuple[int, ...], batch: Batch) -> tuple[torch.Tensor, list[int]]:
        """Return (B, channels, f, h, w), scaled, float32 on the CPU; and the places of rows that cannot be read."""
        assert batch.mean is not None
        conditions, unreadable = [], []
        for place, (row, seed) in enumerate(zip(micro.rows, seeds, strict=True)):
            drawn = draw(self.rows[row], self.shares, self.settings, micro.bucket.num_frames, seed)
            given: dict[PartName, torch.Tensor] = {}
            try:
                given = self._parts(row, drawn, micro.bucket, batch.mean[place])
            except MediaError as error:
                self.frames.unreadable[self.rows[row].row_id] = str(error)
                unreadable.append(place)
            conditions.append(self.spec.join(given, (1, *batch.mean.shape[1:])))
        return torch.cat(conditions), unreadable

    def _parts(self, row: int, drawn: Drawn, bucket: Bucket, mean: torch.Tensor) -> dict[PartName, torch.Tensor]:
        scale: float = scaling_factor_of(self.vae)
        given: dict[PartName, torch.Tensor] = {}
        if drawn.sees_control and "camera" in self.spec:
            path = taken_path(read_camera(drawn.path), self.rows[row], bucket)
            given["camera"] = camera_channels(path, bucket.height_px, bucket.width_px, bucket.latent_shape)
        elif drawn.sees_control:
            given["control"] = self.maps(self.rows[row], drawn.path, bucket)[None] * scale
        if drawn.sees_reference and "reference" in self.spec and mean.shape[1] > 1:
            given["reference"] = at_first(self._reference(row, drawn, bucket, mean), mean.shape[1])
        return given

    @torch.no_grad()
    def _reference(self, row: int, drawn: Drawn, bucket: Bucket, mean: torch.Tensor) -> torch.Tensor:
        if drawn.reference_frame == 0 and not grid_of(self.vae).frames_per_slice:  # its latent is of this frame alone
            return mean[None, :, :1].float().cpu() * scaling_factor_of(self.vae)
        frames = self.frames.frames_of(row, bucket)
        one = torch.from_numpy(frames[drawn.reference_frame, None])[None]
        return encode(self.vae, to_signed(one.to(self.vae.device), self.vae.dtype)).float().cpu()


def taken_path(path: CameraPath, row: TrainRow, bucket: Bucket) -> CameraPath:
    """Return the poses on screen at the frames that a bucket takes of a row."""
    assert row.num_frames and row.duration_s is not None
    if row.kind == "image" or not row.duration_s:
        return path.spread(bucket.num_frames)
    begin_s, end_s = taken_span(row, bucket) or (0.0, None)
    length_s = (end_s if end_s is not None else begin_s + row.duration_s) - begin_s
    times_s = begin_s + (np.arange(bucket.num_frames) + 0.5) * length_s / bucket.num_frames
    rate_fps = row.num_frames / row.duration_s
    shown_s = path.times_s - path.times_s[0]
    off = abs(shown_s[-1] * rate_fps - (len(path) - 1))
    is_clock = bool((np.diff(shown_s) > 0).all()) and off <= CLOCK_OFF * len(path)
    places = np.searchsorted(shown_s, times_s, "right") - 1 if is_clock else (times_s * rate_fps).astype(int)
    return path.taken(np.clip(places, 0, len(path) - 1))


@torch.no_grad()
def show_control(vae: Any, spec: ConditionSpec, condition: torch.Tensor) -> np.ndarray:
    """Show people what the network sees: the map decoded, or the direction of each pixel's ray as colours.

    Args:
        vae: decodes.
        spec: the layout of the condition.
        condition: (B, channels, f, h, w).

    Returns:
        uint8 (B, T, H, W, 3).
    """
    place = spec.places(channels_of(vae))["camera" if "camera" in spec else "control"]
    seen = condition[:, place].to(vae.device, torch.float32)
    if "camera" in spec:
        grid = grid_of(vae)
        height, width = (grid.pixels_per_latent * side for side in seen.shape[3:])
        times = grid.num_frames(seen.shape[2])
        pixels = torch.nn.functional.interpolate(seen[:, 3:] / FACTOR, (times, height, width), mode="nearest")
    else:
        pixels = torch.cat([from_latents(vae, one[None]) for one in seen]).float()
    shown = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return shown.permute(0, 2, 3, 4, 1).cpu().numpy()
