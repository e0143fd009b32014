"""Frames that are in memory, as operators look at those of files: sampled by the same rules."""

import numpy as np

from curation.analysis.samples import SampleStore
from curation.types import ClipInput, Frames, Operator
from curation.work import STILL
from media.frame import DecodedFrame, RgbFrame
from media.types import SourceFacts, Span


def clip_of(operator: Operator, pixels: np.ndarray, fps: float) -> ClipInput | None:
    """Return frames as an operator looks at them; None where it would see none.

    Args:
        operator: who looks.
        pixels: uint8 (T, H, W, 3) RGB, upright; one frame is an image.
        fps: frames a second; of one frame it says nothing.
    """
    count, height, width = pixels.shape[:3]
    if count == 1:
        facts, span = SourceFacts("image", width, height, "rawvideo"), STILL
    else:
        facts = SourceFacts(
            "video", width, height, "rawvideo", fps, declared_frames=count, declared_duration_s=count / fps
        )
        span = Span(0.0, count / fps, 0, count)
    if operator.sampling is None:
        return ClipInput(facts, span, Frames(np.zeros((0, 2, 2), np.uint8), np.zeros(0)))
    store = SampleStore([operator.sampling])
    for index, picture in enumerate(pixels):
        duration_s = 1 / fps if count > 1 else 0.0
        frame: DecodedFrame = RgbFrame(picture, index, index / fps if count > 1 else 0.0, duration_s)
        store.offer(frame, frame.coarse())
    frames = store.take(operator.sampling, span)
    return None if frames is None else ClipInput(facts, span, frames)
