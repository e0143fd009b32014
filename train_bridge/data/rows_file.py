"""The rows of a run on disk: written by whoever starts it, read by every worker, and there for people to look at."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.files import atomic_path
from models.geometry import MAGVIT, Bucket, LatentGrid
from train_bridge.plan.buckets import Assignment
from train_bridge.plan.plan import Rows
from train_bridge.types import Refusal, TrainRow

FACTS = [field.name for field in dataclasses.fields(TrainRow)]
SCHEMA = pa.schema([
    ("used_for", pa.string()),  # train | validation | refused
    ("row_id", pa.string()),
    ("path", pa.string()),
    ("caption", pa.string()),
    ("kind", pa.string()),
    ("width_px", pa.int32()),
    ("height_px", pa.int32()),
    ("num_frames", pa.int64()),
    ("duration_s", pa.float64()),
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
    ("weight", pa.float64()),
    ("rate_fps", pa.float64()),  # null: frames are spread over the whole span
    ("letterbox", pa.bool_()),
    ("source", pa.string()),
    ("repeat", pa.float64()),
    ("tilt", pa.float64()),
    ("min_t", pa.float64()),
    ("max_t", pa.float64()),
    ("captions", pa.list_(pa.string())),
    ("caption_shares", pa.list_(pa.float64())),
    ("buckets", pa.list_(pa.string())),  # 49x512x896: frames, height, width
    ("content_id", pa.string()),
    ("controls", pa.list_(pa.struct([("name", pa.string()), ("path", pa.string()), ("content_id", pa.string())]))),
    ("why", pa.string()),  # where refused
])


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """What workers know of the rows.

    Attributes:
        train: rows trained on, and their buckets.
        validation: rows held out, and theirs.
        content_ids: of the rows' files, by path; empty without a cache.
    """

    train: tuple[TrainRow, ...]
    train_buckets: Assignment
    validation: tuple[TrainRow, ...]
    validation_buckets: Assignment
    content_ids: dict[str, str]


def write_rows(file: Path, rows: Rows, content_ids: dict[str, str]) -> None:
    """Write every row, used or not."""
    records = [
        *_records("train", rows.train, rows.train_buckets, content_ids),
        *_records("validation", rows.validation, rows.validation_buckets, content_ids),
        *({"used_for": "refused", "row_id": r.row_id, "why": str(r)} for r in rows.refused),
    ]
    with atomic_path(file) as temporary:
        pq.write_table(pa.Table.from_pylist(records, schema=SCHEMA), temporary, compression="zstd")


def read_rows(file: Path, grid: LatentGrid = MAGVIT) -> Prepared:
    """Read the rows that are used."""
    records = pq.read_table(file).to_pylist()
    train = [r for r in records if r["used_for"] == "train"]
    validation = [r for r in records if r["used_for"] == "validation"]
    named = [one for r in (*train, *validation) for one in (r, *(r.get("controls") or ()))]
    known = {one["path"]: one["content_id"] for one in named if one["content_id"]}
    return Prepared(_rows(train), _assignment(train, grid), _rows(validation), _assignment(validation, grid), known)


def count_refused(file: Path) -> int:
    """Count the rows that are not used."""
    return int(pc.sum(pc.equal(pq.read_table(file, columns=["used_for"])["used_for"], "refused")).as_py() or 0)


def _records(
    used_for: str, rows: tuple[TrainRow, ...], buckets: Assignment, content_ids: dict[str, str]
) -> list[dict[str, Any]]:
    names = [str(bucket) for bucket in buckets.buckets]
    return [
        {name: getattr(row, name) for name in FACTS}
        | {
            "used_for": used_for,
            "path": str(row.path),
            "buckets": [names[option] for option in options if option >= 0],
            "content_id": content_ids.get(str(row.path)),
            "controls": [
                {"name": name, "path": str(path), "content_id": content_ids.get(str(path))}
                for name, path in row.controls
            ],
        }
        for row, options in zip(rows, buckets.options.tolist(), strict=True)
    ]


def _rows(records: list[dict[str, Any]]) -> tuple[TrainRow, ...]:
    facts = [name for name in FACTS if name in records[0]] if records else []  # earlier versions wrote fewer
    lists = [name for name in ("captions", "caption_shares") if name in facts]
    return tuple(
        TrainRow(
            **{name: r[name] for name in facts}
            | {name: tuple(r[name]) for name in lists}
            | {"path": Path(r["path"]), "controls": _controls(r)}
        )
        for r in records
    )


def _controls(record: dict[str, Any]) -> tuple[tuple[str, Path], ...]:
    return tuple((one["name"], Path(one["path"])) for one in record.get("controls") or ())


def _assignment(records: list[dict[str, Any]], grid: LatentGrid) -> Assignment:
    names = sorted({name for r in records for name in r["buckets"]}, key=lambda name: [int(n) for n in name.split("x")])
    place = {name: i for i, name in enumerate(names)}
    options = np.full((len(records), max((len(r["buckets"]) for r in records), default=1)), -1, np.int32)
    for i, record in enumerate(records):
        options[i, : len(record["buckets"])] = [place[name] for name in record["buckets"]]
    sizes = [[int(n) for n in name.split("x")] for name in names]
    buckets = tuple(Bucket(frames, height, width, grid) for frames, height, width in sizes)
    return Assignment(buckets, options, [], 0)


def without(rows: Rows, refused: list[Refusal]) -> Rows:
    """Take rows out that turned out to be unreadable, by their ids."""
    gone = {r.row_id for r in refused}

    def rest(some: tuple[TrainRow, ...], buckets: Assignment) -> tuple[tuple[TrainRow, ...], Assignment]:
        stays = np.array([row.row_id not in gone for row in some], bool)
        kept = tuple(row for row, stay in zip(some, stays, strict=True) if stay)
        return kept, dataclasses.replace(buckets, options=buckets.options[stays])

    train, train_buckets = rest(rows.train, rows.train_buckets)
    validation, validation_buckets = rest(rows.validation, rows.validation_buckets)
    return dataclasses.replace(
        rows,
        train=train,
        train_buckets=train_buckets,
        validation=validation,
        validation_buckets=validation_buckets,
        refused=(*rows.refused, *refused),
    )
