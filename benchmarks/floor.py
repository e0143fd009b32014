"""What analysis costs over a bare decode of the same files: CPU-seconds, in one process, taking turns.

    python -m benchmarks.floor [--rounds N] [--minutes M] [--folder DIR] [VIDEO …]

Ours is everything up to the verdict (hash, facts, shots, all default pixel operators, frame samples, previews) without
text detection and without cutting; theirs is PyAV decoding the same stream to nothing on one thread, and the `ffmpeg`
program where there is one. The files are those of `benchmarks.corpus`. By size of the picture: the ratio (median,
lowest and highest of the rounds), and what each step takes in shares of the bare decode; these must add up to the whole
within a tenth. Kept in `.bench/floor.json`; ends with an error where a target is missed.
"""

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2

from benchmarks.corpus import FOLDER, SIZES, corpus, size_class
from benchmarks.measure import shown, spread, verdict, write_results
from cli.common import TABLES
from configs import CONFIGS
from core.cpu_time import StepClock
from core.errors import MediaError
from curation.analysis.analyse import analyse, probe_source
from curation.inputs.sources import find_sources
from curation.recipe import Recipe, load_recipe
from curation.types import Source
from curation.work import Plan
from media.container import stream_of
from media.streams import choose_video_stream
from media.types import no_heartbeat

TARGETS = dict(zip(SIZES, (2.2, 1.6, 1.4), strict=True))
ADDS_UP_WITHIN = 0.1


@dataclass
class Cost:
    """CPU-seconds of one round over the files of a size class."""

    decode_s: float = 0.0
    ffmpeg_s: float = 0.0
    analyse_s: float = 0.0
    steps_s: Counter[str] = field(default_factory=Counter)

    @property
    def ratio(self) -> float:
        """Ours over the bare decode."""
        return self.analyse_s / self.decode_s


def bare_decode(path: Path) -> float:
    """Decode a file's chosen stream to nothing; return the CPU-seconds."""
    begin = time.process_time()
    with av.open(str(path)) as container:
        stream = stream_of(container, choose_video_stream(container).index)
        stream.codec_context.thread_count = 1
        for _ in container.decode(stream):
            pass
    return time.process_time() - begin


def ffmpeg_decode(program: str, path: Path) -> float:
    """Decode a file by the program of FFmpeg on one thread; return the CPU-seconds."""
    begin = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [program, "-v", "error", "-threads", "1", "-i", str(path), "-map", "0:v:0", "-f", "null", "-"]
    subprocess.run(command, check=True)
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime


def analysed(plan: Plan, source: Source, cost: Cost) -> str:
    """Analyse a file, adding to the cost; return its size class."""
    clock, begin = StepClock(), time.process_time()
    with clock.step("probe"):
        tasks = probe_source(plan, source, no_heartbeat)
    for task in tasks:
        for _ in analyse(plan, task, no_heartbeat, clock):
            pass
    cost.analyse_s += time.process_time() - begin
    cost.steps_s.update(clock.take())
    return size_class(tasks[0].facts.width_px, tasks[0].facts.height_px)


def round_of(plan: Plan, sources: Sequence[Source]) -> dict[str, Cost]:
    """Decode and analyse each file in turn; files that cannot be read whole are passed over."""
    found: dict[str, Cost] = defaultdict(Cost)
    program = shutil.which("ffmpeg")
    for source in sources:
        cost = Cost()
        try:
            cost.decode_s = bare_decode(source.file)
            cost.ffmpeg_s = ffmpeg_decode(program, source.file) if program else 0.0
            size = analysed(plan, source, cost)
        except (av.error.FFmpegError, MediaError):
            continue
        total = found[size]
        for part in ("decode_s", "ffmpeg_s", "analyse_s"):
            setattr(total, part, getattr(total, part) + getattr(cost, part))
        total.steps_s.update(cost.steps_s)
    return found


def without_text() -> Recipe:
    """Return the default recipe without what needs a pool of its own."""
    recipe, _ = load_recipe(CONFIGS / "default.yaml", ["operators.text_area=false", "rules.text_area=false"], TABLES)
    return recipe


def main() -> int:
    """Print the tables; return 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    videos = options.videos or [str(footage.path) for footage in corpus(options.folder, options.minutes)]
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(without_text(), str(Path(folder) / "out"))
        Path(plan.out).mkdir()
        sources = find_sources(videos)
        round_of(plan, sources[:1])  # what a process does once is its start
        rounds = [round_of(plan, sources) for _ in range(options.rounds)]
    results, missed = {}, []
    for size in (name for name in SIZES if name in rounds[0]):
        costs = [one[size] for one in rounds]
        ratios = [cost.ratio for cost in costs]
        print(
            f"{size:8}  analyse ÷ decode {shown(ratios)}, target {TARGETS[size]}; {costs[0].decode_s:.1f} s of decoding"
        )
        if costs[0].ffmpeg_s:
            print(f"          analyse ÷ ffmpeg {shown([cost.analyse_s / cost.ffmpeg_s for cost in costs])}")
        steps = {name: statistics.median(c.steps_s[name] / c.decode_s for c in costs) for name in costs[0].steps_s}
        print("    " + ", ".join(f"{name} {share:.2f}" for name, share in sorted(steps.items(), key=lambda i: -i[1])))
        told = sum(sum(cost.steps_s.values()) for cost in costs) / sum(cost.analyse_s for cost in costs)
        if abs(told - 1) > ADDS_UP_WITHIN:
            missed.append(f"{size}: the steps add up to {told:.0%} of the whole")
        if statistics.median(ratios) > TARGETS[size]:
            missed.append(f"{size}: {statistics.median(ratios):.2f} is above {TARGETS[size]}")
        results[size] = {"ratio": spread(ratios), "steps": steps}
    write_results("floor", results)
    return verdict(missed)


if __name__ == "__main__":
    sys.exit(main())
