"""Frames of a file spread evenly over a span of time and fitted to a size, as networks take them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from core.errors import MediaError
from media.decode import whole_frames as decode
from media.frame import DecodedFrame, PlanarFrame
from media.image import read_image
from media.probe import probe_video
from media.stretch import Stretch
from media.types import Heartbeat, MediaType, SourceFacts, no_heartbeat

MAX_IMAGE_PIXELS = 1 << 27
"""width times height of the largest image that is read"""
KNOWN_SOURCES = 16


class Box(Protocol):
    """A size that pictures are fitted to."""

    @property
    def height_px(self) -> int:
        """Its height."""
        ...

    @property
    def width_px(self) -> int:
        """Its width."""
        ...


@dataclass(frozen=True)
class TakenSpan:
    """The part of a span that frames are taken from at a certain rate: T / rate_fps seconds."""

    start_s: float
    end_s: float
    rate_fps: float


@dataclass(frozen=True)
class FrameRequest:
    """Frames that are wanted of a file.

    Attributes:
        path: the file.
        kind: what it is; an image gives one frame.
        num_frames: T.
        height_px: of every frame.
        width_px: likewise.
        start_s: the span's begin in the file, null for a whole file.
        end_s: the span's end in the file, null for a whole file.
        taken: the part of the span that is taken; null: all of it.
        letterbox: fit the picture in whole, between black bars, instead of cropping it.
    """

    path: Path
    kind: MediaType
    num_frames: int
    height_px: int
    width_px: int
    start_s: float | None = None
    end_s: float | None = None
    taken: TakenSpan | None = None
    letterbox: bool = False


def read_fitted(asked: FrameRequest, beat: Heartbeat = no_heartbeat) -> np.ndarray:
    """Read frames of a file.

    The T frames are those on screen at the middles of T equal parts of the taken span, whatever the file's frame rate:
    at `start + (i + 0.5)·D/T`, the last frame whose time is not after that. A span with fewer frames repeats some. The
    picture covers the size, keeps its aspect, and is cropped about its centre; with `letterbox` it lies within the size
    in whole, between black bars.

    Args:
        asked: what to read.
        beat: called now and then while reading.

    Returns:
        uint8 (T, H, W, 3), RGB, upright, square pixels.

    Raises:
        MediaError: the file cannot be read, or ends before the span does.
    """
    if asked.kind == "image":
        return _resized(read_image(asked.path, MAX_IMAGE_PIXELS), asked, letterbox=asked.letterbox)[None]
    source = _source(asked.path, beat)
    facts = source.facts
    times_s = _wanted_times(asked, source)
    seek = asked.start_s is not None or asked.taken is not None
    start_pts, end_pts = source.stretch(times_s[0], times_s[-1], seek=seek)
    size = _size(facts.width_px, facts.height_px, asked, letterbox=asked.letterbox)
    whole = np.zeros((asked.num_frames, asked.height_px, asked.width_px, 3), np.uint8)
    frames = _within(whole, size)
    done, last = 0, None
    for last in decode(Stretch(asked.path, facts, start_pts, end_pts, beat)):
        beat(0.0)
        shown = int(np.searchsorted(times_s, round(last.time_s + last.duration_s, 6)))
        if shown > done:
            _fill(frames[done:shown], last, size)
            done = shown
        if done == len(frames):
            return whole
    if last is None:
        raise MediaError("no frame can be decoded in the span", asked.start_s)
    _fill(frames[done:], last, size)  # the last frame stays on screen
    return whole


def cover_size(width_px: int, height_px: int, box: Box) -> tuple[int, int]:
    """Return the smallest (width, height) of this aspect that covers a box."""
    scale = max(box.width_px / width_px, box.height_px / height_px)
    return max(box.width_px, round(width_px * scale)), max(box.height_px, round(height_px * scale))


def contain_size(width_px: int, height_px: int, box: Box) -> tuple[int, int]:
    """Return the largest (width, height) of this aspect that lies within a box."""
    scale = min(box.width_px / width_px, box.height_px / height_px)
    width, height = round(width_px * scale), round(height_px * scale)
    return min(box.width_px, max(1, width)), min(box.height_px, max(1, height))


def _size(width_px: int, height_px: int, box: Box, *, letterbox: bool) -> tuple[int, int]:
    return (contain_size if letterbox else cover_size)(width_px, height_px, box)


def _within(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the middle of frames (T, H, W, 3) that a picture of this width and height takes, all where it covers."""
    height, width = frames.shape[1:3]
    inner_width, inner_height = min(width, size[0]), min(height, size[1])
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    return frames[:, top : top + inner_height, left : left + inner_width]


