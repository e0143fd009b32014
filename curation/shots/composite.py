"""Gradual transitions that show two shots side by side: wipes, circles, slices, and one shot that pushes another out.

In a wipe every place changes once, at its own time, from what the first shot shows there to what the second one does.
In a push, what is seen is a window that moves over both shots laid next to each other.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from curation.shots import evidence, sliding
from curation.shots.evidence import View
from curation.shots.types import Boundary

SAMPLES = 9
"""Frames of a window that are looked at first."""

TELLING_LEVELS = 10
"""A place tells two shots apart where each lies so far outside what the other shows near it."""

MIN_TELLING, MAX_MISFIT, MAX_RETURNED = 0.22, 0.18, 0.1
"""So many places must tell; so much may agree with neither shot, over how far they lie apart; and so many places may
show the first shot again after the second one. Things that move through a picture bring some of them back; wipes do so
only as far as the shots move. (A shot that follows the camera gives 0.1 to 0.5, wipes of still shots 0 to 0.01.)"""

MIN_UNEXPLAINED = 0.5
"""The ends must differ as unrelated shots do, the more so the more places come back."""

STILL_TELLING, STILL_UNEXPLAINED = 0.08, 0.12
"""Of shots that hardly move less has to differ, as nothing else changes each place once: see `_least_unexplained`."""

MIN_ADVANCE = 0.08
"""From quarter to quarter of a window, so much more of the change is made."""

MAX_FRAME_STEP = 0.35
"""Largest part of the change that one frame may bring; more is a cut."""

SETTLED = 0.03
EDGE_LEVELS, MOST_EDGE = 6.0, 0.8
"""At its ends, a transition changes a small part of the picture: some cell by so much; so much of it is an end."""

MAX_UNCHANGED, UNCHANGED_LEVELS = 0.4, 4.0
"""A transition changes the whole picture; what passes through it leaves the rest as it was."""

EDGE_PAD = 0.1
"""The first and the last such part of a wipe changes too little to be seen."""

MIN_DECORRELATION, MIN_RESIDUAL_LEVELS = 0.25, 4.0

SEEN_CELLS, SEEN_SHARE, SEEN_LEVELS = 0.2, 0.9, 5
"""Where something passed, what it uncovers was seen before: in such a share of the cells that tell the shots apart,
such a share of the places showed, within so many levels, what they show afterwards."""

CONFIDENCE = 0.9
"""Share of what is found that is right, on films edited by `benchmarks.edits`."""

_SEEN_SAMPLES = 8
_NEAR = np.ones((3, 3), np.uint8)
_NEAR_FINE = np.ones((5, 5), np.uint8)
_CELL_PX = 4


def may_be_composite(from_first: np.ndarray, from_last: np.ndarray) -> np.ndarray:
    """Return which windows' middle frames may be made of both ends, bool (W,).

    Args:
        from_first: float32 (W,), squared difference of the middle from the first frame, over that of both ends.
        from_last: likewise from the last frame.
    """
    both = from_first + from_last
    return (np.minimum(from_first, from_last) >= 0.08) & (both >= 0.6) & (both <= 2.2)


def find(
    views: Sequence[View],
    tiny: np.ndarray,
    first: int,
    end: int,
    step: int,
    since: int,
    *,
    jumps: bool,
) -> Boundary | None:
    """Find a wipe or a slide inside a window which passed `may_be_composite`.

    Args:
        views: frames in order; few of them are looked at where there is none.
        tiny: uint8 (T, D), their `tiny`.
        first: the window's first frame.
        end: where it ends, exclusive.
        step: frames over which a change at one place is looked for.
        jumps: whether the picture changes much more in the window's middle than at its ends, as it does in a slide.
        since: the first frame held of the shot that the window begins with.

    Returns:
        Among the views, half open, the frames that show two shots, with their kind; None when there is no such thing.
    """
    one, other = views[first], views[end - 1]
    advances = _advances(tiny, first, end)
    if not (jumps or advances) or evidence.decorrelation(one, other) < MIN_DECORRELATION:
        return None
    shape = (18, 32) if one.half.shape[1] >= one.half.shape[0] else (32, 18)
    small = tiny[first:end, : shape[0] * shape[1]].reshape(-1, *shape)
    samples = np.linspace(0, len(small) - 1, SAMPLES).astype(int)
    found = _wipe(views, first, end, step, since) if advances and _may_wipe(small[samples]) else None
    if found:
        return Boundary(*found, "wipe", CONFIDENCE)
    return _slide(views, small, first) if jumps else None


def _advances(tiny: np.ndarray, first: int, end: int) -> bool:
    """Return whether a window's pictures leave the first one and near the last one step by step, as in wipes.

    What moves is soon as unlike the first picture as it will ever be.
    """
    one, quarter, half, later, other = (tiny[first + (end - 1 - first) * k // 4] for k in range(5))
    apart = MIN_ADVANCE * _distance(one, other)
    away, near = _distance(one, half), _distance(other, half)
    return (
        _distance(one, quarter) + apart <= away
        and near + apart <= _distance(other, quarter)
        and away + apart <= _distance(one, later)
        and _distance(other, later) + apart <= near
    )


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the sum of squared differences of two uint8 (D,)."""
    return cv2.norm(one, other, cv2.NORM_L2SQR)


