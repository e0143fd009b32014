"""Inputs on the command line to sources: files, folders, globs and list files."""

import csv
import glob
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import UserError
from curation.outside_text import printable
from curation.types import Source

VIDEO_SUFFIXES = frozenset([
    ".3g2",
    ".3gp",
    ".asf",
    ".avi",
    ".divx",
    ".dv",
    ".f4v",
    ".flv",
    ".gif",
    ".h264",
    ".h265",
    ".hevc",
    ".ivf",
    ".m2ts",
    ".m2v",
    ".m4v",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpe",
    ".mpeg",
    ".mpg",
    ".mts",
    ".mxf",
    ".obu",
    ".ogm",
    ".ogv",
    ".rm",
    ".rmvb",
    ".ts",
    ".vob",
    ".webm",
    ".wmv",
    ".y4m",
])
IMAGE_SUFFIXES = frozenset([
    ".avif",
    ".bmp",
    ".heic",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".png",
    ".tif",
    ".tiff",
    ".webp",
])
LIST_SUFFIXES = frozenset((".txt", ".csv", ".jsonl", ".parquet"))
PATH_KEYS = ("file_path", "video_path", "image_path", "source_path", "path", "file", "video", "file_name")

_MARK = re.compile(r"~[0-9a-f]{8}(\.[^./]*)?\Z")
_SHOWN = 300
"""most characters of a name from outside in a message"""


def find_sources(inputs: Sequence[str], known: Iterable[Source] = ()) -> list[Source]:
    """Find the sources that the inputs name, in a stable order, each file once.

    A source's path is relative to the folder that was named (or to the folder of a named file). Where two
    inputs would give two files one path, the later one is told apart by the folders above it.

    A file whose name is no UTF-8, and a folder inside a named one that cannot be read, are sources too: they
    fail (`name_problem` says why), since one of them should neither stop a run nor vanish from its table.

    Args:
        inputs: files, folders (searched recursively for videos and images), globs, or list files.
        known: the sources that an output already has, so that they keep their paths.

    Raises:
        UserError: an input that does not exist or cannot be read, a list without paths, or nothing found.
    """
    taken = {source.path: source for source in known}
    already = {os.path.join(s.root, s.path): s for s in taken.values() if name_problem(s) is None}
    sources: list[Source] = []
    seen: set[str] = set()
    for text in inputs:
        if not text.strip():
            raise UserError("an input is empty (a shell variable that is not set?)")
        for root, file in _files(text):
            if file not in seen:
                seen.add(file)
                sources.append(_source(root, file, taken, already.get(file)))
    if not sources:
        named = ", ".join([*(printable(text, _SHOWN) for text in inputs[:3]), *(["…"] if len(inputs) > 3 else [])])
        raise UserError(f"{named}: no video or image in it (looked for {', '.join(sorted(VIDEO_SUFFIXES))}, …)")
    return sources


