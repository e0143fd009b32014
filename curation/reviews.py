"""What people say of clips: verdicts, captions and tags, in a journal beside the table that is only ever added to.

OUT/review.jsonl    one change a line: the clip, what was set, by whom and when; the last word on each clip holds

A verdict by a person wins over the rules, and a caption by hand over the captioner's. The journal is the truth: the
table's columns are taken from it whenever an output is judged, so that nothing done to the table loses a review.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from core.digest import file_sha256
from core.errors import UserError
from core.files import writing
from core.sanitize import LONGEST_CAPTION, clean_text

NAME = "review.jsonl"
BY_HAND = "caption_by_hand"
"""the column of people's captions; tables before version 0.10 have none"""
Rows = TypeVar("Rows", pa.Table, pa.RecordBatch)
KEEP, DROP = "keep", "drop"
VERDICTS = (KEEP, DROP)
FIELDS = ("review", "caption", "tags")
MOST_TAGS, LONGEST_WORD = 32, 100
REVIEW_COLUMNS = ("review", "review_by", "review_at", "review_tags", "caption_by_hand")
"""of the table, taken from the journal"""
STAMP_CHARS = 16


@dataclass(frozen=True)
class Review:
    """The last word of people on a clip.

    Attributes:
        review: `keep` or `drop`; None: the rules decide.
        caption: a text by hand; None: the captioner's.
        tags: words.
        by: who said the last of it.
        at: when, as `2026-01-31T12:00:00Z`.
    """

    review: str | None = None
    caption: str | None = None
    tags: tuple[str, ...] = ()
    by: str = ""
    at: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether everything was taken back."""
        return self.review is None and self.caption is None and not self.tags


@dataclass(frozen=True)
class Change:
    """One thing that a person says of a clip.

    Attributes:
        clip_id: of which.
        values: some of `review`, `caption`, `tags`, as `Review` has them.
        by: who.
        at: when, as `2026-01-31T12:00:00Z`.
    """

    clip_id: str
    values: Mapping[str, Any]
    by: str
    at: str


@dataclass(frozen=True)
class Reviews:
    """What people have said of an output.

    Attributes:
        clips: by clip id.
        stamp: changes with every change; nothing where nobody has said anything.
    """

    clips: Mapping[str, Review]
    stamp: str = ""


NOBODY = Reviews({})


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a change, cleaned.

    Raises:
        UserError: a field or value that there is not.
    """
    if unknown := [name for name in values if name not in FIELDS]:
        raise UserError(f"review: there is no field '{unknown[0]}'; fields are {', '.join(FIELDS)}")
    found: dict[str, Any] = {}
    if "review" in values:
        if values["review"] not in (*VERDICTS, None):
            raise UserError(f"review: '{values['review']}' is no verdict; say keep, drop or null")
        found["review"] = values["review"]
    if "caption" in values:
        text = values["caption"]
        if text is not None and not isinstance(text, str):
            raise UserError("caption: must be a text, or null for the captioner's own")
        found["caption"] = clean_text(text, LONGEST_CAPTION).strip() or None if text else None
    if "tags" in values:
        tags = values["tags"]
        if not isinstance(tags, list | tuple) or not all(isinstance(tag, str) for tag in tags) or len(tags) > MOST_TAGS:
            raise UserError(f"tags: must be a list of at most {MOST_TAGS} words")
        words = (clean_text(tag, LONGEST_WORD).strip() for tag in tags)
        found["tags"] = tuple(dict.fromkeys(word for word in words if word))
    return found


def add_changes(out: Path, changes: Iterable[Change]) -> None:
    """Add changes to an output's journal; once this returns they are on disk.

    Several processes may add at once. What a kill left of a line is ended first, so that it spoils no other.

    Raises:
        OutputError: the journal cannot be written.
    """
    lines = [_line(change) for change in changes]
    with writing(out), open(out / NAME, "ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        if end and file.seek(end - 1) is not None and file.read(1) != b"\n":
            lines.insert(0, "\n")
        file.write("".join(lines).encode())
        file.flush()
        os.fsync(file.fileno())


def _line(change: Change) -> str:
    values = {"clip_id": change.clip_id, **checked(change.values), "by": clean_text(change.by, LONGEST_WORD)}
    return json.dumps(values | {"at": change.at}, ensure_ascii=False) + "\n"


def read_reviews(out: Path) -> Reviews:
    """Return what people have said of an output; lines that are no changes (a kill's, an editor's) are passed over."""
    try:
        content = (out / NAME).read_bytes()
    except FileNotFoundError:
        return NOBODY
    clips: dict[str, Review] = {}
    for line in content.splitlines():
        change = read_change(line)
        if change is not None:
            before = clips.get(change.clip_id, Review())
            clips[change.clip_id] = replace(before, **change.values, by=change.by, at=change.at)
    said = {clip_id: review for clip_id, review in clips.items() if not review.is_empty}
    return Reviews(said, hashlib.sha256(content).hexdigest()[:STAMP_CHARS])


def stamp_of(out: Path) -> str:
    """Return the stamp that `read_reviews` would give, without reading what it is that people have said."""
    try:
        return file_sha256(out / NAME)[:STAMP_CHARS]
    except FileNotFoundError:
        return NOBODY.stamp


def read_change(line: bytes) -> Change | None:
    """Return the change that a line of the journal holds, None where it holds none."""
    try:
        values = json.loads(line)
        told = {name: values[name] for name in FIELDS if name in values}
        clip_id, by, at = values["clip_id"], str(values.get("by") or ""), str(values.get("at") or "")
        return Change(clip_id, checked(told), by, at) if isinstance(clip_id, str) and told else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, UserError):
        return None


def with_reviews(table: pa.Table, reviews: Reviews) -> pa.Table:
    """Return a table whose columns of reviews hold what people have said."""
    if not reviews.clips and table["review_at"].null_count == len(table):
        return table
    ids = list(reviews.clips)
    place = pc.index_in(table["clip_id"], pa.array(ids, pa.string()))
    said = list(reviews.clips.values())
    columns = {
        "review": pa.array([one.review for one in said], pa.string()),
        "review_by": pa.array([one.by for one in said], pa.string()),
        "review_at": pa.array([one.at for one in said], pa.string()),
        "review_tags": pa.array([list(one.tags) or None for one in said], pa.list_(pa.string())),
        "caption_by_hand": pa.array([one.caption for one in said], pa.string()),
    }
    for name, values in columns.items():
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(index), values.take(place))
    return table


def caption_of(table: pa.Table | pa.RecordBatch) -> Any:
    """Return the captions that hold: by hand where there is one, else the captioner's; tables of old have no others."""
    if BY_HAND not in table.schema.names:
        return table["caption"]
    return pc.coalesce(table[BY_HAND], table["caption"])


def with_captions(rows: Rows) -> Rows:
    """Return rows whose `caption` is the one that holds."""
    return rows.set_column(rows.schema.get_field_index("caption"), "caption", caption_of(rows))