def _outside(pictures: np.ndarray, other: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return how far uint8 (N, H, W) pictures lie outside what another shows near each place, in levels."""
    count, (height, width) = len(pictures), other.shape
    low, high = (np.tile(spread(other, near), (count, 1)) for spread in (cv2.erode, cv2.dilate))
    stack = np.ascontiguousarray(pictures).reshape(-1, width)
    return cv2.max(cv2.subtract(stack, high), cv2.subtract(low, stack)).reshape(count, height, width)


def _course(pictures: np.ndarray, near: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return how the last of uint8 (N, H, W) pictures takes the place of the first one.

    Returns:
        shares of places that show the last one, float64 (N,); what agrees with neither, (N,); which places show it,
        bool (N, P). None where the two cannot be told apart.
    """
    from_first, from_last = (_outside(pictures, pictures[k], near) for k in (0, -1))
    apart = cv2.min(from_first[-1], from_last[0])
    telling = apart >= TELLING_LEVELS
    if np.count_nonzero(telling) < STILL_TELLING * telling.size:
        return None
    from_first, from_last = from_first[:, telling], from_last[:, telling]
    shows = from_first > from_last
    misfit = np.minimum(from_first, from_last).sum(axis=1, dtype=float) / float(apart[telling].sum(dtype=float))
    return shows.mean(axis=1), misfit, shows


def _may_wipe(samples: np.ndarray) -> bool:
    """Tell by a few small pictures whether each place changes once."""
    found = _course(samples, _NEAR)
    if found is None:
        return False
    shares, misfit, shows = found
    mixed = (shares > 0.1) & (shares < 0.9)
    return bool(mixed.any() and misfit[mixed].mean() <= 1.5 * MAX_MISFIT and _returned(shows) <= 2 * MAX_RETURNED)


def _returned(shows: np.ndarray) -> float:
    """Return the share of places that show the first shot again after the second one, of bool (N, P)."""
    return float((shows[:-1] & ~shows[1:]).any(axis=0).mean())


def _wipe(views: Sequence[View], first: int, end: int, step: int, since: int) -> tuple[int, int] | None:
    """Find a wipe inside a window."""
    begin, last = first, end - 1
    for _ in range(3):  # closer ends have moved less since
        if last - begin < 3:
            return None
        found = _course(np.stack([views[i].half for i in range(begin, last + 1)]), _NEAR_FINE)
        if found is None:
            return None
        shares, misfit, shows = found
        start = int(np.flatnonzero(shares <= SETTLED)[-1])
        stop = start + int(np.flatnonzero(shares[start:] >= 1 - SETTLED)[0])
        is_tight = (start, stop) == (0, len(shares) - 1)
        begin, last = begin + start, begin + stop
        if is_tight:
            break
    shares, misfit, shows = (values[start : stop + 1] for values in (shares, misfit, shows))
    mixed = (shares > 0.1) & (shares < 0.9)
    if mixed.sum() < 2 or np.diff(shares).max() > MAX_FRAME_STEP:
        return None
    left, returned, telling = misfit[mixed].mean(), _returned(shows), shows.shape[1] / views[begin].half.size
    least = _least_unexplained(left, returned, telling)
    if least is None or not _are_unrelated(views[begin], views[last], least) or _was_seen(views, since, begin, last):
        return None
    return _with_edges(views, 0, len(views), begin + 1, last, step)


def _was_seen(views: Sequence[View], since: int, begin: int, last: int) -> bool:
    """Return whether a part of what a change from `begin` to `last` brought was there before: something passed.

    Args:
        views: frames in order.
        since: the first frame of those before `begin` that may be compared.
        begin: the frame before the change.
        last: the frame after it.
    """
    if since >= begin:
        return False
    one, other = views[begin].half, views[last].half
    height, width = one.shape
    cells = (max(1, width // _CELL_PX), max(1, height // _CELL_PX))
    ends = np.stack([one, other])
    apart = cv2.min(_outside(ends[:1], other, _NEAR_FINE)[0], _outside(ends[1:], one, _NEAR_FINE)[0])
    telling = (apart >= TELLING_LEVELS).astype(np.float32)
    tells = cv2.resize(telling, cells, interpolation=cv2.INTER_AREA)
    may_tell = tells >= 0.5
    if not may_tell.any():
        return False
    at = sorted({int(k) for k in np.linspace(since, begin - 1, _SEEN_SAMPLES)})
    before = np.stack([views[k].half for k in at])
    new, old = (_outside(before, end, _NEAR_FINE) for end in (other, one))
    for seen in ((new <= SEEN_LEVELS) & (old >= TELLING_LEVELS)).astype(np.float32) * telling:
        share = cv2.resize(seen, cells, interpolation=cv2.INTER_AREA)
        if (share[may_tell] >= SEEN_SHARE * tells[may_tell]).mean() >= SEEN_CELLS:
            return True
    return False


def _unchanged(one: View, other: View) -> float:
    """Return the share of cells that look alike in both pictures, 0..1."""
    change = cv2.absdiff(one.half, other.half).astype(np.float32)
    return float((cv2.resize(change, (8, 6), interpolation=cv2.INTER_AREA) < UNCHANGED_LEVELS).mean())


def _least_unexplained(left: float, returned: float, telling: float) -> float | None:
    """Return how much of the last shot must be unexplained by the first one, 0..1, by how a wipe was followed.

    Args:
        left: what agrees with neither shot, over how far they lie apart.
        returned: share of places that show the first shot again.
        telling: share of places that tell the shots apart.
    """
    still = STILL_UNEXPLAINED + 4 * returned + 5 * left + 2 * max(0.0, 0.25 - telling)
    moving = MIN_UNEXPLAINED + returned
    may_move = telling >= MIN_TELLING and left <= MAX_MISFIT and returned <= MAX_RETURNED
    least = min(still, moving) if may_move else still
    return least if least <= 1 else None


def _are_unrelated(one: View, other: View, least_unexplained: float) -> bool:
    return (
        evidence.decorrelation(one, other) >= MIN_DECORRELATION
        and _unchanged(one, other) <= MAX_UNCHANGED
        and evidence.residual(one, other) >= MIN_RESIDUAL_LEVELS
        and evidence.is_unexplained(one, other, least_unexplained)
    )


def _with_edges(views: Sequence[View], first: int, end: int, start: int, stop: int, step: int) -> tuple[int, int]:
    """Add the frames at both ends of a transition in which only a small part of the picture changes.

    Args:
        views: frames in order.
        first: the first frame that may be looked at.
        end: where these end, exclusive.
        start: the first frame of the transition as known so far.
        stop: where it ends, exclusive.
        step: frames over which changes are looked at.
    """
    most = 2 * step + int(MOST_EDGE * (stop - start))
    begin, last = start, stop
    while begin - step > first and start - begin < most and _jumps_somewhere(views[begin - 1 - step], views[begin - 1]):
        begin -= 1
    while last + step < end and last - stop < most and _jumps_somewhere(views[last], views[last + step]):
        last += 1
    pad = round(EDGE_PAD * (last - begin))
    return max(first + 1, begin - pad), min(end, last + pad)


def _jumps_somewhere(before: View, after: View) -> bool:
    """Return whether some cell shows what was not near it before."""
    height, width = after.half.shape
    cells = (max(1, width // _CELL_PX), max(1, height // _CELL_PX))
    new = _outside(after.half[None], before.half, _NEAR_FINE)[0].astype(np.float32)
    return bool(cv2.resize(new, cells, interpolation=cv2.INTER_AREA).max() >= EDGE_LEVELS)


def _slide(views: Sequence[View], pictures: np.ndarray, first: int) -> Boundary | None:
    """Find a push, cover or reveal inside a window of small pictures, uint8 (N, H, W)."""
    ends = (pictures[k].astype(np.float32) for k in (0, len(pictures) // 2, -1))
    found = sliding.may_slide(*ends)
    followed = sliding.course(pictures.astype(np.float32), *found) if found else None
    if found is None or followed is None:
        return None
    start, stop, left = followed
    least = sliding.STILL_UNEXPLAINED if left <= sliding.STILL_LEFT else MIN_UNEXPLAINED
    are_unrelated = _are_unrelated(views[first + start - 1], views[first + stop], least)
    kind = "push" if sliding.MODELS[found[1]] == "push" else "slide"
    return Boundary(first + start, first + stop, kind, CONFIDENCE) if are_unrelated else None
