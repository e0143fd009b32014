"""Whether a source is interlaced: by its frames' flags, or by what a few of them look like.

Frames at a few keyframes are looked at. Where none is flagged, and no line stands apart from its neighbours as fields
of two times do, the source is progressive: that costs a few frames. Otherwise frames in a row are compared as FFmpeg's
idet does: woven with the fields of the frame before and of the frame after, interlaced footage is smoother with the
nearer one of the two, and as smooth as the frame itself; progressive footage, whatever fine lines are in it, is not.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from core.errors import MediaError
from media import planes
from media.colour import settled
from media.container import READ_ERRORS
from media.deinterlace import source_for

PROGRESSIVE, TOP_FIRST, BOTTOM_FIRST = "progressive", "tff", "bff"
FRAMES_A_LOOK = 300
"""one more frame is looked at for so many that the source has: that decodes about one in a hundred"""
ALWAYS_PROGRESSIVE = frozenset({"vp8", "vp9", "av1", "gif", "theora"})
"""codecs that know no fields, and whose footage comes from programs that give whole frames"""
MOST_LOOKS = 5
APART_LEVELS = 12
"""by which a line differs from both of its neighbours"""
COLUMNS = 480
"""of a picture that are looked at"""
COMBED_SHARE = 0.002
"""of the picture that makes it worth a second look"""
IN_A_ROW = 6
"""frames that are compared at each place"""
MOVED_LEVELS = 20
MOVED_SHARE = 0.0005
_BY_FIELD_ORDER = {2: TOP_FIRST, 3: BOTTOM_FIRST, 4: BOTTOM_FIRST, 5: TOP_FIRST}  # AV_FIELD_TT, BB, TB, BT


def interlacing(
    container: InputContainer, stream: VideoStream, first: VideoFrame, key_pts: Sequence[int], num_frames: int
) -> str:
    """Return how a source's frames are made: `progressive`, or interlaced with the top or the bottom field first.

    Args:
        container: the source, of which nothing has been decoded here; afterwards it stands anywhere.
        stream: its video stream.
        first: the first frame.
        key_pts: timestamps of keyframes, rising.
        num_frames: how many frames it has.
    """
    if stream.codec_context.codec.canonical_name in ALWAYS_PROGRESSIVE:
        return PROGRESSIVE
    places = _places(key_pts, min(MOST_LOOKS, num_frames // FRAMES_A_LOOK))
    looks = [first, *(frame for place in places for frame in _frames_at(container, stream, place, 1))]
    flagged = [frame for frame in looks if frame.interlaced_frame]
    is_flagged = 2 * len(flagged) > len(looks)
    if not is_flagged and not any(combed_share(luma_of(frame)) > COMBED_SHARE for frame in looks):
        return PROGRESSIVE
    starts: list[int | None] = [None, *_places(key_pts, MOST_LOOKS - 1)]
    rows = ([luma_of(f) for f in _frames_at(container, stream, place, IN_A_ROW)] for place in starts)
    seen = judged([verdict for lumas in rows for verdict in verdicts(lumas)])
    if seen != PROGRESSIVE or not is_flagged:
        return seen  # also against a flag: some encoders write the wrong field order
    if any(_top_first(frame) for frame in flagged):
        return TOP_FIRST
    return _BY_FIELD_ORDER.get(stream.codec_context.field_order, BOTTOM_FIRST)


def combed_share(luma: np.ndarray) -> float:
    """Return the share of uint8 (H, W) where three lines below each other stand out by turns."""
    if luma.shape[0] < 8:
        return 0.0
    lines = luma.astype(np.int16)
    up, down = lines[1:-1] - lines[:-2], lines[1:-1] - lines[2:]
    above = (np.minimum(up, down) > APART_LEVELS).astype(np.int8)
    below = (np.maximum(up, down) < -APART_LEVELS).astype(np.int8)
    side = above - below
    return float(((side[:-2] * side[1:-1] < 0) & (side[1:-1] * side[2:] < 0)).mean())


def verdicts(lumas: Sequence[np.ndarray]) -> list[str]:
    """Judge each frame between two others of uint8 (H, W); those in which too little moves are left out."""
    found = []
    for before, frame, after in zip(lumas, lumas[1:], lumas[2:], strict=False):
        if before.shape == frame.shape == after.shape and frame.shape[0] >= 8:
            verdict = _verdict(*(picture.astype(np.int16) for picture in (before, frame, after)))
            if verdict is not None:
                found.append(verdict)
    return found


def judged(found: Sequence[str]) -> str:
    """Return what at least two frames and two thirds of all are (of telecine it is two fifths), else `progressive`."""
    for order in (TOP_FIRST, BOTTOM_FIRST):
        if found.count(order) >= max(2, 2 / 3 * len(found)):
            return order
    return PROGRESSIVE


def _verdict(before: np.ndarray, frame: np.ndarray, after: np.ndarray) -> str | None:
    moved = cv2.absdiff(before, after)[1:-1] > MOVED_LEVELS
    if moved.mean() < MOVED_SHARE:
        return None
    around = frame[:-2] + frame[2:]
    own, earlier, later = (np.abs(around - 2 * lines[1:-1]) * moved for lines in (frame, before, after))
    # Row 0 of these is line 1 of the picture, of the bottom field.
    top_first = float(earlier[::2].sum() + later[1::2].sum())
    bottom_first = float(later[::2].sum() + earlier[1::2].sum())
    least, most = sorted((top_first, bottom_first))
    if most > 1.2 * least and own.sum() > 0.6 * least:
        return TOP_FIRST if top_first == least else BOTTOM_FIRST
    return PROGRESSIVE


def luma_of(frame: VideoFrame) -> np.ndarray:
    """Return the luma of a frame as stored, uint8 (H, W): every line, and of its columns at most `COLUMNS`."""
    return planes.gray(settled(frame), min(frame.width, COLUMNS), frame.height, 0, cv2.INTER_NEAREST)


def _places(key_pts: Sequence[int], count: int) -> list[int]:
    """Choose so many keyframes spread over the source, without the first."""
    chosen = {len(key_pts) * (i + 1) // (count + 1) for i in range(count)} - {0, len(key_pts)}
    return [int(key_pts[i]) for i in sorted(chosen)]


def _frames_at(container: InputContainer, stream: VideoStream, pts: int | None, count: int) -> Iterator[VideoFrame]:
    """Decode a few frames from a keyframe on, or from the beginning; what cannot be read is left out."""
    try:
        container.seek(pts if pts is not None else 0, stream=stream, backward=True)
        yield from islice(container.decode(stream), count)
    except (*READ_ERRORS, MediaError):
        return


def _top_first(frame: VideoFrame) -> bool:
    """Return whether the decoder says of an interlaced frame that its top field comes first."""
    graph = Graph()
    select = graph.add("select", "eq(interlace_type\\,TOPFIRST)")
    graph.link_nodes(source_for(graph, frame, Fraction(1, 1000)), select, graph.add("buffersink"))
    graph.configure()
    try:
        graph.push(frame)
        graph.push(None)
        graph.pull()
    except (av.error.BlockingIOError, av.error.EOFError):
        return False
    return True
