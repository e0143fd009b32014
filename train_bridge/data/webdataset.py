"""A WebDataset: tar shards whose members `key.mp4`, `key.txt` and `key.json` are one sample.

Texts are read where they lie. Videos and images are unpacked, since whatever opens them wants files: only those of rows
that are used, once, under names of our own, so that no name within a shard leads anywhere.
"""

import glob
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import UserError
from core.files import PIECE_BYTES, atomic_path, make_folder, read_head, remove_leftovers
from curation.inputs.folders import fixed_part
from curation.inputs.names import as_text
from media.names import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_media_name, suffix_of
from train_bridge.data.clips_folder import CAPTION_BYTES, FACTS_BYTES, UnreadableError, caption_of, facts_of
from train_bridge.data.tar_members import MAGIC, MAGIC_PLACE, Member, TarError, read_members
from train_bridge.types import Refusal

READERS = 8
MOST_SHARDS = 100_000
BRACES = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")

Values = dict[str, Any]


@dataclass(frozen=True)
class Shards:
    """The shards of a WebDataset.

    Attributes:
        base: folder that their names start from.
        files: absolute, sorted.
    """

    base: Path
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Samples:
    """What the shards hold.

    Attributes:
        placed: places and values, in order; `file_path` is where the medium will lie in the unpacked folder.
        refused: samples that cannot be used, and shards that could not be read to their end.
        media: shard and member of each placed sample.
    """

    placed: list[tuple[str, Values]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    media: list[tuple[Path, Member]] = field(default_factory=list)


def find_shards(source: Path) -> Shards | None:
    """Find the shards that a path names: a tar, a folder of `*.tar`, a glob, or `shard-{000000..000099}.tar`.

    Returns:
        None where it names no WebDataset.

    Raises:
        UserError: shards that are named are not there, are compressed, or lie among clips.
    """
    if source.is_dir():
        listed = _listed(source)
        names = sorted(name for name in listed if name.endswith(".tar") and not name.startswith("."))
        if names and any(is_media_name(name) for name in listed):
            raise UserError(f"{source}: holds clips and shards ({names[0]}); name the shards, as {source}/*.tar")
        return Shards(source, tuple(source / name for name in names)) if names else None
    if os.path.exists(source):
        if source.name.endswith(COMPRESSED):
            raise UserError(f"{source}: a compressed tar, which cannot be read in parts; decompress it")
        return Shards(source.parent, (source,)) if _is_tar(source) else None
    pattern = str(source)
    if not is_pattern(pattern):
        return None
    found = [Path(name) for one in _expanded(pattern) for name in (glob.glob(one) if glob.has_magic(one) else [one])]
    files = tuple(sorted(set(found)))
    if not files:
        raise UserError(f"{source}: no shard (*.tar) is called so")
    if gone := next((path for path in files if not path.is_file()), None):
        raise UserError(f"{gone}: no such shard; correct {source}")
    return Shards(Path(fixed_part(BRACES.sub("*", pattern))), files)


def is_pattern(text: str) -> bool:
    """Return whether a text names shards by a glob or by braces."""
    return text.endswith(".tar") and (glob.has_magic(text) or BRACES.search(text) is not None)


def read_samples(shards: Shards) -> Samples:
    """Read the texts of all samples, and find their media."""
    found = Samples()
    with ThreadPoolExecutor(READERS) as pool:
        for of_shard in pool.map(lambda file: _samples_of(file, os.path.relpath(file, shards.base)), shards.files):
            found.placed.extend(of_shard.placed)
            found.refused.extend(of_shard.refused)
            found.media.extend(of_shard.media)
    return found


def unpack(samples: Samples, kept: Iterable[int], folder: Path) -> None:
    """Bring the media of some samples to disk, unless they are there.

    Raises:
        UserError: there is no room for them, or a shard changes meanwhile.
        OutputError: the storage refuses.
    """
    todo: dict[Path, list[tuple[Path, Member]]] = {}
    for i in kept:
        shard, member = samples.media[i]
        target = folder / samples.placed[i][1]["file_path"]
        if not (target.is_file() and target.stat().st_size == member.size_bytes):
            todo.setdefault(shard, []).append((target, member))
    if not todo:
        return
    make_folder(folder)
    count = sum(map(len, todo.values()))
    needed, free = sum(m.size_bytes for some in todo.values() for _, m in some), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: {count} clips of the WebDataset take {needed / 1e9:.3g} GB unpacked, there is room for "
            f"{free / 1e9:.3g} GB; make room, keep fewer rows with data.where, or set data.unpacked to another folder"
        )
    print(f"unpacking {count} clips ({needed / 1e9:.3g} GB) to {folder}", file=sys.stderr, flush=True)
    for shard, some in todo.items():
        make_folder(some[0][0].parent)
        remove_leftovers(some[0][0].parent)
        with shard.open("rb") as file:
            for target, member in some:
                with atomic_path(target, to_disk=False) as temporary, temporary.open("wb") as out:
                    _copy(file, member, out, shard)


