"""Draw moving pictures without a camera: textures, layers seen by a moving view, transitions, encoding.

Frames are uint8 (H, W, 3) RGB. Everything random takes a generator or a seed, so that equal calls draw equal
pictures.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from av.video.stream import VideoStream

Color = tuple[int, int, int]
Actor = Callable[[np.ndarray, float], None]
"""Draws something that moves by itself into a frame, at a time in seconds."""

PTS_PER_S = 90_000  # fine enough for any frame rate, and what MPEG streams use
VIDEO_OPTIONS = {"preset": "ultrafast", "crf": "22"}
# cv2 converts with the matrix of BT.601; said in the stream, so that players do not guess by size.
BT601 = 6


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int], octaves: int = 5) -> np.ndarray:
    """Return smooth natural-looking noise.

    Args:
        rng: source of randomness.
        shape: rows and columns of the result, px.
        cells: bumps down and across at the coarsest octave; unequal ones stretch the noise.
        octaves: each has twice the bumps and half the strength of the one before.

    Returns:
        float32 of `shape`, from 0 to 1.
    """
    height, width = shape
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        down, across = (min(n * 2**octave + 1, limit) for n, limit in zip(cells, shape, strict=True))
        grid = rng.random((down, across), np.float32)
        fine = down * 6 > height and across * 6 > width  # there cubic looks no better and costs twice
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR if fine else cv2.INTER_CUBIC) / (
            2**octave
        )
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def blend(a: Color | np.ndarray, b: Color | np.ndarray, share: np.ndarray) -> np.ndarray:
    """Mix two colours or pictures: `share` (H, W) of `b`, 0..1; float32 (H, W, 3), 0..255."""
    first, second = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return first + (second - first) * np.clip(share, 0, 1)[..., None]


def smooth_step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rise from 0 at `low` to 1 at `high`, smoothly."""
    x = np.clip((values - low) / (high - low), 0, 1)
    return x * x * (3 - 2 * x)


def to_pixels(picture: np.ndarray) -> np.ndarray:
    """Round a float picture (0..255) to uint8."""
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Layer:
    """A painted sheet of a scene.

    Attributes:
        pixels: uint8 (H, W, 3).
        opacity: float32 (H, W), 0..1; null: opaque everywhere (the backmost layer).
        depth: share of the camera's movement that it follows; near things move more than far ones.
        top_px: row of the scene at which the sheet begins.
    """

    pixels: np.ndarray
    opacity: np.ndarray | None = None
    depth: float = 1.0
    top_px: int = 0


Scene = tuple[Layer, ...]
"""Layers from back to front."""


def view(scene: Scene, x_px: float, y_px: float, zoom: float, size: tuple[int, int]) -> np.ndarray:
    """See a scene through a window.

    Args:
        scene: the layers; beyond their edges they are mirrored.
        x_px: the window's left edge on a layer of depth 1, in scene pixels, at zoom 1.
        y_px: its top edge.
        zoom: enlargement about the window's middle.
        size: width and height of the frame, px.

    Returns:
        uint8 (height, width, 3).
    """
    width, height = size
    margin_x, margin_y = width * (1 - 1 / zoom) / 2, height * (1 - 1 / zoom) / 2
    frame = np.empty((height, width, 3), np.uint8)
    for layer in scene:
        left, upper = x_px * layer.depth + margin_x, y_px + margin_y
        first = 0 if layer.opacity is None else max(0, int((layer.top_px - upper) * zoom))
        if first >= height:
            continue
        window = np.array([[1 / zoom, 0, left], [0, 1 / zoom, upper - layer.top_px + first / zoom]], np.float32)
        part = _shifted(layer.pixels, window, (width, height - first))
        if layer.opacity is not None:
            over = _shifted(layer.opacity, window, (width, height - first))
            part = cv2.blendLinear(part, frame[first:], over, 1 - over)
        frame[first:] = part
    return frame


def _shifted(picture: np.ndarray, window: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, window, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)


