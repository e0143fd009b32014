"""What belongs together of an output in a bucket: commits, and what none of them needs any more.

    _commits/00000007.json      what belongs to the output: each file's object, size, version and digest
    _commits/00000007/…         files that changed with this commit
    _work/…                     what nodes have delivered and no commit has taken yet (`deliveries`)
    train/… clips/… report.html the files under their own names, for browsers and programs that know no commits

The last commit is the output; an earlier one is kept only until the process that replaced it ends.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from core.storage.store import Entry, Lease, MissingError, Store, StoreError
from curation.folders import CLIPS, CONTROLS, PARTS, PREVIEWS, RETIRED, SHARDS, TABLE

COMMITS, LEASE, WORK = "_commits", "_lease", "_work"
TRIES = 3
_COMMIT = re.compile(rf"{COMMITS}/(\d{{8}})\.json")
_ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_OURS = re.compile(
    rf"{COMMITS}/\d{{8}}(?:\.json|/.+)|{PARTS}/[^/]+\.parquet|{TABLE}/part-\d+\.parquet|{RETIRED}/rows\.parquet|"
    rf"{SHARDS}/[^/]+|(?:{CLIPS}|{RETIRED})/{_ID}\.\w+|(?:{RETIRED}/)?{CONTROLS}/\w+/{_ID}\.\w+|"
    rf"{PREVIEWS}/[0-9a-f]{{2}}/{_ID}-\d+\.jpg|checkpoints/step-\d{{8}}/.+|"
    rf"{WORK}/[0-9a-f]{{32}}/(?:files|parts)/[0-9a-f]{{64}}/.+"
)
"""what runs and pushes write beside the few files at the top, which every commit has: nothing else is ever removed"""


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
        by: id of the working folder that a run committed it from; nothing where it was pushed.
    """

    number: int
    files: Mapping[str, Pushed]
    by: str = ""


def last_commit(store: Store) -> Commit:
    """Return the last commit, an empty one where there is none.

    Raises:
        StoreError: the storage refuses, or the commit cannot be read.
    """
    for left in reversed(range(TRIES)):
        numbers = [int(found[1]) for entry in store.list(f"{COMMITS}/") if (found := _COMMIT.fullmatch(entry.key))]
        if not numbers:
            return Commit(0, {})
        try:
            return read_commit(store, max(numbers))
        except MissingError:  # a later one has come since it was listed, and this one was removed
            if not left:
                raise
    raise AssertionError


def read_commit(store: Store, number: int) -> Commit:
    """Return a commit.

    Raises:
        MissingError: there is none of this number.
        StoreError: it cannot be read.
    """
    try:
        values = json.loads(store.read(commit_key(number)))
        files = {str(path): Pushed(**each) for path, each in values["files"].items()}
        return Commit(number, files, str(values.get("by", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(f"{store.url}/{commit_key(number)}: not a commit of an output; push it again") from None


def commit_key(number: int) -> str:
    """Return the key of a commit."""
    return f"{COMMITS}/{number:08d}.json"


def object_key(path: str, number: int) -> str:
    """Return the key of what holds a file that changed with a commit."""
    return f"{COMMITS}/{number:08d}/{path}"


def commit_text(commit: Commit) -> bytes:
    """Return what the object of a commit holds."""
    files = {path: asdict(commit.files[path]) for path in sorted(commit.files)}
    return json.dumps({"files": files} | ({"by": commit.by} if commit.by else {}), separators=(",", ":")).encode()


def leftovers(store: Store, commit: Commit | None = None) -> list[Entry]:
    """Return the objects of outputs that the last commit does not need: of dead runs and pushes, and of those before.

    Args:
        store: where the output lies.
        commit: the last one, where it is known.
    """
    last = last_commit(store) if commit is None else commit
    needed = {each.object for each in last.files.values()} | set(last.files) | {commit_key(last.number)}
    return [entry for entry in store.list() if entry.key not in needed and _OURS.fullmatch(entry.key)]


def remove(store: Store, entries: Iterable[Entry]) -> int:
    """Delete what `leftovers` still names; return how many. Nobody may push meanwhile.

    Raises:
        UserError: somebody pushes.
    """
    asked = {entry.key for entry in entries}
    with store.lease(LEASE) as lease:
        return remove_held(store, lease, [entry for entry in leftovers(store) if entry.key in asked])


def remove_held(store: Store, lease: Lease, entries: Iterable[Entry]) -> int:
    """Delete objects while the lease is held; return how many."""
    count = 0
    for entry in entries:
        lease.check()
        store.delete(entry.key)
        count += 1
    return count
