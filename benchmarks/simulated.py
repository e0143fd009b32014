"""Runs of `curate` whose media is made up: every step, runner, part and table is the real one, and nothing is decoded.

    python -m benchmarks.simulated OUT [--sources N] [--runner inline|ray|parts] [--merge-early]

A source is a path and a size: about 3 % cannot be read, the others hold one to three clips with scores that follow from
the path alone, so that any two runs over the same sources are equal. Every accepted clip has an empty file.
"""

import argparse
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import curation.pipeline
import curation.steps
from cli.common import TABLES, runner_of
from core.errors import MediaError
from core.progress import Display, Done, Report, Tally
from curation.analysis.media_calls import SourceFailed, Stopped
from curation.cut import Cut
from curation.engine.runners import Runner
from curation.inputs.many import Sources
from curation.judge import judge, rules_of
from curation.output import compaction
from curation.output.table import rules_text, write_part
from curation.pipeline import CurateSettings, Outcome, curate
from curation.recipe import Recipe, load_recipe
from curation.step_spec import Process, Step, StepSpec
from curation.steps import steps_of
from curation.types import Captioner, Row, Source
from curation.work import Plan, Task, clip_id, failed_row, source_columns, source_of, task_columns
from media.types import Segment, SourceFacts

ROWS_OF_PART = 4096
FAILING = 0.03
"""of all sources"""
SIZE_BYTES = 400_000
MOST_CLIPS = 3
CLIP_S = 4.0
FACTS = SourceFacts("video", 1280, 720, "h264", 25.0)
RECIPE = """
shots: {min_s: 3.0, max_s: 10.0}
operators: {facts: , motion: , sharpness: , brightness: , frozen: , letterbox: }
rules: {brightness: {min: 0.2}, motion: {min: 0.5}}
"""


class SimulatedMedia:
    """Answers as `MediaCalls` does, from the path of a source alone."""

    def __init__(self, plan: Plan, step: str, report: Report, *, begins: bool = False):
        """Serve one step."""
        self._plan, self._step, self._report, self._begins = plan, step, report, begins

    def run(self, name: str, *arguments: Any) -> Iterator[Any]:
        """Yield what a task would."""
        if self._begins and self._plan.stop_file.exists():
            raise Stopped
        if name == "probe":
            yield self._probe(arguments[0])
        else:
            yield from self._analyse(arguments[0])

    def one(self, name: str, row: Row, *_: Any) -> Cut:
        """Write the empty file of a clip."""
        path = f"train/{row['clip_id']}.mp4"
        file = Path(self._plan.out) / path
        file.parent.mkdir(exist_ok=True)
        file.touch()
        size = {"clip_width_px": 1280, "clip_height_px": 720, "clip_fps": 25.0, "clip_num_frames": 100}
        return Cut({"clip_path": path, "clip_cut": "transcode", **size}, None)

    @contextmanager
    def reading_ahead(self, sources: Sequence[Source]) -> Iterator[None]:
        """Read nothing ahead."""
        yield

    def task_of(self, row: Row) -> Task:
        """Return the one segment of a clip's source."""
        return self._probe(source_of(row))

    def _probe(self, source: Source) -> Task:
        digest = blake2b(source.path.encode(), digest_size=16).digest()
        if digest[0] < 256 * FAILING:
            raise SourceFailed(MediaError("moov atom not found"))
        return Task(source, digest.hex(), FACTS, Segment(0, 1, None, None))

    def _analyse(self, task: Task) -> Iterator[Row]:
        digest = bytes.fromhex(task.source_id)
        count = 1 + digest[1] % MOST_CLIPS
        shared = source_columns(task.source) | task_columns(task)
        for number in range(count):
            part = digest[2 + 4 * number : 6 + 4 * number]
            start_s = number * CLIP_S
            yield self._plan.blank() | shared | {
                "clip_id": clip_id(task.source_id, task.source, f"{start_s:.6f}"),
                "kind": "clip", "start_s": start_s, "end_s": start_s + CLIP_S, "duration_s": CLIP_S,
                "start_frame": 100 * number, "num_frames": 100, "shot_index": number,
                "shot_start_s": start_s, "shot_end_s": start_s + CLIP_S,
                "brightness": part[0] / 255, "motion": part[1] / 25, "sharpness": part[2] * 3.7,
                "frozen": part[3] / 500, "letterbox": part[0] / 9000,
                **({"_segment_rows": count, "_segment_frames": 100 * count, "_segment_end_s": count * CLIP_S}
                   if number == count - 1 else {}),
            }  # fmt: skip


