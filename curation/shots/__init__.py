"""Shot detection: where one shot ends and the next begins, and which clips that makes."""

from core import plugins
from core.plugins import PluginTable
from curation.plugins import detector_fault
from curation.shots.fused import Fused
from curation.shots.fused_plus import FusedPlus
from curation.shots.pyscenedetect import Adaptive, Cascade, Content, Hash, Histogram, Threshold
from curation.shots.stride import Stride
from curation.shots.transnet import TransNet
from curation.shots.types import ShotDetector

BUILT_IN: dict[str, type[ShotDetector]] = {
    "fused": Fused,
    "fused_plus": FusedPlus,
    "adaptive": Adaptive,
    "content": Content,
    "cascade": Cascade,
    "threshold": Threshold,
    "histogram": Histogram,
    "hash": Hash,
    "transnet": TransNet,
    "stride": Stride,
}
DETECTORS: PluginTable[type[ShotDetector]] = PluginTable(BUILT_IN, plugins.DETECTORS, detector_fault)
"""ours, and those of installed plug-ins"""
