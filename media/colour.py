"""What the codes of a decoded frame mean: its matrix, range, transfer and primaries, settled once for all that follows.

Files leave these tags out, or give ones that FFmpeg cannot convert. `settled` gives every frame tags that it can,
by these rules (numbers are those of ITU-T H.273):

- range: as tagged; untagged YUV is limited, grey and RGB are full. Grey comes out full, with 8 bits.
- matrix: as tagged where it is BT.709, BT.470BG, SMPTE 170M, FCC, SMPTE 240M or BT.2020 non-constant luminance.
  Untagged and unknown ones go by the picture's size, as players do: BT.709 from 1280 px of width or 577 px of height
  on, else BT.601; BT.2020 with an HDR transfer. BT.2020 constant luminance and ICtCp are read as BT.2020
  non-constant, chroma-derived ones by their primaries, and YCgCo is converted to RGB here.
- transfer: those of SDR displays, PQ and HLG as tagged; any other (linear, logarithmic, reserved) becomes
  "unspecified": codes are shown as they are.
- transparency is laid on black.
"""

from functools import lru_cache

import av
import cv2
import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from core.errors import MediaError

LIMITED_RANGE, FULL_RANGE = 1, 2  # AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG
RGB, BT709, UNSPECIFIED, FCC, BT470BG, SMPTE170M, SMPTE240M, YCGCO, BT2020 = 0, 1, 2, 4, 5, 6, 7, 8, 9
BT2020_PRIMARIES = 9
PQ, HLG = 16, 18  # SMPTE 2084, ARIB STD-B67
BLACK = (0, 0, 0)
"""what lies behind transparent pixels"""

LUMA_WEIGHTS = {
    BT709: (0.2126, 0.0722),
    FCC: (0.30, 0.11),
    BT470BG: (0.299, 0.114),
    SMPTE170M: (0.299, 0.114),
    SMPTE240M: (0.212, 0.087),
    BT2020: (0.2627, 0.0593),
}
"""(Kr, Kb) of the matrices that can be converted, H.273 table 4"""
MATRIX_NAMES = {
    RGB: "gbr", BT709: "bt709", FCC: "fcc", BT470BG: "bt470bg", SMPTE170M: "smpte170m", SMPTE240M: "smpte240m",
    BT2020: "bt2020nc",
}  # fmt: skip
"""as FFmpeg's filters call them"""
_NEAREST = {10: BT2020, 14: BT2020}  # BT.2020 constant luminance, ICtCp
_DERIVED = frozenset({12, 13})  # from the primaries
_MATRIX_OF_PRIMARIES = {1: BT709, 4: FCC, 5: BT470BG, 6: SMPTE170M, 7: SMPTE240M, 9: BT2020}
_SDR_TRANSFERS = frozenset({1, 4, 5, 6, 7, 11, 12, 13, 14, 15})
_PRIMARIES = frozenset({1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 22})


def settled(frame: VideoFrame) -> VideoFrame:
    """Return a frame with tags that can be converted, opaque; the frame itself, tagged anew, where that is enough.

    Raises:
        MediaError: FFmpeg cannot convert its pixel format.
    """
    kind = _kind(frame.format.name)
    if kind == "gray":
        return _full_gray(frame)
    if frame.color_trc not in _SDR_TRANSFERS and frame.color_trc not in (PQ, HLG):
        frame.color_trc = UNSPECIFIED
    if frame.color_primaries not in _PRIMARIES:
        frame.color_primaries = BT2020_PRIMARIES if is_hdr(frame) else UNSPECIFIED
    if frame.format.is_rgb or frame.format.has_palette:
        frame.colorspace, frame.color_range = RGB, FULL_RANGE
    else:
        full = frame.color_range == FULL_RANGE or frame.format.name.startswith("yuvj")
        frame.color_range = FULL_RANGE if full else LIMITED_RANGE
        if frame.colorspace == YCGCO:
            return _from_ycgco(frame)
        frame.colorspace = _matrix(frame)
    return _opaque(frame) if kind == "alpha" else frame


def is_hdr(frame: VideoFrame) -> bool:
    """Return whether a frame's transfer is PQ or HLG."""
    return frame.color_trc in (PQ, HLG)


def tag_as(frame: VideoFrame, like: VideoFrame) -> VideoFrame:
    """Return a frame the time stamps and the transfer and primaries of another; return it."""
    frame.pts, frame.dts, frame.duration = like.pts, like.dts, like.duration
    if like.time_base is not None:
        frame.time_base = like.time_base
    frame.color_trc, frame.color_primaries = like.color_trc, like.color_primaries
    return frame


