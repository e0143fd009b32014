"""Select clips: rows of a curated table, by expression or selection, as lists that the nodes after it run over."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from core.errors import MediaError, UserError
from curation.export import open_table
from curation.expressions import keep_mask, parse
from curation.find.selection import read_selection
from curation.reviews import BY_HAND, with_captions
from curation.schema import CONTROL, CONTROLS
from integrations.comfyui.pixels import to_image
from integrations.comfyui.ports import Node, Out, Port
from media.fitted import FrameRequest, read_fitted
from media.measure import measure
from media.types import MediaType
from sampling.media import nearest_side

NONE = "none"
SIDE_PX = 16
"""sides are multiples of this many pixels, as most families take them"""
MAPS = tuple(name for name, _, _ in CONTROLS if name != "camera")
"""control maps that are pictures"""
READS = ("clip_id", "type", "status", "caption", "clip_path", "source_root", "source_path", "start_s", "end_s")


@dataclass(frozen=True)
class Wanted:
    """How clips are given.

    Attributes:
        frames: of a video; an image has one.
        short_side_px: sizes keep the clip's aspect, in multiples of 16.
        control: whose map is the mask; `none`: nothing is masked.
    """

    frames: int
    short_side_px: int
    control: str


def select_clips(
    output: str, where: str, limit: int, offset: int, frames: int, short_side: int, control: str, clips: str = ""
) -> tuple[list[Any], ...]:
    """Return clips of an output as lists: images, masks, captions, frame rates and ids.

    Raises:
        UserError: no such output, an expression that cannot be, no clip that fits, or a file that is gone.
    """
    out = Path(output.strip()).expanduser()
    rows = _rows(out, where, clips.strip(), control)[offset : offset + limit]
    if not rows:
        raise UserError(f"no accepted clip of {out} fits", field="where", fix="loosen it, or lower the offset")
    wanted = Wanted(frames, short_side, control)
    given = [_given(out, row, wanted) for row in rows]
    images, masks, rates = ([one[place] for one in given] for place in range(3))
    return images, masks, [row["caption"] or "" for row in rows], rates, [row["clip_id"] for row in rows]


def _rows(out: Path, where: str, clips: str, control: str) -> list[dict[str, Any]]:
    """Return the accepted rows asked for: of a selection in its order, else in the table's."""
    table = open_table(out)
    names = table.schema.names
    condition = parse(where, "where") if where.strip() else None
    if condition is not None:
        condition.check(names)
    path = f"{CONTROL}{control}_path"
    if control != NONE and path not in names:
        raise UserError(
            f"{out} has no {control} maps", field="control", fix=f"curate with controls.{control}, or take none"
        )
    more = {BY_HAND, *(condition.columns if condition else ()), *({path} if control != NONE else ())}
    columns = [name for name in names if name in {*READS, *more}]
    rows = table.to_table(columns=columns, filter=pc.field("status") == "accepted")
    if condition is not None:
        rows = rows.filter(pa.array(keep_mask(rows, condition)))
    rows = with_captions(rows)
    if not clips:
        return list(rows.to_pylist())
    by_id = {row["clip_id"]: row for row in rows.to_pylist()}
    return [by_id[clip_id] for clip_id in read_selection(Path(clips).expanduser(), "clips") if clip_id in by_id]


def _given(out: Path, row: Mapping[str, Any], wanted: Wanted) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return one clip: IMAGE, MASK, and frames a second (1 for an image)."""
    path, span = _place(out, row)
    kind: MediaType = row["type"]
    count = wanted.frames if kind == "video" else 1
    try:
        extent = measure(path, kind, *span)
        scale = wanted.short_side_px / min(extent.width_px, extent.height_px)
        shape = (count, nearest_side(extent.height_px * scale, SIDE_PX), nearest_side(extent.width_px * scale, SIDE_PX))
        images = to_image(read_fitted(FrameRequest(path, kind, *shape, *span)))
        rate = count / extent.duration_s if count > 1 and extent.duration_s > 0 else 1.0
        return images, _mask(out, row, wanted.control, shape), rate
    except MediaError as error:
        raise UserError(f"{path}: {error}", fix="put the file back, or run curate again") from None


def _place(out: Path, row: Mapping[str, Any]) -> tuple[Path, tuple[float | None, float | None]]:
    """Return a clip's file where it has one, else its source; and its span there, nothing for a whole file."""
    if row["clip_path"] is not None:
        return out / row["clip_path"], (None, None)
    span = (row["start_s"], row["end_s"]) if row["type"] == "video" else (None, None)
    return Path(row["source_root"] or "") / row["source_path"], span


def _mask(out: Path, row: Mapping[str, Any], control: str, shape: tuple[int, int, int]) -> torch.Tensor:
    """Return the brightness of a clip's control map, or zeros, float32 (T, H, W).

    Raises:
        UserError: it has none yet.
        MediaError: its file cannot be read.
    """
    if control == NONE:
        return torch.zeros(shape)
    name = row[f"{CONTROL}{control}_path"]
    if name is None:
        raise UserError(f"clip {row['clip_id']} has no {control} map yet", field="control", fix="run curate again")
    pixels = read_fitted(FrameRequest(out / name, row["type"], *shape))
    return torch.from_numpy(pixels.mean(axis=3, dtype=np.float32) / 255)


def clips_changed(
    output: str, where: str, limit: int, offset: int, frames: int, short_side: int, control: str, clips: str = ""
) -> str:
    """Return what changes when the table, or the selection, has been replaced."""
    files = [
        Path(output.strip()).expanduser() / "clips",
        *([Path(clips.strip()).expanduser()] if clips.strip() else []),
    ]
    return " ".join(str(file.stat().st_mtime_ns) if file.exists() else "none" for file in files)


CLIP_NODE = Node(
    "SelectsSelectClips",
    "Select clips (Selects)",
    "Accepted clips of a curated output, by an expression over its columns; the nodes that follow run once for each.",
    (
        Port("output", "STRING", "an output folder of curate", ""),
        Port("where", "STRING", "such as motion > 2 and aesthetic > 5; empty: all", ""),
        Port("limit", "INT", "most clips", 8, 1, 10_000, 1),
        Port("offset", "INT", "clips passed over first", 0, 0, 10_000_000, 1),
        Port("frames", "INT", "of each video, spread over it", 17, 1, 10_000, 1),
        Port("short_side", "INT", "pixels; the aspect is kept, in multiples of 16", 256, 16, 4096, 16),
        Port("control", "COMBO", "control map that is the mask", NONE, choices=(NONE, *MAPS)),
        Port("clips", "STRING", "file of clip ids, as find --write writes it; in its order", "", optional=True),
    ),
    (
        Out("images", "IMAGE", "frames of each clip", is_list=True),
        Out("masks", "MASK", "brightness of its control map; black without one", is_list=True),
        Out("captions", "STRING", "by hand where there is one", is_list=True),
        Out("fps", "FLOAT", "rate of these frames; 1 for an image", is_list=True),
        Out("clip_ids", "STRING", "which clips", is_list=True),
    ),
    select_clips,
    changed=clips_changed,
)
