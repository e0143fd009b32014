"""Selects at the same task: the same detector at the same threshold, the same bounds."""

import sys
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from benchmarks.measure import ROOT, Cost, measured
from benchmarks.peers.task import (
    CONTENT_THRESHOLD,
    CRF,
    MAX_S,
    MIN_HEIGHT_PX,
    MIN_MOTION_PX,
    MIN_S,
    MIN_SHOT_FRAMES,
    MIN_WIDTH_PX,
    MOTION_FPS,
    MOTION_SIDE_PX,
    PRESET,
    Clip,
)

WIDE = (16 * MOTION_SIDE_PX / 9, MOTION_SIDE_PX)
MIN_MOTION = 100 * MIN_MOTION_PX * MOTION_FPS / (WIDE[0] ** 2 + WIDE[1] ** 2) ** 0.5
"""The least motion in percent of the diagonal per second, of a 16:9 picture."""
RECIPE = {
    # One detector of the cascade is ContentDetector itself, its shortest shot counted in frames as the peers do.
    "shots": {
        "detector": "cascade",
        "settings": {"thresholds": [CONTENT_THRESHOLD], "min_shot_frames": MIN_SHOT_FRAMES},
        "min_s": MIN_S,
        "max_s": MAX_S,
    },
    "operators": {"facts": {}, "motion": {}},
    "rules": {"width_px": {"min": MIN_WIDTH_PX}, "height_px": {"min": MIN_HEIGHT_PX}, "motion": {"min": MIN_MOTION}},
    "cut": {"mode": "none", "crf": CRF, "preset": PRESET},
}
PEERS_FLOW = (
    "operators.motion.engine=farneback",
    "operators.motion.gap_s=null",
    f"operators.motion.short_side_px={MOTION_SIDE_PX}",
)
CUT = ("cut.mode=transcode",)
DEFAULT = ("operators.text_area=false", "rules.text_area=false", "cut.mode=none")
"""changes to the default recipe, which measures more"""


def selects(
    videos: list[str], out: Path, runner: str, changes: tuple[str, ...] = (), *, default: bool = False
) -> tuple[Cost, list[Clip]]:
    """Curate with the task's recipe, or with the default one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    recipe = out.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(RECIPE))
    config = ROOT / "configs" / "default.yaml" if default else recipe
    command = [sys.executable, str(ROOT / "run_pipeline.py"), "curate", *videos, *changes]
    cost = measured(
        [*command, "--output", str(out), "--config", str(config), "--runner", runner], out.with_suffix(".log")
    )
    columns = ["source_path", "kind", "start_frame", "num_frames", "status"]
    rows = pq.read_table(out / "clips", columns=columns).to_pylist()
    return cost, [
        Clip(
            Path(row["source_path"]).stem,
            row["start_frame"],
            row["start_frame"] + row["num_frames"],
            row["status"] == "accepted",
        )
        for row in rows
        if row["kind"] == "clip"
    ]