@dataclass(frozen=True, eq=False)
class Take:
    """A camera moving steadily over a scene; `frame(i)` draws any of its frames.

    Attributes:
        scene: what is seen.
        pan: speed of the camera to the right and down, percent of the frame's diagonal per second.
        zoom_per_s: relative growth of the picture per second.
        start: left and top of the view at the first frame, px.
        start_zoom: enlargement at the first frame.
        actors: what moves by itself.
        fps: frames per second.
        size: width and height, px.
    """

    scene: Scene
    pan: tuple[float, float] = (0.0, 0.0)
    zoom_per_s: float = 0.0
    start: tuple[float, float] = (0.0, 0.0)
    start_zoom: float = 1.0
    actors: tuple[Actor, ...] = ()
    fps: float = 24.0
    size: tuple[int, int] = (640, 360)

    def frame(self, index: int) -> np.ndarray:
        """Draw one frame."""
        time_s, diagonal_px = index / self.fps, float(np.hypot(*self.size))
        x, y = (s + p / 100 * diagonal_px * time_s for s, p in zip(self.start, self.pan, strict=True))
        frame = view(self.scene, x, y, self.start_zoom * float(np.exp(self.zoom_per_s * time_s)), self.size)
        for actor in self.actors:
            actor(frame, time_s)
        return frame

    def frames(self, start: int, end: int) -> Iterator[np.ndarray]:
        """Draw the frames `[start, end)`."""
        return (self.frame(index) for index in range(start, end))


def pan(texture: np.ndarray, speed_percent_per_s: float, num_frames: int, fps: float = 24.0) -> Iterator[np.ndarray]:
    """Yield views of 640x360 px that pan right over a texture (H, W, 3) at an exactly known speed."""
    return Take((Layer(texture),), pan=(speed_percent_per_s, 0.0), fps=fps).frames(0, num_frames)


def crossfade(a: Iterable[np.ndarray], b: Iterable[np.ndarray], num_frames: int) -> Iterator[np.ndarray]:
    """Dissolve from `a` to `b`: frame i has `(i + 1) / (num_frames + 1)` of `b`."""
    for i, (first, second) in enumerate(zip(a, b, strict=True)):
        share = (i + 1) / (num_frames + 1)
        yield cv2.addWeighted(first, 1 - share, second, share, 0)


def fade(frames: Iterable[np.ndarray], num_frames: int, *, out: bool) -> Iterator[np.ndarray]:
    """Fade to black (`out`) or from black over `num_frames`; the black itself is not among them."""
    for i, frame in enumerate(frames):
        light = (num_frames - i if out else i + 1) / (num_frames + 1)
        yield cv2.convertScaleAbs(frame, alpha=light)


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: float | Fraction = 24,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    rotation_deg: int = 0,
    pixel_format: str = "yuv420p",
    pts: Sequence[float] | None = None,
    sample_aspect: Fraction | None = None,
) -> None:
    """Encode frames with one thread; equal calls give equal bytes.

    Args:
        path: file to write; its extension chooses the container.
        frames: uint8 (H, W, 3) RGB as stored, that is before any rotation is applied.
        fps: frame rate; with `pts` only the nominal one.
        codec: FFmpeg's name of the encoder.
        options: encoder options; null: fast H.264 of good quality.
        rotation_deg: clockwise turn, in the container, that shows the picture upright: 0, 90, 180 or 270.
        pixel_format: FFmpeg's name; anything but even-sized `yuv420p` is converted by FFmpeg.
        pts: presentation time of every frame in seconds, for uneven frame rates.
        sample_aspect: width of a pixel over its height, when not square.
    """
    rate = Fraction(fps).limit_denominator(1_001_000)
    time_base = Fraction(1, PTS_PER_S) if pts is not None else 1 / rate
    if options is None:
        options = VIDEO_OPTIONS if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=rate, options=dict(options)))
        context = stream.codec_context
        context.thread_count = 1
        context.time_base = time_base
        context.pix_fmt = pixel_format
        if sample_aspect is not None:
            context.sample_aspect_ratio = sample_aspect
        if rotation_deg:
            stream.set_display_rotation(-rotation_deg)  # FFmpeg counts the other way round
        for i, pixels in enumerate(frames):
            if i == 0:
                context.height, context.width = pixels.shape[:2]
                context.colorspace = BT601
            frame = _video_frame(pixels, pixel_format)
            frame.pts = i if pts is None else round(pts[i] * PTS_PER_S)
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _video_frame(pixels: np.ndarray, pixel_format: str) -> av.VideoFrame:
    height, width = pixels.shape[:2]
    if pixel_format == "yuv420p" and width % 2 == 0 and height % 2 == 0:
        return av.VideoFrame.from_ndarray(
            np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV_I420), np.uint8), format="yuv420p"
        )
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return frame.reformat(format=pixel_format)
