"""Which stretch of a file is trained on: the row's own, and what a bucket takes of it at a frame rate."""

from models.geometry import Bucket
from train_bridge.types import TrainRow

Span = tuple[float, float | None]
"""begin and end in seconds; a null end is the file's"""


def span_of(row: TrainRow) -> Span | None:
    """Return the stretch of the file that a row is; null for a whole file."""
    if row.start_s is None and row.end_s is None:
        return None
    return (row.start_s or 0.0, row.end_s)


def taken_span(row: TrainRow, bucket: Bucket) -> Span | None:
    """Return the stretch of the file that a bucket's frames are spread over.

    A row without `rate_fps` gives all that it is. One with it gives T / rate seconds about its middle, of which frame
    i is the one on screen at (i + 0.5) / rate. A row that lacks up to half a frame for that (containers round
    durations) is so taken with up to a quarter of a frame's time before and after it, in which no frame lies.

    Args:
        row: with `duration_s`, where it has a rate.
        bucket: whose frames are wanted.

    Returns:
        Begin and end in seconds of the file; a null end is the file's, and null is all of it.
    """
    if row.rate_fps is None or row.kind == "image":
        return span_of(row)
    assert row.duration_s is not None, "a rate is given to rows of known length only"
    length_s = bucket.num_frames / row.rate_fps
    start_s = (row.start_s or 0.0) + (row.duration_s - length_s) / 2
    return round(start_s, 6), round(start_s + length_s, 6)


def rate_fps(row: TrainRow, bucket: Bucket) -> float | None:
    """Return how many frames of each second a bucket holds; None for images and rows of unknown length."""
    if row.kind == "image" or not row.duration_s:
        return None
    return row.rate_fps or bucket.num_frames / row.duration_s
