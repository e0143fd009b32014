"""Text that is found in one frame of a clip, followed to the frames around it: it stands, or moves with the scene."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np

from operators.bars import Box
from operators.scene_motion import carried_patch, scene_motion

NEAR_STEPS = (1, -1, 4, -4)
"""Text is looked for so many frames on and back: far ones tell slow movement, near ones are still the same line."""
STILL_LIKENESS = 0.6
"""Correlation of a text's box with the same place of another frame, if it stands there."""
FOUND_LIKENESS, BETTER = 0.7, 0.04
"""Correlation with another place, if it has moved there; and by how much that exceeds the one of its own place."""
MOVED_PX, SHIFTED_PX = 1.5, 0.75
"""Way to the place where a text is found again, and way that the scene is carried, at least, to tell anything."""
MOST_WIDE = 0.95
"""What is wider, as a share of the picture, has nowhere to move to."""
REACH = (0.25, 0.2)
"""How far a text is looked for, as shares of the picture's width and height."""
CHANGED = 0.9
"""Below this correlation, what surrounds the text is not what it was."""
MIN_TEXTURE = 4.0
"""Standard deviation in grey levels below which a place tells nothing."""
CELLS = (16, 9)
EDGE_LEVELS, EDGE_CHANGE = 10.0, 0.35
"""Gradient of a letter's edge, and how much it may differ, as a share, where it stands in two frames."""
CORNER_PX, CORNER_LEVELS = 5, 5.0
"""Letters have edges in two directions within so many pixels, the weaker of at least this root mean square."""
SIDE_PX = 3
"""A text so near to the picture's side is coming in or going out."""
NEAR_S = 0.8
"""An overlay stands for at least so long: nothing shorter can be read."""
CAPTION_CENTER, CAPTION_TOP, CAPTION_FLAT = 0.12, 0.7, 2.5
"""Where captions stand: this near the middle, below this height; and their width over their height."""


class Verdict(Enum):
    """What a text is: `DOUBTFUL` where neither it nor what surrounds it moves."""

    OVERLAY = "overlay"
    SCENE = "scene"
    DOUBTFUL = "doubtful"


@dataclass(frozen=True)
class _Seen:
    """How often a text stood while the scene moved, moved itself, was gone, or could not be told.

    Attributes:
        nearest_s: to the nearest frame that it was compared with.
        there: in some other frame, its place looks as it does in this one.
    """

    stood: int = 0
    moved: int = 0
    gone: int = 0
    untold: int = 0
    nearest_s: float = np.inf
    there: bool = False


