"""What each step costs: CPU-seconds for a second of footage, from the run's own accounting in `run.json`.

    python -m benchmarks.steps [--rounds N] [--minutes M] [--folder DIR]

Whole runs of `curate` with the default recipe in the plain loop, one for each size of picture, in turns; text is looked
for in every clip (`score_rejected`), not only in those that stand. Printed by size: each step, what the accounting adds
up to over what was seen from outside (1 within a tenth), and the share of text detection (target at most a quarter of
the whole, the start left out). Written to `.bench/steps.json`. It fails where one of both is missed.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.corpus import FOLDER, SIZES, corpus
from benchmarks.engine import Run, curated
from benchmarks.measure import shown, spread, verdict, write_results

MOST_TEXT = 0.25
ADDS_UP_WITHIN = 0.1


def main() -> int:
    """Print the tables; return 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    footage = corpus(options.folder, options.minutes)
    by_size = {size: [one for one in footage if one.size == size] for size in SIZES}
    cores = sorted(os.sched_getaffinity(0))[:1]
    found: dict[str, list[Run]] = {size: [] for size, some in by_size.items() if some}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for number, size in enumerate(found):
                files, out = [one.path for one in by_size[size]], Path(folder) / str(number)
                found[size].append(curated(files, "inline", cores, out, changes=["score_rejected=true"]))
    results, missed = {}, []
    for size, rounds in found.items():
        video_s = sum(one.duration_s for one in by_size[size])
        adds_up = [run.told_s / run.cost.cpu_s for run in rounds]
        text = [run.told["text_area"] / (run.told_s - run.start_s) for run in rounds]
        names = sorted(rounds[0].told, key=lambda name: -rounds[0].told[name])
        spent_s = {name: [run.told.get(name, 0.0) / video_s for run in rounds] for name in names}
        print(f"{size}, {video_s:.0f} s of footage; CPU-seconds for each")
        for name in names:
            print(f"  {name:16} {shown(spent_s[name], 4)}")
        print(f"  told ÷ seen {shown(adds_up)}, text detection {shown(text)} of the whole\n")
        results[size] = {
            "steps": {n: spread(s) for n, s in spent_s.items()},
            "told ÷ seen": spread(adds_up),
            "text": spread(text),
        }
        if abs(spread(adds_up)[0] - 1) > ADDS_UP_WITHIN:
            missed.append(f"{size}: the steps add up to {spread(adds_up)[0]:.2f} of what was seen")
        if spread(text)[0] > MOST_TEXT:
            missed.append(f"{size}: text detection is {spread(text)[0]:.0%} of the whole, target at most 25%")
    write_results("steps", results)
    return verdict(missed)


if __name__ == "__main__":
    sys.exit(main())
