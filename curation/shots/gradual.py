"""Gradual transitions as interpolation between two pictures; a fade is one of which one picture is flat."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from curation.shots import composite, evidence
from curation.shots.evidence import View

SAMPLES = 9
"""Frames of a window at which its interpolation is tested: enough to see that no step makes the change."""

MIN_DIFFERENCE_LEVELS = 8.0
"""Root mean square difference of the two ends; below it coding noise decides."""

MAX_BACKSTEP, MAX_STEP = 0.05, 0.5
"""Mixing shares fall by noise only, and no eighth of a window holds half of the change (that is a cut)."""

MAX_FRAME_STEP = 0.35
"""Largest part of the change that one frame may bring: 3 steps, or 6 frames of animation on twos."""

MAX_MISFIT = 0.12
"""Squared difference from the straight line between the ends, over that of the ends. A wipe or a passing
object gives 0.25 (each pixel jumps once), an unrelated picture 0.75, a dissolve of still pictures 0."""

MAX_DETAIL = 0.8
"""Energy of fine detail half way, over the mean of the ends: 0.5 for a mixture of two pictures, 1 for motion
(the variance dip of Alattar, "Detecting and compressing dissolve regions", 1993)."""

MIN_RESIDUAL_LEVELS = 5.0
"""The change must reach most of the frame (see `evidence.residual`): a title that fades in does not."""

MIN_UNEXPLAINED, MIN_DECORRELATION = 0.4, 0.3
"""The ends must differ as unrelated shots do; panned, zoomed or relit views of one scene do not."""

_SETTLED = 0.05

MAX_DIP_SPREAD, MIN_RISE_LEVELS = 3.0, 1.0
"""Both shots have so many times the contrast of the flattest frame between them; towards them it rises so from frame to
frame."""

FLAT_SPREAD_LEVELS, BLACK_LEVELS, WHITE_LEVELS = 5.0, 32.0, 223.0
"""A frame is flat when its middle has less contrast than this and is darker or brighter than these."""


def first_look(tiny: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which windows may hold a dissolve, by their ends and their middle alone; that turns most of them down.

    Likewise which may hold a transition that shows both shots side by side: see `composite`.

    Args:
        tiny: uint8 (T, D), the `tiny` of frames in order.
        firsts: int (W,), each window's first frame.
        lasts: int (W,), each window's last frame.

    Returns:
        bool (W,) twice.
    """
    begin = tiny[firsts].astype(np.float32)
    change = tiny[lasts] - begin
    power = np.vecdot(change, change)
    differ = power >= MIN_DIFFERENCE_LEVELS**2 * tiny.shape[1]
    if not differ.any():
        return differ, differ
    middle = tiny[(firsts + lasts) // 2] - begin
    power = np.maximum(power, 1.0)
    share = np.vecdot(middle, change) / power
    from_first = np.vecdot(middle, middle) / power
    misfit = from_first - share**2
    composites = composite.may_be_composite(from_first, from_first + 1 - 2 * share)
    return differ & (share >= 0.0) & (share <= 1.0) & (misfit <= MAX_MISFIT), differ & composites


def dissolve(views: Sequence[View], tiny: np.ndarray, first: int, end: int) -> tuple[int, int] | None:
    """Find a dissolve that lies inside a window which passed `first_look`.

    Args:
        views: frames in order; few of them are looked at where there is none.
        tiny: uint8 (T, D), their `tiny`.
        first: the window's first frame.
        end: where it ends, exclusive.

    Returns:
        `(start, end)` among the views, half open, of the frames that mix two shots; None when the change
        from the first to the last frame is not an interpolation between unrelated pictures.
    """
    first_view, last_view = views[first], views[end - 1]
    if evidence.decorrelation(first_view, last_view) < MIN_DECORRELATION:
        return None
    picked = first + _sample_offsets(end - first)
    samples = tiny[picked].astype(np.float32)
    begin = samples[0]
    offsets = samples - begin
    change = offsets[-1]
    power = float(change @ change)
    shares = offsets @ change / power
    steps = shares[1:] - shares[:-1]
    mixed = (shares > 0.1) & (shares < 0.9)
    if steps.min() < -MAX_BACKSTEP or steps.max() > MAX_STEP or mixed.sum() < 2:
        return None
    misfits = ((offsets - shares[:, None] * change) ** 2).sum(axis=1) / power
    if misfits[mixed].max() > MAX_MISFIT:
        return None
    halfway = views[picked[int(np.abs(shares - 0.5).argmin())]]
    if halfway.detail > MAX_DETAIL * (first_view.detail + last_view.detail) / 2:
        return None
    if evidence.residual(first_view, last_view) < MIN_RESIDUAL_LEVELS:
        return None
    if not evidence.is_unexplained(first_view, last_view, MIN_UNEXPLAINED):
        return None
    course = (tiny[first:end] - begin) @ change / power
    start = int(np.flatnonzero(course <= _SETTLED)[-1]) + 1
    end = start + int(np.flatnonzero(course[start:] >= 1.0 - _SETTLED)[0])
    if np.diff(course[start - 1 : end + 1]).max() > MAX_FRAME_STEP:
        return None
    return first + start, first + end


def dip(views: Sequence[View], darkest: int, reach: int) -> tuple[int, int] | None:
    """Find a short fade out and in whose flattest frame is known: a dip to black, white or any other colour.

    Args:
        views: frames in order.
        darkest: the frame with less contrast than those next to it.
        reach: frames on each side that are looked at.

    Returns:
        `(start, end)`, half open, of the frames between both shots; None where there is no dip.
    """
    low = views[darkest].spread
    flat = 1.3 * low + MIN_RISE_LEVELS  # two frames next to the turn may be equally flat
    start = end = darkest
    while start > max(0, darkest - reach) and _rises(views[start], views[start - 1], flat):
        start -= 1
    while end + 1 < min(len(views), darkest + reach) and _rises(views[end], views[end + 1], flat):
        end += 1
    one, other = views[start], views[end]
    if end - start < 3 or min(one.spread, other.spread) < MAX_DIP_SPREAD * low:
        return None
    if evidence.decorrelation(one, other) < MIN_DECORRELATION or not evidence.is_unexplained(
        one, other, MIN_UNEXPLAINED
    ):
        return None
    return start + 1, end


def _rises(inner: View, outer: View, flat: float) -> bool:
    return outer.spread > inner.spread + MIN_RISE_LEVELS or max(inner.spread, outer.spread) <= flat


@lru_cache
def _sample_offsets(length: int) -> np.ndarray:
    return np.linspace(0, length - 1, SAMPLES).astype(int)


def is_mixture(before: View, between: View, after: View) -> bool:
    """Return whether a frame is a weighted mean of the frames around it, each with a share of at least a sixth."""
    begin = before.tiny.astype(np.float32)
    change, offset = after.tiny - begin, between.tiny - begin
    power = float(change @ change)
    share = float(offset @ change) / power if power else 0.0
    away = offset - share * change
    return 1 / 6 < share < 5 / 6 and float(away @ away) / power < MAX_MISFIT


def is_flat(view: View) -> bool:
    """Return whether a frame shows nothing but black or white."""
    return view.spread < FLAT_SPREAD_LEVELS and not BLACK_LEVELS < view.mean < WHITE_LEVELS
