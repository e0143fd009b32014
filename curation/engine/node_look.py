"""What a node of a cluster finds when it looks at itself for a run. It imports little: what is missing is to be said.

The driver looks at itself in the same way, and `node_checks` compares.
"""

import os
import platform
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from core.machine import Gpu, read_gpus, version_of
from core.packages import code_digests
from core.sanitize import without_secrets
from core.storage.object_store import Budget, object_at, open_object_store
from core.storage.staging import FOLDER_VARIABLE, stage_folder
from core.storage.store import StoreError
from core.storage.urls import is_url
from curation.engine.node_checks import Fault, ModelNeed, NodeFacts

if TYPE_CHECKING:
    from curation.types import Source

T = TypeVar("T")
BASE_PACKAGES = (
    *("ray", "av", "numpy", "pyarrow", "opencv-python-headless", "onnxruntime", "scenedetect-headless", "rapidocr"),
    *("pandas", "pillow"),
)
"""what every run computes with"""
OTHER_NAMES = {"opencv-python-headless": ("opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")}
"""packages that bring the same module"""
MOST_SAMPLES = 32
MOST_BUCKETS = 8
BRIEFLY = Budget(tries=3, pause_s=0.2, most_s=20.0)
CHECK_PREFIX = "_work/check-"


@dataclass(frozen=True)
class Sample:
    """A source that nodes try to read.

    Attributes:
        root: folder or URL that it was found in.
        place: the file or object.
        size_bytes: its length.
        is_remote: whether it lies in a bucket or on a web server.
    """

    root: str
    place: str
    size_bytes: int
    is_remote: bool


@dataclass(frozen=True)
class RunNeeds:
    """What a run needs of every node that works for it.

    Attributes:
        packages: whose versions are compared.
        samples: sources that must be readable.
        largest_remote_bytes: of the sources that nodes copy to their own disk before they read them; 0: there are none.
        bucket: where the output goes, if that is a URL.
        models: what workers take of GPUs, where there are any.
        lacks: says what the run's models lack on a node, given `runs_gpu_steps`: whether those may run there.
    """

    packages: tuple[str, ...] = BASE_PACKAGES
    samples: tuple[Sample, ...] = ()
    largest_remote_bytes: int = 0
    bucket: str | None = None
    models: tuple[ModelNeed, ...] = ()
    lacks: Callable[..., Sequence[Fault]] | None = None


@dataclass(frozen=True)
class Question:
    """What one node is asked.

    Attributes:
        needs: of the run; without `lacks`, which is asked apart, since it imports much.
        mark: a file that the driver made in the output folder.
    """

    needs: RunNeeds = field(default_factory=RunNeeds)
    mark: str | None = None


