"""Inputs on the command line to sources: each file once, each with a path of its own that stays."""

import glob
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.errors import UserError
from core.sanitize import printable
from core.storage.urls import is_url
from curation.inputs.buckets import Buckets
from curation.inputs.folders import Searcher, fixed_part, is_at_or_below
from curation.inputs.lists import SHOWN, Entry, listed, names_files, refusal
from curation.inputs.many import GatheredSources, Sources
from curation.inputs.names import LIST_SUFFIXES, OTHER_SUFFIXES, as_text, is_marked, path_problem
from curation.inputs.passed import PassedOver, Passing
from curation.types import Source
from media.content import look_into
from media.names import VIDEO_SUFFIXES, is_media_name, suffix_of


@dataclass(frozen=True)
class Found:
    """The sources that inputs name, and what was passed over where they were looked for."""

    sources: Sources
    passed_over: PassedOver


def find_sources(inputs: Sequence[str], known: Iterable[Source] = (), *, with_outputs: bool = False) -> list[Source]:
    """Find the sources that the inputs name, as `look_for_sources` does."""
    return list(look_for_sources(inputs, known, with_outputs=with_outputs).sources)


def look_for_sources(inputs: Sequence[str], known: Iterable[Source] = (), *, with_outputs: bool = False) -> Found:
    """Find the sources that the inputs name, in a stable order, each file once.

    A source's path is relative to the folder that was named (or to the folder of a named file). Where two
    inputs would give two files one path, the later one is told apart by the folders above it.

    A file whose name is no UTF-8, a folder inside a named one that cannot be read, and a file of a list that is
    not there, are sources too: they fail (`name_problem` says why of the first two), since one of them should
    neither stop a run nor vanish from its table.

    What an output of `curate` holds is never a source, be it found in a folder, by a glob or in a list. Only a file
    that is itself a word of the command line is taken, wherever it lies.

    Args:
        inputs: files, folders (searched recursively for videos and images), globs, or list files; also URLs of
            objects, prefixes and globs in buckets (`s3://`, `gs://`, `az://`), and of files on web servers.
        known: the sources that an output already has, so that they keep their paths.
        with_outputs: take clips of an output that is named, as who measures them wants.

    Raises:
        UserError: an input that does not exist or cannot be read, a list without paths, or nothing found.
    """
    taken = {source.path: source for source in known}
    already = {os.path.join(s.root, s.path): s for s in taken.values() if name_problem(s) is None}
    passing = Passing()
    searcher, buckets = Searcher(passing, with_outputs=with_outputs), Buckets(passing, with_outputs)
    sources = GatheredSources()
    seen: set[str] = set()
    first_missing = ""
    is_any_there = bool(taken)
    for text in inputs:
        if not text.strip():
            raise UserError("an input is empty (a shell variable that is not set?)")
        for root, file, missing in _files(text, searcher, buckets):
            first_missing = first_missing or missing
            is_any_there = is_any_there or not missing
            if file not in seen:
                seen.add(file)
                sources.add(_source(root, file, taken, already.get(file), buckets))
    named = ", ".join([*(printable(text, SHOWN) for text in inputs[:3]), *(["…"] if len(inputs) > 3 else [])])
    passed_over = passing.result()
    found = sources.result()
    if not found:
        what = f"passed over: {passed_over}; " if str(passed_over) else ""
        raise UserError(f"{named}: no video or image in it ({what}looked for {', '.join(sorted(VIDEO_SUFFIXES))}, …)")
    if not is_any_there:
        raise UserError(
            f"{first_missing}, nor is any other of the {len(found)} files that were named there; "
            "relative entries are looked for beside their list"
        )
    return Found(found, passed_over)


def name_problem(source: Source) -> str | None:
    """Return why a source cannot be opened by its path, None where it can."""
    return path_problem(source.path)


