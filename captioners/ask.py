"""One question to a model and its reply: the seam between what is asked and who answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from curation.types import Frames

GRID_FPS = 30.0
"""Rate of the virtual video whose frames those sent are, for models that want frame numbers."""


@dataclass(frozen=True)
class Request:
    """One question to a vision-language model.

    Attributes:
        clip_id: of the clip that is asked about; the reply must name it.
        prompt: the whole text of the question.
        frames: uint8 RGB with times; a single frame is sent as an image, several as a video; null: text alone.
        max_tokens: bound on the reply.
        temperature: 0 is greedy.
    """

    clip_id: str
    prompt: str
    frames: Frames | None
    max_tokens: int
    temperature: float


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        clip_id: of the request it answers.
        text: as the model wrote it.
        is_truncated: stopped by `max_tokens`.
    """

    clip_id: str
    text: str
    is_truncated: bool


Ask = Callable[[Request], Reply]
"""Asks a model and waits for the reply; may be called from as many threads as the captioner has slots.

Raises `AskFailed` when this request cannot be answered, `core.errors.RunError` when none can.
"""


class AskFailed(Exception):
    """The world kept one request from being answered: one line. Others may well be."""


def frame_times_s(frames: Frames) -> list[float]:
    """Return the frames' times in seconds from the start of the clip.

    The frames lie in the middles of equal parts, so the clip starts half a part before the first one.
    """
    times = frames.times_s.tolist()
    return [round(time - times[0] + _part_s(times) / 2, 3) for time in times]


def video_metadata(frames: Frames) -> dict[str, Any]:
    """Return what transformers and vLLM want to know of a video: its rate, and which of its frames these are.

    Index / rate gives the time of a frame, count / duration the rate at which they were taken.

    Returns:
        `fps`, `frames_indices`, `total_num_frames`, `duration` in seconds; plain numbers.
    """
    indices: list[int] = []
    for time in frame_times_s(frames):
        indices.append(max(round(time * GRID_FPS), indices[-1] + 1 if indices else 0))
    duration_s = _part_s(frames.times_s.tolist()) * len(frames)
    total = max(round(duration_s * GRID_FPS), indices[-1] + 1)
    return {"fps": GRID_FPS, "frames_indices": indices, "total_num_frames": total, "duration": total / GRID_FPS}


def _part_s(times: list[float]) -> float:
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1.0
