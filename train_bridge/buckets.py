"""Which shapes each row can be brought to: areas × aspects × lengths, and why a row fits none."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curation.errors import UserError
from train_bridge.config import BucketSettings
from train_bridge.types import TEMPORAL_STRIDE, Bucket, Refusal, TrainRow

TOKEN_PX = 16
"""pixels per video token, in height and width: VAE 8 × patch 2"""
FRAME_TOLERANCE = 0.5
"""frames that a clip may lack for a length at max_fps: containers round durations"""
ASPECT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")

Shape = tuple[int, int]
"""height and width in pixels"""


@dataclass(frozen=True, eq=False)
class Assignment:
    """What every row can become.

    Attributes:
        buckets: the shapes that at least one row can take, sorted.
        options: positions in `buckets` for each row, ascending, int32 (N, K); −1 where a row has fewer than K.
        refused: rows without any option, in the rows' order.
        upscaled: rows that are enlarged because every size has more pixels than they.
    """

    buckets: tuple[Bucket, ...]
    options: np.ndarray
    refused: list[Refusal]
    upscaled: int

    @property
    def commonest(self) -> Bucket:
        """The shape that most rows can take."""
        counts = np.bincount(self.options[self.options >= 0], minlength=len(self.buckets))
        return self.buckets[int(counts.argmax())]


@dataclass(frozen=True, eq=False)
class _Facts:
    """Columns of the rows; NaN where unknown."""

    image: np.ndarray
    width_px: np.ndarray
    height_px: np.ndarray
    num_frames: np.ndarray
    duration_s: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[TrainRow]) -> "_Facts":
        return cls(
            np.array([row.kind == "image" for row in rows], bool),
            np.array([row.width_px for row in rows], np.float64),
            np.array([row.height_px for row in rows], np.float64),
            np.array([row.num_frames for row in rows], np.float64),
            np.array([row.duration_s for row in rows], np.float64),
        )

    def unknown(self) -> dict[str, np.ndarray]:
        """Give the rows that lack a fact, by its name; images need only the size."""
        return {
            "width_px": ~(self.width_px > 0),
            "height_px": ~(self.height_px > 0),
            "num_frames": ~self.image & np.isnan(self.num_frames),
            "duration_s": ~self.image & np.isnan(self.duration_s),
        }


def shapes(settings: BucketSettings) -> tuple[Shape, ...]:
    """Give (height, width) in pixels for every size and aspect, by size, without repeats.

    Both sides are multiples of 16 and the area is at most size². Each ideal side is rounded down and up; of the
    shapes that keep within the area, the one nearest to the aspect in log ratio is taken, the larger of equals.
    `diffusers.training_utils.generate_aspect_ratio_buckets` rounds each side to the nearest and may exceed the area.

    Raises:
        UserError: an aspect is not width/height.
    """
    return tuple(dict.fromkeys(shape for size in sorted(set(settings.sizes_px)) for shape in _of_size(size, settings)))


def assign(rows: Sequence[TrainRow], settings: BucketSettings) -> Assignment:
    """Find the buckets that each row can take.

    Of each size a row takes the shape nearest to its own aspect in log ratio. Its sizes are those whose shape has at
    most the row's pixels; where there is none, the smallest if `upscale`. Images have one frame. Videos take the
    longest of `frames` with n ≤ num_frames and n / duration_s ≤ max_fps: frames are taken by time over the whole
    clip. Without `tokens_per_row` the largest size is the only option. With it every size is one, each with the
    longest length that keeps within these tokens (256²×145, 512²×33 and 1024²×5 frames in one model).

    Raises:
        UserError: an aspect is not width/height.
    """
    facts, lengths = _Facts.of(rows), np.array(sorted({1, *settings.frames}))
    unknown = facts.unknown()
    known = ~np.logical_or.reduce(list(unknown.values()))

    catalogue = sorted(shapes(settings))
    shape = _nearest_shapes(facts, known, catalogue, settings)
    area_px = np.array([height * width for height, width in catalogue])[shape]
    own_px = np.where(known, facts.width_px * facts.height_px, 0)
    fits = area_px <= own_px[:, None]
    small = known & ~fits.any(axis=1)
    if settings.upscale:
        fits[small, 0] = True
    if settings.tokens_per_row is None:
        largest = fits.shape[1] - 1 - fits[:, ::-1].argmax(axis=1)
        fits &= np.arange(fits.shape[1]) == largest[:, None]

    frames = _longest(facts, settings)
    shortest = np.where(facts.image, 1, min(settings.frames))
    tokens = area_px // TOKEN_PX**2
    longest = np.broadcast_to(frames[:, None], shape.shape)
    if settings.tokens_per_row is not None:
        longest = np.minimum(longest, (settings.tokens_per_row // tokens - 1) * TEMPORAL_STRIDE + 1)
    length = np.searchsorted(lengths, longest, side="right") - 1
    valid = fits & (longest >= shortest[:, None])
    buckets, options = _compact(np.where(valid, length * len(catalogue) + shape, -1), lengths, catalogue)

    refused = options[:, 0] < 0
    short = frames < shortest
    fewest = np.where(fits, tokens, np.iinfo(np.int64).max).argmin(axis=1)
    refusals = []
    for i in np.flatnonzero(refused).tolist():
        if not known[i]:
            key = next(name for name, rows_without in unknown.items() if rows_without[i])
            why = (key, "not known", "see that the file can be opened, or give the value in the metadata")
        elif small[i] and not settings.upscale:
            why = _too_small(settings)
        elif short[i]:
            why = _too_short(facts.num_frames[i] >= shortest[i], settings)
        else:
            why = _too_many_tokens(Bucket(int(shortest[i]), *catalogue[shape[i, fewest[i]]]), settings)
        refusals.append(Refusal(rows[i].row_id, *why, row_id=rows[i].row_id))
    return Assignment(buckets, options, refusals, int((small & ~refused).sum()))


def _aspect(text: str) -> float:
    match = ASPECT.fullmatch(text)
    if not match or not float(match[1]) or not float(match[2]):
        raise UserError(f"buckets.aspects: {text!r} is not width/height; write it as 16/9 or 2.39/1")
    return float(match[1]) / float(match[2])


def _of_size(size_px: int, settings: BucketSettings) -> list[Shape]:
    """Give the shapes of one size, by aspect ratio."""
    found = {_shape(size_px, _aspect(text)) for text in settings.aspects}
    return sorted(found, key=lambda shape: (shape[1] / shape[0], shape))


def _shape(size_px: int, aspect: float) -> Shape:
    most = size_px**2 // TOKEN_PX**2
    height, width = size_px / TOKEN_PX / aspect**0.5, size_px / TOKEN_PX * aspect**0.5
    heights = {max(1, int(height)), max(1, -int(-height // 1))}
    widths = {max(1, int(width)), max(1, -int(-width // 1))}
    pairs = {(h, w) for h in heights for w in widths}
    # Where one ideal side is below one token, the other has to give way for the area to be kept.
    pairs |= {(h, max(1, most // h)) for h in heights} | {(max(1, most // w), w) for w in widths}
    within = [(h, w) for h, w in pairs if h * w <= most]
    h, w = min(within, key=lambda p: (round(abs(np.log(p[1] / p[0] / aspect)), 9), -p[0] * p[1], p))
    return h * TOKEN_PX, w * TOKEN_PX


def _nearest_shapes(facts: _Facts, known: np.ndarray, catalogue: list[Shape], settings: BucketSettings) -> np.ndarray:
    """Give for every row and size the position in the catalogue of the shape with the nearest aspect, (N, S)."""
    log_aspect = np.zeros(len(known))
    np.log(np.divide(facts.width_px, facts.height_px, where=known, out=np.ones(len(known))), out=log_aspect)
    columns = []
    for size in sorted(set(settings.sizes_px)):
        of_size = _of_size(size, settings)
        logs = np.log([width / height for height, width in of_size])
        # Rounded, so that a square between its neighbours is a tie on every machine; the narrower one takes it.
        nearest = np.searchsorted(np.round((logs[1:] + logs[:-1]) / 2, 9), np.round(log_aspect, 9))
        columns.append(np.array([catalogue.index(one) for one in of_size])[nearest])
    return np.stack(columns, axis=1)


def _longest(facts: _Facts, settings: BucketSettings) -> np.ndarray:
    """Give the most frames that each row can yield, int64 (N,); 1 for images, 0 where unknown."""
    by_rate = np.floor(facts.duration_s * settings.max_fps + FRAME_TOLERANCE)
    frames = np.where(facts.image, 1, np.minimum(facts.num_frames, by_rate))
    return np.nan_to_num(frames, nan=0, posinf=0).clip(0, 2**31).astype(np.int64)


def _compact(codes: np.ndarray, lengths: np.ndarray, catalogue: list[Shape]) -> tuple[tuple[Bucket, ...], np.ndarray]:
    """Name the codes (length × shape) in use, and move each row's to the left, ascending, without repeats."""
    used = np.zeros(len(lengths) * len(catalogue) + 1, bool)
    used[codes] = True  # −1 is the last entry
    used[-1] = False
    names = np.cumsum(used) - 1
    names[-1] = len(names)
    options = np.sort(names[codes].astype(np.int32), axis=1)
    options[:, 1:][options[:, 1:] == options[:, :-1]] = len(names)
    options.sort(axis=1)
    options[options == len(names)] = -1
    count = max(1, int((options >= 0).sum(axis=1).max(initial=0)))
    taken = np.flatnonzero(used)
    buckets = [Bucket(int(lengths[c // len(catalogue)]), *catalogue[c % len(catalogue)]) for c in taken.tolist()]
    return tuple(buckets), np.ascontiguousarray(options[:, :count])


def _too_small(settings: BucketSettings) -> tuple[str, str, str]:
    return (
        "width_px",
        f"fewer pixels than the smallest size, {min(settings.sizes_px)}",
        "set buckets.upscale: true, or add a smaller one to buckets.sizes_px",
    )


def _too_short(by_rate: bool, settings: BucketSettings) -> tuple[str, str, str]:
    reason = f"fewer frames than the shortest length, {min(settings.frames)}"
    mend = "add a shorter one to buckets.frames"
    if by_rate:
        return "num_frames", f"{reason}, at {settings.max_fps:g} fps", f"{mend}, or raise buckets.max_fps"
    return "num_frames", reason, mend


def _too_many_tokens(smallest: Bucket, settings: BucketSettings) -> tuple[str, str, str]:
    return (
        "buckets.tokens_per_row",
        f"more than {settings.tokens_per_row} tokens in the smallest bucket, {smallest} with {smallest.tokens}",
        f"raise buckets.tokens_per_row to {smallest.tokens}, or add less to buckets.sizes_px or buckets.frames",
    )
