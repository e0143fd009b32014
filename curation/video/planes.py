"""Small views of a decoded frame, scaled straight from its YUV planes.

Converting every frame to RGB at full size costs about as much as decoding it; scaling the planes that the
decoder has already written costs a few percent of that.
"""

from functools import lru_cache
from threading import get_ident

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

# Planar and semi-planar formats read in place; anything else goes through swscale once.
_SUBSAMPLING = {"yuv420p": 2, "yuvj420p": 2, "yuv422p": 2, "yuvj422p": 2, "yuv444p": 1, "yuvj444p": 1, "nv12": 2}
_DEEP = {f"{name}{bits}le": bits for name in ("yuv420p", "yuv422p", "yuv444p") for bits in (10, 12)}
FULL_RANGE = 2  # AVCOL_RANGE_JPEG


def scaled_size(width_px: int, height_px: int, short_side_px: int | None) -> tuple[int, int]:
    """Give (width, height) with the shorter side at `short_side_px`, never enlarged, at least 2 px each."""
    short = min(width_px, height_px)
    if short_side_px is None or short <= short_side_px:
        return width_px, height_px
    scale = short_side_px / short
    return max(2, round(width_px * scale)), max(2, round(height_px * scale))


def turn(picture: np.ndarray, rotation_deg: int) -> np.ndarray:
    """Turn (..., H, W) or (H, W, 3) pixels clockwise by a multiple of 90 degrees."""
    if rotation_deg == 0:
        return picture
    axes = (0, 1) if picture.shape[-1] == 3 and picture.ndim == 3 else (-2, -1)
    return np.ascontiguousarray(np.rot90(picture, -rotation_deg // 90, axes=axes))


def gray(frame: VideoFrame, width_px: int, height_px: int, rotation_deg: int, interpolation: int) -> np.ndarray:
    """Give full-range luma, uint8 (height_px, width_px) as displayed.

    Args:
        frame: decoded frame of any pixel format.
        width_px: displayed width wanted.
        height_px: displayed height wanted.
        rotation_deg: clockwise turn that shows the frame upright.
        interpolation: `cv2.INTER_AREA`, by which each pixel is the mean of what it covers; or another of its constants.
    """
    frame = _readable(frame)
    size = (height_px, width_px) if rotation_deg % 180 else (width_px, height_px)
    smaller = size != (frame.width, frame.height)
    if interpolation != cv2.INTER_AREA or not smaller:
        small = _scaled_plane(frame, 0, size, interpolation)
    elif halvings := _halvings(frame, size):
        small = _plane(frame, 0)
        for _ in range(halvings):  # which OpenCV does 20 times as fast as any other scaling by area
            small = cv2.resize(small, (small.shape[1] // 2, small.shape[0] // 2), interpolation=cv2.INTER_AREA)
        small = _eight_bits(frame, small)
    else:
        small = _plane(reformatted(frame, *size, "gray", "AREA"), 0)  # full range already
        return turn(np.ascontiguousarray(small), rotation_deg)
    return turn(cv2.LUT(small, _luma_table(_is_full_range(frame))), rotation_deg)


def chroma(frame: VideoFrame, width_px: int, height_px: int, rotation_deg: int) -> np.ndarray:
    """Give chroma, uint8 (2, height_px, width_px) as displayed, 128 = grey."""
    frame = _readable(frame)
    size = (height_px, width_px) if rotation_deg % 180 else (width_px, height_px)
    if frame.format.name == "gray":
        pair = [np.full((size[1], size[0]), 128, np.uint8)] * 2
    elif frame.format.name == "nv12":
        both = _plane(frame, 1)
        halves = both.reshape(both.shape[0], -1, 2)[:, : (frame.width + 1) // 2]
        pair = list(np.moveaxis(cv2.resize(halves, size, interpolation=cv2.INTER_LINEAR), 2, 0))
    else:
        pair = [_scaled_plane(frame, i, size, cv2.INTER_LINEAR) for i in (1, 2)]
    both = cv2.LUT(np.concatenate(pair), _chroma_table(_is_full_range(frame))).reshape(2, size[1], size[0])
    return np.stack([turn(plane, rotation_deg) for plane in both]) if rotation_deg else both


def rgb(frame: VideoFrame, width_px: int, height_px: int, rotation_deg: int) -> np.ndarray:
    """Give RGB, uint8 (height_px, width_px, 3) as displayed; HDR code values are not tone-mapped."""
    width, height = (height_px, width_px) if rotation_deg % 180 else (width_px, height_px)
    smaller = width * height < frame.width * frame.height
    converted = reformatted(frame, width, height, "rgb24", "AREA" if smaller else "BICUBIC")
    return turn(converted.to_ndarray(), rotation_deg)


def reformatted(frame: VideoFrame, width_px: int, height_px: int, pixel_format: str, interpolation: str) -> VideoFrame:
    """Scale and convert with swscale, as stored."""
    kind = (frame.width, frame.height, frame.format.name, width_px, height_px, pixel_format, interpolation)
    return _reformatter(get_ident(), *kind).reformat(
        frame, width_px, height_px, pixel_format, interpolation=interpolation, threads=1
    )


@lru_cache(16)
def _reformatter(thread: int, *kind: object) -> VideoReformatter:
    """Give what converts frames of one kind in one thread: to set one up costs several times what it then does."""
    return VideoReformatter()


def _readable(frame: VideoFrame) -> VideoFrame:
    name = frame.format.name
    if name in _SUBSAMPLING or name in _DEEP or name == "gray":
        return frame
    return reformatted(frame, frame.width, frame.height, "yuv420p", "BILINEAR")


def _plane(frame: VideoFrame, index: int) -> np.ndarray:
    """Wrap a plane without copying: (H, W), or (H, 2W) for interleaved chroma."""
    plane = frame.planes[index]
    dtype = np.uint16 if frame.format.name in _DEEP else np.uint8
    line = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, plane.line_size // np.dtype(dtype).itemsize)
    return line if frame.format.name == "nv12" and index == 1 else line[:, : plane.width]


def _scaled_plane(frame: VideoFrame, index: int, size: tuple[int, int], interpolation: int) -> np.ndarray:
    plane = _plane(frame, index)
    small = plane if (plane.shape[1], plane.shape[0]) == size else cv2.resize(plane, size, interpolation=interpolation)
    return _eight_bits(frame, small)


def _eight_bits(frame: VideoFrame, plane: np.ndarray) -> np.ndarray:
    bits = _DEEP.get(frame.format.name)
    return (plane >> (bits - 8)).astype(np.uint8) if bits else np.ascontiguousarray(plane)


def _halvings(frame: VideoFrame, size: tuple[int, int]) -> int | None:
    """Give how many times a frame must be halved to be of (width, height); null when that is not how it gets there."""
    for count in range(1, 7):
        if (size[0] << count, size[1] << count) == (frame.width, frame.height):
            return count
    return None


def _is_full_range(frame: VideoFrame) -> bool:
    return frame.color_range == FULL_RANGE or frame.format.name.startswith("yuvj") or frame.format.name == "gray"


@lru_cache(2)
def _luma_table(full_range: bool) -> np.ndarray:
    codes = np.arange(256, dtype=np.float64)
    return (codes if full_range else np.clip(np.rint((codes - 16) * 255 / 219), 0, 255)).astype(np.uint8)


@lru_cache(2)
def _chroma_table(full_range: bool) -> np.ndarray:
    codes = np.arange(256, dtype=np.float64)
    return (codes if full_range else np.clip(np.rint((codes - 128) * 255 / 224 + 128), 0, 255)).astype(np.uint8)
