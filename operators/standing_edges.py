"""Straight edges along the picture's sides that stand still while what is on both of their sides changes.

Such are the edges of a picture in the picture, and of split screens. Where they have no line between them, one picture
ends and another begins: from one column to the next the picture steps, by ever other amounts, at every time, which the
columns around do not. An edge of the scene does so as well where everything moves along it, as past the horizon in a
pan; hence what is on both sides must not move alike, along the edge.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from operators.bars import Box
from operators.camera_path import followed

MIN_FRAMES = 5
"""Of fewer pictures, edges of a scene that moves slowly pass for standing ones."""
MIN_LEVELS, MIN_RATIO, LEAST_RATIO = 4.0, 1.6, 1.3
"""Mean step across an edge, grey levels; that over the usual one of either side; and the same in each part of the time.
Measured on drawn split screens, and on footage without any."""
PARTS = 3
SWAY_PX, SAME_STEP = 3, 0.7
"""At its place an edge steps by such a share of the largest step so near."""
THERE, THERE_SHARE = 0.25, 0.75
"""A step of such a share of the mean one is there in so many of the pictures: bars that pass are not."""
SMOOTH = 0.08
"""A step is a mean over such a share of the side that the edge runs along."""
MEDIAN_PX, BESIDE_PX = 11, 8
"""Side of the square whose median step is the usual one, and how far its middle is from the edge."""
LOUD_LEVELS, LOUD_SHARE = 2.5, 0.6
"""What changes does so by so many levels from one picture to the next, and between such a share of them: not only while
somebody walks past."""
MAX_LINE = 0.045
"""Widest line between two pictures, as a share of the short side."""
MIN_LENGTH, MAX_GAP, REACH = 0.15, 0.06, 0.05
"""Least length of an edge, longest gap in it, and how far its ends may be from another one; shares of the side."""
EDGE_PX = 3
PAIRS, MIN_POINTS, BAND = 10, 3, 0.25
"""Corners are followed between so many pairs of pictures, within such a share of the picture beside an edge."""
WITHIN_PX, MIN_SHARE, MIN_SHARE_OF_ALL, MAX_ACROSS_PX = 1.0, 0.6, 0.8, 0.5
"""One movement carries corners to within so much (at a short side of 180 px), this share of those on each side, or of
all where a side has none, and the edge no farther across itself from one picture to the next."""


@dataclass(frozen=True)
class Edge:
    """An edge: it lies before column (row) `at`, and runs through the rows (columns) `[start, end)`."""

    is_vertical: bool
    at: int
    start: int
    end: int


def standing_edges(pixels: np.ndarray, inside: Box) -> list[Edge]:
    """Return the edges that stand through a clip while both of their sides change.

    Args:
        pixels: uint8 (T, H, W) luma at different times of the clip.
        inside: the picture inside the bars, pixels: bars have edges of their own.
    """
    left, top, right, bottom = inside
    if len(pixels) < MIN_FRAMES or min(right - left, bottom - top) < 48:
        return []
    cut = pixels[:, top:bottom, left:right]
    steps = np.abs(np.diff(_evened(cut), axis=0))
    found = [Edge(True, x + left, a + top, b + top) for x, a, b in _along_columns(cut, steps)]
    turned = [np.ascontiguousarray(np.swapaxes(each, 1, 2)) for each in (cut, steps)]
    found += [Edge(False, y + top, a + left, b + left) for y, a, b in _along_columns(*turned)]
    if not found:
        return []
    movements = _movements(pixels)
    return [edge for edge in found if not _is_of_scene(edge, movements, pixels.shape[1:])]


def divided(edges: list[Edge], inside: Box, min_share: float) -> tuple[list[Edge], int]:
    """Return the edges that divide the picture, and into how many parts; those that end within it are left out.

    Args:
        edges: any.
        inside: the picture inside the bars.
        min_share: what is smaller than this share of it is no part.
    """
    left, top, right, bottom = inside
    free = np.ones((bottom - top, right - left), np.uint8)
    for edge in edges:
        begin, side = (top, bottom - top) if edge.is_vertical else (left, right - left)
        reach = round(REACH * side)
        run = slice(max(0, edge.start - begin - reach), edge.end - begin + reach)
        if edge.is_vertical:
            free[run, max(0, edge.at - left - 1) : edge.at - left + 1] = 0
        else:
            free[max(0, edge.at - top - 1) : edge.at - top + 1, run] = 0
    _, labels, stats, _ = cv2.connectedComponentsWithStats(free, connectivity=4)
    large = stats[:, cv2.CC_STAT_AREA] >= min_share * free.size
    large[0] = False  # the edges themselves
    parts = np.where(large[labels], labels, 0)
    return [edge for edge in edges if _divides(edge, parts, inside)], max(1, int(large.sum()))


def _divides(edge: Edge, parts: np.ndarray, inside: Box) -> bool:
    """Return whether other parts lie on one side of an edge than on the other, along most of it."""
    seen, across, along = (parts.T, 0, 1) if edge.is_vertical else (parts, 1, 0)
    at, run = edge.at - inside[across], slice(edge.start - inside[along], edge.end - inside[along])
    one, other = seen[max(0, at - 3), run], seen[min(len(seen) - 1, at + 3), run]
    return bool(((one != other) & (one > 0) & (other > 0)).mean() >= 0.5)


def _evened(pixels: np.ndarray) -> np.ndarray:
    """Return pictures without what the brightness and contrast of the whole picture do: float32 (T, H, W)."""
    means = pixels.mean(axis=(1, 2), dtype=np.float32)[:, None, None]
    spreads = np.maximum(pixels.std(axis=(1, 2), dtype=np.float32), 1.0)[:, None, None]
    return (pixels - means) * (np.median(spreads) / spreads)


def _along_columns(pixels: np.ndarray, changes: np.ndarray) -> list[tuple[int, int, int]]:
    """Return edges between columns of (T, H, W): the column behind one, its first row and that after its last one.

    Args:
        pixels: uint8 luma.
        changes: float32 (T - 1, H, W), levels by which it changes from one picture to the next.
    """
    count, height, width = pixels.shape
    length = 2 * round(SMOOTH * height / 2) + 1
    parts = np.array_split(np.arange(count), min(PARTS, count // 2))
    smooth = np.zeros((count, height, width), np.float32)
    strength = np.full((height, width), np.inf, np.float32)
    steps, usual, raw = np.zeros((3, height, width), np.float32)
    for part in parts:
        for k in part.tolist():
            smooth[k, :, 1:-1] = cv2.absdiff(pixels[k, :, 2:], pixels[k, :, :-2])
            raw += smooth[k] / count
            smooth[k] = cv2.blur(smooth[k], (1, length))
        step = np.asarray(smooth[part].mean(axis=0), np.float32)
        around = _around(step)
        steps += step / len(parts)
        usual += around / len(parts)
        strength = np.minimum(strength, step / np.maximum(around, 1.0))
    is_edge = (steps >= MIN_LEVELS) & (steps >= MIN_RATIO * usual) & (strength >= LEAST_RATIO)
    is_edge &= (smooth >= THERE * steps).mean(axis=0) >= THERE_SHARE
    if cv2.blur(is_edge.astype(np.float32), (3, 1)).sum(axis=0).max() < MIN_LENGTH * height / 6:
        return []  # most footage ends here
    line = max(2, round(MAX_LINE * min(height, width)))
    loud = np.mean([cv2.blur(change, (3, length)) >= LOUD_LEVELS for change in changes], axis=0) >= LOUD_SHARE
    is_edge &= _near(loud, -line) & _near(loud, line)
    is_edge[:, :EDGE_PX] = is_edge[:, width - EDGE_PX :] = False
    runs = [run for run in _runs(is_edge, steps, line) if _stands(smooth, *run)]
    return [(x, *_ends(cv2.blur(raw[:, x], (1, 3)).ravel(), start, end)) for x, start, end in runs]


def _stands(steps: np.ndarray, x: int, start: int, end: int) -> bool:
    """Return whether the step of (T, H, W) is in one place in most pictures, to the pixel: an overlay does not sway."""
    first = max(0, x - SWAY_PX)
    profiles = steps[:, start:end, first : x + SWAY_PX + 1].mean(axis=1)
    at = int(profiles.mean(axis=0).argmax())
    return bool((profiles[:, at] >= SAME_STEP * profiles.max(axis=1)).mean() >= THERE_SHARE)


def _ends(steps: np.ndarray, start: int, end: int) -> tuple[int, int]:
    """Return where an edge, found in smoothed steps, really ends: where the step (H,) is still half as large."""
    large = np.flatnonzero(steps[start:end] >= np.median(steps[start:end]) / 2)
    return start + int(large[0]), start + int(large[-1]) + 1


def _around(step: np.ndarray) -> np.ndarray:
    """Return the usual step of the busier side of each pixel: float32 (H, W)."""
    median = cv2.medianBlur(np.clip(4 * step, 0, 255).astype(np.uint8), MEDIAN_PX).astype(np.float32) / 4
    wide = np.pad(median, ((0, 0), (BESIDE_PX, BESIDE_PX)), mode="edge")
    return np.maximum(wide[:, : step.shape[1]], wide[:, 2 * BESIDE_PX :])


def _near(mask: np.ndarray, reach: int) -> np.ndarray:
    """Return where one of the pixels to the right (or left, for a reach below 0) is set, so far away at most."""
    found = np.zeros_like(mask)
    for away in range(2, abs(reach) + 3):
        if reach > 0:
            found[:, :-away] |= mask[:, away:]
        else:
            found[:, away:] |= mask[:, :-away]
    return found


def _runs(is_edge: np.ndarray, steps: np.ndarray, line: int) -> list[tuple[int, int, int]]:
    """Return the longest runs down a column, each of a column (or two) and MIN_LENGTH; others beside it are its own."""
    height, width = is_edge.shape
    gap = 2 * round(MAX_GAP * height / 2) + 1
    wide = cv2.dilate(is_edge.astype(np.uint8), np.ones((1, 3), np.uint8))
    padded = np.pad(wide, ((gap, gap), (0, 0)))
    left = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, np.ones((gap, 1), np.uint8))[gap:-gap].astype(bool)
    found = []
    for x in np.argsort(-(left * steps).sum(axis=0), kind="stable").tolist():
        for start, end in _stretches(left[:, x]):
            if end - start >= MIN_LENGTH * height:
                found.append((x, start, end))
                left[start:end, max(0, x - line - 2) : x + line + 3] = False
    return found


def _stretches(marks: np.ndarray) -> list[tuple[int, int]]:
    """Return where a bool (N,) is set, as half-open ranges."""
    turns = np.flatnonzero(np.diff(np.concatenate([[0], marks.astype(np.int8), [0]])))
    return list(zip(turns[::2].tolist(), turns[1::2].tolist(), strict=True))


def _movements(pixels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return corners and where they are in the next picture, of several pairs: float32 (N, 2) each, x then y."""
    chosen = np.unique(np.linspace(0, len(pixels) - 2, min(PAIRS, len(pixels) - 1)).round().astype(int))
    return [followed(pixels[k], pixels[k + 1]) for k in chosen.tolist()]