def _source(root: str, file: str, taken: dict[str, Source], known: Source | None, buckets: Buckets) -> Source:
    """Return a file its path within the output: the one it has, or the shortest one that no other file has.

    Raises:
        UserError: an object for which there is none.
    """
    is_remote = is_url(file)
    size_bytes, mtime_ns, is_folder = (*buckets.state(file), False) if is_remote else _state(file)
    if known is not None:
        return replace(known, size_bytes=size_bytes, mtime_ns=mtime_ns)
    while True:
        path = as_text(file[len(root) :].lstrip("/")) + ("/" if is_folder else "")
        source = Source(root, path, size_bytes, mtime_ns)
        above = _above(root)
        if root == above and is_marked(path) and taken.get(path, source).root != root:
            source = replace(source, path=as_text(path))  # nothing is above to tell it apart; it is never opened
            path = source.path
        owner = taken.get(path)
        if owner is None or owner.root == root or _was_moved(owner, source, buckets) or root == above:
            if owner is not None and root == above and is_remote and owner.root != root:
                raise UserError(f"{file}: its path {path} is another source's, too; curate it into another `output`")
            taken[path] = source
            return source
        root = above


def _state(file: str) -> tuple[int, int, bool]:
    """Return size, time of change and whether it is a folder; of a broken link its own, of what is gone nothing."""
    for look in (os.stat, os.lstat):
        try:
            found = look(file)
        except (OSError, ValueError):  # ValueError: no file can have this name
            continue
        return found.st_size, found.st_mtime_ns, stat.S_ISDIR(found.st_mode)
    return 0, 0, False  # gone since it was listed, or out of reach: a source that fails


def _above(root: str) -> str:
    """Return the folder above; of a bucket that is its scheme, above which there is nothing."""
    if not is_url(root):
        return os.path.dirname(root)
    scheme, _, rest = root.partition("://")
    return f"{scheme}://{rest.rpartition('/')[0]}"


def _was_moved(owner: Source, source: Source, buckets: Buckets) -> bool:
    """Return whether a file is one that lay elsewhere before: the same but for its root, where it is gone."""
    same = (owner.size_bytes, owner.mtime_ns) == (source.size_bytes, source.mtime_ns)
    if not same or source.mtime_ns == 0:
        return False
    return not (buckets.is_there(owner.url) if owner.is_remote else os.path.exists(owner.file))


def _files(text: str, searcher: Searcher, buckets: Buckets) -> Iterator[tuple[str, str, str]]:
    """Yield (root, file, what is missing), the first two absolute, for each file that one input names.

    The third is empty but for an entry of a list that is not there.
    """
    shown = printable(text, SHOWN)
    path = os.path.abspath(os.path.expanduser(text))
    if is_url(text):
        yield from _of_bucket(text, searcher, buckets)
    elif os.path.isdir(path):
        try:
            os.scandir(path).close()
        except OSError as error:
            raise UserError(f"{shown}: cannot be read ({error.strerror}); grant access or leave it out") from None
        root = _root(path)
        yield from ((root, file, "") for file in searcher.walk(path, is_word=True))
    elif os.path.isfile(path):
        root = _root(os.path.dirname(path))
        if suffix_of(path) in LIST_SUFFIXES:
            yield from _of_list(path, root, searcher, buckets)
        elif _is_no_source(path):
            raise UserError(f"{shown}: {refusal(path)}")
        else:
            yield root, path, ""
    elif os.path.exists(path):
        raise UserError(f"{shown}: neither a file nor a folder")
    elif glob.has_magic(text):
        yield from _of_glob(text, searcher)
    else:
        raise UserError(f"{shown}: no such file or folder")


def _is_no_source(path: str) -> bool:
    """Return whether a named file is no medium by its suffix, or is a list by what is in it, and no medium inside."""
    if is_media_name(path) or look_into(path) is not None:
        return False
    return suffix_of(path) in OTHER_SUFFIXES or names_files(path)


