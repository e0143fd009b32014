"""A look at a large video in a bucket by ranges: one that cannot be read fails before all of it is fetched."""

from functools import partial

from core.errors import MediaError
from core.storage.object_store import PART_BYTES, Budget, ObjectStore, object_at
from core.storage.ranged import RangedFile
from core.storage.staging import version_number
from core.storage.store import StoreError
from curation.types import Source
from curation.work import Plan
from media.look import refusal_of
from media.names import suffix_of
from media.types import Heartbeat

LOOKED_AT = frozenset((".mp4", ".mov", ".m4v", ".mkv", ".webm"))
"""suffixes of formats whose index is in one place"""
LEAST_BYTES = 8 * PART_BYTES
"""a smaller source is fetched in about the time that a look takes, whose requests follow each other"""
SHARE, MOST_BYTES = 0.05, 16 << 20
"""of a source that a look may read; beyond it all of the source is fetched unseen"""
LOOKING = Budget(tries=3, pause_s=0.2, most_s=10.0)


def budget_bytes(source: Source) -> int:
    """Return how much a look at a source may read: 0 where it is not worth one."""
    is_worth = source.is_remote and source.size_bytes >= LEAST_BYTES and suffix_of(source.path) in LOOKED_AT
    return min(int(SHARE * source.size_bytes), MOST_BYTES) if is_worth and not source.file.exists() else 0


def expect_size(source: Source, max_file_gb: float) -> None:
    """Refuse a source by its planned size.

    Raises:
        MediaError: it is empty or too large.
    """
    if source.size_bytes > max_file_gb * 1e9:
        raise MediaError(f"the file is larger than the {max_file_gb:g} GB of limits.max_file_gb")
    if source.size_bytes == 0:
        raise MediaError("the file is empty")


def look_at_source(plan: Plan, source: Source, most_bytes: int, beat: Heartbeat) -> tuple[str | None, int]:
    """Look at a video in a bucket; runs in the media child.

    Returns:
        Why `probe_source` would refuse it (null: it would not, or that is not known), and how many bytes were read.
    """
    found, name = object_at(source.url)
    store = ObjectStore(found.place, LOOKING)
    try:
        version = store.stat(name).version
    except StoreError:
        return None, 0
    if version_number(version) != source.mtime_ns:
        return None, 0
    read = partial(_read, store, name, version)
    file = RangedFile(read, source.size_bytes, most_bytes, f"media{source.file.suffix}")
    return refusal_of(file, plan.recipe.limits, beat), file.fetched_bytes


def _read(store: ObjectStore, name: str, version: str, start: int, length: int) -> bytes:
    return store.read(name, start, length, version)
