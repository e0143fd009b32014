"""Score video: any operator of curation that looks at frames, as a number."""

import functools
import json
import math
from collections.abc import Mapping
from typing import Any, cast

import yaml

from core.errors import UserError, nearest
from core.settings import build
from curation.analysis.in_memory import clip_of
from curation.types import Operator, Scorer
from integrations.comfyui.pixels import from_image
from integrations.comfyui.ports import Node, Out, Port
from operators import OPERATORS

NOT_OF_FRAMES = frozenset((
    *("facts", "bits_per_pixel", "speech", "duplicates", "clusters"),
    *("caption_alignment", "caption_language", "caption_clusters"),
))
"""operators that look at files, tables or captions"""
SCORES = tuple(name for name in OPERATORS if name not in NOT_OF_FRAMES)
USUAL = "motion"


def score_video(images: Any, operator: str, fps: float, settings: str = "", column: str = "") -> tuple[float, str]:
    """Return a score and all that the operator writes, as JSON.

    Args:
        images: IMAGE; one frame is scored as an image.
        operator: its name.
        fps: frames a second.
        settings: YAML of its settings; empty: its defaults.
        column: which of its numbers; empty: its first.

    Returns:
        The number, NaN where it cannot be measured (null in the JSON).

    Raises:
        UserError: a setting or column that there is not, or an operator that cannot look at this.
    """
    made = _operator(operator, settings)
    pixels = from_image(images)
    kind = "image" if len(pixels) == 1 else "video"
    if kind not in made.media:
        raise UserError(f"{operator}: looks at no {kind}; give a video's frames, or for an image one frame")
    if column and column not in made.writes:
        raise UserError(f"{operator}: writes no column '{column}'{nearest(column, list(made.writes))}")
    clip = clip_of(made, pixels, fps)
    scores: Mapping[str, Any] = dict.fromkeys(made.writes) if clip is None else _loaded(operator, settings)([clip])[0]
    value = scores.get(column) if column else next((v for v in scores.values() if isinstance(v, int | float)), None)
    if value is not None and not isinstance(value, int | float):
        raise UserError(f"{operator}: '{column}' is no number; read it from the JSON")
    return (math.nan if value is None else float(value)), json.dumps(dict(scores), default=str)


def _operator(name: str, settings: str) -> Operator:
    try:
        values = yaml.safe_load(settings) or {}
    except yaml.YAMLError as error:
        raise UserError(f"settings: not YAML ({' '.join(str(error).split())}); write lines of `key: value`") from None
    made: Any = build(OPERATORS[name], values, f"operators.{name}")
    return cast(Operator, made)


@functools.lru_cache(4)
def _loaded(name: str, settings: str) -> Scorer:
    """Return the function of an operator; what it loads is kept for the next run."""
    return _operator(name, settings).load()


SCORE_NODE = Node(
    "SelectsScoreVideo",
    "Score video (Selects)",
    "A score of curation: motion, sharpness, aesthetic and so on. Captions, files and tables are not looked at.",
    (
        Port("images", "IMAGE", "a video's frames, or a picture"),
        Port("operator", "COMBO", "which score", USUAL, choices=SCORES),
        Port("fps", "FLOAT", "rate of the frames", 8.0, 0.1, 240.0, 0.5),
        Port(
            "settings",
            "STRING",
            "of the operator, lines of key: value",
            "",
            lines=True,
            optional=True,
        ),
        Port("column", "STRING", "which of its numbers; empty: its first", "", optional=True),
    ),
    (
        Out("score", "FLOAT", "NaN where it cannot be measured"),
        Out("all", "STRING", "everything it writes, as JSON"),
    ),
    score_video,
)
