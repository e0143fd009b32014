"""Do scores rank videos as published ones do? Spearman's correlation over the videos whose scores somebody published.

    python -m benchmarks.published OUT

OUT is an output of `curate` on the videos of SELECTS_SHARED; the score of a video is the mean of its clips by duration,
whatever their verdicts. Published are Data-Juicer's motion (Farnebäck and RAFT) and share of text (EasyOCR), in
the comments of its tests: three videos, so that a correlation is one of six orders and says little. Ranks of Koala-36M
and labels of Panda-70M belong to videos that are not at hand.
"""

import argparse
import json
import os
from pathlib import Path

import pandas as pd
from scipy.stats import spearmanr

from benchmarks.measure import ROOT

TRUTH = Path(os.environ.get("SELECTS_SHARED", ROOT / ".." / "shared")) / "truth" / "data_juicer.json"
PAIRS = (("motion_score_farneback", "motion"), ("motion_score_raft", "motion"), ("ocr_area_ratio", "text_area"))


def score_of(clips: pd.DataFrame, video: str, column: str) -> float:
    """Return a video's score: the mean of its clips by duration; NaN where none has one."""
    own = clips[(clips["source_path"] == video) & (clips["kind"] == "clip") & clips[column].notna()]
    return float((own[column] * own["duration_s"]).sum() / own["duration_s"].sum()) if len(own) else float("nan")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    clips = pd.read_parquet(options.output / "clips")
    truth = json.loads(TRUTH.read_text(encoding="utf-8"))
    for name, column in PAIRS:
        videos = [key for key in truth[name] if key.startswith("data-juicer__")]
        theirs = [float(truth[name][video]) for video in videos]
        ours = [score_of(clips, video, column) for video in videos]
        rank = float(spearmanr(theirs, ours).statistic)
        print(f"{name:24} {column:10} {len(videos)} videos, rank correlation {rank:.2f}: {theirs} {ours}")


if __name__ == "__main__":
    main()
