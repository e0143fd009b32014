"""Tables of accepted clips, as exports read them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation.schema import blank_row, table_schema

SCHEMA = table_schema([])


def row(i: int, **changes) -> dict:
    kind = changes.get("type", "video")
    suffix = ".jpg" if kind == "image" else ".mp4"
    values = {
        "clip_id": f"id-{i:04d}",
        "type": kind,
        "status": "accepted",
        "caption": f"caption {i}",
        "clip_path": f"train/id-{i:04d}{suffix}",
        "clip_width_px": 640,
        "clip_height_px": 360,
        "clip_fps": None if kind == "image" else 24.0,
        "clip_num_frames": 1 if kind == "image" else 96,
    }
    return {**blank_row(SCHEMA), **values, **changes}


def write_table(out: Path, rows: list[dict], parts: int = 1, media: bool = False) -> Path:
    (out / "clips").mkdir(parents=True, exist_ok=True)
    size = -(-len(rows) // parts) if rows else 1
    for p in range(parts):
        some = pa.Table.from_pylist(rows[p * size : (p + 1) * size], schema=SCHEMA)
        pq.write_table(some, out / "clips" / f"part-{p:05d}.parquet")
    if media:
        (out / "train").mkdir(exist_ok=True)
        for i, r in enumerate(rows):
            if r["clip_path"]:
                (out / r["clip_path"]).write_bytes(bytes([i % 256]) * (100 + i))
    return out
