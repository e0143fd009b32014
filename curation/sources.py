"""Inputs on the command line to sources: files, folders, globs and list files."""

import csv
import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from curation.errors import UserError
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


def find_sources(inputs: Sequence[str], known: Iterable[Source] = ()) -> list[Source]:
    """Find the sources that the inputs name, in a stable order, each file once.

    A source's path is relative to the folder that was named (or to the folder of a named file). Where two
    inputs would give two files one path, the later one is told apart by the folders above it.

    Args:
        inputs: files, folders (searched recursively for videos and images), globs, or list files.
        known: the sources that an output already has, so that they keep their paths.

    Raises:
        UserError: an input that does not exist, a list without paths, or nothing found.
    """
    taken = {source.path: source for source in known}
    already = {str(source.file): source for source in taken.values()}
    sources: list[Source] = []
    seen: set[str] = set()
    for text in inputs:
        if not text.strip():
            raise UserError("an input is empty (a shell variable that is not set?)")
        for root, file in _files(text):
            absolute = str(file)
            if absolute in seen:
                continue
            seen.add(absolute)
            sources.append(_source(root, file, taken, already.get(absolute)))
    if not sources:
        raise UserError(
            f"{', '.join(inputs)}: no video or image in it (looked for {', '.join(sorted(VIDEO_SUFFIXES))}, …)"
        )
    return sources


def looks_like_image(path: Path) -> bool:
    """Tell by its name whether a file is a still image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def _source(root: Path, file: Path, taken: dict[str, Source], known: Source | None) -> Source:
    """Give a file its path within the output: the one it has, or the shortest one that no other file has."""
    stat = file.stat() if file.exists() else file.lstat()  # a broken link is a source that fails
    if known is not None:
        return replace(known, size_bytes=stat.st_size, mtime_ns=stat.st_mtime_ns)
    while True:
        # A name that is not UTF-8 cannot stand in the table: it is escaped there, and the source fails.
        path = os.fsencode(file.relative_to(root)).decode("utf-8", "backslashreplace")
        source = Source(str(root), path, stat.st_size, stat.st_mtime_ns)
        owner = taken.get(path)
        if owner is None or owner.root == source.root or _was_moved(owner, source) or root == root.parent:
            taken[path] = source
            return source
        root = root.parent


def _was_moved(owner: Source, source: Source) -> bool:
    """Tell whether a file is one that lay elsewhere before: the same but for its root, where it is gone."""
    same = (owner.size_bytes, owner.mtime_ns) == (source.size_bytes, source.mtime_ns)
    return same and not owner.file.exists()


def _files(text: str) -> Iterator[tuple[Path, Path]]:
    """Give (root, file) for each file that one input names."""
    path = Path(os.path.abspath(os.path.expanduser(text)))
    if path.is_dir():
        yield from ((path, file) for file in _walk(path))
    elif path.is_file():
        if path.suffix.lower() in LIST_SUFFIXES:
            yield from ((file.parent if not _below(file, path.parent) else path.parent, file) for file in _listed(path))
        else:
            yield path.parent, path
    elif path.exists():
        raise UserError(f"{text}: neither a file nor a folder")
    elif glob.has_magic(text):
        matches = sorted(glob.glob(os.path.expanduser(text), recursive=True))
        if not matches:
            raise UserError(f"{text}: matches no file")
        root = Path(os.path.abspath(_fixed_part(text)))
        for match in map(Path, matches):
            if match.is_dir():
                yield from ((root, file) for file in _walk(Path(os.path.abspath(match))))
            elif _is_media(match):
                yield root, Path(os.path.abspath(match))
    else:
        raise UserError(f"{text}: no such file or folder")


def _walk(folder: Path) -> Iterator[Path]:
    """Give the media files below a folder, sorted.

    Hidden ones, links to folders above and outputs of `curate` (whose clips would come in again) are left out.
    """
    real = {os.path.realpath(folder)}
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_unreadable):
        inside = []
        for name in sorted(folders):
            target = os.path.realpath(os.path.join(place, name))
            if not name.startswith(".") and target not in real and not _is_output(Path(place, name)):
                real.add(target)
                inside.append(name)
        folders[:] = inside
        for name in sorted(names):
            if not name.startswith(".") and _is_media(Path(name)):
                file = Path(place, name)
                if file.is_file() or file.is_symlink():
                    yield file


def _is_output(folder: Path) -> bool:
    return (folder / "recipe.yaml").is_file() and ((folder / "clips").is_dir() or (folder / "_parts").is_dir())


def _unreadable(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be read ({error.strerror}); grant access or leave it out")


def _is_media(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES or looks_like_image(path)


def _listed(path: Path) -> Iterator[Path]:
    """Give the files that a list names; relative ones are looked for beside the list."""
    for number, entry in enumerate(_entries(path), 1):
        file = Path(os.path.abspath(os.path.join(path.parent, entry)))
        if not file.is_file():
            raise UserError(f"{path}, entry {number}: no such file: {file}")
        yield file


def _entries(path: Path) -> Iterable[str]:
    suffix = path.suffix.lower()
    try:
        if suffix == ".txt":
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if suffix == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                return [_path_of(row, path) for row in csv.DictReader(file)]
        if suffix == ".jsonl":
            with path.open(encoding="utf-8-sig") as file:
                return [_path_of(json.loads(line), path) for line in file if line.strip()]
        import pyarrow.parquet as pq

        return [_path_of(row, path) for row in pq.read_table(path).to_pylist()]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a readable list ({error})") from None


def _path_of(row: object, path: Path) -> str:
    if isinstance(row, str):
        return row
    if isinstance(row, Mapping):
        for name in PATH_KEYS:
            if isinstance(row.get(name), str) and row[name]:
                return str(row[name])
    raise UserError(f"{path}: an entry has none of the keys {', '.join(PATH_KEYS)}")


def _below(file: Path, folder: Path) -> bool:
    return folder in file.parents


def _fixed_part(pattern: str) -> str:
    """Give the folder part of a glob before its first wildcard."""
    parts = Path(os.path.expanduser(pattern)).parts
    fixed = []
    for part in parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return os.path.join(*fixed) if fixed else "."