@dataclass(frozen=True)
class SimulatedStep:
    """A step whose media is simulated, in whichever process it is started."""

    inner: Step

    @property
    def plan(self) -> Plan:
        """The run that it belongs to."""
        return self.inner.plan

    @property
    def spec(self) -> StepSpec:
        """What a runner knows of it."""
        return self.inner.spec

    def start(self, report: Report) -> Process:
        """Start the step with simulated media."""
        curation.steps.MediaCalls = SimulatedMedia  # type: ignore[misc,assignment]
        return self.inner.start(report)


class PartsRunner:
    """Writes parts as the steps would, thousands of rows each: what is measured is all that comes before and after."""

    def prepare(self, plan: Plan, steps: list[Step]) -> None:
        """Fit any machine."""

    def run(self, plan: Plan, steps: list[Step], rows: Collection[Row], display: Display) -> Tally:
        """Write the parts of all rows."""
        tally, rules = Tally(), rules_of(plan.recipe)
        media = SimulatedMedia(plan, "probe", tally.add)
        flow = (row for planned in rows for row in self._rows(plan, media, source_of(planned)))
        while some := list(islice(flow, ROWS_OF_PART)):
            write_part(Path(plan.out), plan.writers, [_finished(judge(row, rules)) for row in some], rules_text(rules))
            sources = sum(row["_segment_rows"] is not None for row in some)
            tally.add(Done("probe", sources, share=sources * SIZE_BYTES))
            display.show(tally)
        return tally

    def _rows(self, plan: Plan, media: SimulatedMedia, source: Source) -> Iterator[Row]:
        try:
            for task in media.run("probe", source):
                yield from media.run("analyse", task)
        except SourceFailed as failed:
            yield failed_row(plan, source, "probe", failed.error)


def _finished(row: Row) -> Row:
    if row["status"] != "accepted":
        return row
    said = {"caption": "a red boat on a lake, seen from above", "caption_model": "template", "caption_status": "ok"}
    size = {"clip_width_px": 1280, "clip_height_px": 720, "clip_fps": 25.0, "clip_num_frames": 100}
    return row | said | size | {"clip_path": f"train/{row['clip_id']}.mp4", "clip_cut": "transcode"}


def simulated_steps(plan: Plan, captioner: Captioner) -> list[Step]:
    """Return the steps of a run."""
    return [SimulatedStep(step) for step in steps_of(plan, captioner)]


def made_up_sources(count: int) -> Sources:
    """Return so many sources, a thousand in a folder."""
    names = (f"folder {i // 1000:05d}/video {i:07d}.mp4" for i in range(count))
    return Sources.of(Source("/footage", name, SIZE_BYTES, 10**18 + i) for i, name in enumerate(names))


def recipe_for(folder: Path) -> tuple[Recipe, Captioner]:
    """Return the recipe of simulated runs."""
    file = folder / "simulated.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(RECIPE)
    return load_recipe(file, [], TABLES)


def simulate(out: Path, count: int, runner: str, settings: CurateSettings = CurateSettings()) -> Outcome:  # noqa: B008
    """Curate so many made-up sources."""
    curation.pipeline.steps_of = simulated_steps  # type: ignore[assignment]
    recipe, captioner = recipe_for(out.parent)
    words = argparse.Namespace(runner=runner, ray_address=None)
    chosen: Runner = PartsRunner() if runner == "parts" else runner_of(words)
    return curate(made_up_sources(count), out, recipe, captioner, chosen, settings)


def main() -> int:
    """Run once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sources", type=int, default=2000)
    parser.add_argument("--runner", choices=("inline", "ray", "parts"), default="ray")
    parser.add_argument("--merge-early", action="store_true", help="merge parts as soon as there are a few")
    options = parser.parse_args()
    if options.merge_early:
        compaction.PARTS_TOGETHER, compaction.SETTLED_S, compaction.LOOK_S = (4, 3), 0.0, 0.02
    begin_s = time.monotonic()
    outcome = simulate(options.out, options.sources, options.runner, replace(CurateSettings(), whole_process=True))
    print(f"{outcome.sources_done} sources, {outcome.summary.rows} rows, {time.monotonic() - begin_s:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
