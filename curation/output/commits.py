"""What belongs together of an output in a bucket: commits, and what none of them needs any more.

    _commits/00000007.json      what belongs to the output: each file's object, size, version and digest
    _commits/00000007/…         files that changed with this commit
    _commits/layers/<sha256>    of many files: what commits changed; a commit names its layers, oldest first
    _work/…                     what nodes have delivered and no commit has taken yet (`deliveries`)
    train/… clips/… report.html the files under their own names, for browsers and programs that know no commits

The last commit is the output; an earlier one is kept only until the process that replaced it ends.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import NamedTuple

from core.storage.store import Entry, Lease, MissingError, Store, StoreError
from curation.folders import CLIPS, CONTROLS, PARTS, PREVIEWS, RETIRED, SHARDS, TABLE

COMMITS, LEASE, WORK = "_commits", "_lease", "_work"
TRIES = 3
MOST_INLINE = 1000
"""files of an output whose commits hold all of them, as those of 0.10 do"""
MOST_IN_LAYER = 200_000
"""files; some 30 MB"""
LAYERS_AT_ONCE = 8
_COMMIT = re.compile(rf"{COMMITS}/(\d{{8}})\.json")
_ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_OURS = re.compile(
    rf"{COMMITS}/(?:\d{{8}}(?:\.json|/.+)|layers/[0-9a-f]{{64}})|{PARTS}/[^/]+\.parquet|{TABLE}/part-\d+\.parquet|{RETIRED}/rows\.parquet|"
    rf"{SHARDS}/[^/]+|(?:{CLIPS}|{RETIRED})/{_ID}\.\w+|(?:{RETIRED}/)?{CONTROLS}/\w+/{_ID}\.\w+|"
    rf"{PREVIEWS}/[0-9a-f]{{2}}/{_ID}-\d+\.jpg|checkpoints/step-\d{{8}}/.+|"
    rf"{WORK}/[0-9a-f]{{32}}/(?:files|parts)/[0-9a-f]{{64}}/.+"
)
"""what runs and pushes write beside the few files at the top, which every commit has: nothing else is ever removed"""


@dataclass(frozen=True, slots=True)
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


class Layer(NamedTuple):
    """An object with files of commits; a later layer's have precedence."""

    sha256: str
    num_files: int


@dataclass(frozen=True)
class Commit:
    """One whole state of an output.

    Attributes:
        number: from 1 on; 0: nothing has been committed.
        files: by path within the output.
        by: id of the working folder that a run committed it from; nothing where it was pushed.
        layers: objects that hold the files; none where the commit does.
    """

    number: int
    files: Mapping[str, Pushed]
    by: str = ""
    layers: tuple[Layer, ...] = ()


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
        by = str(values.get("by", ""))
        if "layers" not in values:
            return Commit(number, {str(path): Pushed(**each) for path, each in values["files"].items()}, by)
        layers = tuple(Layer(str(sha256), int(count)) for sha256, count in values["layers"])
        found: dict[str, Pushed | None] = {}
        with ThreadPoolExecutor(LAYERS_AT_ONCE) as pool:
            for changed in pool.map(lambda layer: _read_layer(store, layer), layers):
                found |= changed
        return Commit(number, {path: each for path, each in found.items() if each is not None}, by, layers)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(f"{store.url}/{commit_key(number)}: not a commit of an output; push it again") from None


def commit_key(number: int) -> str:
    """Return the key of a commit."""
    return f"{COMMITS}/{number:08d}.json"


def object_key(path: str, number: int) -> str:
    """Return the key of what holds a file that changed with a commit."""
    return f"{COMMITS}/{number:08d}/{path}"


def layer_key(layer: Layer) -> str:
    """Return the key of a layer."""
    return f"{COMMITS}/layers/{layer.sha256}"


def next_commit(store: Store, before: Commit, files: Mapping[str, Pushed], by: str = "") -> Commit:
    """Return the commit that follows another, after its layers were written; the commit itself is not yet there.

    Of many files only changes are written. Small layers are merged with what comes next, so that there are few, each
    at least twice as large as the one after it, or full.

    Args:
        store: where the output lies.
        before: its last commit.
        files: what shall belong to the output.
        by: as `Commit.by`.

    Raises:
        StoreError: the storage refuses.
    """
    if len(files) <= MOST_INLINE:
        return Commit(before.number + 1, files, by)
    layers, changed = list(before.layers), dict[str, Pushed | None](files)
    if sum(layer.num_files for layer in layers) > 2 * len(files):  # most of it is outdated
        layers = []
    if layers:
        old = before.files
        changed = {path: each for path, each in files.items() if old.get(path) is not each and old.get(path) != each}
        changed |= dict.fromkeys(old.keys() - files.keys())
    while layers and layers[-1].num_files <= min(2 * len(changed), MOST_IN_LAYER - len(changed)):
        changed = _read_layer(store, layers.pop()) | changed
    paths = sorted(path for path, each in changed.items() if layers or each is not None)
    for start in range(0, len(paths), MOST_IN_LAYER):
        some = {path: changed[path] for path in paths[start : start + MOST_IN_LAYER]}
        content = _layer_text(some)
        layers.append(Layer(hashlib.sha256(content).hexdigest(), len(some)))
        store.put(layer_key(layers[-1]), content)
    return Commit(before.number + 1, files, by, tuple(layers))


def _layer_text(files: Mapping[str, Pushed | None]) -> bytes:
    """Return what the object of a layer holds: by path object, size, version and digest; null of what is gone."""
    rows = {
        path: each and ["" if each.object == path else each.object, each.size_bytes, each.version, each.digest]
        for path, each in files.items()
    }
    return json.dumps(rows, separators=(",", ":")).encode()


def _read_layer(store: Store, layer: Layer) -> dict[str, Pushed | None]:
    """Return the files of a layer; None is what was removed.

    Raises:
        MissingError: it is gone, since a later commit is there.
        ValueError, TypeError, AttributeError: it is none.
    """
    rows = json.loads(store.read(layer_key(layer)))
    return {path: None if row is None else Pushed(row[0] or path, *row[1:]) for path, row in rows.items()}


def commit_text(commit: Commit) -> bytes:
    """Return what the object of a commit holds."""
    if commit.layers:
        values = {"layers": [list(layer) for layer in commit.layers], "by": commit.by}
        return json.dumps(values, separators=(",", ":")).encode()
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
    needed |= {layer_key(layer) for layer in last.layers}
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
