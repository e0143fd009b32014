"""Paths of points: a soft disc where each of them is, as trajectory models were trained with."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from controls.tracking import corners, follow, shrunk
from core.settings import key
from curation.schema import VIDEO
from curation.types import MapDrawer, MapFacts
from models.conditions.heat_map import heat_map

QUALITY = 0.01


@dataclass(frozen=True)
class Trajectory:
    """Points that are followed from the first frame on; where half of them are lost, others take their place."""

    points: int = key(8, "points followed at a time", min=1, max=1000)

    media: ClassVar[frozenset[str]] = VIDEO
    suffix: ClassVar[Literal["mp4", "txt"]] = "mp4"

    @property
    def takes(self) -> Literal["gray", "rgb"]:
        """Luma."""
        return "gray"

    def start(self) -> MapDrawer:
        """Return a drawer for one clip."""
        return _TrajectoryDrawer(self.points)


class _TrajectoryDrawer:
    def __init__(self, count: int):
        self._count = count
        self._before: np.ndarray | None = None
        self._places = self._begins = np.zeros((0, 2), np.float32)
        self._reached = np.zeros(0)
        self._lost: list[float] = []
        self._diagonal_px = 1.0

    def draw(self, picture: np.ndarray, time_s: float) -> np.ndarray:
        small, scale = shrunk(picture)
        if self._before is not None:
            places, is_seen = follow(self._before, small, self._places)
            self._lost += self._reached[~is_seen].tolist()
            self._places, self._begins = places[is_seen], self._begins[is_seen]
            self._reached = np.maximum(self._reached[is_seen], np.hypot(*(self._places - self._begins).T))
        if 2 * len(self._places) < self._count or self._before is None:
            more = corners(small, self._count, QUALITY, self._places)[: self._count - len(self._places)]
            self._places = np.concatenate([self._places, more])
            self._begins = np.concatenate([self._begins, more])
            self._reached = np.concatenate([self._reached, np.zeros(len(more))])
        self._before, self._diagonal_px = small, math.hypot(*small.shape)
        # A pixel's middle is at +0.5: so it stays where it is in a larger picture.
        return heat_map((self._places + 0.5) / scale - 0.5, picture.shape)

    def finish(self) -> MapFacts:
        reached = [*self._lost, *self._reached.tolist()]
        return MapFacts(min(1.0, float(np.mean(reached)) / self._diagonal_px) if reached else 0.0)