def unpacked_folder(named: str | None) -> Path:
    """Return the folder that media are unpacked to: the one that is named, else one in the user's cache."""
    if named is not None:
        return Path(os.path.abspath(os.path.expanduser(named)))
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return Path(cache if os.path.isabs(cache) else os.path.expanduser("~/.cache"), "selects", "unpacked")


def _samples_of(shard: Path, name: str) -> Samples:
    found = Samples()
    members: dict[str, dict[str, Member]] = {}
    twice: set[str] = set()
    try:
        file = shard.open("rb")
    except OSError as error:
        found.refused.append(
            Refusal(as_text(name), "row", f"the shard cannot be read ({error.strerror})", "grant access to it")
        )
        return found
    with file:
        state = os.fstat(file.fileno())
        try:
            for member in read_members(file):
                key, extension = _divided(member.name)
                if extension:
                    of_key = members.setdefault(key, {})
                    twice |= {key} if extension in of_key else set()
                    of_key[extension] = member
        except (TarError, OSError) as error:
            why = f"cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)
            found.refused.append(
                Refusal(as_text(name), "row", f"the shard {why}", "write it again; samples before count")
            )
        identity = f"{os.path.abspath(shard)}\0{state.st_size}\0{state.st_mtime_ns}"
        for key, of_key in members.items():
            place = as_text(f"{name}/{key}")
            try:
                if key in twice:
                    raise UnreadableError("row", "has two files of one kind", "give each sample its own key")
                medium = _medium(of_key)
                values = _values(file, of_key)
            except UnreadableError as error:
                found.refused.append(Refusal(place, error.key, error.reason, error.fix))
                continue
            suffix = suffix_of(medium.name)
            values["file_path"] = f"{_hex(identity)}/{_hex(f'{medium.offset} {medium.name}')}{suffix}"
            values["type"] = "video" if suffix in VIDEO_SUFFIXES else "image"
            values["clip_id"] = values.get("clip_id") or f"{name}/{key}"
            found.placed.append((place, values))
            found.media.append((shard, medium))
    return found


def _divided(name: str) -> tuple[str, str]:
    """Divide a member's name as WebDataset does: at the first dot of its last part."""
    folder, _, last = name.removeprefix("./").rpartition("/")
    stem, _, extension = last.partition(".")
    return (f"{folder}/{stem}" if folder else stem), extension.lower() if stem else ""


def _medium(members: dict[str, Member]) -> Member:
    """Return the video of a sample, or the image where it has none: one beside a video is a still of it."""
    for suffixes in (VIDEO_SUFFIXES, IMAGE_SUFFIXES):
        some = [member for extension, member in members.items() if suffix_of(f"x.{extension}") in suffixes]
        if len(some) > 1:
            raise UnreadableError("row", "has several videos or images", "give each its own sample")
        if some:
            return some[0]
    raise UnreadableError("row", "has neither a video nor an image", "add one, or leave the sample out")


def _values(file: BinaryIO, members: dict[str, Member]) -> Values:
    values = facts_of(_text(file, members["json"], FACTS_BYTES, ".json")) if "json" in members else {}
    if "txt" in members:
        values["text"] = caption_of(_text(file, members["txt"], CAPTION_BYTES, ".txt"))
    elif "text" not in values:
        values["text"] = values.get("caption")
    return values


def _text(file: BinaryIO, member: Member, most_bytes: int, key: str) -> bytes:
    if member.size_bytes > most_bytes:
        raise UnreadableError(key, f"is larger than {most_bytes >> 10} KB", "shorten it")
    try:
        return os.pread(file.fileno(), member.size_bytes, member.offset)
    except OSError as error:
        raise UnreadableError(key, f"cannot be read ({error.strerror})", "fetch the shard again") from None


def _copy(file: BinaryIO, member: Member, out: BinaryIO, shard: Path) -> None:
    file.seek(member.offset)
    left = member.size_bytes
    while left:
        piece = file.read(min(PIECE_BYTES, left))
        if not piece:
            raise UserError(f"{shard}: became shorter while it was read; wait until it is whole, and start again")
        out.write(piece)
        left -= len(piece)


def _expanded(pattern: str) -> Sequence[str]:
    """Return the names that `{000..012}` stands for, of each pair of braces."""
    names = [pattern]
    while match := BRACES.search(names[0]):
        first, last = int(match[1]), int(match[2])
        if not 0 <= last - first < MOST_SHARDS or len(names) * (last - first + 1) > MOST_SHARDS:
            raise UserError(f"{pattern}: {match[0]} names none, or more than {MOST_SHARDS} shards; correct it")
        numbers = [f"{n:0{len(match[1])}d}" for n in range(first, last + 1)]
        names = [name.replace(match[0], number, 1) for name in names for number in numbers]
    return names


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # whoever reads it next tells of it
        return []


def _is_tar(path: Path) -> bool:
    try:
        return read_head(path, 512)[MAGIC_PLACE:].startswith(MAGIC)
    except OSError:  # no regular file; whoever reads it tells of it
        return False


def _hex(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
