"""What commands read and write by URL: copies of inputs on this machine, and messages that name the URLs.

All below the command line works with folders and files of this machine.
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from core.errors import RunError, UserError
from core.files import make_folder
from core.storage.copies import Wanted, copied
from core.storage.object_store import ObjectStore, object_at, open_object_store
from core.storage.place import record_place
from core.storage.staging import stage_folder
from core.storage.store import Entry, MissingError, StoreError
from core.storage.urls import is_url, place_of
from curation.output.commits import Commit, last_commit
from models.errors import ModelError

Filter = Callable[[str], bool]
_OF_RUNS = ("checkpoints/", "samples/", "tensorboard/")


def everything(path: str) -> bool:
    """Want every file."""
    return True


def of_model(path: str) -> bool:
    """Want what sampling reads of a training run or a pipeline folder: neither checkpoints nor logs."""
    return not path.startswith(_OF_RUNS)


class Inputs:
    """What a command reads: paths as they were given, and copies of what lies in buckets."""

    def __init__(self, stack: ExitStack):
        """Keep copies until the stack is left."""
        self._stack = stack
        self.names: dict[str, str] = {}

    def enter(self, copy: AbstractContextManager[Path]) -> Path:
        """Return the folder of another copy, which is kept as long."""
        return self._stack.enter_context(copy)

    def at(self, name: str, wanted: Filter = everything) -> Path:
        """Return the path of a file or folder, or of a copy of what a URL names.

        What belongs to an output (a training run, say) is read by its last commit, so that it is whole.

        Args:
            name: path or URL.
            wanted: which files of a folder are copied, by their paths in it.

        Raises:
            UserError: there is nothing of this name, or the storage refuses.
        """
        if not is_url(name):
            return Path(name)
        url = name.rstrip("/")
        place, files = _committed(url) or _stored(url)
        is_file = place != url
        chosen = files if is_file else {path: each for path, each in files.items() if wanted(path)}
        if not chosen:
            raise UserError(f"{name}: nothing of use lies there; check the name")
        folder = self._stack.enter_context(copied(url, place, chosen))
        self.names[str(folder)] = place
        return folder / next(iter(chosen)) if is_file else folder


@contextmanager
def inputs() -> Iterator[Inputs]:
    """Have copies of what lies in buckets while the block runs; errors tell of the URLs in place of the copies."""
    with ExitStack() as stack:
        found = Inputs(stack)
        with telling(found.names):
            yield found


@contextmanager
def telling(names: Mapping[str, str]) -> Iterator[None]:
    """Let errors name URLs in the place of folders of this machine; `names` may still grow."""

    def told(text: str) -> str:
        for folder, url in names.items():
            text = text.replace(folder, url)
        return text

    try:
        yield
    except (RunError, ModelError) as error:
        if (text := told(str(error))) == str(error):
            raise
        raise (RunError if isinstance(error, RunError) else ModelError)(text) from None
    except UserError as error:
        for name in ("problem", "value", "fix"):
            if (text := getattr(error, name)) is not None:
                setattr(error, name, told(text))
        raise


def looks_like_file(url: str) -> bool:
    """Return whether a URL's last part has a suffix, so that it names a file and no folder."""
    return bool(re.search(r"\.\w+$", url.rpartition("/")[2]))


def _committed(url: str) -> tuple[str, dict[str, Wanted]] | None:
    """Return what the last commit of the output that a URL is, or lies in, has of it; None: it is of no output.

    Returns:
        The URL that paths begin at, and the files.
    """
    place = place_of(url)
    if place.is_web:
        return None
    parts = [part for part in place.key.split("/") if part]
    for depth in range(len(parts), -1, -1):
        store = open_object_store("/".join([place.root, *parts[:depth]]))
        commit = _commit_at(store)
        if not commit.number:
            continue
        rest = "/".join(parts[depth:])
        if rest in commit.files:
            return url.rpartition("/")[0], {parts[-1]: _wanted(store, commit, rest)}
        above = f"{rest}/" if rest else ""
        files = {path[len(above) :]: _wanted(store, commit, path) for path in commit.files if path.startswith(above)}
        return (url, files) if files else None
    return None


def _commit_at(store: ObjectStore) -> Commit:
    try:
        return last_commit(store)
    except StoreError as error:
        if error.is_transient:
            raise
        return Commit(0, {})  # not everybody who may read objects may list them


def _wanted(store: ObjectStore, commit: Commit, path: str) -> Wanted:
    pushed = commit.files[path]
    return Wanted(store, Entry(pushed.object, pushed.size_bytes, pushed.version), pushed.digest)


def _stored(url: str) -> tuple[str, dict[str, Wanted]]:
    """Return the object of a URL, or all below it, as they are now.

    Raises:
        UserError: there is nothing.
    """
    place = place_of(url)
    if place.key:
        store, name = object_at(url)
        try:
            return url.rpartition("/")[0], {name: Wanted(store, store.stat(name))}
        except MissingError:
            if place.is_web:
                raise
    below = open_object_store(url)
    files = {entry.key: Wanted(below, entry) for entry in below.list()}
    if not files:
        raise UserError(f"{url}: no such object, and none below it; check the name")
    return url, files


def local(name: str, field: str) -> Path:
    """Return the path of what is written on this machine alone.

    Raises:
        UserError: it is a URL.
    """
    if is_url(name):
        raise UserError("is written on this machine", field=field, value=name, fix="name a path here")
    return Path(name)


Put = Callable[[Path], None]


@contextmanager
def files_for(
    name: str, beside: Callable[[Path], tuple[Path, ...]], *, is_file: bool | None = None
) -> Iterator[tuple[Path, Put]]:
    """Have a local place for files that are written one after the other, each with others beside it.

    Args:
        name: folder or file, or its URL.
        beside: of a file, those that belong to it, itself among them, in the order in which readers shall see them.
        is_file: whether the name is one file's; null: where it has a suffix.

    Yields:
        Where to write, and what to call with each file once it and those beside it are whole.
    """
    if not is_url(name):
        yield Path(name), lambda path: None
        return
    url = name.rstrip("/")
    is_file = looks_like_file(url) if is_file is None else is_file
    store, last = object_at(url) if is_file else (open_object_store(url), "")
    if not store.can_write:
        raise UserError(f"{url}: cannot be written to; name a folder or s3://, gs://, az://")
    above = stage_folder() / "outgoing"
    make_folder(above)
    folder = Path(tempfile.mkdtemp(dir=above))
    record_place(folder, store.url)
    target = folder / last if is_file else folder

    def put(path: Path) -> None:
        for file in beside(path):
            if file.is_file():
                store.put(file.relative_to(folder).as_posix(), file)

    try:
        if is_file:  # what is there already tells whether it may be replaced
            for file in beside(target):
                _restore(store, file)
        with telling({str(folder): store.url}):
            yield target, put
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _restore(store: ObjectStore, file: Path) -> None:
    try:
        file.write_bytes(store.read(file.name))
    except MissingError:
        return