def _of_bucket(url: str, searcher: Searcher, buckets: Buckets) -> Iterator[tuple[str, str, str]]:
    """Yield what a URL names; a list in a bucket names objects beside it, or URLs."""
    for root, file, missing in buckets.named(url):
        if file == url and suffix_of(url) in LIST_SUFFIXES:
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / f"list{suffix_of(url)}"
                copy.write_bytes(buckets.fetch(url))
                entries = list(listed(copy, root))
            yield from _of_entries(entries, url, root, searcher, buckets)
        else:
            yield root, file, missing


def _of_list(path: str, root: str, searcher: Searcher, buckets: Buckets) -> Iterator[tuple[str, str, str]]:
    yield from _of_entries(listed(Path(path)), path, root, searcher, buckets)


def _of_entries(
    entries: Iterable[Entry], path: str, root: str, searcher: Searcher, buckets: Buckets
) -> Iterator[tuple[str, str, str]]:
    """Yield what the entries of a list name, local ones as they are read and then those in buckets.

    Args:
        entries: of the list.
        path: the list.
        root: its folder.
        searcher: for local folders.
        buckets: for URLs, which are all looked up before the first is given.
    """
    searched: set[str] = set()
    remote: dict[str, Entry] = {}
    for entry in entries:
        if entry.path in searched:
            continue  # a list may name a large folder a million times
        if is_url(entry.path):
            remote.setdefault(entry.path, entry)
        elif entry.is_folder:
            searched.add(entry.path)
            files = searcher.walk(entry.path) if searcher.is_readable(entry.path) else (entry.path,)
            yield from ((_root_above(file, root, is_strict=False), file, "") for file in files)
        elif entry.is_missing:
            words = f"{printable(path, SHOWN)}, entry {entry.number}: no such file: {printable(entry.path, SHOWN)}"
            yield _root_above(entry.path, root, is_strict=False), entry.path, words
        elif not searcher.is_in_ours(entry.path):
            yield _root_above(entry.path, root, is_strict=False), entry.path, ""
    found = buckets.of_list(list(remote)) if remote else {}
    for url, entry in remote.items():
        for own, file, missing in found[url]:
            words = f"{printable(path, SHOWN)}, entry {entry.number}: {missing}" if missing else ""
            yield root if is_at_or_below(file, root) else own, file, words


def _of_glob(text: str, searcher: Searcher) -> Iterator[tuple[str, str, str]]:
    pattern = os.path.join(glob.escape(os.getcwd()), os.path.expanduser(text))
    matches = sorted(set(map(os.path.abspath, searcher.expand(pattern))))
    if not matches:
        raise UserError(f"{printable(text, SHOWN)}: matches no file")
    root = _root(os.path.abspath(fixed_part(text)))
    for match in matches:
        if os.path.isdir(match):
            if is_at_or_below(os.path.realpath(os.path.dirname(match)), os.path.realpath(match)):
                continue  # a link that leads up
            yield from ((_root_above(file, root), file, "") for file in searcher.walk(match))
        elif not searcher.is_in_ours(match) and searcher.takes(match):
            yield _root_above(match, root), match, ""


def _root(folder: str) -> str:
    """Return a folder that paths shall be relative to: the table holds its name as it is.

    Raises:
        UserError: it is no UTF-8.
    """
    if not _is_utf8(folder):
        raise UserError(f"{printable(folder, SHOWN)}: the name of this folder is not UTF-8; rename it") from None
    return folder


def _root_above(file: str, root: str, *, is_strict: bool = True) -> str:
    """Return the root of a file: the one asked for, or the file's own folder where it lies elsewhere.

    Of a file in a folder whose name is no UTF-8 it is the nearest folder above that is one, unless `is_strict`.
    """
    if is_at_or_below(file, root):
        return root
    folder = os.path.dirname(file)
    while not is_strict and not _is_utf8(folder):
        folder = os.path.dirname(folder)
    return _root(folder)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
