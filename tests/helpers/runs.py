"""Running the command line in tests, and comparing what it leaves."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import run_pipeline


def curate(*words: str | Path, out: Path, runner: str = "inline") -> None:
    """Run `curate` and expect exit 0."""
    arguments = ["curate", *map(str, words), "--output", str(out), "--runner", runner]
    assert run_pipeline.main(arguments) == 0


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    """Return the table's rows by clip id; each clip stands in it once."""
    files = sorted((out / "clips").glob("part-*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    by_id = {row["clip_id"]: row for row in rows}
    assert len(by_id) == len(rows), "a clip stands in the table twice"
    return by_id


def assert_same_output(one: Path, other: Path, but_for: frozenset[str] = frozenset()) -> None:
    """Ids, spans, facts, statuses and reasons equal; floats within 1e-5; same files and JSON; some columns aside."""
    a, b = rows_of(one), rows_of(other)
    assert a.keys() == b.keys()
    for clip_id, row in a.items():
        for column, value in row.items():
            assert column in but_for or _same(value, b[clip_id][column]), (
                row["source_path"],
                row["start_s"],
                column,
                value,
                b[clip_id][column],
            )
    names = [
        sorted(p.name for p in (out / "train").glob("*")) if (out / "train").exists() else [] for out in (one, other)
    ]
    assert names[0] == names[1]
    assert internal_json(one) == internal_json(other)


def internal_json(out: Path) -> list[dict[str, Any]]:
    """Return the trainer's metadata, ordered by clip."""
    items = json.loads((out / "json_of_internal_datasets.json").read_text(encoding="utf-8"))
    return sorted(items, key=lambda item: item["clip_id"])


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-9)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
