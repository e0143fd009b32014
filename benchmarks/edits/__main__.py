"""Compare shot detectors on films edited from real footage, whose transitions are known by kind and range.

    python -m benchmarks.edits [--transitions N] [--seeds S,S] [--videos DIR] [--detectors D,D] [--errors]

Every film is made of shots of the footage, joined by transitions (hard cuts, jumps within one view, dissolves, fades,
wipes, slides, pushes, zooms, whips), and holds decoys (flashes, shake, whip pans, exposure ramps, subtitles, insets,
noise, glitches, speed ramps, slides that build up). They are coded with H.264 and seen as coarse frames.

Printed: F1 over all transitions (within two frames of the range; a second boundary in one transition is false), F1 of
hard cuts and of gradual ones (false boundaries by their length), recall of gradual ones and of each kind, mean
intersection over union of the gradual ranges found, share of the kinds that are right among what was found, and
processor time for each frame, without decoding: over all films, then medians over seeds; then the false boundaries by
what deceived the detector.
"""

import argparse
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2

from benchmarks.cuts import detect
from benchmarks.edits.film import draw_films
from benchmarks.edits.footage import read_stretches
from benchmarks.edits.joins import JOINS
from benchmarks.edits.score import Score, add
from core.errors import UserError
from curation.shots import DETECTORS
from curation.shots.types import ShotDetector

LEFT_OUT = {"stride"}
"""not a detector of shots"""


def chosen(names: str) -> dict[str, ShotDetector]:
    """Return the detectors of some names, or all; those whose package is not installed are left out and named."""
    found = {}
    for name in names.split(",") if names else [each for each in DETECTORS if each not in LEFT_OUT]:
        detector = DETECTORS[name]()
        try:
            detector.start(25.0)
        except UserError as error:
            print(f"{name}: left out; {error}")
            continue
        found[name] = detector
    return found


COLUMNS = ("F1", "hard", "gradual", "recall", "jump", "IoU", "kind", "ms")


def figures(score: Score) -> tuple[float, ...]:
    """Return what the table shows of one detector, by `COLUMNS`."""
    return (
        *(score.f1(), score.f1(["hard"]), score.f1(JOINS), score.recall(JOINS), score.recall(["jump"])),
        sum(score.overlaps) / max(1, len(score.overlaps)),
        sum(score.typed.values()) / max(1, sum(score.hits.values())),
        1000 * score.spent_s / max(1, score.frames),
    )


def print_table(by_seed: Mapping[str, Sequence[Score]]) -> None:
    """Print one row for each detector, pooled and as medians over seeds; then recall by kind and what deceived it."""
    scores = {name: sum(each, Score()) for name, each in by_seed.items()}
    some = next(iter(scores.values()))
    print(f"{sum(some.drawn.values())} transitions, {some.frames} frames, {sum(some.decoys.values())} decoys")
    print(f"{'detector':12} " + " ".join(f"{name:>8}" for name in COLUMNS))
    for name, score in scores.items():
        print(f"{name:12} " + " ".join(f"{value:8.3f}" for value in figures(score)))
    print(f"medians over {max(map(len, by_seed.values()))} seeds")
    for name, each in by_seed.items():
        medians = map(statistics.median, zip(*map(figures, each), strict=True))
        print(f"{name:12} " + " ".join(f"{value:8.3f}" for value in medians))
    print_kinds("recall", some.drawn, {name: score.recall_by_kind() for name, score in scores.items()})
    names = {kind: some.decoys[kind] for kind in [*sorted(some.decoys), "shot", "transition"]}
    print_kinds("false", names, {name: score.false for name, score in scores.items()})


def print_kinds(title: str, drawn: Mapping[str, int], rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print one column for each kind."""
    kinds = list(drawn) if title == "false" else sorted(drawn)
    print(f"{title:12} " + " ".join(f"{kind:>10}" for kind in kinds))
    print(f"{'drawn':12} " + " ".join(f"{drawn[kind]:10}" for kind in kinds))
    for name, row in rows.items():
        print(f"{name:12} " + " ".join(f"{row.get(kind, 0):10.3g}" for kind in kinds))


def main() -> None:
    """Read the command line, edit the films and compare."""
    shared = Path(os.environ.get("SELECTS_SHARED", Path(__file__).parents[2] / ".." / "shared"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transitions", type=int, default=300, help="for each seed")
    parser.add_argument("--seeds", default="1", help="e.g. 1,2,3")
    parser.add_argument("--videos", type=Path, default=shared / "videos", help="folder of the footage")
    parser.add_argument("--marks", type=Path, help="cuts of the footage, as benchmarks.cuts reads")
    parser.add_argument("--detectors", default="", help=f"of {', '.join(DETECTORS)}; all, if none is named")
    parser.add_argument("--errors", action="store_true", help="list what each detector got wrong")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    by_eye = shared / "truth" / "cuts_by_eye.json"
    marks = args.marks or (by_eye if args.videos == shared / "videos" and by_eye.is_file() else None)
    stretches = read_stretches(args.videos, marks)
    detectors = chosen(args.detectors)
    by_seed: dict[str, list[Score]] = {name: [] for name in detectors}
    for seed in map(int, args.seeds.split(",")):
        for scores in by_seed.values():
            scores.append(Score())
        for number, film in enumerate(draw_films(stretches, seed, args.transitions)):
            for name, detector in detectors.items():
                score = by_seed[name][-1]
                known = len(score.wrong)
                add(score, film, *detect(detector, film.frames, film.fps))
                if args.errors:
                    for line in score.wrong[known:]:
                        print(f"{name:12} seed {seed} film {number}: {line}", flush=True)
    print_table(by_seed)


if __name__ == "__main__":
    main()
