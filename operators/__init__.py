"""One score per file; this table is the only list of them."""

from operators.brightness import Brightness
from operators.facts import Facts
from operators.frozen import Frozen
from operators.letterbox import Letterbox
from operators.motion import Motion
from operators.sharpness import Sharpness
from operators.text_area import TextArea
from operators.visual_quality import VisualQuality

OPERATORS: dict[str, type] = {
    "facts": Facts,
    "motion": Motion,
    "sharpness": Sharpness,
    "brightness": Brightness,
    "frozen": Frozen,
    "letterbox": Letterbox,
    "visual_quality": VisualQuality,
    "text_area": TextArea,
}

PLANNED = ("aesthetic", "frame_consistency", "embedding", "caption_alignment", "duplicates")
"""Names that later work adds; a recipe that asks for one is told so."""
