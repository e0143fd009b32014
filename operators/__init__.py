"""One score per file; this table is the only list of them."""

from curation.duplicates import Duplicates
from operators.aesthetic import Aesthetic
from operators.brightness import Brightness
from operators.caption_alignment import CaptionAlignment
from operators.embedding import Embedding
from operators.facts import Facts
from operators.frame_consistency import FrameConsistency
from operators.frozen import Frozen
from operators.letterbox import Letterbox
from operators.motion import Motion
from operators.sharpness import Sharpness
from operators.temporal_hash import TemporalHash
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
    "temporal_hash": TemporalHash,
    "text_area": TextArea,
    "frame_consistency": FrameConsistency,
    "aesthetic": Aesthetic,
    "embedding": Embedding,
    "duplicates": Duplicates,
    "caption_alignment": CaptionAlignment,
}