class Follower:
    """Follows texts through the frames of one clip."""

    def __init__(self, pixels: np.ndarray, times_s: np.ndarray, boxes: Sequence[Sequence[Box]]):
        """Take uint8 (T, H, W) luma, float64 (T,) seconds, and the boxes of every text in every frame."""
        self._pixels, self._times_s = pixels, times_s
        self._free = [_without(pixels.shape[1:], frame_boxes) for frame_boxes in boxes]
        self._changes: dict[tuple[int, int], bool] = {}
        self._motions: dict[tuple[int, int], np.ndarray | None] = {}
        self._found: dict[tuple[int, int, Box], tuple[float, float, float]] = {}

    def verdict(self, frame: int, box: Box) -> Verdict:
        """Return what the text in a box of a frame is.

        It is an overlay if it stood while what surrounds it changed, and scene text if it moved. A text that is gone in
        the frames just before and after was carried by the scene or by a thing in it, unless it stands where captions
        do.
        """
        seen = self._follow(frame, box)
        if seen.moved and seen.moved >= seen.stood:
            return Verdict.SCENE
        if seen.stood:
            return Verdict.OVERLAY
        is_gone = (seen.gone > 0 and not seen.untold) or self._is_fleeting(frame, box)
        if seen.nearest_s <= NEAR_S and ((is_gone and not self._is_caption(box)) or self._comes_in(frame, box, seen)):
            return Verdict.SCENE
        return Verdict.DOUBTFUL

    def moves(self, box: Box) -> bool:
        """Return whether what is in a box is carried by the scene at more of three times of the clip than not."""
        count = len(self._pixels)
        seen = [self._follow(count * k // 4, box) for k in (1, 2, 3)]
        return sum(one.moved > one.stood for one in seen) >= 2

    def standing_part(self, frame: int, box: Box) -> Box:
        """Return the part of an overlay's box that holds its letters, where other frames show which part stands.

        A sign that passes beneath a subtitle is found as one with it. Straight edges are no letters: those that lie
        along the movement stand, too.
        """
        left, top, right, bottom = box
        others = [k for step in NEAR_STEPS if 0 <= (k := frame + step) < len(self._pixels)]
        likely = [k for k in others if self._likeness(frame, k, box)[0] >= STILL_LIKENESS]
        if not likely:
            return box
        (ax, ay), (bx, by) = (_gradient(self._pixels[k], box) for k in (frame, likely[-1]))
        strong = np.hypot(ax, ay)
        stands = (strong >= EDGE_LEVELS) & (np.hypot(ax - bx, ay - by) <= EDGE_CHANGE * strong)
        x, y = np.where(stands, ax, 0), np.where(stands, ay, 0)
        size = (CORNER_PX, CORNER_PX)
        xx, yy, xy = (cv2.blur(product, size) for product in (x * x, y * y, x * y))
        weaker = (xx + yy) / 2 - np.sqrt((xx - yy) ** 2 / 4 + xy * xy)
        rows, columns = np.nonzero(stands & (weaker >= CORNER_LEVELS**2))
        if len(rows) < CORNER_PX:
            return box
        return (
            max(left, left + int(columns.min()) - 1),
            max(top, top + int(rows.min()) - 1),
            min(right, left + int(columns.max()) + 2),
            min(bottom, top + int(rows.max()) + 2),
        )

    def _follow(self, frame: int, box: Box) -> _Seen:
        counts = {"stood": 0, "moved": 0, "gone": 0, "untold": 0}
        nearest_s, there = np.inf, False
        for step in NEAR_STEPS:
            other = frame + step
            if not 0 <= other < len(self._pixels):
                continue
            nearest_s = min(nearest_s, abs(self._times_s[other] - self._times_s[frame]))
            word, still = self._compare(frame, other, box)
            there |= still >= STILL_LIKENESS
            if word == "gone" and abs(step) > 1:
                continue  # a line of speech has long been followed by another one
            counts[word] += 1
        return _Seen(**counts, nearest_s=float(nearest_s), there=there)

    def _compare(self, frame: int, other: int, box: Box) -> tuple[str, float]:
        """Return what became of a text in another frame (stood, moved, gone, untold), and its likeness in place."""
        patch = self._pixels[frame, box[1] : box[3], box[0] : box[2]]
        if min(patch.shape) < 4 or patch.std() < MIN_TEXTURE or (box[2] - box[0] > MOST_WIDE * self._pixels.shape[2]):
            return "untold", 0.0
        still, best, moved_px = self._likeness(frame, other, box)
        carried, shift_px = self._carried(frame, other, box)
        if shift_px >= SHIFTED_PX and carried >= FOUND_LIKENESS and carried >= still + BETTER:
            return "moved", still
        if shift_px >= SHIFTED_PX and still >= STILL_LIKENESS and still >= carried + BETTER:
            return "stood", still
        if moved_px > MOVED_PX and best >= FOUND_LIKENESS and best >= still + BETTER:
            return "moved", still
        is_there = still >= STILL_LIKENESS and moved_px <= MOVED_PX
        if (is_there and shift_px < SHIFTED_PX) or not self._has_changed(frame, other, box):
            return "untold", still
        return ("stood" if is_there else "gone"), still

    def _carried(self, frame: int, other: int, box: Box) -> tuple[float, float]:
        """Return a box's correlation with where the scene has been carried to, and how far that is, px.

        Where the movement of the scene is not known, neither is a number, and compares as neither more nor less.
        """
        key = (frame, other)
        if key not in self._motions:
            self._motions[key] = scene_motion(self._pixels[frame], self._pixels[other], self._free[frame])
        motion = self._motions[key]
        if motion is None:
            return np.nan, np.nan
        patch, shift_px = carried_patch(self._pixels[other], motion, box)
        left, top, right, bottom = box
        likeness = cv2.matchTemplate(patch, self._pixels[frame, top:bottom, left:right], cv2.TM_CCOEFF_NORMED)
        return float(likeness[0, 0]), shift_px

    def _likeness(self, frame: int, other: int, box: Box) -> tuple[float, float, float]:
        """Return a box's correlation with its place in another frame, the best one near by, and how far that is, px."""
        key = (frame, other, box)
        if key not in self._found:
            left, top, right, bottom = box
            _, height, width = self._pixels.shape
            across, down = round(REACH[0] * width), round(REACH[1] * height)
            from_x, from_y = max(0, left - across), max(0, top - down)
            field = self._pixels[other, from_y : min(height, bottom + down), from_x : min(width, right + across)]
            likeness = cv2.matchTemplate(field, self._pixels[frame, top:bottom, left:right], cv2.TM_CCOEFF_NORMED)
            _, best, _, (x, y) = cv2.minMaxLoc(likeness)
            moved_px = float(max(abs(from_x + x - left), abs(from_y + y - top)))
            self._found[key] = float(likeness[top - from_y, left - from_x]), float(best), moved_px
        return self._found[key]

    def _is_fleeting(self, frame: int, box: Box) -> bool:
        """Return whether a text is there in neither of the two frames around its own, and so for too short a time."""
        if not 0 < frame < len(self._pixels) - 1 or self._times_s[frame + 1] - self._times_s[frame - 1] > 2 * NEAR_S:
            return False
        return all(self._likeness(frame, other, box)[0] < STILL_LIKENESS for other in (frame - 1, frame + 1))

    def _comes_in(self, frame: int, box: Box, seen: _Seen) -> bool:
        """Return whether a text at the picture's side, which no other frame has there, is carried by the scene."""
        left, top, right, bottom = box
        _, height, width = self._pixels.shape
        if seen.there or (min(left, top) > SIDE_PX and right < width - SIDE_PX and bottom < height - SIDE_PX):
            return False
        others = [k for step in NEAR_STEPS if 0 <= (k := frame + step) < len(self._pixels)]
        return any(self._changes_all_over(frame, other) for other in others)

    def _has_changed(self, frame: int, other: int, box: Box) -> bool:
        """Return whether what surrounds a text changed between two frames; if that is plain, the whole picture."""
        left, top, right, bottom = box
        reach = max(8, round(0.8 * min(right - left, bottom - top)))
        rows, columns = slice(max(0, top - reach), bottom + reach), slice(max(0, left - reach), right + reach)
        free = (self._free[frame] & self._free[other])[rows, columns]
        one, two = (self._pixels[k, rows, columns][free].astype(np.float32) for k in (frame, other))
        if len(one) >= 64 and min(one.std(), two.std()) >= MIN_TEXTURE:
            one, two = one - one.mean(), two - two.mean()
            return float((one * two).mean() / (one.std() * two.std())) < CHANGED
        return self._changes_all_over(frame, other)

    def _changes_all_over(self, frame: int, other: int) -> bool:
        key = min(frame, other), max(frame, other)
        if key not in self._changes:
            self._changes[key] = _most_cells_changed(self._pixels[frame], self._pixels[other])
        return self._changes[key]

    def _is_caption(self, box: Box) -> bool:
        left, top, right, bottom = box
        _, height, width = self._pixels.shape
        is_flat = right - left >= CAPTION_FLAT * (bottom - top)
        return is_flat and abs((left + right) / 2 / width - 0.5) <= CAPTION_CENTER and top >= CAPTION_TOP * height


def _gradient(picture: np.ndarray, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradient within a box of uint8 (H, W), x and y, grey levels per pixel: float32 (h, w) each."""
    left, top, right, bottom = box
    part = picture[top:bottom, left:right].astype(np.float32)
    x, y = (cv2.Sobel(part, cv2.CV_32F, dx, 1 - dx, ksize=1, scale=0.5) for dx in (1, 0))
    return x, y


def _without(size: tuple[int, ...], boxes: Sequence[Box]) -> np.ndarray:
    """Return where no text is: bool (H, W)."""
    free = np.ones(size, bool)
    for left, top, right, bottom in boxes:
        free[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = False
    return free


def _most_cells_changed(one: np.ndarray, two: np.ndarray) -> bool:
    """Return whether half the parts of the picture that show anything differ by more than their light."""
    a, b = one.astype(np.float32), two.astype(np.float32)
    mean_a, mean_b, square_a, square_b, product = (
        cv2.resize(values, CELLS, interpolation=cv2.INTER_AREA) for values in (a, b, a * a, b * b, a * b)
    )
    spread_a = np.sqrt(np.maximum(square_a - mean_a**2, 0))
    spread_b = np.sqrt(np.maximum(square_b - mean_b**2, 0))
    shown = np.minimum(spread_a, spread_b) >= MIN_TEXTURE
    if not shown.any():
        return False
    likeness = (product - mean_a * mean_b)[shown] / (spread_a * spread_b)[shown]
    return float((likeness < CHANGED).mean()) >= 0.5
