"""What commands cost on tables of 10 000, 100 000 and 1 000 000 rows, which are made up; no media is read.

    python -m benchmarks.tables [--rows N ...] [--rounds N] [--previews]

Prints wall seconds, CPU-seconds and microseconds per row, medians with lowest and highest of the rounds, and the peak
memory of a process that runs all commands. `select` is measured in three cases: the rules it has already (no file
moves); a stricter rule, which sets files aside, and back, which fetches them. How many of them is told, and what the
system takes to rename as many there and back (`renames alone`). With `--previews` four pictures lie beside every
clip, which the report counts.

Targets: `select` and planning a run that finds nothing to do at most 5 s for 10^6 rows, in wall seconds; the CPU time
per row of `export` and `report` at 10^6 rows at most 1.2 times that at 10^4. The result is in `.bench/tables.json`.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.measure import verdict, write_results
from cli.common import TABLES
from configs import CONFIGS
from curation.analysis.previews import preview_path
from curation.export import export
from curation.inputs.many import Sources
from curation.judge import judge_table, rules_of
from curation.output.folder import known_sources, write_recipe
from curation.output.folding import Unfinished
from curation.output.planning import plan_work
from curation.output.stash import move_files
from curation.output.table import read_table, rules_text, write_table
from curation.pipeline import select
from curation.recipe import Recipe, load_recipe
from curation.report.write import write_report
from curation.schema import table_schema

ROWS = (10_000, 100_000, 1_000_000)
ROUNDS = 5
MOST_ROUNDS = {1_000_000: 3}
FEW, MANY = 10_000, 1_000_000
WITHIN_S = {"select, same rules": 5.0, "select, stricter": 5.0, "select, back": 5.0, "plan a run": 5.0}
GROWS_BY = {"export": 1.2, "report": 1.2}
STRICTER = "rules.motion.min=5"
CLIPS_PER_SOURCE = 10
SPREAD = {
    "duration_s": (3.0, 10.0),
    "motion": (0.0, 20.0),
    "sharpness": (0.0, 900.0),
    "brightness": (0.1, 0.9),
    "frozen": (0.0, 0.6),
    "letterbox": (0.0, 0.06),
    "text_area": (0.0, 0.025),
    "visual_quality": (0.3, 0.9),
}
LINKS = 50_000
"""names of one file; ext4 gives it 65 000"""
WORDS = (
    "a the red slow wide street",
    "at night with people",
    "boats and trees",
    "seen from above",
    "in rain and light",
)
CAPTION_PARTS = 5


def made_up(recipe: Recipe, count: int) -> pa.Table:
    """Return a judged table: ten clips of each source, scores at random, captions and files where accepted."""
    rng = np.random.default_rng(0)
    schema = table_schema(recipe.writers)
    ids = [str(uuid.UUID(bytes=part.tobytes(), version=4)) for part in rng.integers(0, 256, (count, 16), np.uint8)]
    number = np.arange(count)
    sources = [f"folder {i // 1000:05d}/video {i:07d}.mp4" for i in range(-(-count // CLIPS_PER_SOURCE))]
    said = np.array(WORDS)[rng.integers(0, len(WORDS), (count, CAPTION_PARTS))]
    start_s = (number % CLIPS_PER_SOURCE) * 10.0
    columns: dict[str, pa.Array] = {
        "clip_id": pa.array(ids),
        "type": pa.array(["video"] * count),
        "kind": pa.array(["clip"] * count),
        "codec": pa.array(["h264"] * count),
        "source_path": pa.array(sources).take(pa.array(number // CLIPS_PER_SOURCE)),
        "source_root": pa.array(["/footage"] * count),
        "source_size_bytes": pa.array(np.full(count, 10_000_000)),
        "source_mtime_ns": pa.array(np.full(count, 1_700_000_000_000_000_000)),
        "start_s": pa.array(start_s),
        "end_s": pa.array(start_s + 6),
        "shot_index": pa.array((number % CLIPS_PER_SOURCE).astype(np.int32)),
        "short_side_px": pa.array(rng.choice([360, 480, 720, 1080], count)),
        "width_px": pa.array(np.full(count, 1280)),
        "height_px": pa.array(np.full(count, 720)),
        "status": pa.array(["accepted"] * count),
        **{name: pa.array(rng.uniform(*bounds, count)) for name, bounds in SPREAD.items()},
    }
    table = pa.table({f.name: columns.get(f.name, pa.nulls(count, f.type)) for f in schema}).cast(schema)
    table = judge_table(table, rules_of(recipe))
    accepted = pc.equal(table["status"], "accepted").combine_chunks()
    captions = pa.array([" ".join(words) for words in said.tolist()])
    paths = pc.binary_join_element_wise("train/", pa.array(ids), ".mp4", "")
    finished = {
        "caption": captions,
        "caption_status": pa.array(["ok"] * count),
        "caption_model": pa.array(["template"] * count),
        "clip_path": paths,
        "clip_width_px": pa.array(np.full(count, 1280)),
        "clip_height_px": pa.array(np.full(count, 720)),
        "clip_fps": pa.array(np.full(count, 25.0)),
        "clip_num_frames": pa.array(np.full(count, 150)),
    }
    for name, values in finished.items():
        held = pc.if_else(accepted, values, pa.nulls(count, values.type)).cast(schema.field(name).type)
        table = table.set_column(schema.get_field_index(name), name, held)
    return table


def write_output(out: Path, recipe: Recipe, count: int) -> Sources:
    """Write an output of so many rows, with an empty file for every accepted clip; return its sources."""
    out.mkdir()
    (out / "train").mkdir()
    write_recipe(out, recipe)
    table = made_up(recipe, count)
    write_table(out, table, rules_text(rules_of(recipe)))
    for path in pc.drop_null(table["clip_path"]).to_pylist():
        (out / path).touch()
    return known_sources(out, recipe)


def put_previews(out: Path, ids: list[str]) -> None:
    """Put four pictures beside every clip: names of one small file, as far as the file system gives it names."""
    pictures = np.random.default_rng(0).bytes(4000)
    for number, clip_id in enumerate(clip_id for clip_id in ids for _ in range(4)):
        path = preview_path(out, clip_id, number % 4)
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % LINKS == 0:
            path.write_bytes(pictures)
            first = path
        else:
            os.link(first, path)


@dataclass(frozen=True)
class Cost:
    """What a command took in one round."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Size:
    """What commands took on a table of so many rows."""

    rows: int
    files: int
    moved: int
    """by `select, stricter`, and again by `select, back`"""
    memory_gb: float
    table_gb: float
    renames_s: float
    """what renaming as many files takes by itself"""
    costs: dict[str, list[Cost]]

    def wall_s(self, name: str) -> float:
        """Return the median."""
        return statistics.median(cost.wall_s for cost in self.costs[name])

    def cpu_s(self, name: str) -> float:
        """Return the median."""
        return statistics.median(cost.cpu_s for cost in self.costs[name])


