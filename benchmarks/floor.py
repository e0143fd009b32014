"""What analysis costs over a bare decode of the same files: CPU-seconds, in one process, taking turns.

    python -m benchmarks.floor [--rounds N] [VIDEO …]

Ours is everything up to the verdict (hash, facts, shots, all default pixel operators, frame samples, previews) without
text detection and without cutting; theirs is PyAV decoding the same stream to nothing on one thread. The files are the
real ones of SELECTS_SHARED, else the demo's. By size of the picture: the ratio (median, lowest and highest of the
rounds), and what each step takes in shares of the bare decode; these must add up to the whole within a tenth.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2

from curation.analyse import analyse, probe_source
from curation.clock import StepClock
from curation.demo_footage import draw_demo
from curation.errors import MediaError
from curation.recipe import Recipe, load_recipe
from curation.sources import find_sources, looks_like_image
from curation.types import Source, silent
from curation.video.container import best_video_stream
from curation.work import Plan
from run_pipeline import CONFIGS, TABLES

TARGETS = {"<= 480p": 2.2, "720p": 1.6, ">= 1080p": 1.4}
ADDS_UP_WITHIN = 0.1


@dataclass
class Cost:
    """CPU-seconds of one round over the files of a size class."""

    decode_s: float = 0.0
    analyse_s: float = 0.0
    steps_s: Counter[str] = field(default_factory=Counter)

    @property
    def ratio(self) -> float:
        """Ours over the bare decode."""
        return self.analyse_s / self.decode_s


def bare_decode(path: Path) -> float:
    """Decode a file's chosen stream to nothing; give the CPU-seconds."""
    begin = time.process_time()
    with av.open(str(path)) as container:
        stream = best_video_stream(container)
        stream.codec_context.thread_count = 1
        for _ in container.decode(stream):
            pass
    return time.process_time() - begin


def analysed(plan: Plan, source: Source, cost: Cost) -> str:
    """Analyse a file, adding to the cost; give its size class."""
    clock, begin = StepClock(), time.process_time()
    with clock.step("probe"):
        tasks = probe_source(plan, source, silent)
    for task in tasks:
        for _ in analyse(plan, task, silent, clock):
            pass
    cost.analyse_s += time.process_time() - begin
    cost.steps_s.update(clock.take())
    side = min(tasks[0].facts.width_px, tasks[0].facts.height_px)
    return "<= 480p" if side <= 480 else "720p" if side <= 720 else ">= 1080p"


def round_of(plan: Plan, sources: Sequence[Source]) -> dict[str, Cost]:
    """Decode and analyse each file in turn; files that cannot be read whole are passed over."""
    found: dict[str, Cost] = defaultdict(Cost)
    for source in sources:
        cost = Cost()
        try:
            cost.decode_s = bare_decode(source.file)
            size = analysed(plan, source, cost)
        except (av.error.FFmpegError, MediaError):
            continue
        total = found[size]
        total.decode_s, total.analyse_s = total.decode_s + cost.decode_s, total.analyse_s + cost.analyse_s
        total.steps_s.update(cost.steps_s)
    return found


def without_text() -> Recipe:
    """Give the default recipe without what needs a pool of its own."""
    recipe, _ = load_recipe(CONFIGS / "default.yaml", ["operators.text_area=false", "rules.text_area=false"], TABLES)
    return recipe


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(os.environ.get("SELECTS_SHARED", Path(__file__).parents[1] / ".." / "shared")) / "videos"
        if not options.videos and not shared.is_dir():
            draw_demo(Path(folder) / "footage")
            shared = Path(folder) / "footage"
        sources = [s for s in find_sources(options.videos or [str(shared)]) if not looks_like_image(s.file)]
        plan = Plan(without_text(), str(Path(folder) / "out"))
        Path(plan.out).mkdir()
        rounds = [round_of(plan, sources) for _ in range(options.rounds)]
    for size in (name for name in TARGETS if name in rounds[0]):
        costs = [one[size] for one in rounds]
        ratios = [cost.ratio for cost in costs]
        print(
            f"{size:8}  analyse ÷ decode {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"target {TARGETS[size]}; {costs[0].decode_s:.1f} s of decoding"
        )
        steps = {name: statistics.median(c.steps_s[name] / c.decode_s for c in costs) for name in costs[0].steps_s}
        print("    " + ", ".join(f"{name} {share:.2f}" for name, share in sorted(steps.items(), key=lambda i: -i[1])))
        told = sum(sum(cost.steps_s.values()) for cost in costs) / sum(cost.analyse_s for cost in costs)
        assert abs(told - 1) <= ADDS_UP_WITHIN, f"the steps add up to {told:.0%} of the whole"


if __name__ == "__main__":
    main()
