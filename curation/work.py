"""The unit of work and its rows: what a run knows, which segment is meant, and how rows are named."""

import dataclasses
import json
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from core.errors import MediaError
from curation.recipe import Recipe
from curation.schema import Writer, blank_row, work_schema
from curation.types import Row, Source
from media.names import looks_like_image
from media.types import Segment, SourceFacts, Span

NAMESPACE = uuid.UUID("5e1ec751-0000-5000-8000-000000000001")
STILL = Span(0.0, 1.0, 0, 1)
"""The span of an image: one frame, so that samplings apply to it as they stand."""


@dataclass(frozen=True)
class Plan:
    """What every worker of a run knows: the recipe, the output folder, and which run it is."""

    recipe: Recipe
    out: str
    run: str = ""
    judges_apart: bool = False
    """first pass of a recipe that judges the whole table: clips are scored, not yet captioned and cut"""
    shares_blocks: bool = False
    """there are so many sources that the small ones among them travel together"""

    @cached_property
    def writers(self) -> tuple[Writer, ...]:
        """Operators whose columns the table has."""
        return self.recipe.writers

    @cached_property
    def _blank(self) -> Row:
        return blank_row(work_schema(self.writers))

    def blank(self) -> Row:
        """Return a row under way with every column null."""
        return self._blank.copy()

    @property
    def stop_file(self) -> Path:
        """While it is there, nothing new is started."""
        return Path(self.out) / f".stop-{self.run}"


@dataclass(frozen=True)
class Task:
    """One segment of a source, ready to be decoded: the unit of work."""

    source: Source
    source_id: str
    facts: SourceFacts
    segment: Segment


def failed_row(plan: Plan, source: Source, step: str, error: MediaError, task: Task | None = None) -> Row:
    """Return the row that says what was lost: a whole source, or the error's stretch of it."""
    span = "" if error.time_s is None else f"{error.time_s:.6f}-"
    place = f"{step}:{task.segment.index if task else 0}:{span}"
    row = plan.blank()
    row |= source_columns(source) | {
        "clip_id": clip_id(task.source_id if task else "", source, place),
        "type": "image" if looks_like_image(source.file) else "video",
        "start_s": error.time_s,
        "end_s": error.end_s,
        "duration_s": None if error.time_s is None or error.end_s is None else round(error.end_s - error.time_s, 6),
        "status": "failed",
        "reasons": [],
        "error": f"{step}: {error}{_stretch(error)}",
        "_segment": 0,
        "_segments": 1,
        "_segment_rows": 1,  # `analyse` knows better for a stretch
        "_segment_frames": 0,
    }
    return row | task_columns(task) if task else row


def _stretch(error: MediaError) -> str:
    if error.time_s is None:
        return ""
    return f" (from {error.time_s:.2f} " + ("s on)" if error.end_s is None else f"to {error.end_s:.2f} s)")


def clip_id(source_id: str, source: Source, span: str) -> str:
    """Return the uuid5 of source content, input-relative path and span."""
    return str(uuid.uuid5(NAMESPACE, json.dumps([source_id, source.path, span])))


def span_of(row: Row) -> Span:
    """Return the span of an analysed clip, or that of an image."""
    if row["type"] == "image":
        return STILL
    return Span(row["start_s"], row["end_s"], row["start_frame"], row["num_frames"])


def source_columns(source: Source) -> Row:
    """Return a source's columns."""
    return {
        "source_path": source.path,
        "source_root": source.root,
        "source_size_bytes": source.size_bytes,
        "source_mtime_ns": source.mtime_ns,
    }


def source_of(row: Row) -> Source:
    """Return the source that a row names."""
    return Source(row["source_root"], row["source_path"], row["source_size_bytes"], row["source_mtime_ns"])


def task_columns(task: Task) -> Row:
    """Return the columns that every row of a segment shares."""
    facts = task.facts
    return {
        "type": facts.type,
        "source_id": task.source_id,
        "width_px": facts.width_px,
        "height_px": facts.height_px,
        "short_side_px": min(facts.width_px, facts.height_px),
        "area_px": facts.width_px * facts.height_px,
        "fps": facts.fps,
        "codec": facts.codec,
        "other_video_streams": list(facts.other_streams) or None,
        "_task": task_to_json(task),
        "_segment": task.segment.index,
        "_segments": task.segment.count,
    }


def task_to_json(task: Task) -> str:
    """Pack a task, to travel in a row."""
    return json.dumps(dataclasses.asdict(task))


def task_from_json(text: str) -> Task:
    """Unpack a task."""
    values = json.loads(text)
    values["facts"]["other_streams"] = tuple(values["facts"].get("other_streams", ()))
    return Task(
        Source(**values["source"]), values["source_id"], SourceFacts(**values["facts"]), Segment(**values["segment"])
    )