@lru_cache(64)
def _kind(pixel_format: str) -> str:
    """Name what must be done to a pixel format: `gray`, `alpha` (convert to RGB, opaque) or nothing (``)."""
    try:
        VideoFrame(16, 16, pixel_format).reformat(format="rgb24", threads=1)
    except (av.error.FFmpegError, OSError, ValueError):
        raise MediaError(f"pictures of the format {pixel_format} cannot be converted") from None
    components = VideoFormat(pixel_format).components
    if VideoFormat(pixel_format).has_palette or pixel_format.startswith("xyz") or any(c.is_alpha for c in components):
        return "alpha"
    return "gray" if len(components) == 1 else ""


def _matrix(frame: VideoFrame) -> int:
    tagged, primaries = frame.colorspace, frame.color_primaries
    if tagged in LUMA_WEIGHTS:
        return tagged
    if tagged in _NEAREST:
        return _NEAREST[tagged]
    if tagged in _DERIVED and primaries in _MATRIX_OF_PRIMARIES:
        return _MATRIX_OF_PRIMARIES[primaries]
    if is_hdr(frame):
        return BT2020
    if frame.width >= 1280 or frame.height > 576:
        return BT709
    return BT470BG if frame.height == 576 else SMPTE170M


def _opaque(frame: VideoFrame) -> VideoFrame:
    """Lay a frame's transparency on black: 8-bit RGB, or 16-bit for HDR."""
    deep = is_hdr(frame)
    pixels = frame.reformat(format="rgba64le" if deep else "rgba", threads=1).to_ndarray()
    alpha, top = pixels[..., 3], 65535 if deep else 255
    rgb = np.ascontiguousarray(pixels[..., :3])
    if alpha.min() < top:
        rgb = cv2.multiply(rgb, np.repeat(alpha[..., None], 3, axis=2), scale=1 / top)
    return _rgb_frame(rgb, frame)


def _from_ycgco(frame: VideoFrame) -> VideoFrame:
    """Convert YCgCo to RGB (H.273, equations 35 to 37): the same quantisation for all three components."""
    frame.colorspace = BT709  # neither side is converted: only chroma is brought to the size of luma
    codes = frame.reformat(format="yuv444p16le", threads=1).to_ndarray().astype(np.float32) / 256
    y, cg, co = codes[..., 0], codes[..., 1] - 128, codes[..., 2] - 128
    rgb = np.stack([y - cg + co, y + cg, y - cg - co], axis=-1)
    bits = frame.format.components[0].bits
    black, white = (0.0, 256 - 256 / (1 << bits)) if frame.color_range == FULL_RANGE else (16.0, 235.0)
    rgb = (rgb - black) * (255 / (white - black))
    return _rgb_frame(np.clip(np.rint(rgb), 0, 255).astype(np.uint8), frame)


def _rgb_frame(pixels: np.ndarray, like: VideoFrame) -> VideoFrame:
    name = "rgb48le" if pixels.dtype == np.uint16 else "rgb24"
    made = tag_as(VideoFrame.from_ndarray(pixels, format=name), like)
    made.colorspace, made.color_range = RGB, FULL_RANGE
    return made


def _full_gray(frame: VideoFrame) -> VideoFrame:
    """Return 8-bit full-range grey; swscale takes all grey for full, some codecs (AV1, HEVC) give limited."""
    bits, limited = frame.format.components[0].bits, frame.color_range == LIMITED_RANGE
    if frame.format.name == "gray" and not limited:
        frame.color_range = FULL_RANGE
        return frame
    if bits > 8:
        share = frame.reformat(format="gray16le", threads=1).to_ndarray().astype(np.float32) / 65535
        if limited:
            share = (share * (256 - 256 / (1 << min(bits, 16))) - 16) / 219
        codes = np.clip(np.rint(share * 255), 0, 255).astype(np.uint8)
    else:
        stored = np.asarray(frame.reformat(format="gray", threads=1).to_ndarray(), np.uint8)
        codes = np.asarray(cv2.LUT(stored, luma_table(8, full_range=False)), np.uint8) if limited else stored
    made = tag_as(VideoFrame.from_ndarray(codes, format="gray"), frame)
    made.color_range = FULL_RANGE
    return made


@lru_cache(8)
def luma_table(bits: int, *, full_range: bool) -> np.ndarray:
    """Return uint8 (2^bits,): the full-range luma, 0..255, of each code."""
    codes = np.arange(1 << bits, dtype=np.float64)
    share = codes / ((1 << bits) - 1) if full_range else (codes / (1 << bits - 8) - 16) / 219
    return np.clip(np.rint(share * 255), 0, 255).astype(np.uint8)


@lru_cache(8)
def chroma_table(bits: int, *, full_range: bool) -> np.ndarray:
    """Return uint8 (2^bits,): the full-range chroma, 128 = grey, of each code."""
    codes = np.arange(1 << bits, dtype=np.float64) / (1 << bits - 8) - 128
    share = codes / (255 if full_range else 224)
    return np.clip(np.rint(share * 255 + 128), 0, 255).astype(np.uint8)
