"""An output in a bucket: published so that readers see the last whole state or the one before, and pulled by commit.

An object that a commit names is not written again before the next commit is there: what is new goes to its own name,
what has changed below the new commit, and only then to its own name. Our readers ask for the version that the commit
names, so that they have one commit whole, or an error that says to run again.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from core.digest import file_sha256
from core.errors import UserError
from core.files import TEMPORARY_NAME, atomic_path, atomic_write, make_folder
from core.lock import locked
from core.storage.object_store import COPY_BYTES
from core.storage.staging import download
from core.storage.store import Entry, Lease, MissingError, Store, StoreError
from curation.folders import PARTS
from curation.inputs.outputs import RECIPE
from curation.output.commits import (
    COMMITS,
    LEASE,
    Commit,
    Pushed,
    commit_key,
    commit_text,
    last_commit,
    next_commit,
    object_key,
)
from curation.output.stand_ins import stands_for, write_stand_in

PULLED = ".pulled.json"
"""in a pulled copy: what its files are, and since when"""
WITHIN_PARTS = f"{PARTS}/"
"""what belongs to a run that goes on, and not to what is published"""
AT_ONCE = 16
Known = tuple[str, int]
"""digest of a pulled file, and its time of change when it was pulled"""


class ChangingError(Exception):
    """A file changed or went while it was uploaded: a run goes on there."""


class FileState(NamedTuple):
    """What changes whenever a file does."""

    size_bytes: int
    mtime_ns: int
    inode: int


@dataclass
class Digests:
    """SHA-256 of local files; each state of a file is read once.

    Attributes:
        objects: by digest, what the storage has beside the files of the last commit.
    """

    objects: Mapping[str, Pushed] = field(default_factory=dict)
    _known: dict[str, tuple[FileState, str]] = field(default_factory=dict)

    def of(self, path: str, file: Path) -> str:
        """Return the digest of a file, or of what it stands for.

        Raises:
            ChangingError: it is gone.
        """
        try:
            state = state_of(file)
            known = self._known.get(path)
            if known is None or known[0] != state:
                known = self._known[path] = (state, stands_for(file, state.size_bytes) or file_sha256(file))
        except FileNotFoundError:
            raise ChangingError(path) from None
        return known[1]


def state_of(file: Path) -> FileState:
    """Return a file's state as it is now."""
    status = file.stat()
    return FileState(status.st_size, status.st_mtime_ns, status.st_ino)


def push(
    out: Path, store: Store, keeps: Callable[[str], bool] = lambda path: False, based_on: int | None = None
) -> Commit:
    """Copy an output's files to a store and commit them.

    Args:
        out: the output, which nobody writes meanwhile.
        store: where it shall lie; what was committed there before is replaced.
        keeps: of a file that the last commit has and `out` does not: whether it stays.
        based_on: number of the commit that `out` is a changed copy of; null: it is no copy.

    Returns:
        The commit: the last one where nothing has changed.

    Raises:
        UserError: somebody else pushes there, has pushed since, or it holds another output.
        StoreError: the storage refuses.
    """
    with store.lease(LEASE) as lease:
        before = last_commit(store)
        if based_on is not None and before.number != based_on:
            raise UserError(f"{store.url}: has changed since it was read; run the same command again")
        expect_same_output(out, store, before)
        complete(store, before)
        kept = {path: each for path, each in before.files.items() if keeps(path)}
        return publish(dict(files_of(out)), store, lease, before, kept=kept)


def publish(
    local: Mapping[str, Path],
    store: Store,
    lease: Lease,
    before: Commit,
    *,
    digests: Digests | None = None,
    by: str = "",
    kept: Mapping[str, Pushed] | None = None,
) -> Commit:
    """Upload files that a store does not have yet, and commit them.

    Args:
        local: the files by path within the output, stand-ins among them.
        store: where they shall lie.
        lease: held on it.
        before: its last commit.
        digests: what is known of the files.
        by: id of the working folder.
        kept: what of the last commit stays though it is not among the files.

    Returns:
        The commit: the last one where nothing has changed.

    Raises:
        UserError: somebody else has committed.
        StoreError: the storage refuses, or a file stands for what the storage does not have.
        ChangingError: a file changed meanwhile; nothing was committed.
    """
    digests = digests or Digests()
    stored = {**digests.objects, **{each.digest: each for each in before.files.values()}}
    upload = _Upload(store, lease, before, stored, digests)
    files = dict(kept or {})
    first = [RECIPE] if RECIPE in local else []  # by which everybody knows an output, before there is more of it
    files |= {path: upload.one(path, local[path]) for path in first}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        rest = sorted(set(local) - set(first))
        files |= zip(rest, pool.map(lambda path: upload.one(path, local[path]), rest), strict=True)
    if files == dict(before.files):
        return before
    lease.check()
    commit = next_commit(store, before, files, by)
    lease.check()
    if not store.put_if_absent(commit_key(commit.number), commit_text(commit)):
        raise UserError(f"{store.url}: another process has committed meanwhile; run the same command again")
    changed = [p for p, each in files.items() if each.object != p and each != before.files.get(p)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda path: store.copy(files[path].object, path), sorted(changed)))
        list(pool.map(store.delete, sorted(set(before.files) - set(files))))
    return commit


