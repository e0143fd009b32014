"""Bars that are not black: of one even colour, or a blurred copy of the picture behind it (vertical video made wide).

Plain walls, skies and snow are no bars: bars come in pairs of one level (or as two parts of one blurred copy), end in a
straight line along which the picture begins, and stand through the whole clip.
"""

import cv2
import numpy as np

Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels"""

NOISE_LEVELS = 10
"""A bar's pixel may differ so much from the bar: noise, and ringing at the picture's edge."""
EVEN_SHARE = 0.985
"""Share of a line that must be even for a bar: a few specks do not end it."""
TEXT_SHARE, TEXT_MARGIN = 0.35, 0.1
"""A line that carries a caption is still even to this share, and all of it at both ends, each such a share of it."""
EDGE_SHARE = 0.6
"""Share of the line behind a bar that must differ from it: what stands before a plain wall has no straight edge."""
MIN_BAR, MAX_UNEVEN = 0.02, 2.0
"""Least length of a bar, as a share of the frame; and how much longer than the other one may be."""

MIN_BLURRED = 0.05
"""Least length of a blurred bar, as a share of the frame."""
MAX_DETAIL, MIN_DETAIL_LEVELS = 0.3, 1.0
"""Fine detail of a blurred bar's line, over that of the picture's middle, which must have some."""
MIN_STEP_LEVELS, MIN_STEP_RATIO = 6.0, 3.0
"""Step where a blurred bar ends, mean over the line; and over those within the bar."""
MIN_LIKENESS = 0.8
"""Correlation of blurred bars with what an enlarged copy of the picture would show there."""
CELLS = 12


def inner_box(pixels: np.ndarray) -> Box | None:
    """Return the picture inside even or blurred bars of uint8 (T, H, W) luma of one clip; None where there are none."""
    height, width = pixels.shape[1:]
    if min(height, width) < 32:
        return None
    darkest, brightest = pixels.min(axis=0), pixels.max(axis=0)
    top, below = _even_pair(darkest, brightest)
    left, beyond = _even_pair(darkest.T, brightest.T) if not top else (0, 0)
    if not top and not left:
        left = beyond = _blurred(pixels)
        top = below = 0 if left else _blurred(np.swapaxes(pixels, 1, 2))
    return (left, top, width - beyond, height - below) if top or left else None


def _even_pair(darkest: np.ndarray, brightest: np.ndarray) -> tuple[int, int]:
    """Return the lengths of the bars before the first and behind the last of uint8 (N, M) lines, 0 and 0 for none.

    Args:
        darkest: lowest luma of each pixel over the clip.
        brightest: highest luma of each pixel.
    """
    levels = [float(np.median(edge)) for edge in (darkest[:2], brightest[:2], darkest[-2:], brightest[-2:])]
    if max(levels) - min(levels) > NOISE_LEVELS:
        return 0, 0
    level = (max(levels) + min(levels)) / 2
    even = (brightest <= level + NOISE_LEVELS) & (darkest >= level - NOISE_LEVELS)
    if min(even[0].mean(), even[-1].mean()) < EVEN_SHARE:
        return 0, 0
    lengths = _even_length(even), _even_length(even[::-1])
    return lengths if _are_pair(*lengths, len(even)) else (0, 0)


def _are_pair(one: int, other: int, count: int) -> bool:
    shorter, longer = sorted((one, other))
    return shorter >= max(2, MIN_BAR * count) and longer <= MAX_UNEVEN * shorter and one + other < count


def _even_length(even: np.ndarray) -> int:
    """Return how many lines, from the first one inwards, belong to a bar that ends in a straight edge; 0 for none.

    Args:
        even: bool (N, M), lines in order from the picture's edge.
    """
    margin = max(1, round(even.shape[1] * TEXT_MARGIN))
    share = even.mean(axis=1)
    ends = np.minimum(even[:, :margin].mean(axis=1), even[:, -margin:].mean(axis=1))
    is_bar, is_text = share >= EVEN_SHARE, (share >= TEXT_SHARE) & (ends >= EVEN_SHARE)
    inside = np.flatnonzero(~(is_bar | is_text))
    if not len(inside):
        return 0
    bars = np.flatnonzero(is_bar[: inside[0]])
    length = int(bars[-1]) + 1 if len(bars) else 0
    # The edge may be soft by a line.
    return length if 1 - share[length : length + 3].min() >= EDGE_SHARE else 0


def _blurred(pixels: np.ndarray) -> int:
    """Return the length of the bars at the left and at the right of uint8 (T, H, W); 0 for no blurred copy."""
    _, height, width = pixels.shape
    least = max(4, round(MIN_BLURRED * width))
    middle = slice(width // 2 - width // 8, width // 2 + width // 8)
    ends = [_detail(pixels[:1, :, part]).mean() for part in (slice(least), slice(width - least, width))]
    if max(ends) > MAX_DETAIL * _detail(pixels[:1, :, middle]).mean():
        return 0
    detail = _detail(pixels)
    usual = float(np.median(detail[:, middle]))
    if usual < MIN_DETAIL_LEVELS:
        return 0
    plain: np.ndarray = np.all(detail <= MAX_DETAIL * usual, axis=0)  # in every frame
    if plain.all():
        return 0
    left, right = int(np.argmin(plain)), int(np.argmin(plain[::-1]))
    if min(left, right) < least or abs(left - right) > max(4, 0.02 * width):
        return 0
    steps = np.abs(np.diff(pixels.astype(np.int16), axis=2)).mean(axis=1).min(axis=0)
    places = [
        max(range(max(1, at - 4), min(width - 1, at + 5)), key=lambda k: steps[k - 1]) for at in (left, width - right)
    ]
    left, right = places[0], width - places[1]
    usual_step = float(np.median(np.concatenate([steps[: left - 3], steps[width - right + 3 :]])))
    step = min(steps[left - 1], steps[width - right - 1])
    if abs(left - right) > 3 or step < max(MIN_STEP_LEVELS, MIN_STEP_RATIO * usual_step):
        return 0
    return left if _is_copy(pixels, left, width - right) else 0


def _detail(pixels: np.ndarray) -> np.ndarray:
    """Return the mean second difference along each column of uint8 (T, H, W), grey levels: float (T, W)."""
    rows = pixels.astype(np.int16)
    return np.abs(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]).mean(axis=1)


def _is_copy(pixels: np.ndarray, left: int, right: int) -> bool:
    """Return whether the parts beside `[left, right)` show what an enlarged copy of that part would."""
    _, height, width = pixels.shape
    across = max(1, round(CELLS * left / height))
    seen: list[np.ndarray] = []
    whole: list[np.ndarray] = []
    cropped: list[np.ndarray] = []
    cut = round(height * (1 - (right - left) / width) / 2)  # above and below what fills the frame without distortion
    for picture in pixels:
        seen.append(_sides(picture, left, right, across))
        for copies, rows in ((whole, slice(None)), (cropped, slice(cut, height - cut))):
            copy = cv2.resize(picture[rows, left:right], (width, height), interpolation=cv2.INTER_LINEAR)
            blurred = cv2.blur(copy, (2 * (width // 32) + 1, 2 * (height // 32) + 1))
            copies.append(_sides(blurred, left, right, across))
    return max(_likeness(np.stack(seen), np.stack(copies)) for copies in (whole, cropped)) >= MIN_LIKENESS


def _sides(picture: np.ndarray, left: int, right: int, across: int) -> np.ndarray:
    """Return the means of cells left and right of a part: float32 (2, CELLS, across)."""
    parts = (picture[:, :left], picture[:, right:])
    return np.stack([cv2.resize(p.astype(np.float32), (across, CELLS), interpolation=cv2.INTER_AREA) for p in parts])


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of two arrays, -1..1; 0 where one of them is even."""
    one, other = one - one.mean(), other - other.mean()
    power = float(np.sqrt((one * one).sum() * (other * other).sum()))
    return float((one * other).sum()) / power if min(one.std(), other.std()) > 1.0 else 0.0
