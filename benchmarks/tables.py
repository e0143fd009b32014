"""What commands cost on tables of 10 000, 100 000 and 1 000 000 rows, which are made up; no media is read.

    python -m benchmarks.tables [--rows N ...]

Prints seconds and microseconds per row of `select` (other rules and back, with its export and report), `export`,
`report`, and of planning a run that finds nothing to do. Targets: `select` and planning at most 5 s for 10^6 rows; the
time per row of `export` and `report` at 10^6 rows at most 1.2 times that at 10^4.
"""

import argparse
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.export import export
from curation.judge import judge_table, rules_of
from curation.output import plan_work, write_recipe
from curation.pipeline import select
from curation.recipe import Recipe, load_recipe
from curation.report.write import write_report
from curation.schema import table_schema
from curation.table import Unfinished, rules_text, write_table
from curation.types import Captioner, Source
from run_pipeline import CONFIGS, TABLES

ROWS = (10_000, 100_000, 1_000_000)
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
WORDS = (
    "a the red slow wide street",
    "at night with people",
    "boats and trees",
    "seen from above",
    "in rain and light",
)
CAPTION_PARTS = 5


def made_up(recipe: Recipe, count: int) -> pa.Table:
    """Give a judged table: ten clips of each source, scores at random, captions and files where accepted."""
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


def write_output(out: Path, recipe: Recipe, count: int) -> list[Source]:
    """Write an output of so many rows, with an empty file for every accepted clip; give its sources."""
    out.mkdir()
    (out / "train").mkdir()
    write_recipe(out, recipe)
    table = made_up(recipe, count)
    write_table(out, table, rules_text(rules_of(recipe)))
    for path in pc.drop_null(table["clip_path"]).to_pylist():
        (out / path).touch()
    columns = ["source_root", "source_path", "source_size_bytes", "source_mtime_ns"]
    named = table.group_by(columns).aggregate([]).select(columns)
    return [Source(*values) for values in zip(*(named[name].to_pylist() for name in columns), strict=True)]


def timed(action: Callable[[], object]) -> float:
    """Give the seconds that an action takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def measure(out: Path, recipe: Recipe, captioner: Captioner, sources: list[Source]) -> dict[str, float]:
    """Give seconds by command."""
    stricter, _ = load_recipe(CONFIGS / "default.yaml", ["rules.motion.min=5"], TABLES)
    found = {
        "select, stricter": timed(lambda: select(out, stricter)),
        "select, back": timed(lambda: select(out, recipe)),
        "export": timed(lambda: export(out, "internal")),
        "report": timed(lambda: write_report(out, recipe)),
    }
    work = plan_work(out, recipe, captioner, sources, Unfinished({}), False)
    assert not work.sources and not work.clips, "there is nothing to do"
    found["plan a run"] = timed(lambda: plan_work(out, recipe, captioner, sources, Unfinished({}), False))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    options = parser.parse_args()
    recipe, captioner = load_recipe(CONFIGS / "default.yaml", [], TABLES)
    for count in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            sources = write_output(out, recipe, count)
            print(f"{count} rows", flush=True)
            for name, seconds in measure(out, recipe, captioner, sources).items():
                print(f"  {name:18} {seconds:8.2f} s  {1e6 * seconds / count:6.1f} us a row", flush=True)


if __name__ == "__main__":
    main()