@dataclass(frozen=True)
class _Upload:
    """Brings files to a store for the commit after `before`."""

    store: Store
    lease: Lease
    before: Commit
    by_digest: Mapping[str, Pushed]
    digests: Digests

    def one(self, path: str, file: Path) -> Pushed:
        """Upload a file, or let the storage copy what it has already; nothing where it has just this.

        Raises:
            ChangingError: the file changed or went meanwhile.
            StoreError: the storage refuses, or the lease was lost: what lies there may be another process's now.
        """
        digest = self.digests.of(path, file)
        known = self.before.files.get(path)
        if known is not None and known.digest == digest:
            return known
        key = path if known is None else object_key(path, self.before.number + 1)
        self.lease.check()
        try:
            state = state_of(file)
            is_stand_in = stands_for(file, state.size_bytes) is not None
            stored = self.by_digest.get(digest)
            if stored is not None and (is_stand_in or 0 < state.size_bytes <= COPY_BYTES):
                return Pushed(key, stored.size_bytes, self.store.copy(stored.object, key), digest)
            if is_stand_in:
                raise StoreError(f"{self.store.url}: does not hold {path}, and this machine neither; curate it anew")
            version = self.store.put(key, file)
            if self.digests.of(path, file) != digest:
                raise ChangingError(path)
        except (FileNotFoundError, MissingError):
            if not file.exists():
                raise ChangingError(path) from None
            raise
        return Pushed(key, state.size_bytes, version, digest)


def complete(store: Store, commit: Commit) -> None:
    """Let files have their commit's content under their own names, too, where a process died before it came to that."""
    changed = {path: each for path, each in commit.files.items() if each.object != path}

    def restore(path: str) -> None:
        try:
            is_there = store.stat(path).version == changed[path].version
        except MissingError:
            is_there = False
        if not is_there:
            store.copy(changed[path].object, path)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(restore, sorted(changed)))


def pull(
    store: Store,
    folder: Path,
    wanted: Callable[[str], bool] = lambda path: True,
    stands_in: Callable[[str], bool] = lambda path: False,
    commit: Commit | None = None,
) -> Commit:
    """Bring a local copy of an output up to its last commit; files that it has already are not read again.

    Args:
        store: where the output lies.
        folder: the copy; files that the commit does not have are removed from it.
        wanted: which files are needed, by their paths.
        stands_in: for which of the others a stand-in is written.
        commit: the last one, where it is known.

    Raises:
        UserError: there is no output.
        StoreError: the storage refuses, or the output changed meanwhile.
    """
    commit = commit or last_commit(store)
    if not commit.number:
        raise UserError(
            f"{store.url}: no output of this program (no commit); copy one there with: push DIR {store.url}"
        )
    make_folder(folder)
    with locked(folder, waiting=lambda owner: None):
        has = _pulled(folder)
        needed = {path: each for path, each in commit.files.items() if wanted(path)}
        absent = {path: each for path, each in commit.files.items() if path not in needed and stands_in(path)}
        kept: dict[str, Known] = {}
        for path, file in files_of(folder, with_parts=True):
            known = has.get(path)
            is_current = path in commit.files and known == (commit.files[path].digest, file.stat().st_mtime_ns)
            is_whole = path not in needed or stands_for(file, file.stat().st_size) is None
            if known is not None and is_current and is_whole:
                kept[path] = known
            else:  # of an earlier commit, or of a command that ended before it pushed
                file.unlink()
        missing, standing = sorted(set(needed) - set(kept)), sorted(set(absent) - set(kept))
        for parent in {(folder / path).parent for path in (*missing, *standing)}:
            make_folder(parent)
        for path in standing:
            write_stand_in(folder / path, absent[path].digest)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda path: _fetch(store, needed[path], folder / path), missing))
        new = {path: commit.files[path].digest for path in (*missing, *standing)}
        kept |= {path: (digest, (folder / path).stat().st_mtime_ns) for path, digest in new.items()}
        atomic_write(folder / PULLED, json.dumps(kept))
    return commit


def expect_same_output(out: Path, store: Store, before: Commit, mark: str = RECIPE) -> None:
    """Refuse to replace an output by one that was made with another recipe's shots and operators, or other things.

    Args:
        out: the output.
        store: where it shall lie.
        before: the last commit there.
        mark: the file by which it is known.

    Raises:
        UserError: what lies there was not pushed by this program.
    """
    if not (out / mark).is_file():
        raise UserError(f"{out}: not an output of curate (no {mark}); run run_pipeline.py curate first")
    if not before.number and any(entry.key == mark for entry in store.list(mark)):
        try:
            theirs = store.read(mark)
        except MissingError:
            return
        if theirs != (out / mark).read_bytes():
            raise UserError(f"{store.url}: holds another output without a commit; give another place, or delete it")


def files_of(out: Path, *, with_parts: bool = False) -> Iterator[tuple[str, Path]]:
    """Yield what is published of an output: path within it, and file; nothing hidden, and nothing half written."""
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if any(part.startswith(".") for part in name.split("/")) or TEMPORARY_NAME.match(path.name):
            continue
        if path.is_file() and not name.startswith((f"{COMMITS}/", LEASE, *(() if with_parts else (WITHIN_PARTS,)))):
            yield name, path


def _pulled(folder: Path) -> dict[str, Known]:
    """Return what is known of a copy's files; nothing where that cannot be read: then all are read again."""
    try:
        values = json.loads((folder / PULLED).read_text(encoding="utf-8"))
        return {str(path): (str(digest), int(mtime_ns)) for path, (digest, mtime_ns) in values.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _fetch(store: Store, pushed: Pushed, path: Path) -> None:
    """Read one file of a commit, in parts of one version.

    Raises:
        StoreError: it is not what was pushed.
    """
    with atomic_path(path, to_disk=False) as temporary:
        download(store, Entry(pushed.object, pushed.size_bytes, pushed.version), temporary)
        if file_sha256(temporary) != pushed.digest:
            raise StoreError(f"{store.url}/{pushed.object}: not what was pushed; push the output again")
