"""Small views of a decoded frame, scaled straight from its YUV planes.

Converting every frame to RGB at full size costs about as much as decoding it; scaling the planes that the
decoder has already written costs a few percent of that.
"""

from functools import lru_cache
from threading import get_ident

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from media.colour import BT709, FULL_RANGE, LIMITED_RANGE, LUMA_WEIGHTS, SMPTE170M, chroma_table, luma_table
from media.orientation import upright
from media.tone_map import WHITE_CODE

BLACK_CODE, LUMA_CODES = 16, 219
"""of limited range with 8 bits: black, and how many codes white is above it"""
# Planar and semi-planar formats read in place; anything else goes through swscale once.
_SHALLOW = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12"})
_DEEP = {f"{name}{bits}le": bits for name in ("yuv420p", "yuv422p", "yuv444p") for bits in (10, 12)}


def scaled_size(width_px: int, height_px: int, short_side_px: int | None) -> tuple[int, int]:
    """Return (width, height) with the shorter side at `short_side_px`, never enlarged, at least 2 px each."""
    short = min(width_px, height_px)
    if short_side_px is None or short <= short_side_px:
        return width_px, height_px
    scale = short_side_px / short
    return max(2, round(width_px * scale)), max(2, round(height_px * scale))


def gray(
    frame: VideoFrame,
    width_px: int,
    height_px: int,
    rotation_deg: int,
    interpolation: int,
    *,
    is_mirrored: bool = False,
) -> np.ndarray:
    """Return full-range luma of the frame's own matrix, uint8 (height_px, width_px) as displayed.

    Only the luma plane is scaled, so that the levels are the same whatever size, depth and chroma the frame has.

    Args:
        frame: decoded frame of any pixel format, as `colour.settled` gives it.
        width_px: displayed width wanted.
        height_px: displayed height wanted.
        rotation_deg: clockwise turn that shows the frame upright.
        interpolation: `cv2.INTER_AREA`, by which each pixel is the mean of what it covers; or another of its constants.
        is_mirrored: left and right are exchanged before the turn.
    """
    frame = _readable(frame)
    small = _scaled_plane(frame, 0, _stored_size(width_px, height_px, rotation_deg), interpolation)
    return upright(
        _looked_up(small, luma_table(_bits(frame), full_range=_is_full_range(frame))),
        rotation_deg,
        is_mirrored=is_mirrored,
    )


def gray_into(frame: VideoFrame, luma: np.ndarray) -> None:
    """Write what `gray` returns of a frame as it is stored into uint8 (H, W): in no new memory, half the time."""
    plane = _plane(frame, 0)
    if _is_full_range(frame):
        np.copyto(luma, plane)
        return
    cv2.max(plane, BLACK_CODE, dst=luma)  # type: ignore[call-overload]
    # As `luma_table` says it, in half the time: no code comes out halfway between two levels.
    cv2.convertScaleAbs(luma, luma, 255 / LUMA_CODES, -255 / LUMA_CODES * BLACK_CODE)


def chroma(
    frame: VideoFrame, width_px: int, height_px: int, rotation_deg: int, *, is_mirrored: bool = False
) -> np.ndarray:
    """Return chroma of the frame's own matrix, uint8 (2, height_px, width_px) as displayed, 128 = grey."""
    frame = _readable(frame)
    size = _stored_size(width_px, height_px, rotation_deg)
    if frame.format.name == "gray":
        return np.full((2, height_px, width_px), 128, np.uint8)
    pair = np.concatenate(_scaled_chroma(frame, size))
    both = _looked_up(pair, chroma_table(_bits(frame), full_range=_is_full_range(frame))).reshape(2, size[1], size[0])
    if not rotation_deg and not is_mirrored:
        return both
    return np.stack([upright(plane, rotation_deg, is_mirrored=is_mirrored) for plane in both])


def matrix(frame: VideoFrame) -> int:
    """Return the AVCOL_SPC that `gray` and `chroma` are of."""
    tagged = frame.colorspace
    if tagged in LUMA_WEIGHTS:
        return tagged
    return BT709 if frame.format.is_rgb else SMPTE170M


