"""The scores of how well a sample obeys its control; they are measured in `sampling.obedience`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Scores = Mapping[str, float | None]
"""by the names in `COLUMNS`; None where it cannot be told"""
COLUMNS: Mapping[str, tuple[str, str]] = {
    "control_edges_f1": ("", "edges within 2 px (of 320) of where they were asked for: F1 of precision and recall"),
    "control_correlation": ("", "correlation of the sample's map with the one that was asked for, mean over frames"),
    "control_pose_distance": (
        "",
        "mean distance of joints from where they were asked for, as a share of the diagonal, of those that are found",
    ),
    "control_pose_found": ("", "share of the asked joints of which the sample shows any of their kind"),
    "control_trajectory_px": ("px", "mean distance of followed points from where they were asked to be"),
    "control_camera_error": ("", "how far the camera's view is from the asked one, as a share of how far that moved"),
}
"""what is measured: unit and meaning"""


@dataclass(frozen=True)
class Obedience:
    """What was found of one sample.

    Attributes:
        scores: those that its kind of control has.
        why_not: why there are none; None where there are.
    """

    scores: Scores
    why_not: str | None = None


Measure = Callable[[Path], Obedience | None]
"""measures a sample; None where it was not steered"""