def cost_of(action: Callable[[], object]) -> Cost:
    """Do something and tell what it took."""
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    action()
    return Cost(time.perf_counter() - begin_s, time.process_time() - begin_cpu_s)


def prepare(out: Path, count: int, *, has_previews: bool) -> tuple[Sources, float]:
    """Make up an output; return its sources, and how many GB its table has in memory."""
    recipe, _ = load_recipe(CONFIGS / "default.yaml", [], TABLES)
    sources = write_output(out, recipe, count)
    table = read_table(out, recipe.writers)
    if has_previews:
        put_previews(out, table["clip_id"].to_pylist())
    return sources, table.nbytes / 1e9


def measure(out: Path, count: int, sources: Sources, table_gb: float, rounds: int) -> Size:
    """Measure every command on an output of so many rows."""
    recipe, captioner = load_recipe(CONFIGS / "default.yaml", [], TABLES)
    stricter, _ = load_recipe(CONFIGS / "default.yaml", [STRICTER], TABLES)
    files = len(os.listdir(out / "train"))
    work = plan_work(out, recipe, captioner, sources, Unfinished({}), retry_failed=False)
    assert not work.sources and not work.clips, "there is nothing to do"
    select(out, stricter)
    moved = files - len(os.listdir(out / "train"))
    select(out, recipe)
    assert len(os.listdir(out / "train")) == files, "what was set aside is back"
    commands: dict[str, Callable[[], object]] = {
        "select, same rules": lambda: select(out, recipe),
        "select, stricter": lambda: select(out, stricter),
        "select, back": lambda: select(out, recipe),
        "export": lambda: export(out, "internal"),
        "report": lambda: write_report(out, recipe),
        "plan a run": lambda: plan_work(out, recipe, captioner, sources, Unfinished({}), retry_failed=False),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            costs[name].append(cost_of(command))
    return Size(count, files, moved, getrusage(RUSAGE_SELF).ru_maxrss / 1e6, table_gb, renames_s(out, moved), costs)


def renames_s(out: Path, count: int) -> float:
    """Measure what renaming so many clips' files takes, there and back; return the mean of both."""
    train, elsewhere = out / "train", out / "elsewhere"
    names = pa.array(os.listdir(os.fsencode(train))[:count], pa.binary())
    begin_s = time.perf_counter()
    move_files(names, train, elsewhere)
    move_files(names, elsewhere, train)
    return (time.perf_counter() - begin_s) / 2


def in_words(size: Size) -> str:
    """Return a size's lines of the table."""
    lines = [
        f"{size.rows} rows, {size.files} files ({size.moved} moved by select, "
        f"{size.renames_s:.2f} s of renames alone); "
        f"peak memory {size.memory_gb:.2f} GB, the table {size.table_gb:.2f} GB",
        f"  {'':20}{'wall s':>8}{'(lowest to highest)':>22}{'CPU s':>8}{'CPU us a row':>14}",
    ]
    for name, costs in size.costs.items():
        walls = [cost.wall_s for cost in costs]
        span = f"({min(walls):.2f} to {max(walls):.2f})"
        cpu_s = size.cpu_s(name)
        lines.append(f"  {name:20}{size.wall_s(name):8.2f}{span:>22}{cpu_s:8.2f}{1e6 * cpu_s / size.rows:14.1f}")
    return "\n".join(lines)


def growths(sizes: dict[int, Size]) -> dict[str, float]:
    """Return by what the time per row grows from few rows to many."""
    if FEW not in sizes or MANY not in sizes:
        return {}
    return {name: sizes[MANY].cpu_s(name) / sizes[FEW].cpu_s(name) * FEW / MANY for name in GROWS_BY}


def missed(sizes: dict[int, Size]) -> list[str]:
    """Name the targets that were missed."""
    walls = {name: sizes[MANY].wall_s(name) for name in WITHIN_S if MANY in sizes}
    found = [f"{n}: {s:.1f} s for {MANY} rows, not {WITHIN_S[n]:g}" for n, s in walls.items() if s > WITHIN_S[n]]
    grown = growths(sizes).items()
    return found + [f"{n}: time per row grows by {by:.2f}, not {GROWS_BY[n]}" for n, by in grown if by > GROWS_BY[n]]


def main() -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--previews", action="store_true")
    options = parser.parse_args()
    sizes = {}
    for count in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            sources, table_gb = apart(partial(prepare, has_previews=options.previews), out, count)
            rounds = min(options.rounds, MOST_ROUNDS.get(count, options.rounds))
            sizes[count] = apart(measure, out, count, sources, table_gb, rounds)
        print(in_words(sizes[count]), flush=True)
    for name, by in growths(sizes).items():
        print(f"{name}: CPU time per row at {MANY} rows ÷ at {FEW} rows {by:.2f}, target {GROWS_BY[name]}")
    misses = missed(sizes)
    values = {"sizes": [asdict(size) for size in sizes.values()], "growths": growths(sizes), "missed": misses}
    write_results("tables", values)
    return verdict(misses)


def apart(action: Callable[..., Any], *values: Any) -> Any:
    """Do something in a process of its own, for its peak memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(action, *values).result()


if __name__ == "__main__":
    sys.exit(main())
