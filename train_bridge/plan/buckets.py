"""Which shapes each row can be brought to: areas × aspects × lengths, and why a row fits none."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import UserError
from models.geometry import MAGVIT, Bucket, LatentGrid
from train_bridge.config import BucketSettings
from train_bridge.plan.crops import cropped_share, is_too_much
from train_bridge.types import Refusal, TrainRow

TOKEN_PX = 16
"""pixels per video token, in height and width: VAE 8 × patch 2"""
FRAME_TOLERANCE = 0.5
"""frames that a clip may lack for a length at a rate: containers round durations"""
RATE_TOLERANCE = 0.01
"""share that a clip's own rate may lack of the wanted one: 23.976 and 29.97 count as 24 and 30"""
ASPECT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*[/:]\s*(\d+(?:\.\d+)?)\s*")

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
        """Return the rows that lack a fact, by its name; images need only the size."""
        return {
            "width_px": ~(self.width_px > 0),
            "height_px": ~(self.height_px > 0),
            "num_frames": ~self.image & np.isnan(self.num_frames),
            "duration_s": ~self.image & np.isnan(self.duration_s),
        }


def shapes(settings: BucketSettings, side_px: int = TOKEN_PX) -> tuple[Shape, ...]:
    """Return (height, width) in pixels for every size and aspect, by size, without repeats.

    Both sides are multiples of `side_px` and the area is at most size². Each ideal side is rounded down and up; of the
    shapes that keep within the area, the one nearest to the aspect in log ratio is taken, the larger of equals.
    `diffusers.training_utils.generate_aspect_ratio_buckets` rounds each side to the nearest and may exceed the area.

    Raises:
        UserError: an aspect is not width/height.
    """
    sizes = sorted(set(settings.sizes_px))
    return tuple(dict.fromkeys(shape for size in sizes for shape in _of_size(size, settings, side_px)))


def frames_at(duration_s: np.ndarray | float, rate_fps: float) -> np.ndarray:
    """Return how many frames of a rate lie in so many seconds."""
    return np.floor(np.asarray(duration_s) * rate_fps + FRAME_TOLERANCE)


