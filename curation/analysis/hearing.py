"""The sound of clips for operators that hear: read once along with the frames, and only where a recipe asks for it."""

from collections.abc import Callable

import numpy as np

from curation.types import Hears, Operator
from curation.work import Plan, Task
from media.sound_track import SoundTrack
from media.types import Heartbeat, Span

Hear = Callable[[Operator, Span], np.ndarray | None]
"""From an operator and a clip, in the order of time, to its sound (`ClipInput.sound`)"""


def hear_nothing(operator: Operator, span: Span) -> None:
    """Return no sound, as of images."""


def listen(plan: Plan, task: Task, stretch_s: tuple[float, float | None], beat: Heartbeat) -> Hear:
    """Return what gives the sound of the clips of a segment; operators of one rate share one reading.

    Args:
        plan: whose recipe names the operators.
        task: the segment.
        stretch_s: where it begins and ends, in seconds from the source's first frame; null: with the source.
        beat: called for each packet read.
    """
    rates = {op.sound_hz for op in plan.recipe.pixel_operators.values() if isinstance(op, Hears)}
    limits = plan.recipe.limits
    tracks = {hz: SoundTrack(task.source.file, task.facts, hz, stretch_s, beat, limits) for hz in rates}
    latest: dict[int, tuple[Span, np.ndarray | None]] = {}

    def hear(operator: Operator, span: Span) -> np.ndarray | None:
        if not isinstance(operator, Hears):
            return None
        hz = operator.sound_hz
        if hz not in latest or latest[hz][0] != span:
            latest[hz] = span, tracks[hz].take(span)
        return latest[hz][1]

    return hear
