"""What each score that is off by default costs, with it and without it, in shares of a bare decode of the same files.

    python -m benchmarks.scores [--rounds N] [--only NAME,NAME …] [VIDEO …]

Everything up to the verdict runs in this process, by the default recipe without text detection, and then once more
for each operator, with it on; every clip is scored. Videos with sound show what hearing costs. Printed in CPU-seconds
over those of PyAV decoding the same streams to nothing on one thread (median, lowest and highest of the rounds): the
operator itself, with the sound that it hears, and with it what taking, scaling and packing frames costs more than
without; this is a difference of two runs, and so less certain. Operators over captions are measured on made-up
captions of 60 words, one for each clip. What lacks a package or weights is left out, with a line; what takes more
than 3 % of the decode is marked, and has no place in the default recipe. Written to `.bench/scores.json`; ends with
an error where the default recipe has operators that it had not in version 0.8, which are to be measured here first.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from benchmarks.corpus import SHARED_VIDEOS
from benchmarks.floor import bare_decode
from benchmarks.measure import shown, spread, verdict, write_results
from cli.common import TABLES, check_weights
from configs import CONFIGS
from core.cpu_time import StepClock
from core.progress import Done
from curation.analysis.analyse import analyse, probe_source
from curation.inputs.sources import find_sources
from curation.recipe import Recipe, load_recipe
from curation.steps import ScoreStep
from curation.types import Row, Source, TableOperator
from curation.work import Plan
from media.types import no_heartbeat
from models.errors import ModelError
from operators import OPERATORS

FIRST = frozenset(("facts", "motion", "sharpness", "brightness", "frozen", "letterbox", "visual_quality", "text_area"))
"""operators of the default recipe in version 0.8"""
MOST_OF_A_DECODE = 0.03
NEEDS = {"clusters": ("temporal_hash",), "duplicates": ("temporal_hash",)}
FOR_ALL = ("scale", "samples")
"""steps that take, pack and scale the frames that operators look at"""
CAPTION_WORDS = 60
USUAL = ("imageio-binaries__cockatoo.mp4", "video-subtitle-remover__test2.mp4")
"""of SELECTS_SHARED: 22 s, 720p, with sound"""


@dataclass
class Spent:
    """CPU-seconds of one run over all files by step, without loading; and the rows that it gave."""

    steps_s: Counter[str] = field(default_factory=Counter)
    clips: int = 0


def recipe_with(*names: str) -> Recipe:
    """Return the default recipe without text detection, with these operators; every clip is scored."""
    usual = ["operators.text_area=false", "rules.text_area=false", "score_rejected=true"]
    return load_recipe(CONFIGS / "default.yaml", [*usual, *(f"operators.{name}=true" for name in names)], TABLES)[0]


def spent_by(plan: Plan, sources: Sequence[Source]) -> Spent:
    """Analyse files, and let pooled operators score all that comes of them."""
    spent, clock, rows = Spent(), StepClock(), list[Row]()
    told: Counter[str] = Counter()

    def hear(done: Done) -> None:
        told.update(done.cpu_s)

    pools = [ScoreStep(plan, name, operators, frozenset()).start(hear) for name, operators in plan.recipe.pools.items()]
    for source in sources:
        for task in probe_source(plan, source, no_heartbeat):
            rows += list(analyse(plan, task, no_heartbeat, clock))
    for score in pools:
        rows = [row for begin in range(0, len(rows), 8) for row in score(rows[begin : begin + 8])]
    spent.clips = len(rows)
    spent.steps_s.update(clock.take())
    spent.steps_s.update(told)
    return spent


def compared(name: str, clips: int) -> float:
    """Return the CPU-seconds that an operator over captions takes for so many clips."""
    rng = np.random.default_rng(0)
    words = [f"word{k}" for k in range(3000)]
    count = 1000
    texts = [" ".join(rng.choice(words, CAPTION_WORDS)) for _ in range(count)]
    table = pa.table({"clip_id": [f"{k:06}" for k in range(count)], "caption": texts})
    operator = OPERATORS[name]()
    assert isinstance(operator, TableOperator)
    operator.find(table.slice(0, 1), np.ones(1, bool))  # what it loads is its start
    begin_s = time.process_time()
    operator.find(table, np.ones(count, bool))
    return (time.process_time() - begin_s) / count * clips


def off_by_default(only: Sequence[str]) -> list[str]:
    """Return the operators to measure: off by default, and all that they need is here."""
    usual = recipe_with().operators.keys() | {"text_area"}
    found = []
    for name, kind in OPERATORS.items():
        if name in usual or (only and name not in only) or (name in NEEDS and not only):
            continue
        try:
            check_weights(kind())
        except ModelError as error:
            print(f"left out: {name} ({error})", file=sys.stderr)
            continue
        found.append(name)
    return found


def main() -> int:
    """Print the table; return 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], metavar="NAME,NAME")
    parser.add_argument("videos", type=Path, nargs="*", default=[SHARED_VIDEOS / name for name in USUAL])
    options = parser.parse_args()
    cv2.setNumThreads(1)
    names = off_by_default(options.only)
    own: dict[str, list[float]] = {name: [] for name in names}
    added: dict[str, list[float]] = {name: [] for name in names}
    sources = find_sources([str(video) for video in options.videos])
    with tempfile.TemporaryDirectory() as folder:

        def run(*more: str, some: Sequence[Source] = sources) -> Spent:
            plan = Plan(recipe_with(*more), str(Path(folder) / "out"))
            Path(plan.out).mkdir(exist_ok=True)
            return spent_by(plan, some)

        run(
            *names, *(other for name in names for other in NEEDS.get(name, ())), some=sources[:1]
        )  # the process's start
        for _ in range(options.rounds):
            decode_s = sum(bare_decode(video) for video in options.videos)
            without = run()
            for name in names:
                if isinstance(OPERATORS[name](), TableOperator) and name.startswith("caption_"):
                    took_s = compared(name, without.clips)
                    own[name].append(took_s / decode_s)
                    added[name].append(took_s / decode_s)
                    continue
                each = run(*NEEDS.get(name, ()), name)
                own[name].append(each.steps_s[name] / decode_s)
                frames_s = sum(each.steps_s[step] - without.steps_s[step] for step in FOR_ALL)
                added[name].append((each.steps_s[name] + frames_s) / decode_s)
    print(f"CPU ÷ bare decode (median, lowest and highest of {options.rounds} rounds)")
    for name in names:
        mark = "  over 3 %" if max(spread(own[name])[0], spread(added[name])[0]) > MOST_OF_A_DECODE else ""
        print(f"  {name:18} itself {shown(own[name], 3):26} with its frames {shown(added[name], 3):26}{mark}")
    results = {name: {"itself": spread(own[name]), "with all": spread(added[name])} for name in names}
    print(f"written to {write_results('scores', results)}")
    newer = recipe_with().operators.keys() - FIRST
    return verdict([f"{name} is on by default and was not measured" for name in sorted(newer)])


if __name__ == "__main__":
    sys.exit(main())
