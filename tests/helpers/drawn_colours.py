"""Pictures of known colours, in every way that a file can hold them."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from media.colour import LUMA_WEIGHTS
from media.tone_map import REFERENCE_WHITE_NITS, SDR_GAMMA, nits_to_pq

LIMITED, FULL = 1, 2  # AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG
FLAT = np.array([[230, 20, 20], [20, 200, 40], [25, 30, 220], [128, 128, 128], [222, 170, 140], [60, 190, 200]])
"""red, green, blue, grey, skin, cyan"""
BT709_TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def patches(width: int = 192, height: int = 128) -> np.ndarray:
    """Draw six flat patches above a gradient, uint8 (H, W, 3)."""
    picture = np.zeros((height, width, 3))
    columns = np.minimum(np.arange(width) * len(FLAT) // width, len(FLAT) - 1)
    picture[: height // 2] = FLAT[columns]
    ramp = np.linspace(0, 1, width)
    picture[height // 2 :] = np.stack([40 + 160 * ramp, 60 + 120 * ramp, 200 - 150 * ramp], axis=-1)
    return picture.round().astype(np.uint8)


def yuv(rgb: np.ndarray, matrix: int, full: bool, bits: int) -> list[np.ndarray]:
    """Convert R'G'B' 0..1 (H, W, 3) to codes of Y, Cb and Cr, by the equations of H.273."""
    kr, kb = LUMA_WEIGHTS[matrix]
    r, g, b = np.moveaxis(rgb, -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    step, top = 1 << bits - 8, (1 << bits) - 1
    if full:
        return [np.rint(v) for v in (y * top, cb * top + 128 * step, cr * top + 128 * step)]
    return [np.rint(v * step) for v in (219 * y + 16, 224 * cb + 128, 224 * cr + 128)]


def depth_of(pixel_format: str) -> int:
    return next((bits for bits in (16, 12, 10) if f"{bits}le" in pixel_format), 8)


def frame_of(rgb: np.ndarray, pixel_format: str, matrix: int, color_range: int) -> av.VideoFrame:
    """Make a frame of R'G'B' 0..1, converted here and not by FFmpeg."""
    height, width = rgb.shape[:2]
    bits = depth_of(pixel_format)
    frame = av.VideoFrame(width, height, pixel_format)
    top = (1 << bits) - 1
    if pixel_format.startswith("gbrp"):
        codes = [np.rint(rgb[..., i] * top) for i in (1, 2, 0)]
    elif pixel_format == "rgb24":
        codes = [np.rint(rgb * 255).reshape(height, -1)]
    else:
        codes = yuv(rgb, matrix, color_range == FULL, bits)[: len(frame.planes)]
    for plane, values in zip(frame.planes, codes, strict=True):
        down, across = -(-height // plane.height), -(-width // plane.width)
        if pixel_format != "rgb24" and (down, across) != (1, 1):
            padded = np.pad(values, ((0, -height % down), (0, -width % across)), mode="edge")
            values = padded.reshape(plane.height, down, plane.width, across).mean(axis=(1, 3)).round()
        line = np.frombuffer(plane, np.uint16 if bits > 8 else np.uint8).reshape(plane.height, -1)
        line[:, : values.shape[1]] = np.clip(values, 0, top)
    frame.colorspace, frame.color_range = (0 if pixel_format[0] in "gr" else matrix), color_range
    return frame


def write_frames(
    path: Path,
    frames: Iterable[av.VideoFrame],
    codec: str = "ffv1",
    *,
    fps: float = 25,
    options: dict[str, str] | None = None,
    tags: tuple[int, int, int] | None = None,
    turn: Sequence[int] | None = None,
    sample_aspect: Fraction | None = None,
) -> Path:
    """Write frames as they are.

    Args:
        path: file to write.
        frames: of one format and size.
        codec: FFmpeg's name of the encoder; ffv1 is lossless and takes every format.
        fps: frame rate.
        options: the encoder's.
        tags: primaries, transfer and matrix; null: untagged primaries and transfer, the frames' own matrix.
        turn: a display matrix.
        sample_aspect: width of a pixel over its height.
    """
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w") as container:
        stream = None
        for index, frame in enumerate(frames):
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options=options or {})
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
                context = stream.codec_context
                context.thread_count = 1
                context.colorspace, context.color_range = frame.colorspace, frame.color_range
                if tags is not None:
                    context.color_primaries, context.color_trc, context.colorspace = tags
                if sample_aspect is not None:
                    context.sample_aspect_ratio = sample_aspect
                if turn is not None:
                    stream.set_display_matrix(turn)
            frame.pts, frame.time_base = index, 1 / rate
            if tags is not None:
                frame.color_primaries, frame.color_trc, frame.colorspace = tags
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decoded(path: Path) -> tuple[np.ndarray, av.VideoFrame]:
    """Decode a file's first frame; convert it to RGB, float (H, W, 3), by its own tags and the equations of H.273."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    return to_rgb(frame), frame


def to_rgb(frame: av.VideoFrame) -> np.ndarray:
    """Convert a 4:2:0 frame by its tags: float (H, W, 3), 0..255."""
    bits = depth_of(frame.format.name)
    planes = []
    for plane in frame.planes:
        line = np.frombuffer(plane, np.uint16 if bits > 8 else np.uint8).reshape(plane.height, -1)
        planes.append(line[:, : plane.width].astype(float) / (1 << bits - 8))
    y, cb, cr = planes[0], *(np.repeat(np.repeat(p, 2, 0), 2, 1) for p in planes[1:])
    cb, cr = (p[: y.shape[0], : y.shape[1]] for p in (cb, cr))
    kr, kb = LUMA_WEIGHTS[frame.colorspace]
    y, cb, cr = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
    r, b = y + (2 - 2 * kr) * cr, y + (2 - 2 * kb) * cb
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    return np.stack([r, g, b], axis=-1) * 255


def hdr_of(sdr: np.ndarray, transfer: str) -> np.ndarray:
    """Put an SDR picture, uint8 (H, W, 3), into HDR as BT.2408 says: R'G'B' 0..1 of BT.2020, PQ or HLG."""
    nits = (sdr / 255) ** SDR_GAMMA @ BT709_TO_BT2020.T * REFERENCE_WHITE_NITS
    if transfer == "pq":
        return nits_to_pq(nits)
    light = nits / 1000
    luma = np.maximum(light @ [0.2627, 0.6780, 0.0593], 1e-9)[..., None]
    scene = light * luma ** ((1 - 1.2) / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


def moving_bars(time: float, width: int = 320, height: int = 240, step_px: float = 8.0) -> np.ndarray:
    """Draw slanted bars over a textured wall at a time in frames, uint8 (H, W, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    bars = ((x + 0.25 * y - step_px * time) // 40) % 2 == 0
    wall = 90 + 30 * np.sin(x / 9) * np.cos(y / 13)
    return np.repeat(np.where(bars, 215, wall)[..., None], 3, axis=2).astype(np.uint8)


def woven(pictures: Sequence[np.ndarray], first_field: str) -> list[np.ndarray]:
    """Weave pictures, two to a frame, as an interlaced camera does: lines of `first_field` from the earlier one."""
    frames = []
    for earlier, later in zip(pictures[::2], pictures[1::2], strict=True):
        frame = later.copy()
        start = 0 if first_field == "tff" else 1
        frame[start::2] = earlier[start::2]
        frames.append(frame)
    return frames


def write_rgb(path: Path, pictures: Iterable[np.ndarray], **options) -> Path:
    """Write pictures as H.264 of BT.709, options as of `write_frames`."""
    options = {"codec": "libx264", "options": {"preset": "ultrafast", "crf": "12"}} | options
    return write_frames(path, [frame_of(p / 255, "yuv420p", 1, LIMITED) for p in pictures], **options)
