"""Published weights by name: where they come from, their checksum and licence, and how they are found on disk.

Search order of every name: the weights folder (`--weights`, else `SELECTS_WEIGHTS`), then the hub's cache on this
machine, then a download into that cache. Whatever is found is hashed before it is used.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from core.digest import file_sha256
from models.errors import ModelError
from models.weights.deadline import Limited, longest_s, within
from models.weights.hub_bounds import NONSENSE, bounded_hub
from models.weights.table import GITHUB, WEIGHTS, Weights

FOLDER_VARIABLE = "SELECTS_WEIGHTS"
DIRECT_URL = "https://raw.githubusercontent.com/{repository}/{revision}/{file}"
"""where files of GitHub repositories are; the hub has no copy by their authors"""

Place = Literal["folder", "cache"]


def find_weights(name: str, folder: str | Path | None = None) -> Path:
    """Return the file of a name of `WEIGHTS`, from disk or the network, its content checked.

    Args:
        name: of the table.
        folder: the weights folder; None: the one that `SELECTS_WEIGHTS` names, if any.

    Raises:
        ModelError: an unknown name, nowhere to be had, or another content than the published one.
    """
    weights = weights_of(name)
    found = on_disk(name, folder)
    path = found[1] if found else download(name)
    if sha256_of(path) != weights.sha256:
        where = f" --weights {path.parent}" if found and found[0] == "folder" else ""
        raise ModelError(
            f"{path}: not the published {name} (sha256 {sha256_of(path)[:12]}…, not {weights.sha256[:12]}…); "
            f"fetch it again: run_pipeline.py weights fetch {name}{where}"
        )
    return path


def weights_of(name: str) -> Weights:
    """Return an entry of the table.

    Raises:
        ModelError: no such name.
    """
    if name not in WEIGHTS:
        raise ModelError(f"'{name}': no such weights; known: {', '.join(WEIGHTS)}")
    return WEIGHTS[name]


def on_disk(name: str, folder: str | Path | None = None) -> tuple[Place, Path] | None:
    """Return where on this machine a name's file is, without looking into it; None: nowhere.

    Raises:
        ModelError: the weights folder does not exist.
    """
    place = weights_folder(folder)
    if place is not None and (place / file_name(name)).is_file():
        return "folder", place / file_name(name)
    weights = weights_of(name)
    if weights.repository.startswith(GITHUB):
        path = _direct_path(name)
        return ("cache", path) if path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(weights.repository, weights.file, revision=weights.revision)
    return ("cache", Path(cached)) if isinstance(cached, str) else None


def weights_folder(folder: str | Path | None) -> Path | None:
    """Return the weights folder: the one given, else the one of `SELECTS_WEIGHTS`, else none.

    Raises:
        ModelError: it does not exist.
    """
    chosen = folder or os.environ.get(FOLDER_VARIABLE)
    if not chosen:
        return None
    if not Path(chosen).is_dir():
        raise ModelError(f"{chosen}: no such folder; make it and run: run_pipeline.py weights fetch --weights {chosen}")
    return Path(chosen)


def file_name(name: str) -> str:
    """Return the name that a table entry's file has in a weights folder, such as `craft.pth`."""
    return name + Path(weights_of(name).file).suffix


def download(name: str, *, again: bool = False) -> Path:
    """Fetch a name's file into the hub's cache; processes of one machine that ask at once fetch it once.

    Args:
        name: of the table.
        again: even when it is there.

    Raises:
        ModelError: not to be had: no network, offline mode, or gone from its repository.
    """
    weights = weights_of(name)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HTTPError

    try:
        with quiet_hub():
            most_s = longest_s(weights.size_bytes)
            if weights.repository.startswith(GITHUB):
                return within(most_s, lambda: _download_direct(name, again=again))
            where = {"revision": weights.revision, "force_download": again}
            with bounded_hub(most_bytes_of(weights)):
                return Path(within(most_s, lambda: hf_hub_download(weights.repository, weights.file, **where)))
    except (OSError, EntryNotFoundError, HTTPError, *NONSENSE) as error:
        what = f"{name}: {weights.file} ({human_size(weights.size_bytes)}) of {weights.repository}"
        raise ModelError(
            f"{what} is not on this machine and cannot be fetched ({cause_of(error)}); where there is a network: "
            f"run_pipeline.py weights fetch {name} --weights DIR, then name DIR here (`weights`, or {FOLDER_VARIABLE})"
        ) from None


def _download_direct(name: str, *, again: bool) -> Path:
    from filelock import FileLock
    from huggingface_hub import is_offline_mode
    from huggingface_hub.file_download import http_get

    from core.files import atomic_path

    weights, path = weights_of(name), _direct_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if path.is_file() and not again:
            return path
        if is_offline_mode():
            raise OSError("HF_HUB_OFFLINE is set")
        repository = weights.repository.removeprefix(GITHUB)
        url = DIRECT_URL.format(repository=repository, revision=weights.revision, file=quote(weights.file))
        for left in path.parent.glob(f".{path.stem}.tmp-*"):  # under the lock, so nobody writes them any more
            left.unlink(missing_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            http_get(url, Limited(file, most_bytes_of(weights)), displayed_filename=weights.file)
            file.flush()
    return path


def most_bytes_of(weights: Weights) -> int:
    """Return how many bytes are taken for a file, at most: what was published, and room for its description."""
    return 2 * weights.size_bytes + (1 << 20)


def _direct_path(name: str) -> Path:
    """Return the place of a file from GitHub in the part of the hub's cache that is for other files."""
    from huggingface_hub import constants

    return Path(constants.HF_ASSETS_CACHE).expanduser() / "selects" / f"{weights_of(name).sha256[:8]}-{file_name(name)}"


@contextlib.contextmanager
def quiet_hub() -> Iterator[None]:
    """Hold back the hub's notes on every retry; its progress bars stay.

    Yields:
        Nothing.
    """
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def cause_of(error: Exception) -> str:
    """Say in a few words why the network failed: the hub wraps the cause in advice."""
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    deepest: BaseException = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    return " ".join(str(deepest).split())[:120] or type(deepest).__name__


def sha256_of(path: Path) -> str:
    """Hash a file; within one process an unchanged file is read once."""
    state = Path(path).stat()
    return _sha256(Path(path), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: Path, size_bytes: int, mtime_ns: int) -> str:
    return file_sha256(path)


def human_size(size_bytes: int) -> str:
    """Return a size in decimal units, such as `1.7 GB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= size:
            value = size_bytes / size
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{size_bytes} B"