def assign(
    rows: Sequence[TrainRow],
    settings: BucketSettings,
    max_crop: float = 1.0,
    grid: LatentGrid = MAGVIT,
    *,
    letterbox: bool = False,
) -> Assignment:
    """Find the buckets that each row can take.

    Of each size a row takes the shape nearest to its own aspect in log ratio. Its sizes are those whose shape has at
    most the row's pixels; where there is none, the smallest if `upscale`. Shapes that would crop more than `max_crop`
    are none of them, except for rows that are letterboxed. Images have one frame. Videos take the longest of `frames`
    with n ≤ duration_s · fps. With `fps` 0, or where `slow_down` or `speed_up` apply, frames are taken by time over the
    whole clip: then n ≤ num_frames and n / duration_s ≤ max_fps. Without `tokens_per_row` the largest size is the only
    option. With it every size is one, each with the longest length that keeps within these tokens (256²×145, 512²×33
    and 1024²×5 frames in one model).

    Args:
        rows: what to assign.
        settings: with `fps` resolved.
        max_crop: share of a picture that may be cropped away.
        letterbox: keep rows that every shape would crop more; they are to be fitted in whole.
        grid: of the VAE.

    Raises:
        UserError: an aspect is not width/height.
        ValueError: `fps` is null, which stands for a family's rate (`rates.at_family_rate`).
    """
    if settings.fps is None:
        raise ValueError("buckets.fps is not resolved")
    facts, lengths = _Facts.of(rows), np.array(sorted({1, *settings.frames}))
    unknown = facts.unknown()
    known = ~np.logical_or.reduce(list(unknown.values()))

    catalogue = sorted(shapes(settings, grid.side_px))
    shape = _nearest_shapes(facts, known, catalogue, settings, grid.side_px)
    area_px = np.array([height * width for height, width in catalogue])[shape]
    own_px = np.where(known, facts.width_px * facts.height_px, 0)
    fits = area_px <= own_px[:, None]
    small = known & ~fits.any(axis=1)
    if settings.upscale:
        fits[small, 0] = True
    cropped = _too_cropped(facts, known, catalogue, shape, max_crop)
    if letterbox:
        cropped &= (fits & ~cropped).any(axis=1)[:, None]
    narrow = fits.any(axis=1) & ~(fits & ~cropped).any(axis=1)
    fits &= ~cropped
    if settings.tokens_per_row is None:
        largest = fits.shape[1] - 1 - fits[:, ::-1].argmax(axis=1)
        fits &= np.arange(fits.shape[1]) == largest[:, None]

    frames, slow = _longest(facts, settings)
    shortest = np.where(facts.image, 1, min(settings.frames))
    tokens = area_px // TOKEN_PX**2
    longest = np.broadcast_to(frames[:, None], shape.shape)
    if settings.tokens_per_row is not None:
        latents, place = np.unique(settings.tokens_per_row // tokens, return_inverse=True)
        most = np.array([grid.longest_with(int(count)) for count in latents.tolist()])
        longest = np.minimum(longest, most[place.reshape(tokens.shape)])
    length = np.searchsorted(lengths, longest, side="right") - 1
    valid = fits & (longest >= shortest[:, None])
    buckets, options = _compact(np.where(valid, length * len(catalogue) + shape, -1), lengths, catalogue, grid)

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
        elif narrow[i]:
            why = _too_narrow(facts.width_px[i] / facts.height_px[i], max_crop)
        elif slow[i]:
            why = _too_slow(settings.fps)
        elif short[i]:
            why = _too_short(settings, by_rate=facts.num_frames[i] >= shortest[i])
        else:
            height, width = catalogue[shape[i, fewest[i]]]
            why = _too_many_tokens(Bucket(int(shortest[i]), height, width, grid), settings)
        refusals.append(Refusal(rows[i].row_id, *why, row_id=rows[i].row_id))
    return Assignment(buckets, options, refusals, int((small & ~refused).sum()))


def _aspect(text: str) -> float:
    match = ASPECT.fullmatch(text)
    if not match or not float(match[1]) or not float(match[2]):
        raise UserError(f"{text!r} is not width/height", field="buckets.aspects", fix="write it as 16/9 or 2.39/1")
    return float(match[1]) / float(match[2])


def _of_size(size_px: int, settings: BucketSettings, side_px: int) -> list[Shape]:
    """Return the shapes of one size, by aspect ratio."""
    found = {_shape(size_px, _aspect(text), side_px) for text in settings.aspects}
    return sorted(found, key=lambda shape: (shape[1] / shape[0], shape))


def _shape(size_px: int, aspect: float, side_px: int) -> Shape:
    most = size_px**2 // side_px**2
    height, width = size_px / side_px / aspect**0.5, size_px / side_px * aspect**0.5
    heights = {max(1, int(height)), max(1, -int(-height // 1))}
    widths = {max(1, int(width)), max(1, -int(-width // 1))}
    pairs = {(h, w) for h in heights for w in widths}
    # Where one ideal side is below one token, the other has to give way for the area to be kept.
    pairs |= {(h, max(1, most // h)) for h in heights} | {(max(1, most // w), w) for w in widths}
    within = [(h, w) for h, w in pairs if h * w <= most]
    h, w = min(within, key=lambda p: (round(abs(np.log(p[1] / p[0] / aspect)), 9), -p[0] * p[1], p))
    return h * side_px, w * side_px


def _nearest_shapes(
    facts: _Facts, known: np.ndarray, catalogue: list[Shape], settings: BucketSettings, side_px: int
) -> np.ndarray:
    """Return for every row and size the position in the catalogue of the shape with the nearest aspect, (N, S)."""
    log_aspect = np.zeros(len(known))
    np.log(np.divide(facts.width_px, facts.height_px, where=known, out=np.ones(len(known))), out=log_aspect)
    columns = []
    for size in sorted(set(settings.sizes_px)):
        of_size = _of_size(size, settings, side_px)
        logs = np.log([width / height for height, width in of_size])
        # Rounded, so that a square between its neighbours is a tie on every machine; the narrower one takes it.
        nearest = np.searchsorted(np.round((logs[1:] + logs[:-1]) / 2, 9), np.round(log_aspect, 9))
        columns.append(np.array([catalogue.index(one) for one in of_size])[nearest])
    return np.stack(columns, axis=1)


def _too_cropped(
    facts: _Facts, known: np.ndarray, catalogue: list[Shape], shape: np.ndarray, max_crop: float
) -> np.ndarray:
    """Find for every row and size whether the shape (positions, (N, S)) crops more than it may."""
    aspects = np.array([width / height for height, width in catalogue])[shape]
    own = np.divide(facts.width_px, facts.height_px, where=known, out=np.ones(len(known)))
    return is_too_much(cropped_share(own[:, None], aspects), max_crop)


def _longest(facts: _Facts, settings: BucketSettings) -> tuple[np.ndarray, np.ndarray]:
    """Find the most frames that each row can yield.

    Returns:
        Frames, int64 (N,), 1 for images, 0 where unknown or refused; and which rows are refused because they have
        fewer frames a second than wanted, bool (N,).
    """
    frames = np.minimum(facts.num_frames, frames_at(facts.duration_s, settings.max_fps))
    slow = np.zeros(len(frames), bool)
    if settings.fps:
        frames, slow = _longest_at_rate(facts, frames, settings.fps, settings)
    frames = np.where(facts.image, 1, frames)
    return np.nan_to_num(frames, nan=0, posinf=0).clip(0, 2**31).astype(np.int64), slow


def _longest_at_rate(
    facts: _Facts, spread: np.ndarray, rate_fps: float, settings: BucketSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Find the most frames at a rate, and which rows have too few a second; `spread`: over the whole clip."""
    there = frames_at(facts.duration_s, rate_fps)
    if settings.low_rate == "repeat":
        spread = np.maximum(spread, there)
    shortest, longest = min(settings.frames), max(settings.frames)
    slowed = (there < shortest) & (settings.shorter == "slow_down")
    sped = (there > longest) & (settings.longer == "speed_up")
    frames = np.where(slowed, np.minimum(spread, shortest), np.where(sped, spread, there))
    if settings.shorter == "drop":
        frames = np.where(there < longest, 0, frames)
    wanted = facts.duration_s * rate_fps * (1 - RATE_TOLERANCE)
    slow = ~facts.image & ~slowed & ~sped & (facts.num_frames + FRAME_TOLERANCE < wanted)
    slow &= settings.low_rate == "drop"
    return np.where(slow, 0, frames), slow


def _compact(
    codes: np.ndarray, lengths: np.ndarray, catalogue: list[Shape], grid: LatentGrid
) -> tuple[tuple[Bucket, ...], np.ndarray]:
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
    buckets = [
        Bucket(int(lengths[c // len(catalogue)]), *catalogue[c % len(catalogue)], grid=grid) for c in taken.tolist()
    ]
    return tuple(buckets), np.ascontiguousarray(options[:, :count])


def _too_small(settings: BucketSettings) -> tuple[str, str, str]:
    return (
        "width_px",
        f"fewer pixels than the smallest size, {min(settings.sizes_px)}",
        "set buckets.upscale: true, or add a smaller one to buckets.sizes_px",
    )


def _too_narrow(aspect: float, max_crop: float) -> tuple[str, str, str]:
    fix = f"add {aspect:.3g}/1 to buckets.aspects, raise data.max_crop, or set data.letterbox=true"
    return "data.max_crop", f"more than {max_crop:.0%} of the picture would be cropped away", fix


def _too_slow(rate_fps: float) -> tuple[str, str, str]:
    fix = "lower buckets.fps, or set buckets.low_rate=repeat"
    return "num_frames", f"fewer frames a second than buckets.fps, {rate_fps:g}", fix


def _too_short(settings: BucketSettings, *, by_rate: bool) -> tuple[str, str, str]:
    if settings.fps:
        frames = max(settings.frames) if settings.shorter == "drop" else min(settings.frames)
        reason = f"shorter than {frames} frames at {settings.fps:g} fps, {frames / settings.fps:.3g} s"
        fix = (
            "set buckets.shorter=smaller_bucket"
            if settings.shorter == "drop"
            else "add a shorter one to buckets.frames"
        )
        slowed = "" if settings.shorter == "slow_down" else ", or set buckets.shorter=slow_down"
        return "duration_s", reason, fix + slowed
    reason = f"fewer frames than the shortest length, {min(settings.frames)}"
    fix = "add a shorter one to buckets.frames"
    if by_rate:
        return "num_frames", f"{reason}, at {settings.max_fps:g} fps", f"{fix}, or raise buckets.max_fps"
    return "num_frames", reason, fix


def _too_many_tokens(smallest: Bucket, settings: BucketSettings) -> tuple[str, str, str]:
    return (
        "buckets.tokens_per_row",
        f"more than {settings.tokens_per_row} tokens in the smallest bucket, {smallest} with {smallest.tokens}",
        f"raise buckets.tokens_per_row to {smallest.tokens}, or add less to buckets.sizes_px or buckets.frames",
    )