def looks_like_image(path: Path) -> bool:
    """Tell by its name whether a file is a still image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def name_problem(source: Source) -> str | None:
    """Say why a source cannot be opened by its path, None where it can."""
    if source.path.endswith("/"):
        return "the folder cannot be read; grant access, or leave it out"
    if _is_marked(source.path):
        return "the name is not UTF-8 (or spelt as one that is not); rename the file, or the folder it is in"
    return None


def _source(root: str, file: str, taken: dict[str, Source], known: Source | None) -> Source:
    """Give a file its path within the output: the one it has, or the shortest one that no other file has."""
    size_bytes, mtime_ns, is_folder = _state(file)
    if known is not None:
        return replace(known, size_bytes=size_bytes, mtime_ns=mtime_ns)
    while True:
        path = _as_text(file[len(root.rstrip("/")) + 1 :]) + ("/" if is_folder else "")
        source = Source(root, path, size_bytes, mtime_ns)
        owner = taken.get(path)
        above = os.path.dirname(root)
        if owner is None or owner.root == root or _was_moved(owner, source) or root == above:
            taken[path] = source
            return source
        root = above


def _state(file: str) -> tuple[int, int, bool]:
    """Give size, time of change and whether it is a folder; of a broken link its own, of what is gone nothing."""
    for look in (os.stat, os.lstat):
        try:
            found = look(file)
        except OSError:
            continue
        return found.st_size, found.st_mtime_ns, stat.S_ISDIR(found.st_mode)
    return 0, 0, False  # gone since it was listed, or out of reach: a source that fails


def _as_text(name: str) -> str:
    """Give a file's name as the table can hold it: one that is no UTF-8 is escaped and marked by its true bytes.

    Without the mark it would be one with a file whose name is spelt as the escape is; a name that is spelt
    like a marked one is marked again.
    """
    raw = os.fsencode(name)
    text = raw.decode("utf-8", "backslashreplace")
    if text.encode() == raw and not _is_marked(text):
        return text
    stem, suffix = os.path.splitext(text)
    return f"{stem}~{hashlib.sha256(raw).hexdigest()[:8]}{suffix}"


def _is_marked(path: str) -> bool:
    return "\\x" in path and _MARK.search(path) is not None


def _was_moved(owner: Source, source: Source) -> bool:
    """Tell whether a file is one that lay elsewhere before: the same but for its root, where it is gone."""
    same = (owner.size_bytes, owner.mtime_ns) == (source.size_bytes, source.mtime_ns)
    return same and not os.path.exists(owner.file)


def _files(text: str) -> Iterator[tuple[str, str]]:
    """Give (root, file), both absolute, for each file that one input names."""
    shown = printable(text, _SHOWN)
    path = os.path.abspath(os.path.expanduser(text))
    if os.path.isdir(path):
        try:
            os.scandir(path).close()
        except OSError as error:
            raise UserError(f"{shown}: cannot be read ({error.strerror}); grant access or leave it out") from None
        root = _root(path)
        yield from ((root, file) for file in _walk(path))
    elif os.path.isfile(path):
        root = _root(os.path.dirname(path))
        if os.path.splitext(path)[1].lower() in LIST_SUFFIXES:
            for file in _listed(Path(path)):
                yield _root_above(file, root), file
        else:
            yield root, path
    elif os.path.exists(path):
        raise UserError(f"{shown}: neither a file nor a folder")
    elif glob.has_magic(text):
        pattern = os.path.join(glob.escape(os.getcwd()), os.path.expanduser(text))
        matches = sorted(set(map(os.path.abspath, _expand(pattern))))
        if not matches:
            raise UserError(f"{shown}: matches no file")
        root = _root(os.path.abspath(_fixed_part(text)))
        for match in matches:
            if os.path.isdir(match):
                if _is_at_or_below(os.path.realpath(os.path.dirname(match)), os.path.realpath(match)):
                    continue  # a link that leads up
                yield from ((_root_above(file, root), file) for file in _walk(match))
            elif _is_media(match):
                yield _root_above(match, root), match
    else:
        raise UserError(f"{shown}: no such file or folder")


def _root(folder: str) -> str:
    """Give a folder that paths shall be relative to: the table holds its name as it is.

    Raises:
        UserError: it is no UTF-8.
    """
    try:
        folder.encode()
    except UnicodeEncodeError:
        raise UserError(f"{printable(folder, _SHOWN)}: the name of this folder is not UTF-8; rename it") from None
    return folder


def _root_above(file: str, root: str) -> str:
    """Give the root of a file: the one asked for, or the file's own folder where it lies elsewhere."""
    return root if _is_at_or_below(file, root) else _root(os.path.dirname(file))


def _walk(folder: str) -> Iterator[str]:
    """Give the media files below a folder, sorted, and the folders that cannot be read."""
    for place, files in _tree(folder):
        if files is None:
            yield place
        else:
            yield from (entry.path for entry in files if _is_media(entry.name) and _is_file(entry.path))


def _tree(folder: str) -> Iterator[tuple[str, list[os.DirEntry[str]] | None]]:
    """Give each folder from one on down with what it holds besides folders; None where it cannot be read.

    Hidden ones, links to folders above and outputs of `curate` (whose clips would come in again) are left out.
    """
    top = os.path.realpath(folder)
    seen = {top}
    waiting = [(folder, top)]
    while waiting:  # no recursion: a tree may be deeper than Python's stack
        place, real = waiting.pop()
        try:
            with os.scandir(place) as listing:
                entries = sorted((e for e in listing if not e.name.startswith(".")), key=lambda entry: entry.name)
        except OSError:
            yield place, None
            continue
        files, folders = [], []
        for entry in entries:
            if not _is_folder(entry):
                files.append(entry)
                continue
            target = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
            if target not in seen and not _is_at_or_below(top, target) and not _is_output(entry.path):
                seen.add(target)
                folders.append((entry.path, target))
        yield place, files
        waiting += reversed(folders)


