"""An output in a bucket: pushed so that readers see the last whole state or the one before, and pulled by commit.

    _commits/00000007.json      what belongs to the output: each file's object, size, version and digest
    _commits/00000007/…         files that changed with this commit
    train/… clips/… report.html the files under their own names, for browsers and programs that know no commits

An object that a commit names is not written again before the next commit is there: what is new goes to its own name,
what has changed below the new commit, and only then to its own name. Our readers ask for the version that the commit
names, so that they have one commit whole, or an error that says to run again.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from core.digest import file_sha256
from core.errors import UserError
from core.files import TEMPORARY_NAME, atomic_write, make_folder
from core.lock import locked
from core.storage.store import Entry, MissingError, Store, StoreError
from curation.inputs.outputs import RECIPE

COMMITS, LEASE = "_commits", "_lease"
PULLED = ".pulled.json"
"""in a pulled copy: what its files are, and since when"""
LEFT_OUT = ("_parts/", "_lease")
"""what belongs to a run that goes on, and not to what is published"""
AT_ONCE = 16
PIECE_BYTES = 8 << 20
Known = tuple[str, int]
"""digest of a pulled file, and its time of change when it was pulled"""
_COMMIT = re.compile(rf"{COMMITS}/(\d{{8}})\.json")


@dataclass(frozen=True)
class Pushed:
    """One file of a commit.

    Attributes:
        object: key of what holds its content.
        size_bytes: its length.
        version: the object's, as the storage names it.
        digest: SHA-256 of the content.
    """

    object: str
    size_bytes: int
    version: str
    digest: str


@dataclass(frozen=True)
class Commit:
    """One whole state of an output.

    Attributes:
        number: from 1 on; 0: nothing has been committed.
        files: by path within the output.
    """

    number: int
    files: Mapping[str, Pushed]


def last_commit(store: Store) -> Commit:
    """Return the last commit, an empty one where there is none.

    Raises:
        StoreError: the storage refuses, or the commit cannot be read.
    """
    numbers = [int(found[1]) for entry in store.list(f"{COMMITS}/") if (found := _COMMIT.fullmatch(entry.key))]
    if not numbers:
        return Commit(0, {})
    number = max(numbers)
    try:
        files = json.loads(store.read(_commit_key(number)))["files"]
        return Commit(number, {str(path): Pushed(**each) for path, each in files.items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(f"{store.url}/{_commit_key(number)}: not a commit of an output; push it again") from None


def push(out: Path, store: Store, keeps: Callable[[str], bool] = lambda path: False) -> Commit:
    """Copy an output's files to a store and commit them.

    Args:
        out: the output, which nobody writes meanwhile.
        store: where it shall lie; what was committed there before is replaced.
        keeps: of a file that the last commit has and `out` does not: whether it stays.

    Returns:
        The commit: the last one where nothing has changed.

    Raises:
        UserError: somebody else pushes there, or it holds another output.
        StoreError: the storage refuses.
    """
    local = dict(_files_of(out))
    with store.lease(LEASE) as lease:
        before = last_commit(store)
        _expect_same_output(out, store, before)
        number = before.number + 1

        def put(path: str) -> tuple[str, Pushed, bool]:
            digest = file_sha256(local[path])
            known = before.files.get(path)
            if known is not None and known.digest == digest:
                return path, known, False
            key = path if known is None else f"{COMMITS}/{number:08d}/{path}"
            version = store.put(key, local[path])
            return path, Pushed(key, local[path].stat().st_size, version, digest), True

        files: dict[str, Pushed] = {path: each for path, each in before.files.items() if keeps(path)}
        has_news = not set(before.files) <= {*files, *local}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for path, pushed, is_new in pool.map(put, sorted(local)):
                files[path] = pushed
                has_news |= is_new
        if not has_news:
            return before
        content = json.dumps({"files": {path: asdict(files[path]) for path in sorted(files)}}, indent=0)
        lease.check()
        if not store.put_if_absent(_commit_key(number), content.encode()):
            raise UserError(f"{store.url}: another push has committed meanwhile; run the same command again")
        commit = Commit(number, files)
        for path in sorted(set(local) & {path for path, each in files.items() if each.object.startswith(COMMITS)}):
            if files[path] != before.files.get(path):
                store.put(path, local[path])
        for path in sorted(set(before.files) - set(files)):
            store.delete(path)
        return commit


def pull(store: Store, folder: Path, wanted: Callable[[str], bool] = lambda path: True) -> Commit:
    """Bring a local copy of an output up to its last commit; files that it has already are not read again.

    Args:
        store: where the output lies.
        folder: the copy; files that the commit does not have are removed from it.
        wanted: which files are needed, by their paths.

    Raises:
        UserError: there is no output.
        StoreError: the storage refuses, or the output changed meanwhile.
    """
    commit = last_commit(store)
    if not commit.number:
        raise UserError(
            f"{store.url}: no output of this program (no commit); copy one there with: push DIR {store.url}"
        )
    make_folder(folder)
    with locked(folder, waiting=lambda owner: None):
        has = _pulled(folder)
        needed = {path: each for path, each in commit.files.items() if wanted(path)}
        kept: dict[str, Known] = {}
        for path, file in _files_of(folder):
            known = has.get(path)
            is_current = path in commit.files and known == (commit.files[path].digest, file.stat().st_mtime_ns)
            if known is not None and is_current:
                kept[path] = known
            else:  # of an earlier commit, or of a command that ended before it pushed
                file.unlink()
        missing = sorted(set(needed) - set(kept))
        for path in missing:
            make_folder((folder / path).parent)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda path: _fetch(store, needed[path], folder / path), missing))
        kept |= {path: (needed[path].digest, (folder / path).stat().st_mtime_ns) for path in missing}
        atomic_write(folder / PULLED, json.dumps(kept))
    return commit


def leftovers(store: Store) -> list[Entry]:
    """Return the objects that the last commit does not need: of dead pushes, and of commits before it."""
    commit = last_commit(store)
    needed = {each.object for each in commit.files.values()} | set(commit.files) | {_commit_key(commit.number), LEASE}
    return [entry for entry in store.list() if entry.key not in needed]


def remove(store: Store, entries: Iterable[Entry]) -> int:
    """Delete what `leftovers` still names; return how many. Nobody may push meanwhile.

    Raises:
        UserError: somebody pushes.
    """
    asked = {entry.key for entry in entries}
    count = 0
    with store.lease(LEASE) as lease:
        for entry in leftovers(store):
            if entry.key in asked:
                lease.check()
                store.delete(entry.key)
                count += 1
    return count


def _commit_key(number: int) -> str:
    return f"{COMMITS}/{number:08d}.json"


def _expect_same_output(out: Path, store: Store, before: Commit) -> None:
    """Refuse to replace an output by one that was made with another recipe's shots and operators, or other things.

    Raises:
        UserError: what lies there was not pushed by this program.
    """
    if not (out / RECIPE).is_file():
        raise UserError(f"{out}: not an output of curate (no {RECIPE}); run run_pipeline.py curate first")
    if not before.number and any(entry.key == RECIPE for entry in store.list(RECIPE)):
        try:
            theirs = store.read(RECIPE)
        except MissingError:
            return
        if theirs != (out / RECIPE).read_bytes():
            raise UserError(f"{store.url}: holds another output without a commit; give another place, or delete it")


def _files_of(out: Path) -> Iterator[tuple[str, Path]]:
    """Yield what is published of an output: path within it, and file; nothing hidden, and nothing half written."""
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if any(part.startswith(".") for part in name.split("/")) or TEMPORARY_NAME.match(path.name):
            continue
        if path.is_file() and not name.startswith((*LEFT_OUT, f"{COMMITS}/")):
            yield name, path


def _pulled(folder: Path) -> dict[str, Known]:
    """Return what is known of a copy's files; nothing where that cannot be read: then all are read again."""
    try:
        values = json.loads((folder / PULLED).read_text(encoding="utf-8"))
        return {str(path): (str(digest), int(mtime_ns)) for path, (digest, mtime_ns) in values.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _fetch(store: Store, pushed: Pushed, path: Path) -> None:
    """Read one file of a commit, in pieces of one version.

    Raises:
        StoreError: it is not what was pushed.
    """
    digest, pieces = hashlib.sha256(), []
    for start in range(0, pushed.size_bytes, PIECE_BYTES):
        pieces.append(store.read(pushed.object, start, PIECE_BYTES, pushed.version))
        digest.update(pieces[-1])
    if digest.hexdigest() != pushed.digest:
        raise StoreError(f"{store.url}/{pushed.object}: not what was pushed; push the output again")
    atomic_write(path, b"".join(pieces), to_disk=False)