def rgb(
    frame: VideoFrame, width_px: int, height_px: int, rotation_deg: int, *, is_mirrored: bool = False
) -> np.ndarray:
    """Return R'G'B' as coded, uint8 (height_px, width_px, 3) as displayed; HDR is not tone-mapped here."""
    width, height = _stored_size(width_px, height_px, rotation_deg)
    name = frame.format.name
    if (name in _SHALLOW or name in _DEEP) and width < frame.width and height <= frame.height:
        # Planes apart, each of them only scaled: half the time of swscale, which is this exact with full chroma alone.
        luma = _scaled_plane(frame, 0, (width, height), cv2.INTER_AREA)
        codes = cv2.merge([luma, *_scaled_chroma(frame, (width, height), cv2.INTER_AREA)])
        picture = np.asarray(
            cv2.transform(codes, _to_rgb(matrix(frame), _bits(frame), 255, is_full_range=_is_full_range(frame)))
        )
        small = picture if picture.dtype == np.uint8 else np.minimum(picture, 255).astype(np.uint8)
        return upright(small, rotation_deg, is_mirrored=is_mirrored)
    larger = width * height > frame.width * frame.height
    converted = reformatted(frame, width, height, "rgb24", "BICUBIC" if larger else "AREA")
    return upright(converted.to_ndarray(), rotation_deg, is_mirrored=is_mirrored)


def deep_rgb(frame: VideoFrame, width_px: int, height_px: int, interpolation: int) -> np.ndarray:
    """Return R'G'B' as coded and as stored, uint16 (height_px, width_px, 3), 0 to `WHITE_CODE`.

    Args:
        frame: decoded frame of any pixel format.
        width_px: stored width wanted.
        height_px: stored height wanted.
        interpolation: `cv2.INTER_LINEAR`, the cheapest, or `cv2.INTER_AREA`.
    """
    larger = width_px * height_px > frame.width * frame.height
    if interpolation != cv2.INTER_LINEAR or frame.format.name not in _DEEP:
        how = "BICUBIC" if larger else "AREA"
        # Planar: swscale's packed 16-bit RGB has wrong colours at some sizes and flags.
        return reformatted(frame, width_px, height_px, "gbrp16le", how).to_ndarray()
    size, bits = (width_px, height_px), _bits(frame)
    luma = _scaled_plane(frame, 0, size, interpolation)
    codes = cv2.merge([luma, *_scaled_chroma(frame, size)]).astype(np.float32)
    affine = _to_rgb(matrix(frame), bits, WHITE_CODE, is_full_range=_is_full_range(frame))
    return np.clip(cv2.transform(codes, affine), 0, 65535).astype(np.uint16)


@lru_cache(32)
def _to_rgb(matrix_of: int, bits: int, white: int, *, is_full_range: bool) -> np.ndarray:
    """Return float32 (3, 4): from codes of Y, Cb and Cr, and 1, to R'G'B' of 0 to `white`."""
    kr, kb = LUMA_WEIGHTS[matrix_of]
    black, steps = (0, (1 << bits) - 1) if is_full_range else (16 << bits - 8, 219 << bits - 8)
    y, c, grey = white / steps, white / (steps if is_full_range else 224 << bits - 8), 1 << bits - 1
    red, blue = 2 * (1 - kr) * c, 2 * (1 - kb) * c
    green_u, green_v = -kb / (1 - kr - kb) * blue, -kr / (1 - kr - kb) * red
    rows = [
        [y, 0, red, -y * black - red * grey],
        [y, green_u, green_v, -y * black - (green_u + green_v) * grey],
        [y, blue, 0, -y * black - blue * grey],
    ]
    return np.array(rows, np.float32)


def reformatted(frame: VideoFrame, width_px: int, height_px: int, pixel_format: str, interpolation: str) -> VideoFrame:
    """Scale and convert with swscale, as stored; YUV keeps its matrix and range, RGB becomes limited BT.709."""
    kind = (frame.width, frame.height, frame.format.name, width_px, height_px, pixel_format, interpolation)
    range_to, matrix_to = frame.color_range, None
    if pixel_format in ("rgb24", "gbrp16le"):
        range_to = FULL_RANGE
    elif frame.format.is_rgb:
        range_to, matrix_to = LIMITED_RANGE, BT709
    return _reformatter(get_ident(), *kind).reformat(
        frame,
        width_px,
        height_px,
        pixel_format,
        dst_colorspace=matrix_to,
        dst_color_range=range_to,
        interpolation=int(Interpolation[interpolation] | Interpolation.FULL_CHR_H_INT),  # else off by 2 levels
        threads=1,
    )


