"""People as DWPose finds and draws them: coloured limbs and points on black."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np

from controls.amounts import Mean
from controls.networks import loaded, map_gpus
from controls.people import FindPeople, open_people
from controls.skeletons import bodies_of, draw_people
from core.settings import key
from curation.schema import BOTH
from curation.types import MapDrawer, MapFacts

PUBLISHED = ("dwpose-people", "dwpose-keypoints")
POSE_GB = 2.0
"""of a GPU: 0.35 GB of weights, and onnxruntime's own allocator"""


@dataclass(frozen=True)
class Pose:
    """Bodies, hands and faces, as points and what joins them."""

    detector: str = key("dwpose-people", "finds people: name of published weights, or an ONNX file")
    keypoints: str = key("dwpose-keypoints", "finds their points: name of published weights, or an ONNX file")
    min_score: float = key(0.3, "how sure a point must be to be drawn; 0.3 as published", min=0, max=1)
    hands: bool = key(True, "draw hands")
    face: bool = key(True, "draw points of faces")
    device: str = key("auto", "where it computes; auto: the GPU if onnxruntime can use one")

    media: ClassVar[frozenset[str]] = BOTH
    suffix: ClassVar[Literal["mp4", "txt"]] = "mp4"
    packages: ClassVar[tuple[str, ...]] = ("huggingface_hub",)

    @property
    def takes(self) -> Literal["gray", "rgb"]:
        """Colours."""
        return "rgb"

    @property
    def weights_named(self) -> tuple[str, ...]:
        """What its settings name: published weights, or files."""
        return (self.detector, self.keypoints)

    @property
    def gpus(self) -> float:
        """GPUs that one worker books where there are any."""
        return map_gpus(self.device)

    @property
    def gpu_memory_gb(self) -> float | None:
        """GB that its network takes of a GPU; null for networks of one's own."""
        return POSE_GB if (self.detector, self.keypoints) == PUBLISHED else None

    def start(self) -> MapDrawer:
        """Return a drawer for one clip.

        Raises:
            UserError: weights that cannot be had or do not fit.
        """
        return PoseDrawer(self, loaded(lambda: _networks(self.detector, self.keypoints, self.device)))


class PoseDrawer:
    """Draws the people of each frame by themselves; the amount is the share of frames in which there is somebody."""

    def __init__(self, settings: Pose, find: FindPeople):
        """Take what is drawn, and what finds people."""
        self._settings, self._find, self._amount = settings, find, Mean()

    def draw(self, picture: np.ndarray, time_s: float) -> np.ndarray:
        """Return the map of the next picture."""
        people, wanted = self._find(picture), self._settings
        self._amount.add(float(bool(np.isfinite(bodies_of(people, wanted.min_score)).any())))
        return draw_people(people, picture.shape[:2], wanted.min_score, with_hands=wanted.hands, with_face=wanted.face)

    def finish(self) -> MapFacts:
        """Return the amount."""
        return MapFacts(self._amount.value)


@lru_cache(maxsize=1)
def _networks(detector: str, keypoints: str, device: str) -> FindPeople:
    """Open the networks once in this process, for all its clips."""
    return open_people(detector, keypoints, device)
