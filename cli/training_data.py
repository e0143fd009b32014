"""Data to train on that lie in buckets: outputs, the sources that their clips are spans of, and metadata with files."""

import posixpath
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cli.buckets import output_at
from cli.places import Inputs, looks_like_file
from core.errors import UserError
from core.storage.copies import Wanted, copied
from core.storage.object_store import object_at
from core.storage.opening import open_store
from core.storage.place import called
from core.storage.staging import version_number
from core.storage.store import StoreError
from core.storage.urls import is_url
from curation.export import open_table
from curation.folders import PREVIEWS, RETIRED, SHARDS
from curation.output.commits import last_commit

AT_ONCE = 16
SPANS = ("source_root", "source_path", "source_mtime_ns")


def data_at(here: Inputs, url: str, *, has_root: bool) -> Mapping[str, str | None]:
    """Return `data.metadata`, and `data.root` where that changes, for data at a URL.

    Args:
        here: has copies.
        url: an output of `curate`, a folder, or a metadata file, beside which its files lie.
        has_root: whether the sources' root is given.

    Raises:
        UserError: it cannot be read.
    """
    if not last_commit(open_store(url)).number:
        if looks_like_file(url) and not url.endswith(".tar"):
            folder, _, name = url.rpartition("/")
            return {"data.metadata": str(here.at(folder) / name)}
        return {"data.metadata": str(here.at(url))}
    out = here.enter(output_at(url, (PREVIEWS, RETIRED, SHARDS)))
    root = None if has_root else root_at(here, out)
    return {"data.metadata": str(out)} | ({} if root is None else {"data.root": root})


def root_at(here: Inputs, out: Path) -> str | None:
    """Return a folder with the sources in buckets that clips of an output are spans of; None: there are none.

    Raises:
        UserError: there are others, too, or one has changed since it was curated.
    """
    try:
        table = open_table(out).to_table(columns=[*SPANS, "clip_path", "status"])
    except (pa.ArrowException, OSError):  # reading it will tell
        return None
    uncut = pc.and_(pc.equal(table["status"], "accepted"), pc.is_null(table["clip_path"]))
    spans = table.filter(uncut).select(SPANS).group_by(list(SPANS)).aggregate([]).to_pylist()
    if not any(is_url(span["source_root"] or "") for span in spans):
        return None
    if local := [span for span in spans if not is_url(span["source_root"] or "")]:
        raise UserError(
            f"{called(out)}: spans of sources that lie in buckets and of others, such as {local[0]['source_path']}; "
            "set data.root to a folder that holds all of them"
        )
    with ThreadPoolExecutor(AT_ONCE) as pool:
        files = dict(pool.map(_source, spans))
    place = called(out.absolute())
    return str(here.enter(copied(f"{place} sources", place, files)))


def _source(span: dict[str, Any]) -> tuple[str, Wanted]:
    """Return a source's path in the output, and the object that it is.

    Raises:
        StoreError: it is gone, or another one now.
    """
    url = posixpath.join(span["source_root"], span["source_path"])
    store, name = object_at(url)
    entry = store.stat(name)
    if version_number(entry.version) != span["source_mtime_ns"]:
        raise StoreError(f"{url}: has changed since it was curated; curate again")
    return span["source_path"], Wanted(store, entry)
