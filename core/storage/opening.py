"""The one place that tells which kind of store a text names."""

from pathlib import Path

from core.storage.local import LocalStore
from core.storage.object_store import open_object_store
from core.storage.store import Store
from core.storage.urls import is_url


def open_store(place: str | Path) -> Store:
    """Return the store of a local folder, or of a URL such as `s3://bucket/folder`.

    Raises:
        StoreError: the URL is none that is known.
    """
    text = str(place)
    return open_object_store(text) if is_url(text) else LocalStore(Path(text))
