"""The segments of a long video, and which prompt each of them follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from core.errors import UserError
from models.denoise.long_video import length_of, segments_for
from sampling.request import Request, SegmentPrompt


@dataclass(frozen=True)
class Windows:
    """Segments of equal length that continue each other.

    Attributes:
        num_frames: of a segment.
        overlap: frames that neighbours share.
        count: how many.
        length: frames in all.
        prompts: of each segment; none: all follow the request's.
    """

    num_frames: int
    overlap: int
    count: int
    length: int
    prompts: tuple[str, ...] = ()

    def middle(self, place: int) -> float:
        """Return the frame in the middle of what a segment adds to those before it."""
        begin = place * (self.num_frames - self.overlap)
        return (begin + (self.overlap if place else 0) + min(begin + self.num_frames, self.length)) / 2


def windows_of(request: Request, num_frames: int, overlap: int) -> Windows:
    """Return the segments that a request asks for with `segments`, `length` or `prompts`.

    Args:
        request: what was asked.
        num_frames: of a segment.
        overlap: frames that they share.

    Raises:
        UserError: lengths that contradict each other, or a prompt that no segment follows.
    """
    length, segments = request.length, request.segments
    lengths = [one.num_frames for one in request.prompts if one.num_frames is not None]
    if lengths:
        length = _length_of(request, lengths)
    elif request.prompts and length is None and segments is None:
        segments = len(request.prompts)
    if length is not None:
        if length < 1:
            raise UserError("must be at least 1 frame", field="length", value=length)
        windows = Windows(num_frames, overlap, segments_for(length, num_frames, overlap), length)
    else:
        if segments is None or segments < 1:
            raise UserError("must be at least 1", field="segments", value=segments)
        windows = Windows(num_frames, overlap, segments, length_of(segments, num_frames, overlap))
    if not request.prompts:
        return windows
    shares = _by_length(windows, lengths) if lengths else _evenly(windows.count, len(request.prompts))
    return Windows(num_frames, overlap, windows.count, windows.length, _texts(request.prompts, shares, windows))


def _length_of(request: Request, lengths: Sequence[int]) -> int:
    if len(lengths) < len(request.prompts):
        raise UserError("some have a length, some have none", field="prompts", fix="give all of them one, or none")
    if min(lengths) < 1:
        raise UserError("lengths must be at least 1 frame", field="prompts")
    whole = sum(lengths)
    if request.segments is not None:
        raise UserError(
            "the lengths of `prompts` say how long it shall be",
            field="segments",
            value=request.segments,
            fix="give one",
        )
    if request.length not in (None, whole):
        raise UserError(f"`prompts` have {whole} frames in all", field="length", value=request.length, fix="give one")
    return whole


def _by_length(windows: Windows, lengths: Sequence[int]) -> list[int]:
    """Return the number of the prompt in whose stretch the middle of each segment lies."""
    ends = list(accumulate(lengths))
    middles = [windows.middle(place) for place in range(windows.count)]
    return [next((number for number, end in enumerate(ends) if middle < end), len(ends) - 1) for middle in middles]


def _evenly(count: int, prompts: int) -> list[int]:
    return [place * prompts // count for place in range(count)]


def _texts(prompts: Sequence[SegmentPrompt], shares: Sequence[int], windows: Windows) -> tuple[str, ...]:
    """Return the prompt of each segment, and refuse those that none would follow."""
    for number, one in enumerate(prompts):
        if not one.prompt:
            raise UserError("empty", field="prompts", value=number + 1, fix="say what the video shall show")
        if number not in shares:
            each = windows.num_frames - windows.overlap
            raise UserError(
                f"is followed by none of the {windows.count} segments, each of which adds {each} frames",
                field="prompts",
                value=f"number {number + 1}",
                fix=f"let it last at least {each} frames, or ask for shorter segments (`num_frames`)",
            )
    return tuple(prompts[number].prompt for number in shares)