def samples_of(sources: Iterable["Source"]) -> tuple[Sample, ...]:
    """Return a few sources of every root: of a folder some from its beginning to its end, of a bucket one."""
    roots: dict[str, list[Source]] = {}
    for source in sources:
        roots.setdefault(source.root, []).append(source)
    remote = [root for root in roots if is_url(root)]
    local = _spread([root for root in roots if not is_url(root)], MOST_SAMPLES)
    chosen = [roots[root][0] for root in _spread(remote, MOST_BUCKETS)]
    chosen += [source for root in local for source in _spread(roots[root], MOST_SAMPLES // len(local))]
    return tuple(Sample(each.root, each.url, each.size_bytes, each.is_remote) for each in chosen)


def _spread(items: list[T], most: int) -> list[T]:
    """Return so many of a list at most, evenly from its first to its last."""
    if len(items) <= most:
        return items
    return [items[round(number * (len(items) - 1) / max(1, most - 1))] for number in range(most)]


def done(work: Callable[[], T], after: object) -> T:
    """Do what a node is asked for; Ray waits for what it comes after."""
    return work()


def look(question: Question) -> NodeFacts:
    """Look at this machine for a run."""
    needs = question.needs
    ffmpeg, lacking = _codecs()
    size_bytes = needs.largest_remote_bytes or (1 if needs.bucket else 0)
    faults = [*unreadable(needs.samples), *output_faults(question.mark, needs.bucket), *stage_faults(size_bytes)]
    return NodeFacts(
        platform.python_version(),
        {name: _installed(name) for name in needs.packages},
        ffmpeg,
        lacking,
        dict(code_digests()),
        read_gpus(),
        tuple(Fault(without_secrets(fault.what), fault.fix) for fault in faults),  # this node's own, too
    )


def _installed(package: str) -> str | None:
    found = (version_of(name) for name in (package, *OTHER_NAMES.get(package, ())))
    return next(filter(None, found), None)


def _codecs() -> tuple[str, tuple[str, ...]]:
    try:
        from media.codecs import read_codecs
    except ImportError:  # the versions of packages tell
        return "", ()
    codecs = read_codecs()
    return codecs.ffmpeg, (*codecs.missing_decoders, *codecs.missing_encoders)


def in_use(gpus: Sequence[Gpu], count: float) -> tuple[Gpu, ...]:
    """Return those of a node's GPUs that Ray has: where it has fewer than there are, those with most memory free."""
    if count >= len(gpus):
        return tuple(gpus)
    return tuple(sorted(gpus, key=lambda gpu: -(gpu.memory_gb if gpu.free_gb is None else gpu.free_gb))[: ceil(count)])


def readable_here(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Return those that this machine can read itself: what it cannot, fails on every node, as a row of the table."""
    return tuple(sample for sample in samples if sample.is_remote or _trouble(sample) is None)


def unreadable(samples: Sequence[Sample]) -> list[Fault]:
    """Try to read sources; return one fault for each root of which some cannot be read."""
    faults = []
    for root in dict.fromkeys(sample.root for sample in samples):
        tried = [sample for sample in samples if sample.root == root]
        troubles = [(sample, trouble) for sample in tried if (trouble := _trouble(sample)) is not None]
        if not troubles:
            continue
        sample, trouble = troubles[0]
        if sample.is_remote:
            faults.append(Fault(trouble, "give that node the same credentials and network, by its environment or role"))
            continue
        many = f"{len(troubles)} of {len(tried)} files tried" if len(tried) > 1 else "1 file"
        what = f"cannot read {many} in {root}, such as {sample.place} ({trouble})"
        faults.append(Fault(what, "mount it there under the same path, or keep the footage in a bucket"))
    return faults


def _trouble(sample: Sample) -> str | None:
    try:
        if sample.is_remote:
            store, name = object_at(sample.place)
            replace(store, budget=BRIEFLY).stat(name)
            return None
        with open(sample.place, "rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            file.read(1)
    except StoreError as error:
        return str(error)
    except ModuleNotFoundError as error:
        return f"{sample.root}: no package {error.name} to read it with"
    except OSError as error:
        return error.strerror or type(error).__name__
    return None if size_bytes == sample.size_bytes else f"another file: {size_bytes} bytes, not {sample.size_bytes}"


def output_faults(mark: str | None, bucket: str | None) -> list[Fault]:
    """Try to write where the output goes.

    Args:
        mark: a file that the driver made in the output folder; null: none could be made, which the run itself will say.
        bucket: the URL that the output goes to in the end; null: it stays in the folder. A node that does not see the
            folder then writes to the bucket itself.
    """
    if mark is None:
        return []
    folder = Path(mark).parent
    if not os.path.exists(mark):
        if bucket is not None:
            return _bucket_faults(bucket)
        fix = "give --output a folder that all nodes share, or the URL of a bucket"
        return [Fault(f"does not see the output folder {folder}: it would write to a folder of its own", fix)]
    probe = folder / f".check-{uuid.uuid4().hex}"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        what = f"cannot write to the output folder {folder} ({error.strerror or type(error).__name__})"
        return [Fault(what, f"let the user there write to it (uid {os.getuid()})")]
    return []


def _bucket_faults(bucket: str) -> list[Fault]:
    try:
        store, key = open_object_store(bucket, BRIEFLY), f"{CHECK_PREFIX}{uuid.uuid4().hex}"
        store.put(key, b"check")
        store.delete(key)
    except (StoreError, ModuleNotFoundError) as error:
        fix = "give that node what it needs to write and delete there: credentials by its environment or role, network"
        return [Fault(f"cannot write to the output: {error}", fix)]
    return []


def stage_faults(size_bytes: int) -> list[Fault]:
    """See that copies of sources have a folder with room for the largest one.

    Args:
        size_bytes: of the largest source that is copied; 0: none is.
    """
    if not size_bytes:
        return []
    folder, there = stage_folder(), stage_folder()
    while not there.exists():
        there = there.parent
    fix = f"set {FOLDER_VARIABLE} there to a folder on a disk with room"
    if not there.is_dir() or not os.access(there, os.W_OK):
        return [Fault(f"cannot make copies of sources in {folder}: {there} cannot be written to", fix)]
    free_bytes = shutil.disk_usage(there).free
    if free_bytes >= size_bytes:
        return []
    what = f"has {free_bytes / 1e9:.1f} GB free in {folder}, where sources of {size_bytes / 1e9:.1f} GB are copied to"
    return [Fault(what, fix)]
