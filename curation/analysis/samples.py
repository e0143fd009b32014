"""The frames that operators ask for, taken while the source is decoded once.

Where a clip begins and ends is known only after its frames have passed, so candidates are taken on a fixed
time grid of the source and held until no clip can need them any more. A frame that stays on the screen counts at every
time of the grid at which it is seen, so that a slideshow scores the same with and without repeated frames.
"""

import math
import pickle
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from curation.types import Frames, Sampling
from media.coarse import CoarseFrame
from media.frame import DecodedFrame
from media.types import Span

JPEG_QUALITY = 95
EARLY_S = 2e-6
"""Times are rounded to the microsecond: a frame so much before its time is on time."""
HELD_S = 0.5
"""A frame shown for longer is a still picture for as long, and its own partner; shorter steps are frame rates."""
STEP_S = 0.2
"""The next frame is near enough to stand for a time so much before it."""
MOST_REPEATS = 128
"""A frame that is held for very long is taken so many times, evenly spread."""


class Grid:
    """Picks the first frame at or after each multiple of `1 / rate_fps` seconds of the source's time."""

    def __init__(self, rate_fps: float, previous_s: float | None):
        """Begin after the frame at `previous_s`; None at the source's start."""
        self._rate_fps = rate_fps
        self._last = -1 if previous_s is None else self._cell(previous_s)

    @property
    def due_s(self) -> float:
        """Time before which it takes no frame."""
        return (self._last + 1) / self._rate_fps - EARLY_S

    def takes(self, time_s: float) -> bool:
        """Return whether the frame at this time is one of the grid."""
        cell = self._cell(time_s)
        if cell <= self._last:
            return False
        self._last = cell
        return True

    def holds(self, time_s: float, until_s: float) -> list[float]:
        """Return those times of the grid at which the frame offered last is what is seen.

        These are the times of which no later frame is near: the next one begins `STEP_S` later, after a hold, or
        belongs to the next time of the grid.

        Args:
            time_s: when that frame begins.
            until_s: when it ends.
        """
        near_s = STEP_S if until_s - time_s > HELD_S + 1e-6 else math.inf
        first, end = self._last + 1, self._cell(until_s - min(near_s, 1 / self._rate_fps)) + 1
        if end <= first:
            return []
        self._last = end - 1
        count = min(end - first, MOST_REPEATS)
        return [(first + (end - first) * k // count) / self._rate_fps for k in range(count)]

    def _cell(self, time_s: float) -> int:
        return math.floor((time_s + EARLY_S) * self._rate_fps)


class SampleStore:
    """Candidates for a set of samplings over a sliding stretch of the source.

    Grey frames are scaled at once; frames for RGB samples are held as the decoder gave them and converted
    only when a clip asks, since most candidates are never asked for.
    """

    def __init__(self, samplings: Iterable[Sampling], previous_s: float | None = None):
        """Prepare for samplings of frames after the one at `previous_s`; None at the source's start."""
        self._feeds = {_feed_key(s): _Feed(s, previous_s) for s in samplings}
        self._every = [feed for feed in self._feeds.values() if feed.due_s == math.inf]
        self._coarse: deque[CoarseFrame] = deque()
        self._due_s = -math.inf

    def offer(self, frame: DecodedFrame, coarse: CoarseFrame) -> None:
        """Take what any sampling wants of this frame; `coarse` is its coarse view."""
        self._coarse.append(coarse)
        is_due = frame.time_s + frame.duration_s + EARLY_S >= self._due_s  # for most frames it is not
        for feed in self._feeds.values() if is_due else self._every:
            feed.offer(frame, coarse.luma)
        if is_due:
            self._due_s = min((feed.due_s for feed in self._feeds.values()), default=math.inf)

    def coarse_pictures(self, span: Span, count: int) -> Frames | None:
        """Return a few of a clip's coarse frames as RGB, for one so short that no grid time lies in it."""
        inside = [c for c in self._coarse if span.start_s - 1e-6 <= c.time_s < span.end_s - 1e-6]
        chosen = inside[:: max(1, len(inside) // count)][:count]
        if not chosen:
            return None
        return Frames(np.stack([c.rgb() for c in chosen]), np.array([c.time_s for c in chosen]))

    def take(self, sampling: Sampling, span: Span) -> Frames | None:
        """Return a clip's frames as sampled; None when no candidate lies in the span."""
        held = self._feeds[_feed_key(sampling)].between(span.start_s, span.end_s)
        if sampling.count is not None:
            held = _nearest_to_uniform(held, span, sampling.count)
        if not held:
            return None
        pictures: dict[int, np.ndarray] = {}
        for one in held:
            if id(one.item) not in pictures:  # a held frame is converted once
                pictures[id(one.item)] = _picture(one.item, sampling)
        return Frames(np.stack([pictures[id(one.item)] for one in held]), np.array([one.time_s for one in held]))

    def drop_before(self, time_s: float) -> None:
        """Forget candidates before this time."""
        while self._coarse and self._coarse[0].time_s < time_s - 1e-6:
            self._coarse.popleft()
        for feed in self._feeds.values():
            feed.drop_before(time_s)


@dataclass(frozen=True, eq=False)
class _Taken:
    """A candidate: a scaled grey picture or a held frame, seen from `time_s` to `until_s`.

    Attributes:
        pair: number of its pair.
        role: 0: the first of its pair; 1: the partner.
    """

    time_s: float
    until_s: float
    item: object
    pair: int = 0
    role: int = 0


class _Feed:
    """Candidates of one kind, in order of time."""

    def __init__(self, sampling: Sampling, previous_s: float | None):
        self._sampling = sampling
        self._grid = Grid(sampling.rate_fps, previous_s) if sampling.rate_fps else None
        self._due_s: deque[tuple[float, int]] = deque()  # (when a partner is due, pair number)
        self._pairs = 0
        self._held: deque[_Taken] = deque()  # in order of time

    @property
    def due_s(self) -> float:
        """Time before which it takes no frame; infinite where it takes every one."""
        if self._grid is None:
            return math.inf
        return min(self._grid.due_s, self._due_s[0][0] - EARLY_S if self._due_s else math.inf)

    def offer(self, frame: DecodedFrame, coarse_luma: np.ndarray) -> None:
        until_s = frame.time_s + frame.duration_s
        if self._grid is None:
            self._held.append(_Taken(frame.time_s, max(frame.time_s, until_s - STEP_S), coarse_luma))
            return
        roles = []  # time, pair, role
        while self._due_s and frame.time_s >= self._due_s[0][0] - 1e-6:
            roles.append((frame.time_s, self._due_s.popleft()[1], 1))
        seen_s = [frame.time_s] if self._grid.takes(frame.time_s) else []
        is_held = frame.duration_s > HELD_S + 1e-6
        for time_s in [*seen_s, *self._grid.holds(frame.time_s, until_s)]:
            roles.append((time_s, self._pairs, 0))
            if self._sampling.gap_s is not None:
                self._due_s.append((time_s + self._sampling.gap_s, self._pairs))
            self._pairs += 1
        while is_held and self._due_s and self._due_s[0][0] < until_s - 1e-6:
            roles.append((*self._due_s.popleft(), 1))
        if roles:
            gray = self._sampling.color == "gray"
            item: object = frame.gray(self._sampling.short_side_px) if gray else frame.held()
            self._held.extend(_Taken(time_s, time_s, item, pair, role) for time_s, pair, role in sorted(roles))

    def between(self, start_s: float, end_s: float) -> list[_Taken]:
        inside = [one for one in self._held if start_s - 1e-6 <= one.time_s < end_s - 1e-6]
        if self._sampling.gap_s is None:
            return inside
        inside.sort(key=lambda one: (one.pair, one.role))
        return [one for a, b in zip(inside, inside[1:], strict=False) if a.pair == b.pair for one in (a, b)]

    def drop_before(self, time_s: float) -> None:
        while self._held and self._held[0].time_s < time_s - 1e-6:
            self._held.popleft()


def encode_samples(samples: Mapping[str, Frames | None]) -> bytes:
    """Pack frames by name as JPEG (quality 95, no chroma subsampling), to travel in a row."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    packed: dict[str, tuple[list[float], list[bytes]]] = {}
    done: list[str] = []
    for name, frames in samples.items():
        if frames is None:
            continue
        same = next((other for other in done if _are_same(samples[other], frames)), None)
        if same is not None:
            packed[name] = packed[same]  # operators that look at the same frames share them
        else:
            done.append(name)
            pictures = frames.pixels[..., ::-1] if frames.pixels.ndim == 4 else frames.pixels
            jpegs = [cv2.imencode(".jpg", picture, flags)[1].tobytes() for picture in pictures]
            packed[name] = (frames.times_s.tolist(), jpegs)
    return pickle.dumps(packed)


def _are_same(one: Frames | None, other: Frames) -> bool:
    return one is not None and one.pixels.shape == other.pixels.shape and np.array_equal(one.pixels, other.pixels)


def decode_samples(packed: bytes | None, name: str) -> Frames | None:
    """Unpack the frames of one name; None when there are none."""
    found = pickle.loads(packed).get(name) if packed else None  # noqa: S301 - our own worker packed it
    if found is None:
        return None
    times_s, jpegs = found
    pictures: list[np.ndarray] = [cv2.imdecode(np.frombuffer(j, np.uint8), cv2.IMREAD_UNCHANGED) for j in jpegs]  # type: ignore[misc]
    stacked = np.stack([p[..., ::-1] if p.ndim == 3 else p for p in pictures])
    return Frames(np.ascontiguousarray(stacked), np.array(times_s))


def _feed_key(sampling: Sampling) -> tuple[object, ...]:
    if sampling.rate_fps is None:
        return ("every",)
    if sampling.color == "rgb":
        return ("rgb", sampling.rate_fps, sampling.gap_s)
    return ("gray", sampling.rate_fps, sampling.gap_s, sampling.short_side_px)


def _nearest_to_uniform(held: list[_Taken], span: Span, count: int) -> list[_Taken]:
    """Choose the candidates nearest to the middles of `count` equal parts of the span, each once.

    A frame that is held is as near as the time at which it is seen, and chosen once for each of these.
    """
    chosen: dict[tuple[int, float], _Taken] = {}
    for i in range(count if held else 0):
        wanted_s = span.start_s + (i + 0.5) / count * span.duration_s
        seen_s = [min(max(wanted_s, one.time_s), one.until_s) for one in held]
        nearest = min(range(len(held)), key=lambda k: abs(seen_s[k] - wanted_s))
        chosen[nearest, seen_s[nearest]] = replace(held[nearest], time_s=seen_s[nearest])
    return [chosen[place] for place in sorted(chosen)]


def _picture(item: object, sampling: Sampling) -> np.ndarray:
    if isinstance(item, np.ndarray):
        return item
    frame: DecodedFrame = item  # type: ignore[assignment]
    return frame.rgb(sampling.short_side_px) if sampling.color == "rgb" else frame.gray(sampling.short_side_px)
