"""Films edited at random: shots of real footage, transitions of known kind and range, decoys within the shots."""

import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame

from benchmarks.edits.decoys import DECOYS
from benchmarks.edits.footage import HEIGHT_PX, WIDTH_PX, Stretch
from benchmarks.edits.joins import JOINS, zoomed
from benchmarks.transitions import coarse
from media.coarse import CoarseFrame

SHARES = {
    "hard": 0.34, "jump": 0.13, "dissolve": 0.14, "fade_black": 0.08, "fade_white": 0.06,
    "wipe": 0.08, "slide": 0.05, "push": 0.05, "zoom": 0.04, "whip": 0.03,
}  # fmt: skip
"""How often each kind of transition is drawn."""
RATES = (24, 25, 30)
DECOY_SHARE = 0.95
"""Share of the shots that are long enough that hold a decoy; within a film, every kind has its turn."""
CLEAR_FRAMES = 10
"""between a decoy and a transition"""
SPARE_S, JUMP_SPARE_S = 1.5, 6.0
"""Shots begin so long before their footage ends, where it is long enough; those that end by a jump, earlier."""
JUMP_LEVELS, JUMP_RATIO = 5.0, 4.0
"""A jump changes the small picture by so many levels, and by so many times what a frame changes otherwise."""


@dataclass(frozen=True)
class Event:
    """A transition or a decoy: frames `[start, end)`; a cut has none, and `start` is the new shot's first frame."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class Film:
    """Coarse frames as the analysis sees them, and what was edited into them."""

    fps: float
    frames: list[CoarseFrame]
    transitions: list[Event]
    decoys: list[Event]


def draw_films(stretches: Sequence[Stretch], seed: int, transitions: int, each: int = 15) -> Iterator[Film]:
    """Yield films of `each` transitions, until there are `transitions`; equal seeds give equal films."""
    for number in range(max(1, round(transitions / each))):
        yield draw_film(stretches, np.random.default_rng([seed, number]), each)


def draw_film(stretches: Sequence[Stretch], rng: np.random.Generator, count: int) -> Film:
    """Edit one film of `count` transitions."""
    fps = int(rng.choice(RATES))
    kinds: list[str] = rng.choice(list(SHARES), count, p=list(SHARES.values())).tolist()
    pictures: list[np.ndarray] = []
    transitions, decoys = [], []
    stretch, start = _place(stretches, None, kinds[0], rng)
    tail: list[np.ndarray] = []  # the frames in which the shot before turns into this one
    arriving = ""
    turns = itertools.cycle(rng.permutation(list(DECOYS)).tolist())
    for kind, following in zip([*kinds, ""], [*kinds[1:], "", ""], strict=True):
        _, low_s, high_s = JOINS.get(kind, (None, 0.0, 0.0))
        leaving = round(rng.uniform(low_s, high_s) * fps)
        short = rng.random() < 0.12
        body = round(rng.uniform(0.5, 1.0) * fps if short else rng.uniform(1.6, 4.5) * fps)
        shot = _frames(stretch, start, len(tail) + body + leaving, fps)
        shot, found = _with_decoy(shot, (len(tail), leaving), (stretch, start), stretches, fps, rng, turns)
        if kind == "jump":
            continued = _jump(stretch, start, shot, fps, rng)
            kind = "jump" if continued else "hard"
        else:
            continued = None
        if tail:
            direction = int(rng.integers(4))
            mixed = len(tail)
            join = JOINS[arriving][0]
            shot[:mixed] = [
                join(one, other, (k + 1) / (mixed + 1), direction)
                for k, (one, other) in enumerate(zip(tail, shot, strict=False))
            ]
        first = len(pictures)
        decoys += [Event(each.kind, first + each.start, first + each.end) for each in found]
        if leaving:
            tail, shot = shot[-leaving:], shot[:-leaving]
        else:
            tail = []
        pictures += shot
        if kind:
            transitions.append(Event(kind, len(pictures), len(pictures) + leaving))
        arriving = kind
        stretch, start = continued or _place(stretches, stretch, following, rng)
    return Film(fps, list(_coded(pictures, fps, int(rng.integers(20, 31)))), transitions, decoys)


def _place(
    stretches: Sequence[Stretch], last: Stretch | None, ends_by: str, rng: np.random.Generator
) -> tuple[Stretch, int]:
    """Choose another shot, and its first frame; one that ends by a jump goes on for a while."""
    spare_s = JUMP_SPARE_S if ends_by == "jump" else SPARE_S
    others = [
        each for each in stretches if last is None or each.name != last.name or len(each.frames) != len(last.frames)
    ]
    long = [each for each in others if len(each.frames) >= (spare_s + 1) * each.fps]
    stretch = long[int(rng.integers(len(long)))] if long else others[int(rng.integers(len(others)))]
    return stretch, int(rng.integers(0, max(1, len(stretch.frames) - round(spare_s * stretch.fps))))


def _frames(stretch: Stretch, start: int, count: int, fps: int) -> list[np.ndarray]:
    """Return `count` frames from one on; footage that is too short is played back again from its end."""
    step = max(1.0, stretch.fps / fps) if stretch.fps > 1.3 * fps else 1.0
    last = len(stretch.frames) - 1
    places = (start + step * np.arange(count)).astype(int) % (2 * last)
    return [stretch.frames[place if place <= last else 2 * last - place] for place in places.tolist()]


def _with_decoy(
    shot: list[np.ndarray],
    edges: tuple[int, int],
    place: tuple[Stretch, int],
    stretches: Sequence[Stretch],
    fps: int,
    rng: np.random.Generator,
    turns: Iterator[str],
) -> tuple[list[np.ndarray], list[Event]]:
    """Put the decoy whose turn it is into most shots that have room for one, clear of their transitions."""
    (arriving, leaving), length = edges, round(rng.uniform(0.4, 0.9) * fps)
    room = len(shot) - arriving - leaving - length - 2 * CLEAR_FRAMES
    if room <= 0 or rng.random() > DECOY_SHARE:
        return shot, []
    at = arriving + CLEAR_FRAMES + int(rng.integers(room))
    kind = next(turns)
    count = len(shot)
    if kind == "speed":
        shot = _frames(*place, 4 * count, fps)
    other = stretches[int(rng.integers(len(stretches)))]
    changed, end = DECOYS[kind](list(shot), at, length, rng, other.frames)
    return changed[:count], [Event(kind, at, end)]


def _jump(
    stretch: Stretch, start: int, shot: Sequence[np.ndarray], fps: int, rng: np.random.Generator
) -> tuple[Stretch, int] | None:
    """Return how the shot goes on after a jump within one view: later, or framed closer; None where that shows not."""
    now = start + len(shot)
    if now >= len(stretch.frames) - 2:
        return None
    usual = np.mean([_differ(*pair) for pair in zip(shot[-8:-1], shot[-7:], strict=True)])
    least = max(JUMP_LEVELS, JUMP_RATIO * float(usual))
    for later_s in rng.uniform(0.5, 4.0, 8 if rng.random() < 0.7 else 0).tolist():
        later = now + round(later_s * stretch.fps)
        if later < len(stretch.frames) - fps and _differ(shot[-1], stretch.frames[later]) >= least:
            return stretch, later
    strength, x, y = rng.uniform(1.15, 1.4), *rng.uniform(0.2, 0.8, 2)
    closer = [zoomed(each, float(strength), float(x), float(y)) for each in stretch.frames[now:]]
    if len(closer) < 2 * fps or _differ(shot[-1], closer[0]) < least:
        return None
    return Stretch(stretch.name, closer, stretch.fps), 0


def _differ(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean difference of two pictures at 64x36, levels."""
    small = (cv2.resize(each, (64, 36), interpolation=cv2.INTER_AREA) for each in (one, other))
    return float(cv2.absdiff(*small).mean())


def _coded(pictures: Sequence[np.ndarray], fps: int, crf: int) -> Iterator[CoarseFrame]:
    """Encode and decode pictures, as footage has been, and yield coarse frames."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "superfast", "crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        stream.thread_count = 1
        for index, pixels in enumerate(pictures):
            frame = VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        container.streams.video[0].thread_count = 1
        for index, frame in enumerate(container.decode(video=0)):
            yield coarse(frame, index, fps)
