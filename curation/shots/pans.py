"""Fast pans, which pass for transitions: one picture that moves one way, and not two side by side."""

from collections.abc import Sequence

import numpy as np

from curation.shots import gradual
from curation.shots.evidence import View
from curation.shots.movement import UNMOVED, Shift, follow
from curation.shots.types import Boundary

SIDE_BY_SIDE = ("push", "slide", "wipe", "zoom")
"""Kinds for which a pan passes where both shots would be seen side by side."""
THROUGH = ("dissolve", "fade_black", "fade_white")
"""Kinds for which it passes where it goes through a flat part of the scene."""

MIN_MATCH = 0.82
"""Each picture of a pan is the one before, moved: their correlation."""
FAR, FAR_THROUGH, FAR_AROUND = 0.4, 0.25, 0.8
"""A pan goes so far within the range, in widths of the picture; where it goes through a flat part, in which nothing is
seen to move, so far, and with what lies around the range so far in all."""
SAME_MATCH, CALM_FRAMES = 0.7, 6
"""What lies within the range before and after the movement is one picture each: what both its ends show correlates.
Fewer frames hold no transition."""
PUSH_MOST = 1.08
"""One shot that pushes another out goes as far as the picture is wide, with what the tracking errs; a pan any way."""
MAX_SEAM, SEAM_LEVELS, SEAM_RATIO = 0.6, 8.0, 3.0
"""Share of the rows that step at one column: where two shots lie side by side, most do. A step is so large, and so many
times the row's median."""
BLURRED = 0.6
"""A fast camera leaves so little of the fine detail of its calmer end; a transition that is drawn leaves all of it."""


def is_pan(views: Sequence[View], boundary: Boundary) -> bool:
    """Return whether the frames of a range are one picture that moves one way.

    Each frame has to be the one before it, moved; what lies within the range before and after the movement has to be
    one picture each. How far it goes is followed beyond the range, as that of a push ends with the shot pushed out.
    """
    if boundary.kind not in SIDE_BY_SIDE + THROUGH:
        return False
    begin, last = max(0, boundary.start - 1), min(boundary.end, len(views) - 1)
    steps = []
    for k in range(begin, last):  # most ranges end at their first steps
        steps.append(_step(views[k], views[k + 1]))
        if steps[-1].match < MIN_MATCH:
            return False
    moving = [k for k, step in enumerate(steps) if step.is_clear]
    way = sum(steps[k].right for k in moving)
    width = views[begin].half.shape[1]
    goes_through = boundary.kind in THROUGH
    if abs(way) < (FAR_THROUGH if goes_through else FAR) * width or any(
        steps[k].right * way < -abs(way) for k in moving
    ):
        return False
    around = ((begin, begin + moving[0]), (begin + moving[-1] + 1, last))
    calm = [(views[one].half, views[other].half) for one, other in around if other - one >= CALM_FRAMES]
    if any(follow(*ends).match < SAME_MATCH for ends in calm):
        return False
    moved = (abs(way) + _beyond(views, begin, -1, way) + _beyond(views, last, 1, way)) / width
    if goes_through:
        return moved >= FAR_AROUND
    quarter = (last - begin) // 4
    inside = views[begin + 1 + quarter : max(last - quarter, begin + 2 + quarter)]
    return moved > PUSH_MOST or _is_blurred(views, begin, last) or _seam(inside) <= MAX_SEAM


def _step(one: View, other: View) -> Shift:
    """Return how a frame moves; where it is black or white, nothing is to be seen of it."""
    return UNMOVED if gradual.is_flat(one) or gradual.is_flat(other) else follow(one.half, other.half)


def _beyond(views: Sequence[View], frame: int, direction: int, way: int) -> int:
    """Return by how many pixels the movement goes on from a frame, forward (1) or back (-1)."""
    moved = 0
    while 0 <= frame + direction < len(views):
        step = _step(*(views[k] for k in sorted((frame, frame + direction))))
        if step.match < MIN_MATCH or not step.is_clear or step.right * way <= 0:
            break
        moved += abs(step.right)
        frame += direction
    return moved


def _is_blurred(views: Sequence[View], begin: int, last: int) -> bool:
    """Return whether some frame between two has much less fine detail than both."""
    least = min(views[k].detail for k in range(begin, last + 1))
    return least < BLURRED * min(views[begin].detail, views[last].detail)


def _seam(views: Sequence[View]) -> float:
    """Return the share of the rows, or of the columns, that step at one place: median over frames, 0 to 1."""
    found = []
    for view in views:
        shares = []
        for luma in (view.luma.astype(np.float32), view.luma.T.astype(np.float32)):
            steps = np.abs(luma[:, 2:] - luma[:, :-2])
            least = np.maximum(SEAM_LEVELS, SEAM_RATIO * np.median(steps, axis=1, keepdims=True))
            shares.append(float((steps > least).mean(axis=0)[4:-4].max()))
        found.append(max(shares))
    return float(np.median(found))
