"""From decoded frames to the pictures that are written: upright, cropped, scaled, 4:2:0, with colours that are said."""

import math
import tempfile
from fractions import Fraction
from typing import NamedTuple

import av
from av.filter import Graph
from av.filter.context import FilterContext
from av.video.frame import VideoFrame

from media.colour import BT709, LIMITED_RANGE, LUMA_WEIGHTS, MATRIX_NAMES, is_hdr, settled
from media.deinterlace import source_for
from media.orientation import filters
from media.settings import CutSettings
from media.tone_map import cube
from media.types import SourceFacts

Box = tuple[float, float, float, float]
"""left, top, right, bottom as shares of the displayed picture"""

TICKS = Fraction(1, 90000)
"""Time base of written frames: fine enough for every frame rate in use, coarse enough for any muxer."""

_EXACT = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"


def target_size(facts: SourceFacts, cut: CutSettings, box: Box | None) -> tuple[int, int]:
    """Return the written (width, height): the displayed picture, cropped, shrunk, and even as 4:2:0 needs."""
    width, height = facts.width_px, facts.height_px
    if box is not None:
        left, top, right, bottom = pixel_box(box, width, height)
        width, height = right - left, bottom - top
    width, height = shrunk_size(width, height, cut.short_side_px)
    return max(2, width - width % 2), max(2, height - height % 2)


class Shaper:
    """Turns, crops, scales and converts frames to the written size; leaves alone what already fits.

    YUV keeps its matrix and primaries, brought to limited range; RGB and grey become BT.709. HDR becomes BT.709 by
    `tone_map`, or is kept with 10 bits. A shaped frame's tags say what it is.
    """

    def __init__(self, facts: SourceFacts, box: Box | None, size: tuple[int, int], *, keep_hdr: bool = False):
        self._facts, self._box, self._size, self._keep_hdr = facts, box, size, keep_hdr
        self._graph: Graph | None = None
        self._kind: tuple[object, ...] = ()

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        """Return the frame as it is written: 4:2:0, limited range, of the written size; 8-bit, or 10-bit HDR.

        Raises:
            MediaError: its pixels cannot be converted.
        """
        frame = settled(frame)
        if self._fits(frame):
            return frame
        kind = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, is_hdr(frame))
        if self._graph is None or kind != self._kind:  # a stream may change its size midway
            self._graph, self._kind = self._build(frame), kind
        frame.pts = frame.pts if frame.pts is not None else 0
        self._graph.push(frame)
        shaped = self._graph.pull()
        assert isinstance(shaped, VideoFrame)
        shaped.color_trc, shaped.color_primaries = frame.color_trc, frame.color_primaries
        if frame.format.is_rgb or frame.format.name == "gray" or (is_hdr(frame) and not self._keep_hdr):
            shaped.color_trc = shaped.color_primaries = BT709
        shaped.colorspace, shaped.color_range = self._matrix(frame), LIMITED_RANGE
        return shaped

    def _fits(self, frame: VideoFrame) -> bool:
        """Return whether a frame can be written as it is."""
        upright = self._box is None and self._facts.rotation_deg == 0 and not self._facts.is_mirrored
        plain = frame.format.name == "yuv420p" and frame.color_range == LIMITED_RANGE and not is_hdr(frame)
        return upright and plain and (frame.width, frame.height) == self._size

    def _matrix(self, frame: VideoFrame) -> int:
        """Return the AVCOL_SPC that a frame is written with."""
        if is_hdr(frame) and not self._keep_hdr:
            return BT709
        return frame.colorspace if frame.colorspace in LUMA_WEIGHTS and frame.format.name != "gray" else BT709

    def _build(self, frame: VideoFrame) -> Graph:
        turned = self._facts.rotation_deg % 180
        steps = filters(self._facts.rotation_deg, is_mirrored=self._facts.is_mirrored)
        width, height = (frame.height, frame.width) if turned else (frame.width, frame.height)
        if self._box is not None:
            left, top, right, bottom = pixel_box(self._box, width, height)
            width, height = right - left, bottom - top
            if (left % 2 or top % 2) and not frame.format.is_rgb:  # else chroma is cut off half a sample too early
                bits = frame.format.components[0].bits
                steps.append(("format", f"pix_fmts=yuv444p{f'{max(bits, 10)}le' if bits > 8 else ''}"))
            steps.append(("crop", f"{width}:{height}:{left}:{top}:exact=1"))
        if (width - width % 2, height - height % 2) == self._size and (width, height) != self._size:
            steps.append(("crop", f"{self._size[0]}:{self._size[1]}:0:0:exact=1"))  # an odd line is cut off
        size = f"{self._size[0]}:{self._size[1]}:{_EXACT}"
        colours = f":out_color_matrix={MATRIX_NAMES[self._matrix(frame)]}:out_range=tv"
        graph = Graph()
        nodes = [source_for(graph, frame, frame.time_base or TICKS)]
        nodes += [graph.add(name, arguments or None) for name, arguments in steps]
        if is_hdr(frame) and not self._keep_hdr:  # shrunk first, as for scores
            nodes += [graph.add("scale", size), graph.add("format", "pix_fmts=gbrp16le"), self._lut(graph, frame)]
        pixel_format = "yuv420p10le" if is_hdr(frame) and self._keep_hdr else "yuv420p"
        nodes += [graph.add("scale", size + colours), graph.add("setsar", "1")]
        nodes += [graph.add("format", f"pix_fmts={pixel_format}"), graph.add("buffersink")]
        graph.link_nodes(*nodes).configure()
        return graph

    def _lut(self, graph: Graph, frame: VideoFrame) -> FilterContext:
        with tempfile.NamedTemporaryFile(suffix=".cube") as file:  # read as soon as the filter is made
            file.write(cube(frame.color_trc, frame.color_primaries, self._facts.peak_nits))
            file.flush()
            return graph.add("lut3d", file=file.name, interp="tetrahedral")


def copy_colors(frame: VideoFrame, codec: av.VideoCodecContext) -> None:
    """Tag an encoder with the colours of the shaped frames that it is given."""
    codec.color_range = frame.color_range
    codec.colorspace = frame.colorspace
    codec.color_primaries = frame.color_primaries
    codec.color_trc = frame.color_trc


def shrunk_size(width: int, height: int, short_side_px: int | None) -> tuple[int, int]:
    """Return (width, height) with the shorter side at most `short_side_px`."""
    short = min(width, height)
    if short_side_px is None or short <= short_side_px:
        return width, height
    return round(width * short_side_px / short), round(height * short_side_px / short)


def even_box(box: Box, width: int, height: int) -> Box:
    """Return the largest box within a box whose sides lie on even pixels of a picture of this size.

    4:2:0 needs even sides, and rounding to the nearest pixel would let in a line of what the box leaves out.
    """
    left, top = (2 * math.ceil(share * side / 2 - 1e-6) for share, side in zip(box[:2], (width, height), strict=True))
    right, bottom = (
        2 * math.floor(share * side / 2 + 1e-6) for share, side in zip(box[2:], (width, height), strict=True)
    )
    return left / width, top / height, right / width, bottom / height


class PixelBox(NamedTuple):
    """A part of a picture in whole pixels, half-open."""

    left: int
    top: int
    right: int
    bottom: int


def pixel_box(box: Box, width: int, height: int) -> PixelBox:
    """Return a box as whole pixels (left, top, right, bottom), at least 2 px each way."""
    left, right = round(box[0] * width), round(box[2] * width)
    top, bottom = round(box[1] * height), round(box[3] * height)
    return PixelBox(left, top, max(right, left + 2), max(bottom, top + 2))
