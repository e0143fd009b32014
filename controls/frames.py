"""Maps of frames that are at hand, as the sampler and the evaluation want them: by the controls of the recipe."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from curation.types import Control
from media.frame import luma_of

Made = tuple[np.ndarray | None, str | None, float]
"""maps, uint8 (T, H, W, 3), or none; the text of a map that is a text file, or none; and how much it holds, 0..1"""
MapMaker = Callable[[np.ndarray, float], Made]
"""uint8 (T, H, W, 3) RGB and frames a second to maps"""


def draw_maps(control: Control, frames: np.ndarray, fps: float) -> Made:
    """Draw the map of a video or a picture.

    Args:
        control: which.
        frames: uint8 (T, H, W, 3).
        fps: their rate.
    """
    drawer = control.start()
    drawn = []
    for number, frame in enumerate(frames):
        picture = drawer.draw(luma_of(frame) if control.takes == "gray" else frame, number / fps)
        if picture is not None:
            drawn.append(np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture.copy())
    facts = drawer.finish()
    return (np.stack(drawn) if drawn else None), facts.text, facts.amount


def map_makers(controls: Mapping[str, type]) -> dict[str, MapMaker]:
    """Return what makes each map, with the settings that controls have by themselves."""
    return {name: partial(draw_maps, kind()) for name, kind in controls.items()}
