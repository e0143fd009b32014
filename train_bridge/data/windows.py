"""What rows are told once their buckets are known: the rate, the window of a long clip, whether to fit in whole."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from train_bridge.config import BucketSettings
from train_bridge.plan.buckets import Assignment, frames_at
from train_bridge.plan.crops import cropped_share, is_too_much
from train_bridge.types import TrainRow


def at_rate(
    rows: Sequence[TrainRow], assignment: Assignment, settings: BucketSettings
) -> tuple[tuple[TrainRow, ...], Assignment]:
    """Return the rows with their rates, long clips as several rows, and the options of each.

    A clip of several windows becomes as many rows of equally long parts, named ID#1, ID#2 and so on; each takes the
    middle of its part (`spans.taken_span`). Clips slowed down or sped up have no rate: their frames are spread over
    all of them. With a rate of 0 nothing changes.

    Args:
        rows: all with an option.
        assignment: of these rows, by the same settings.
        settings: with `fps` resolved.
    """
    if not settings.fps:
        return tuple(rows), assignment
    frames = np.array([bucket.num_frames for bucket in assignment.buckets], np.int64)
    longest = np.where(assignment.options >= 0, frames[assignment.options], 0).max(axis=1, initial=0).tolist()
    divided = [list(_parts(row, most, settings)) for row, most in zip(rows, longest, strict=True)]
    options = np.repeat(assignment.options, [len(parts) for parts in divided], axis=0)
    return tuple(part for parts in divided for part in parts), replace(assignment, options=options)


def _parts(row: TrainRow, longest: int, settings: BucketSettings) -> Iterator[TrainRow]:
    """Return the rows that one becomes, where its longest bucket has so many frames."""
    if row.kind == "image":
        yield row
        return
    assert row.duration_s is not None and row.num_frames is not None and settings.fps
    there = int(frames_at(row.duration_s, settings.fps))
    if there < longest or (settings.longer == "speed_up" and there > max(settings.frames)):
        yield row  # slowed down or sped up
        return
    begin_s, all_s, length_s = row.start_s or 0.0, row.duration_s, longest / settings.fps
    row = replace(row, rate_fps=settings.fps)
    if settings.longer == "first" and all_s > length_s:
        yield _part(row, begin_s, length_s)
        return
    count = there // longest if settings.longer == "windows" else 1
    if count == 1:
        yield row
        return
    part_s = all_s / count
    for number in range(count):
        part = _part(row, begin_s + number * part_s, part_s)
        yield replace(part, row_id=f"{row.row_id}#{number + 1}")


def _part(row: TrainRow, begin_s: float, length_s: float) -> TrainRow:
    assert row.num_frames is not None and row.duration_s
    share = length_s / row.duration_s
    return replace(
        row,
        start_s=round(begin_s, 6),
        end_s=round(begin_s + length_s, 6),
        num_frames=max(1, round(row.num_frames * share)),
        duration_s=length_s,
    )


def letterboxed(rows: Sequence[TrainRow], assignment: Assignment, max_crop: float) -> tuple[TrainRow, ...]:
    """Return the rows, those to be fitted in whole that every one of their buckets would crop too much.

    Args:
        rows: all with an option.
        assignment: of these rows, by the same limit.
        max_crop: share of a picture that may be cropped away.
    """
    buckets = np.array([bucket.width_px / bucket.height_px for bucket in assignment.buckets])
    own = np.array([(row.width_px or 1) / (row.height_px or 1) for row in rows])
    if not len(own):
        return ()
    shares = np.where(assignment.options >= 0, cropped_share(own[:, None], buckets[assignment.options]), np.inf)
    whole = is_too_much(shares.min(axis=1), max_crop)
    if not whole.any():
        return tuple(rows)
    return tuple(replace(row, letterbox=True) if lies else row for row, lies in zip(rows, whole.tolist(), strict=True))
