"""Shot detection: where one shot ends and the next begins, and which clips that makes."""

from curation.shots.fused import Fused
from curation.shots.pyscenedetect import Adaptive, Cascade, Content, Hash, Histogram, Threshold
from curation.shots.stride import Stride
from curation.shots.types import ShotDetector

DETECTORS: dict[str, type[ShotDetector]] = {
    "fused": Fused,
    "adaptive": Adaptive,
    "content": Content,
    "cascade": Cascade,
    "threshold": Threshold,
    "histogram": Histogram,
    "hash": Hash,
    "stride": Stride,
}