def _resized(pixels: np.ndarray, box: Box, *, letterbox: bool) -> np.ndarray:
    """Return one picture (H, W, 3) of the box's size."""
    height, width = pixels.shape[:2]
    size = _size(width, height, box, letterbox=letterbox)
    if size != (width, height):
        shrinks = size[0] * size[1] < width * height
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    whole = np.zeros((1, box.height_px, box.width_px, 3), np.uint8)
    place = _within(whole, size)[0]
    place[:] = _cropped(pixels, *place.shape[:2])
    return np.asarray(whole[0])


def _cropped(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _fill(places: np.ndarray, frame: DecodedFrame, size: tuple[int, int]) -> None:
    """Put one frame in all of these places (N, H, W, 3), scaled by area straight from the decoder's planes."""
    assert isinstance(frame, PlanarFrame)
    covering = frame.rgb_of_size(*size)
    places[:] = _cropped(covering, *places.shape[1:3])


@dataclass(frozen=True, eq=False)
class _Source:
    """What is known of a video before it is decoded.

    Attributes:
        facts: of its stream.
        pts: int64 (N,), of its frames, rising; empty when packets have no times.
        times_s: float64 (N,), their times from the first frame.
        end_s: when the last frame ends.
    """

    facts: SourceFacts
    pts: np.ndarray
    times_s: np.ndarray
    end_s: float

    def stretch(self, first_s: float, last_s: float, *, seek: bool) -> tuple[int | None, int | None]:
        """Return the pts from which on, and before which, the frames shown from `first_s` to `last_s` lie."""
        if not len(self.pts):
            return None, None
        first = int(np.searchsorted(self.times_s, first_s, side="right")) - 1
        end = self.facts.zero_pts + int((last_s + 1e-6) / self.facts.time_base) + 1
        return int(self.pts[first]) if seek and first > 0 else None, end


_sources: dict[tuple[str, int, int], _Source] = {}  # of this process, the last few: spans of one file come together


def _source(path: Path, beat: Heartbeat) -> _Source:
    try:
        state = path.stat()
    except OSError as error:
        raise MediaError(f"the file cannot be opened ({error.strerror})") from None
    key = (str(path), state.st_size, state.st_mtime_ns)
    if key not in _sources:
        found = _look_at(path, beat)
        while len(_sources) >= KNOWN_SOURCES:
            del _sources[next(iter(_sources))]
        _sources[key] = found
    return _sources[key]


def _look_at(path: Path, beat: Heartbeat) -> _Source:
    facts, scan = probe_video(path, beat)
    if not len(scan.pts) or not facts.time_base:  # packets without times: the frames must be counted
        end_s = max((frame.time_s + frame.duration_s for frame in decode(Stretch(path, facts, beat=beat))), default=0.0)
        return _Source(facts, np.empty(0, np.int64), np.empty(0), end_s)
    times_s = np.round((scan.pts - facts.zero_pts) * facts.time_base, 6)
    usual_s = 1 / facts.fps if facts.fps else 0.0
    stated_s = (scan.end_pts - int(scan.pts[-1])) * facts.time_base if scan.end_pts is not None else 0.0
    last_s = stated_s if 0 < stated_s <= max(10 * usual_s, 1.0) else usual_s
    return _Source(facts, scan.pts, times_s, float(times_s[-1]) + last_s)


def _wanted_times(asked: FrameRequest, source: _Source) -> np.ndarray:
    """Return float64 (T,), the middles of T equal parts of what is asked for.

    Raises:
        MediaError: the span is empty, or the file ends before it.
    """
    num_frames = asked.num_frames
    start_s, end_s = asked.start_s or 0.0, source.end_s
    step_s = 1 / source.facts.fps if source.facts.fps else 0.0
    if asked.end_s is not None:
        if asked.end_s - source.end_s > max(2 * step_s, 0.02 * (asked.end_s - start_s)):
            raise MediaError("the file ends before the span does", source.end_s)
        end_s = min(end_s, asked.end_s)
    elif (declared_s := source.facts.declared_duration_s) and declared_s - end_s > max(1.0, 0.02 * declared_s):
        raise MediaError(f"the file ends before the {declared_s:.1f} s that it states", end_s)
    if end_s <= start_s:
        raise MediaError("nothing lies in the span", start_s)
    if asked.taken is not None:
        start_s, stop_s = asked.taken.start_s, asked.taken.end_s
        last_s = stop_s - 0.5 / asked.taken.rate_fps  # what lies after the last frame is not shown
        if last_s - end_s > max(2 * step_s, 0.02 * (stop_s - start_s)):
            raise MediaError("the file ends before the span does", end_s)
        end_s = stop_s
    return np.round(start_s + (np.arange(num_frames) + 0.5) * ((end_s - start_s) / num_frames), 6)
