"""One score per file; this table is the only list of them."""

from curation.dedup.clusters import Clusters
from curation.dedup.duplicates import Duplicates
from curation.types import AnyOperator
from operators.aesthetic import Aesthetic
from operators.bad_frames import BadFrames
from operators.bits_per_pixel import BitsPerPixel
from operators.brightness import Brightness
from operators.camera import Camera
from operators.caption_alignment import CaptionAlignment
from operators.caption_clusters import CaptionClusters
from operators.caption_language import CaptionLanguage
from operators.detail import Detail
from operators.embedding import Embedding
from operators.faces import Faces
from operators.facts import Facts
from operators.flicker import Flicker
from operators.frame_consistency import FrameConsistency
from operators.frozen import Frozen
from operators.letterbox import Letterbox
from operators.motion import Motion
from operators.nsfw import Nsfw
from operators.overlay import Overlay
from operators.sharpness import Sharpness
from operators.speech import Speech
from operators.speed import Speed
from operators.split_screen import SplitScreen
from operators.temporal_hash import TemporalHash
from operators.text_area import TextArea
from operators.visual_quality import VisualQuality

OPERATORS: dict[str, type[AnyOperator]] = {
    "facts": Facts,
    "bits_per_pixel": BitsPerPixel,
    "motion": Motion,
    "camera": Camera,
    "speed": Speed,
    "sharpness": Sharpness,
    "detail": Detail,
    "brightness": Brightness,
    "bad_frames": BadFrames,
    "flicker": Flicker,
    "frozen": Frozen,
    "letterbox": Letterbox,
    "split_screen": SplitScreen,
    "visual_quality": VisualQuality,
    "temporal_hash": TemporalHash,
    "text_area": TextArea,
    "overlay": Overlay,
    "frame_consistency": FrameConsistency,
    "aesthetic": Aesthetic,
    "embedding": Embedding,
    "speech": Speech,
    "nsfw": Nsfw,
    "faces": Faces,
    "duplicates": Duplicates,
    "clusters": Clusters,
    "caption_alignment": CaptionAlignment,
    "caption_language": CaptionLanguage,
    "caption_clusters": CaptionClusters,
}
