"""What workers on nodes with disks of their own deliver: by way of the bucket that the output goes to anyway.

    _work/<id of the run's folder>/files/<sha256>/<path>    clips, control maps and previews
    _work/<id of the run's folder>/parts/<sha256>/<name>    parts, each after the files of its clips

A worker writes into a folder of its own, uploads all of it before it hands rows on, and so before any part names them.
The driver takes parts and pictures into the run's folder; for clips and maps it writes stand-ins, and the next commit
lets the storage copy them to where they belong.
"""

import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from core.digest import file_sha256
from core.errors import OutputError
from core.files import HOST, atomic_write, make_folder
from core.storage.opening import open_store
from core.storage.staging import stage_folder
from core.storage.store import Entry, Store, StoreError
from curation.folders import PARTS, PREVIEWS
from curation.output.commits import WORK, Pushed
from curation.output.compaction import parts_at_rest
from curation.output.stand_ins import may_stand_in, write_stand_in
from curation.output.table import part_files
from curation.schema import FILE_COLUMNS
from curation.work import Plan

T = TypeVar("T")
R = TypeVar("R")
AT_ONCE = 16
FILES = "files"


@dataclass(frozen=True)
class Handoff:
    """Where workers that do not see a run's folder leave what they make.

    Attributes:
        url: of the output in a bucket.
        id: of the run's folder, so that nobody takes what was made for another one.
    """

    url: str
    id: str

    def prefix(self, kind: str) -> str:
        """Return what the keys of parts, or of other files, begin with."""
        return f"{WORK}/{self.id}/{kind}/"


def shared_mark(plan: Plan) -> Path:
    """Return the file by which a worker knows that it sees the run's folder."""
    return Path(plan.out) / f".shared-{plan.run}"


class Delivery:
    """Uploads what one worker process makes; its threads may call it at the same time."""

    def __init__(self, handoff: Handoff):
        """Make the worker's own folder, and remove those of dead workers of this node."""
        nodes = stage_folder() / "nodes"
        folder = nodes / f"{HOST}-{os.getpid()}"
        _remove_dead(nodes)
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        self.out = str(folder)
        """what the worker's steps take for the output"""
        self._handoff, self._folder = handoff, folder
        self._store = open_store(handoff.url)
        self._lock = threading.Lock()

    def deliver(self) -> None:
        """Upload all whole files of the worker's folder, parts last, and delete them here.

        Raises:
            OutputError: the storage refuses.
        """
        with self._lock:
            files = [path for path in self._folder.rglob("[!.]*") if path.is_file()]
            parts = [path for path in files if path.parent.name == PARTS]
            try:
                for some in ([path for path in files if path.parent.name != PARTS], parts):
                    _all(self._upload, some)
            except StoreError as error:
                raise OutputError(str(error), is_transient=error.is_transient) from None

    def _upload(self, path: Path) -> None:
        name, digest = path.relative_to(self._folder).as_posix(), file_sha256(path)
        kind = PARTS if path.parent.name == PARTS else FILES
        key = path.name if kind == PARTS else name
        self._store.put(f"{self._handoff.prefix(kind)}{digest}/{key}", path)
        path.unlink()


def delivery_of(plan: Plan, handoff: Handoff | None) -> Delivery | None:
    """Return how this worker delivers what it makes; null where it sees the run's folder.

    Raises:
        OutputError: it does not see the folder, and there is no bucket to deliver to.
    """
    if shared_mark(plan).exists():
        return None
    if handoff is None:
        raise OutputError(
            f"{plan.out}: a node of the cluster does not see this folder; give one that all nodes share, or a bucket"
        )
    return Delivery(handoff)


class Receiver:
    """Takes what workers have delivered into the run's folder: parts, and the files of the clips that parts tell of."""

    def __init__(self, handoff: Handoff, store: Store, out: Path):
        """Begin for a folder, which need not be there yet."""
        self._handoff, self._store, self._out = handoff, store, out
        self._seen: set[str] = set()
        self.objects: dict[str, Pushed] = {}
        """what lies in the bucket and belongs to no commit yet, by digest"""

    def receive(self) -> None:
        """Take what is new.

        Raises:
            StoreError: the storage refuses.
        """
        # Parts first, those of workers that see the folder among them: the files of their clips are there by now.
        here = {path.name for path in part_files(self._out)}
        parts = list(self._store.list(self._handoff.prefix(PARTS)))
        delivered = [_Delivered.of(self._handoff, entry) for entry in self._store.list(self._handoff.prefix(FILES))]
        self.objects = {each.pushed.digest: each.pushed for each in delivered}
        contents = _all(lambda entry: self._store.read(entry.key, version=entry.version), parts)
        if delivered:
            with parts_at_rest():  # those that have been merged since stand in later ones, which are looked at again
                local = [path.read_bytes() for path in part_files(self._out) if path.name not in self._seen]
            paths, clips = _told_of([*contents, *local])
            new = [each for each in delivered if each.path in paths or each.clip in clips]
            _all(self._take, [each for each in new if not (self._out / each.path).exists()])
        self._seen |= here
        for entry, content in zip(parts, contents, strict=True):
            make_folder(self._out / PARTS)
            atomic_write(self._out / PARTS / entry.key.rpartition("/")[2], content)
        _all(lambda entry: self._store.delete(entry.key), parts)  # now on disk: what is folded must not come again

    def forget(self, committed: Collection[str]) -> None:
        """Delete delivered objects that a commit has copied, by digest."""
        done = [digest for digest in self.objects if digest in committed]
        _all(lambda digest: self._store.delete(self.objects[digest].object), done)
        self.objects = {digest: each for digest, each in self.objects.items() if digest not in committed}

    def _take(self, each: "_Delivered") -> None:
        make_folder((self._out / each.path).parent)
        if may_stand_in(each.path):
            write_stand_in(self._out / each.path, each.pushed.digest)
        else:
            content = self._store.read(each.pushed.object, version=each.pushed.version)
            atomic_write(self._out / each.path, content, to_disk=False)


@dataclass(frozen=True)
class _Delivered:
    """A file that a worker has delivered.

    Attributes:
        path: within the output.
        clip: whose preview it is; nothing for other files.
        pushed: the object.
    """

    path: str
    clip: str
    pushed: Pushed

    @classmethod
    def of(cls, handoff: Handoff, entry: Entry) -> "_Delivered":
        digest, _, path = entry.key.removeprefix(handoff.prefix(FILES)).partition("/")
        clip = path.rpartition("/")[2].rpartition("-")[0] if path.startswith(f"{PREVIEWS}/") else ""
        return cls(path, clip, Pushed(entry.key, entry.size_bytes, entry.version, digest))


def _told_of(parts: Iterable[bytes]) -> tuple[set[str], set[str]]:
    """Return the files that the rows of parts name, and their clips: what a later step rejected is not among them."""
    paths: set[str] = set()
    clips: set[str] = set()
    for content in parts:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            columns = [name for name in FILE_COLUMNS if name in file.schema_arrow.names]
            rows = file.read(["clip_id", *columns])
        clips.update(rows["clip_id"].to_pylist())
        for name in columns:
            paths.update(rows[name].drop_null().to_pylist())
    return paths, clips


def _all(do: Callable[[T], R], what: Iterable[T]) -> list[R]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(do, what))


def _remove_dead(nodes: Path) -> None:
    """Remove the folders of workers of this node that were killed: what they made is made again elsewhere."""
    for folder in nodes.glob(f"{HOST}-*"):
        number = folder.name.rpartition("-")[2]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(folder, ignore_errors=True)
