"""Whole models in the layout of transformers, found as single weights are: a folder, the hub's cache, the hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.errors import ModelError
from models.weights.deadline import LONGEST_S, within
from models.weights.find import FOLDER_VARIABLE, cause_of, quiet_hub, weights_folder
from models.weights.hub_bounds import NONSENSE, bounded_hub

MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model")
"""what a model needs of its repository; never pickles, and code only where it is asked for"""


def find_repository(
    repository: str, revision: str | None = None, folder: str | Path | None = None, extra: Sequence[str] = ()
) -> Path:
    """Return a folder with a whole model; what is not on this machine is fetched into the hub's cache.

    Args:
        repository: a folder on disk, or `owner/name` on the hub.
        revision: commit, tag or branch on the hub; None: its newest.
        folder: the weights folder, where it lies as `owner--name`; None: the one of `SELECTS_WEIGHTS`, if any.
        extra: patterns of files wanted beside `MODEL_FILES`, such as `*.py`.

    Raises:
        ModelError: nowhere to be had.
    """
    if Path(repository).is_dir():
        return Path(repository)
    place = weights_folder(folder)
    if place is not None and (place / folder_name(repository)).is_dir():
        return place / folder_name(repository)
    return fetch_repository(repository, revision, extra=extra)


def is_here(repository: str, folder: str | Path | None = None) -> bool:
    """Return whether a whole model lies in a folder or in the hub's cache; asks no network."""
    place = weights_folder(folder)
    if Path(repository).is_dir() or (place is not None and (place / folder_name(repository)).is_dir()):
        return True
    try:
        from huggingface_hub import try_to_load_from_cache
    except ModuleNotFoundError:
        return False
    return isinstance(try_to_load_from_cache(repository, "config.json"), str)


def fetch_repository(
    repository: str, revision: str | None = None, into: Path | None = None, extra: Sequence[str] = ()
) -> Path:
    """Bring a model from the hub's cache, else from the hub, into the cache or into a weights folder.

    Args:
        repository: `owner/name` on the hub.
        revision: commit, tag or branch; None: the newest.
        into: the weights folder; None: the hub's cache.
        extra: patterns of files wanted beside `MODEL_FILES`.

    Raises:
        ModelError: not to be had: no network, offline mode, no such repository or no right to it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, HTTPError

    def snapshot(**how: Any) -> Path:
        wanted = {"revision": revision, "allow_patterns": [*MODEL_FILES, *extra], **how}
        return Path(within(LONGEST_S, lambda: snapshot_download(repository, **wanted)))

    try:
        with quiet_hub(), bounded_hub():
            if into is not None:
                return snapshot(local_dir=into / folder_name(repository))
            try:
                return snapshot(local_files_only=True)
            except EntryNotFoundError:  # not in the cache, or not all of it
                return snapshot()
    except HFValidationError:
        raise ModelError(f"{repository}: neither a folder nor the name of a repository, owner/name") from None
    except (OSError, EntryNotFoundError, HTTPError, *NONSENSE) as error:
        raise ModelError(
            f"{repository}: not on this machine and cannot be fetched ({cause_of(error)}); where there is a "
            f"network: run_pipeline.py weights fetch {repository} --weights DIR, then name DIR here (`weights`, or "
            f"{FOLDER_VARIABLE})"
        ) from None


def folder_name(repository: str) -> str:
    """Return the folder that a repository has in a weights folder, such as `Qwen--Qwen2.5-VL-7B-Instruct`."""
    return repository.replace("/", "--")
