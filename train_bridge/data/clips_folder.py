"""A folder of clips, each with its caption in a `.txt` file beside it, as many trainers take them."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from core.files import read_head
from core.sanitize import LONGEST_CAPTION
from curation.inputs.folders import Searcher
from curation.inputs.names import as_text
from curation.inputs.passed import Passing
from media.content import look_into
from media.names import IMAGE_SUFFIXES, VIDEO_SUFFIXES, suffix_of
from train_bridge.types import Refusal

CAPTION_BYTES = 4 * LONGEST_CAPTION
"""of the longest caption in UTF-8"""
FACTS_BYTES = 1 << 20
"""of a `.json` file beside a clip"""
READERS = 16

Values = dict[str, Any]


class UnreadableError(Exception):
    """A text beside a clip that cannot be used: which key, why, and what to do."""

    def __init__(self, key: str, reason: str, fix: str):
        super().__init__(reason)
        self.key, self.reason, self.fix = key, reason, fix


def holds_clips(folder: Path) -> bool:
    """Return whether there is a video or an image in a folder or below it."""
    return any(not os.path.isdir(path) for path in _media(folder))


def read_clips(folder: Path) -> tuple[list[tuple[str, Values]], list[Refusal]]:
    """Find the clips in a folder and below it, and read what lies beside them.

    `a.mp4` has its caption in `a.txt` (or `a.mp4.txt`), and where there is an `a.json`, an object, its keys count as
    those of JSON metadata do. An image that is called as a video beside it is taken for a still of it and refused.

    Returns:
        Places and values, in the order of paths; and clips that cannot be used.
    """
    placed, refused = [], []
    paths = list(_media(folder))
    videos = {os.path.splitext(path)[0] for path in paths if suffix_of(path) in VIDEO_SUFFIXES}
    with ThreadPoolExecutor(READERS) as pool:
        for path, values in zip(paths, pool.map(_values_or_error, paths), strict=True):
            name = os.path.relpath(path, folder)
            stem, place = os.path.splitext(path)[0], as_text(name)
            if os.path.isdir(path):
                refused.append(Refusal(place, "row", "a folder that cannot be read", "grant access, or move it away"))
            elif suffix_of(path) in IMAGE_SUFFIXES and stem in videos:
                fix = "rename it, and write its own .txt, to train on it as well"
                refused.append(Refusal(place, "row", "a still that is called as a video beside it", fix))
            elif isinstance(values, UnreadableError):
                refused.append(Refusal(place, values.key, values.reason, values.fix))
            else:
                placed.append((place, values | {"file_path": name}))
    return placed, refused


def facts_of(content: bytes) -> Values:
    """Return the keys of a `.json` beside a clip; those that name files are left out.

    Raises:
        UnreadableError: it is broken, or no object.
    """
    try:
        values = json.loads(content.decode("utf-8-sig", "surrogateescape"))
    except (ValueError, RecursionError):
        raise UnreadableError(".json", "is broken JSON", "correct or delete it") from None
    if not isinstance(values, dict):
        raise UnreadableError(".json", "is not an object", "write {…}, or delete it")
    return {key: value for key, value in values.items() if key not in ("file_path", "file_name")}


def caption_of(content: bytes) -> str:
    """Return the text of a caption's file, as UTF-8 (or UTF-16 with its mark); bytes that are no text stay marked.

    Raises:
        UnreadableError: it is longer than any caption may be.
    """
    if len(content) > CAPTION_BYTES:
        raise UnreadableError(".txt", f"has more than {LONGEST_CAPTION} characters", "shorten it")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace").strip()
    return content.decode("utf-8-sig", "surrogateescape").strip()


def _media(folder: Path) -> Iterator[str]:
    """Yield the media files below a folder, sorted, and the folders that cannot be read."""
    return Searcher(Passing(), with_outputs=True).walk(str(folder))


def _values_or_error(path: str) -> Values | UnreadableError:
    try:
        return _values(path)
    except UnreadableError as error:
        return error


def _values(path: str) -> Values:
    stem, suffix = os.path.splitext(path)
    facts = _beside((f"{stem}.json",), FACTS_BYTES, ".json")
    values = {} if facts is None else facts_of(facts)
    text = _beside((f"{stem}.txt", f"{path}.txt"), CAPTION_BYTES, ".txt")
    if text is not None:
        values["text"] = caption_of(text)
    if "type" not in values:
        kinds = {**dict.fromkeys(VIDEO_SUFFIXES, "video"), **dict.fromkeys(IMAGE_SUFFIXES, "image")}
        values["type"] = kinds.get(suffix.lower()) or look_into(path)
    return values


def _beside(paths: tuple[str, ...], most_bytes: int, key: str) -> bytes | None:
    """Read the first of some files that is there; None where none is.

    Raises:
        UnreadableError: it cannot be read, or is too large.
    """
    for path in paths:
        try:
            content = read_head(path, most_bytes + 1)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UnreadableError(key, f"cannot be read ({error.strerror})", "replace it") from None
        if len(content) > most_bytes:
            raise UnreadableError(key, f"is larger than {most_bytes >> 10} KB", "shorten it")
        return content
    return None
