"""The frames that operators ask for, taken while the source is decoded once.

Where a clip begins and ends is known only after its frames have passed, so candidates are taken on a fixed
time grid of the source and held until no clip can need them any more.
"""

import math
import pickle
from collections import deque
from collections.abc import Iterable, Mapping

import cv2
import numpy as np

from curation.shots.types import CoarseFrame
from curation.types import Frames, Sampling, Span
from curation.video.frame import DecodedFrame

JPEG_QUALITY = 95
EARLY_S = 2e-6
"""Times are rounded to the microsecond: a frame so much before its time is on time."""


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
        """Tell whether the frame at this time is one of the grid."""
        cell = self._cell(time_s)
        if cell <= self._last:
            return False
        self._last = cell
        return True

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
        is_due = frame.time_s + EARLY_S >= self._due_s  # for most frames it is not
        for feed in self._feeds.values() if is_due else self._every:
            feed.offer(frame, coarse.luma)
        if is_due:
            self._due_s = min((feed.due_s for feed in self._feeds.values()), default=math.inf)

    def coarse_pictures(self, span: Span, count: int) -> Frames | None:
        """Give a few of a clip's coarse frames as RGB, for one so short that no grid time lies in it."""
        inside = [c for c in self._coarse if span.start_s - 1e-6 <= c.time_s < span.end_s - 1e-6]
        chosen = inside[:: max(1, len(inside) // count)][:count]
        if not chosen:
            return None
        return Frames(np.stack([c.rgb() for c in chosen]), np.array([c.time_s for c in chosen]))

    def take(self, sampling: Sampling, span: Span) -> Frames | None:
        """Give a clip's frames as sampled; None when no candidate lies in the span."""
        held = self._feeds[_feed_key(sampling)].between(span.start_s, span.end_s)
        if sampling.count is not None:
            held = _nearest_to_uniform(held, span, sampling.count)
        if not held:
            return None
        pictures = [_picture(item, sampling) for _, item in held]
        return Frames(np.stack(pictures), np.array([t for t, _ in held]))

    def drop_before(self, time_s: float) -> None:
        """Forget candidates before this time."""
        while self._coarse and self._coarse[0].time_s < time_s - 1e-6:
            self._coarse.popleft()
        for feed in self._feeds.values():
            feed.drop_before(time_s)


class _Feed:
    """Candidates of one kind: (time, scaled grey picture or held frame), in order of time."""

    def __init__(self, sampling: Sampling, previous_s: float | None):
        self._sampling = sampling
        self._grid = Grid(sampling.rate_fps, previous_s) if sampling.rate_fps else None
        self._due_s: deque[tuple[float, int]] = deque()  # (when a partner is due, pair number)
        self._pairs = 0
        self._held: deque[tuple[float, object]] = deque()
        self._pair_of: deque[tuple[int, int]] = deque()  # (pair, 0 first | 1 partner), parallel to _held

    @property
    def due_s(self) -> float:
        """Time before which it takes no frame; infinite where it takes every one."""
        if self._grid is None:
            return math.inf
        return min(self._grid.due_s, self._due_s[0][0] - EARLY_S if self._due_s else math.inf)

    def offer(self, frame: DecodedFrame, coarse_luma: np.ndarray) -> None:
        if self._grid is None:
            self._held.append((frame.time_s, coarse_luma))
            self._pair_of.append((0, 0))
            return
        roles = []
        while self._due_s and frame.time_s >= self._due_s[0][0] - 1e-6:
            roles.append((self._due_s.popleft()[1], 1))
        if self._grid.takes(frame.time_s):
            roles.append((self._pairs, 0))
            if self._sampling.gap_s is not None:
                self._due_s.append((frame.time_s + self._sampling.gap_s, self._pairs))
            self._pairs += 1
        if roles:
            gray = self._sampling.color == "gray"
            item: object = frame.gray(self._sampling.short_side_px) if gray else frame.held()
            for role in roles:
                self._held.append((frame.time_s, item))
                self._pair_of.append(role)

    def between(self, start_s: float, end_s: float) -> list[tuple[float, object]]:
        inside = [
            (role, held)
            for role, held in zip(self._pair_of, self._held, strict=True)
            if start_s - 1e-6 <= held[0] < end_s - 1e-6
        ]
        if self._sampling.gap_s is None:
            return [held for _, held in inside]
        inside.sort(key=lambda item: item[0])
        pairs = [(a, b) for a, b in zip(inside, inside[1:], strict=False) if a[0][0] == b[0][0]]
        return [held for pair in pairs for _, held in pair]

    def drop_before(self, time_s: float) -> None:
        while self._held and self._held[0][0] < time_s - 1e-6:
            self._held.popleft()
            self._pair_of.popleft()


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


def _nearest_to_uniform(held: list[tuple[float, object]], span: Span, count: int) -> list[tuple[float, object]]:
    """Choose the candidates nearest to the middles of `count` equal parts of the span, each once."""
    if not held:
        return []
    wanted = [span.start_s + (i + 0.5) / count * span.duration_s for i in range(count)]
    chosen = sorted({min(range(len(held)), key=lambda k: abs(held[k][0] - t)) for t in wanted})
    return [held[k] for k in chosen]


def _picture(item: object, sampling: Sampling) -> np.ndarray:
    if isinstance(item, np.ndarray):
        return item
    frame: DecodedFrame = item  # type: ignore[assignment]
    return frame.rgb(sampling.short_side_px) if sampling.color == "rgb" else frame.gray(sampling.short_side_px)
