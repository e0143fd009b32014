"""Outputs that lie in buckets: pulled for commands that read them, and the commands `push` and `clean`."""

import argparse
import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cli.common import print_json
from cli.parser import add_json
from cli.places import telling
from core.errors import RunError, UserError
from core.sanitize import printable
from core.storage.object_store import ObjectStore
from core.storage.opening import open_store
from core.storage.place import record_place
from core.storage.staging import stage_folder
from core.storage.urls import is_url
from curation.folders import PREVIEWS
from curation.output.bucket import WITHIN_PARTS, pull, push
from curation.output.commits import leftovers, remove
from curation.output.folder import output_lock
from curation.output.remote import CURATED, Layout, RemoteOutput, remote_output
from curation.output.stand_ins import may_stand_in
from curation.pipeline import need_table

PUSH_HELP = "copy an output to a bucket, so that readers see all of it or what was there before"
CLEAN_HELP = "list or remove what dead runs and earlier pushes left"


@contextmanager
def output_at(name: str, leaves_out: Collection[str], *, puts_back: bool = False) -> Iterator[Path]:
    """Have an output as a local folder while the block runs: itself, or a copy of what lies in a bucket.

    Args:
        name: folder or URL.
        leaves_out: folders of the output, such as `previews`, whose media are not needed.
        puts_back: whether files that the block has written or changed are pushed.
    """
    if not is_url(name):
        yield Path(name)
        return
    store = open_store(name)
    folder = stage_folder() / "outputs" / hashlib.blake2b(store.url.encode(), digest_size=12).hexdigest()

    def is_absent(path: str) -> bool:
        is_left = path.partition("/")[0] in leaves_out and (may_stand_in(path) or path.startswith(f"{PREVIEWS}/"))
        return is_left or path.startswith(WITHIN_PARTS)

    commit = pull(store, folder, lambda path: not is_absent(path))
    record_place(folder, store.url)
    with telling({str(folder): store.url}):
        yield folder
    if puts_back:
        push(folder, store, keeps=is_absent, based_on=commit.number)


@contextmanager
def output_in_bucket(url: str, layout: Layout = CURATED) -> Iterator[RemoteOutput]:
    """Have an output that lies in a bucket to write on while the block runs; what broke it leaves it committed.

    Errors tell of the URL in the place of the folder on this machine.

    Args:
        url: where the output lies.
        layout: what is committed of it.
    """
    store = open_store(url)
    if not isinstance(store, ObjectStore) or not store.can_write:
        raise UserError(f"{url}: cannot be written to; name a folder or s3://, gs://, az://")
    with remote_output(store, layout) as output, telling({str(output.folder): output.url}):
        try:
            yield output
        except RunError:
            with suppress(RunError):  # let the bucket have what is finished, if it takes it
                output.commit()
            raise


def add_push_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `push`."""
    parser.add_argument("output", metavar="DIR")
    parser.add_argument("url", metavar="URL", help="such as s3://bucket/folder")
    add_json(parser)


def run_push(parsed: argparse.Namespace) -> int:
    """Copy an output to a store and commit it."""
    out = Path(parsed.output)
    need_table(out)
    if not is_url(parsed.url):
        raise UserError(f"{parsed.url}: not a URL; name a place such as s3://bucket/folder")
    store = open_store(parsed.url)
    with output_lock(out, media=False):
        commit = push(out, store)
    size_bytes = sum(each.size_bytes for each in commit.files.values())
    if parsed.json:
        print_json({"url": store.url, "commit": commit.number, "files": len(commit.files), "bytes": size_bytes})
        return 0
    print(f"{store.url}: commit {commit.number}, {len(commit.files)} files, {size_bytes / 1e6:.1f} MB")
    return 0


def add_clean_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `clean`."""
    parser.add_argument("url", metavar="URL", help="an output in a bucket")
    parser.add_argument("--remove", action="store_true", help="remove what is listed")
    add_json(parser)


def run_clean(parsed: argparse.Namespace) -> int:
    """List or remove what the last commit of an output does not need."""
    if not is_url(parsed.url):
        raise UserError(f"{parsed.url}: a local output is cleaned by every run of curate and select; name a URL")
    store = open_store(parsed.url)
    found = leftovers(store)
    removed = remove(store, found) if parsed.remove else 0
    size_bytes = sum(entry.size_bytes for entry in found)
    if parsed.json:
        print_json({"leftovers": [entry.key for entry in found], "bytes": size_bytes, "removed": removed})
        return 0
    for entry in found:
        print(printable(entry.key))
    done = f"removed {removed}" if parsed.remove else "--remove removes them"
    print(f"{store.url}: {len(found)} leftovers, {size_bytes / 1e6:.1f} MB; {done}")
    return 0