@lru_cache(16)
def _reformatter(thread: int, *kind: object) -> VideoReformatter:
    """Return what converts frames of one kind in one thread: to set one up costs several times what it then does."""
    return VideoReformatter()


def _readable(frame: VideoFrame) -> VideoFrame:
    name = frame.format.name
    if name in _SHALLOW or name in _DEEP or name == "gray":
        return frame
    return reformatted(frame, frame.width, frame.height, "yuv420p", "BILINEAR")


def _stored_size(width_px: int, height_px: int, rotation_deg: int) -> tuple[int, int]:
    return (height_px, width_px) if rotation_deg % 180 else (width_px, height_px)


def _plane(frame: VideoFrame, index: int) -> np.ndarray:
    """Wrap a plane without copying: (H, W), or (H, 2W) for interleaved chroma."""
    plane = frame.planes[index]
    dtype = np.uint16 if frame.format.name in _DEEP else np.uint8
    line = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, plane.line_size // np.dtype(dtype).itemsize)
    return line if frame.format.name == "nv12" and index == 1 else line[:, : plane.width]


def _scaled_plane(frame: VideoFrame, index: int, size: tuple[int, int], interpolation: int) -> np.ndarray:
    """Scale a plane's codes, uint8 or uint16 (H, W), to (width, height)."""
    plane = _plane(frame, index)
    if (plane.shape[1], plane.shape[0]) == size:
        return plane
    if interpolation != cv2.INTER_AREA:
        return cv2.resize(plane, size, interpolation=interpolation)
    if halvings := _halvings(plane, size):
        for _ in range(halvings):  # which OpenCV does 20 times as fast as any other scaling by area
            plane = cv2.resize(plane, (plane.shape[1] // 2, plane.shape[0] // 2), interpolation=cv2.INTER_AREA)
        return plane
    name = "gray" if plane.dtype == np.uint8 else f"gray{_bits(frame)}le"
    alone = VideoFrame.from_numpy_buffer(plane, name, plane.shape[1])  # of one plane and no colour, so only scaled
    alone.color_range = FULL_RANGE
    scaled = reformatted(alone, *size, name, "AREA").planes[0]
    return np.frombuffer(memoryview(scaled), plane.dtype).reshape(size[1], -1)[:, : size[0]]


def _scaled_chroma(frame: VideoFrame, size: tuple[int, int], interpolation: int = cv2.INTER_LINEAR) -> list[np.ndarray]:
    """Scale both planes of chroma to (width, height), bilinear where they are enlarged."""
    if frame.format.name != "nv12":
        is_larger = frame.planes[1].width > size[0] and frame.planes[1].height > size[1]
        how = interpolation if is_larger else cv2.INTER_LINEAR
        return [_scaled_plane(frame, index, size, how) for index in (1, 2)]
    both = _plane(frame, 1)
    halves = both.reshape(both.shape[0], -1, 2)[:, : (frame.width + 1) // 2]
    return list(np.moveaxis(cv2.resize(halves, size, interpolation=cv2.INTER_LINEAR), 2, 0))


def _halvings(plane: np.ndarray, size: tuple[int, int]) -> int | None:
    """Return how many times a plane must be halved to be of (width, height); None where halving does not lead there."""
    for count in range(1, 7):
        if (size[0] << count, size[1] << count) == (plane.shape[1], plane.shape[0]):
            return count
    return None


def _bits(frame: VideoFrame) -> int:
    return _DEEP.get(frame.format.name, 8)


def _looked_up(codes: np.ndarray, table: np.ndarray) -> np.ndarray:
    return cv2.LUT(codes, table) if codes.dtype == np.uint8 else np.take(table, codes, mode="clip")


def _is_full_range(frame: VideoFrame) -> bool:
    return frame.color_range == FULL_RANGE or frame.format.name.startswith("yuvj") or frame.format.name == "gray"
