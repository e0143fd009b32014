"""The task that every peer is given, and what it says of each clip."""

from collections.abc import Iterable
from dataclasses import dataclass

CONTENT_THRESHOLD, MIN_SHOT_FRAMES = 27.0, 15
"""of PySceneDetect's ContentDetector"""
MIN_S, MAX_S = 1.0, 60.0
MIN_WIDTH_PX, MIN_HEIGHT_PX = 640, 360
MOTION_FPS, MOTION_SIDE_PX, MIN_MOTION_PX = 2.0, 360, 0.1
"""Farnebäck's flow between pictures half a second apart, of this short side: mean length in their pixels"""
CRF, PRESET = 22, "veryfast"
NEAR_FRAMES = 3
"""Pictures of another size may score a flash next to a cut on the other side of the threshold."""


@dataclass(frozen=True)
class Clip:
    """A clip as a peer found it: frames `[start, end)` of a source, and whether it stays."""

    source: str
    start: int
    end: int
    kept: bool


@dataclass(frozen=True)
class Agreement:
    """How a peer's clips compare with the reference's.

    Attributes:
        same_spans: clips whose frames are the same.
        near_spans: clips that begin and end within `NEAR_FRAMES` of one of the reference's.
        right: of the near ones, those judged alike.
        clips: of the reference.
    """

    same_spans: int
    near_spans: int
    right: int
    clips: int


def is_kept(duration_s: float, width_px: int, height_px: int, motion_px: float) -> bool:
    """Judge a clip."""
    in_size = width_px >= MIN_WIDTH_PX and height_px >= MIN_HEIGHT_PX
    return MIN_S <= duration_s <= MAX_S and in_size and motion_px >= MIN_MOTION_PX


def agreement(found: Iterable[Clip], reference: Iterable[Clip], near_frames: int = NEAR_FRAMES) -> Agreement:
    """Compare clips with the reference's; each is counted once."""
    wanted = {(clip.source, clip.start, clip.end): clip for clip in reference}
    by_source: dict[str, list[Clip]] = {}
    for clip in found:
        by_source.setdefault(clip.source, []).append(clip)
    same = near = right = 0
    for clip in wanted.values():
        close = [
            other
            for other in by_source.get(clip.source, [])
            if abs(other.start - clip.start) <= near_frames and abs(other.end - clip.end) <= near_frames
        ]
        if close:
            best = min(close, key=lambda other: abs(other.start - clip.start) + abs(other.end - clip.end))
            near, right = near + 1, right + (best.kept == clip.kept)
            same += (best.start, best.end) == (clip.start, clip.end)
    return Agreement(same, near, right, len(wanted))