def _is_at_or_below(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or out of reach
        return False


def _is_file(file: str) -> bool:
    """Tell files from pipes and the like; a broken link, and what is out of reach, counts: it fails as a source."""
    try:
        return stat.S_ISREG(os.stat(file).st_mode)
    except OSError:
        return True


def _is_output(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, "recipe.yaml")) and any(
        os.path.isdir(os.path.join(folder, name)) for name in ("clips", "_parts")
    )


def _is_media(name: str) -> bool:
    suffix = os.path.splitext(name)[1].lower()
    return suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES


def _listed(path: Path) -> Iterator[str]:
    """Give the files that a list names; relative ones are looked for beside the list.

    Raises:
        UserError: the list cannot be read, or names a file that is not there.
    """
    folder, shown = str(path.parent), printable(str(path), _SHOWN)
    entries = enumerate(_entries(path), 1)
    while True:
        try:
            number, entry = next(entries)
        except StopIteration:
            return
        except (OSError, ValueError, csv.Error, RecursionError, pa.ArrowException) as error:
            words = "nested too deeply" if isinstance(error, RecursionError) else printable(str(error), _SHOWN)
            raise UserError(f"{shown}: not a readable list ({words})") from None
        if entry is None:
            raise UserError(f"{shown}: entry {number} has none of the keys {', '.join(PATH_KEYS)}")
        file = os.path.abspath(os.path.join(folder, entry))
        if not os.path.isfile(file):
            raise UserError(f"{shown}, entry {number}: no such file: {printable(file, _SHOWN)}")
        yield file


def _entries(path: Path) -> Iterator[str | None]:
    """Give what a list names, None for an entry that names nothing."""
    suffix = path.suffix.lower()
    if suffix == ".txt":
        text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        if "\0" in text:
            raise ValueError("it holds zero bytes; save it as UTF-8")
        # Lines end in \n alone: names may hold the other separators that Python's splitlines knows.
        lines = (line.strip(" \t\r") for line in text.split("\n"))
        yield from (line for line in lines if line and not line.startswith("#"))
    elif suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from map(_path_of, csv.DictReader(file))
    elif suffix == ".jsonl":
        with path.open(encoding="utf-8-sig") as file:
            yield from (_path_of(json.loads(line)) for line in file if line.strip())
    else:
        with path.open("rb") as content:
            table = pq.ParquetFile(content)
            columns = [name for name in PATH_KEYS if name in table.schema_arrow.names]
            if not columns and table.metadata.num_rows:
                yield None
            for batch in table.iter_batches(columns=columns) if columns else ():
                yield from map(_path_of, batch.to_pylist())


def _path_of(row: object) -> str | None:
    if isinstance(row, str):
        return row
    if isinstance(row, Mapping):
        for name in PATH_KEYS:
            if isinstance(row.get(name), str) and row[name]:
                return str(row[name])
    return None


def _expand(pattern: str) -> Iterator[str]:
    """Give what an absolute glob matches; unlike the library, `**` does not go round in links that lead back."""
    parts = pattern.split("/")
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    at = parts.index("**")
    after = "/".join(part for i, part in enumerate(parts[at + 1 :], at + 1) if part != "**" or parts[i - 1] != "**")
    for base in filter(os.path.isdir, glob.glob("/".join(parts[:at]) or "/")):
        if not after:
            yield base
            continue
        for folder, files in _tree(base):
            if files is None:
                yield folder
            else:
                yield from _expand(os.path.join(glob.escape(folder), after))


def _fixed_part(pattern: str) -> str:
    """Give the folder part of a glob before its first wildcard."""
    parts = Path(os.path.expanduser(pattern)).parts
    fixed = []
    for part in parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return os.path.join(*fixed) if fixed else "."