def _is_of_scene(edge: Edge, movements: list[tuple[np.ndarray, np.ndarray]], size: tuple[int, ...]) -> bool:
    """Return whether one movement carries what is on both sides of an edge and leaves it in place, most of the time."""
    votes = [vote for one, other in movements if (vote := _leaves_in_place(edge, one, other, size)) is not None]
    return bool(votes) and 2 * sum(votes) >= len(votes)


def _leaves_in_place(edge: Edge, one: np.ndarray, other: np.ndarray, size: tuple[int, ...]) -> bool | None:
    """Return whether one movement of corners on both sides leaves an edge in place; None where there are too few."""
    across, along = (0, 1) if edge.is_vertical else (1, 0)
    band, unit = BAND * size[1 - across], min(size) / 180
    away = one[:, across] - edge.at
    near = (one[:, along] >= edge.start - band / 2) & (one[:, along] < edge.end + band / 2) & (np.abs(away) < band)
    sides = [near & (away < 0), near & (away >= 0)]
    is_bare = min(side.sum() for side in sides) < MIN_POINTS  # near the picture's side, or before a plain wall
    if is_bare:
        near = np.ones(len(one), bool)
    if near.sum() < 2 * MIN_POINTS:
        return None
    fit, fits = cv2.estimateAffinePartial2D(one[near], other[near], ransacReprojThreshold=WITHIN_PX * unit)
    if fit is None:
        return False
    fitting = np.zeros(len(one), bool)
    fitting[near] = fits.ravel().astype(bool)
    if (is_bare and fits.mean() < MIN_SHARE_OF_ALL) or any(fitting[s].mean() < MIN_SHARE for s in sides if s.any()):
        return False
    middle = np.empty(2)
    middle[across], middle[along] = edge.at - 0.5, (edge.start + edge.end) / 2
    return bool(abs((fit[:, :2] @ middle + fit[:, 2] - middle)[across]) < MAX_ACROSS_PX * unit)
