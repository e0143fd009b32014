"""What passes for a transition and lies within one shot: interruptions by flashes and damaged frames, and fast pans."""

import functools
from collections.abc import Sequence
from dataclasses import replace

from curation.shots import evidence, insets, pans
from curation.shots.evidence import View
from curation.shots.types import Boundary

LONGEST_BREAK_S = 0.42
"""Longest flash or stretch of damaged frames that is told from two cuts."""
RETURNED, MOST_LEFT_LEVELS = 0.35, 12.0
"""After an interruption the picture differs from the one before by so much at most of what it changed meanwhile, and
by so many levels."""
MIN_LEVELS, EDGE_LEVELS, EDGE_SHARE = 6.0, 2.0, 0.12
"""An interruption changes so much at least, `evidence.change`; and with its first frame and after its last one, so much
and such a share of it."""
CALM_SHARE, RESTLESS = 0.3, 0.25
"""Longer than such a share of the longest interruption, damaged frames change by such a share of the damage from one to
the next; a short shot that is cut in is calm."""
RANGE_SPARE_FRAMES = 1
"""A range that was taken for a fade may begin so much before the interruption, and end so much after it."""
BRIGHTER_LEVELS = 12.0
"""A flash is so much brighter than the frames around it."""
CONFIDENCE = 0.9
"""Share of the interruptions told that are some, on films edited by `benchmarks.edits`."""

RELIT_UNEXPLAINED, HALF_UNEXPLAINED = 0.52, 0.35
"""Of a scene whose exposure changes, so much at most is unexplained by itself earlier; and by itself half way."""


def judged(views: Sequence[View], boundary: Boundary, reach: int) -> Boundary | None:
    """Return what a boundary is once the frames around it are known; None where there is nothing.

    Args:
        views: frames in order.
        boundary: among them; a cut of the kind flash stands for a change that may be one.
        reach: an interruption lasts so many frames at most.

    Returns:
        The boundary; or, where the shot goes on behind it, the interruption.
    """
    start, end = boundary.start, boundary.end
    if end - start <= reach and (found := _interruption(views, start, end, reach)):
        return found
    if boundary.kind == "flash" or (end - start >= 3 and (pans.is_pan(views, boundary) or _is_relit(views, boundary))):
        return None
    if end - start <= 1 and boundary.kind in ("hard", "jump") and insets.is_inset(views[start - 1], views[end]):
        return None
    return boundary


def _interruption(views: Sequence[View], start: int, end: int, reach: int) -> Boundary | None:
    """Return the longest stretch around frames `[start, end)` before and after which the picture is the same."""

    @functools.cache  # the same pairs are asked for in many stretches
    def change(one: int, other: int) -> float:
        return evidence.change(views[one], views[other])

    spare = RANGE_SPARE_FRAMES if end > start else 0
    start, end = start + spare, max(end - spare, start + spare)
    for length in range(reach, max(end - start, 1) - 1, -1):
        for first in range(max(1, end - length), min(start, len(views) - 1 - length) + 1):
            after = first + length
            edges = min(change(first - 1, first), change(after - 1, after))
            if edges < EDGE_LEVELS or (
                length > CALM_SHARE * reach and not _is_restless([change(k - 1, k) for k in range(first, after + 1)])
            ):
                continue
            away = max(change(first - 1, k) for k in range(first, after))
            if away < MIN_LEVELS or edges < EDGE_SHARE * away:
                continue
            if change(first - 1, after) <= min(RETURNED * away, MOST_LEFT_LEVELS):
                level = max(views[k].mean for k in range(first, after))
                is_flash = level >= BRIGHTER_LEVELS + max(views[first - 1].mean, views[after].mean)
                return Boundary(first, after, "flash" if is_flash else "glitch", CONFIDENCE)
    return None


def _is_restless(steps: Sequence[float]) -> bool:
    """Return whether the frames of an interruption differ from one to the next as damaged ones do.

    Args:
        steps: changes into the first frame, from frame to frame, and out of the last one.
    """
    return max(steps[1:-1]) >= RESTLESS * max(steps[0], steps[-1])


def _is_relit(views: Sequence[View], boundary: Boundary) -> bool:
    """Return whether what looks like a dissolve is one scene that moves while the exposure changes.

    Half way lies a picture of it that moved less; in a dissolve it is a mixture, which neither shot explains.
    """
    if boundary.kind != "dissolve":
        return False
    one, other = views[boundary.start - 1], views[min(boundary.end, len(views) - 1)]
    if evidence.is_unexplained(one, other, RELIT_UNEXPLAINED):
        return False
    halfway = views[(boundary.start + boundary.end) // 2]
    return not any(evidence.is_unexplained(*pair, HALF_UNEXPLAINED) for pair in ((one, halfway), (halfway, other)))


def moved(boundary: Boundary, frames: int) -> Boundary:
    """Return a boundary so many frames later."""
    return replace(boundary, start=boundary.start + frames, end=boundary.end + frames)
