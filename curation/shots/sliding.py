"""Pushes, covers and reveals: one shot moves in over the other, out before it, or both move together."""

import numpy as np

MODELS = ("push", "cover", "reveal")
MAX_LEFT, MIN_GAIN = 0.2, 2.0
"""What a slide leaves unexplained, over how far the shots lie apart; and how much better than no slide it explains."""
STILL_LEFT, STILL_UNEXPLAINED = 0.08, 0.25
"""Of shots that hardly move, so much is left at most, and less has to differ."""
MAX_STEP = 0.35
"""Largest part of the way in one frame."""
MIN_SEAM_LEVELS, MIN_SEAM_RATIO = 10.0, 1.6
"""The shots must not go on where they meet, as a pan's picture does: steps over the seam, over those beside it."""


def directions(pictures: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return (…, H, W) pictures turned so that a slide to the left, right, up, down goes to the left."""
    upright = np.swapaxes(pictures, -1, -2)
    return pictures, pictures[..., ::-1], upright, upright[..., ::-1]


def left_unexplained(pictures: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return what is left of pictures when they are put together of two shots, the second one coming from the right.

    Args:
        pictures: float32 (N, H, W).
        one: float32 (H, W), the first shot.
        other: likewise the second shot.

    Returns:
        float32 (3, N, W + 1): squared difference by `MODELS`, picture, and how many columns show the second shot.
    """
    width = one.shape[1]
    shown = np.arange(width + 1)
    rest = width - shown
    energy, first, second = (_sums((part * part).sum(axis=-2)) for part in (pictures, one, other))
    # A product of columns x and y, summed over y - x.
    with_one, with_other = (along_diagonals(np.swapaxes(pictures, 1, 2) @ part) for part in (one, other))
    still_one, still_other = (_sums(((pictures - part) ** 2).sum(axis=1)) for part in (one, other))
    moved_one = energy[:, rest] + first[width] - first[shown] - 2 * with_one[:, width + shown]
    moved_other = energy[:, [width]] - energy[:, rest] + second[shown] - 2 * with_other[:, shown]
    kept_one, kept_other = still_one[:, rest], still_other[:, [width]] - still_other[:, rest]
    return np.stack([moved_one + moved_other, kept_one + moved_other, moved_one + kept_other])


def _sums(values: np.ndarray) -> np.ndarray:
    """Return the sums of the first 0, 1, …, W of (…, W) values."""
    return np.concatenate([np.zeros((*values.shape[:-1], 1), values.dtype), np.cumsum(values, axis=-1)], axis=-1)


def along_diagonals(products: np.ndarray) -> np.ndarray:
    """Return the sums of (N, W, W) along y - x = -W, …, W: (N, 2 W + 1)."""
    count, width, _ = products.shape
    padded = np.zeros((count, width * (2 * width + 1)), products.dtype)
    padded[:, : 2 * width * width].reshape(count, width, 2 * width)[:, :, width:] = products
    # Read in rows that are one longer, each row lies one further to the left than the one above.
    return padded.reshape(count, width, 2 * width + 1).sum(axis=1)


def may_slide(one: np.ndarray, middle: np.ndarray, other: np.ndarray) -> tuple[int, int] | None:
    """Return the direction and the model by which a small picture is put together of two others, float32 (H, W)."""
    apart = float(((one - other) ** 2).sum())
    unmoved = min(float(((middle - end) ** 2).sum()) for end in (one, other))
    best, found = min(MAX_LEFT * apart, unmoved / MIN_GAIN), None
    for way, turned in enumerate(directions(np.stack([middle, one, other]))):
        left = left_unexplained(turned[:1], turned[1], turned[2])[:, 0, 2:-2].min(axis=1)
        model = int(left.argmin())
        if left[model] < best:
            best, found = float(left[model]), (way, model)
    return found


def course(pictures: np.ndarray, way: int, model: int) -> tuple[int, int, float] | None:
    """Follow a slide from the first of float32 (N, H, W) pictures to the last one.

    Returns:
        The first picture that shows both shots, the first one that shows the second shot alone, and what is left
        unexplained at most, over how far the shots lie apart; None where it is no slide.
    """
    turned = directions(pictures)[way]
    start, stop = 0, len(pictures) - 1
    for _ in range(2):  # closer ends have moved less since
        one, other = turned[start], turned[stop]
        apart = float(((one - other) ** 2).sum())
        left = left_unexplained(turned[start : stop + 1], one, other)[model]
        places = left.argmin(axis=1) / (left.shape[1] - 1)
        before = np.flatnonzero(places == 0)
        begin = int(before[-1]) if len(before) else 0
        after = np.flatnonzero(places[begin:] == 1)
        start, stop = start + begin, start + begin + int(after[0]) if len(after) else stop
        if stop - start < 3 or apart <= 0:
            return None
    within = slice(begin, begin + stop - start + 1)
    steps = np.diff(places[within])
    most = float(left[within].min(axis=1).max()) / apart
    if steps.max() > MAX_STEP or steps.min() < -1.5 / left.shape[1] or most > MAX_LEFT:
        return None
    if model == 0 and not _has_seam(np.hstack([one, other])):
        return None
    return start + 1, stop, most


def _has_seam(laid: np.ndarray) -> bool:
    """Return whether two pictures laid next to each other do not go on in each other."""
    steps = np.abs(np.diff(laid, axis=1)).mean(axis=0)
    seam = len(steps) // 2
    beside = np.delete(steps, [0, seam - 1, seam, seam + 1, len(steps) - 1])
    return bool(steps[seam] >= max(MIN_SEAM_LEVELS, MIN_SEAM_RATIO * beside.mean()))
