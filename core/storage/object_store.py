"""A bucket, or a folder in one, as a store: S3 and compatibles, GCS, Azure, and HTTP for reading, through obstore."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from core.storage.credentials import google_endpoint, profile
from core.storage.lease import object_lease
from core.storage.refusals import refusal
from core.storage.store import Entry, Lease, MissingError, StoreError, checked_key
from core.storage.urls import Place, place_of

T = TypeVar("T")
Failures = list[StoreError]
PART_BYTES = 8 << 20
"""of an upload in parts, and of a download"""
CHANGED = "has changed since it was looked at; run the same command again"
CONNECT_S, REQUEST_S = 10, 60
PAST_END = ("status code: 416", "Wanted range starting at")
"""in what is told of a range that begins behind the end: the server's answer, or what obstore makes of one"""
COPY_BYTES = 5 * 10**9
"""most that one copy within S3 takes"""


@dataclass(frozen=True)
class Budget:
    """How long a storage that fails for the moment is asked again.

    Attributes:
        tries: times a request is sent in all.
        pause_s: before the second try; each later pause is twice as long, with chance in it.
        most_s: after which nothing is tried again; below the five minutes for which S3 takes a signed request.
    """

    tries: int = 8
    pause_s: float = 0.2
    most_s: float = 120.0

    def obstore(self) -> dict[str, Any]:
        """Return it as obstore's RetryConfig."""
        pause = timedelta(seconds=self.pause_s)
        backoff = {"init_backoff": pause, "max_backoff": 60 * pause, "base": 2}
        return {"max_retries": self.tries - 1, "retry_timeout": timedelta(seconds=self.most_s), "backoff": backoff}


USUAL_BUDGET = Budget()


@dataclass(frozen=True)
class ObjectStore:
    """Objects below a URL.

    Attributes:
        place: bucket, and folder in it.
        budget: how long it is tried.
    """

    place: Place
    budget: Budget = USUAL_BUDGET

    @property
    def url(self) -> str:
        """The URL, which holds no credentials."""
        return f"{self.place.root}/{self.place.key}".rstrip("/")

    @property
    def can_write(self) -> bool:
        """Return whether objects can be written: HTTP is read only."""
        return not self.place.is_web

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield the objects below, sorted by key; each once, though pages of a listing may overlap."""
        import obstore

        if not self.can_write:
            raise StoreError(f"{self.url}: a web server does not list its files; name them one by one, or in a list")
        above = prefix.rpartition("/")[0]
        start = len(self.place.key) + 1 if self.place.key else 0
        folder = "/".join(filter(None, (self.place.key, above))) or None
        found: dict[str, Entry] = {}

        def collect() -> None:
            for page in obstore.list(self._client, folder, chunk_size=1000):
                for meta in page:
                    key = meta["path"][start:]
                    if key.startswith(prefix) and not any(part.startswith(".") for part in key.split("/")):
                        found[key] = Entry(key, meta["size"], _version(meta))

        self._tried(folder or "", collect)
        yield from (found[key] for key in sorted(found))

    def stat(self, key: str) -> Entry:
        """Return one object's size and version."""
        import obstore

        meta = self._tried(key, lambda: obstore.head(self._client, self._path(key)))
        return Entry(key, meta["size"], _version(meta))

    def read(self, key: str, start: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        """Return bytes of an object; an answer that ends before its end is asked for again."""
        import obstore

        if length is not None and length <= 0:
            return b""
        is_strong = version is not None and version.startswith('"')  # RFC 9110, 13.1.1: a weak one never matches
        options: Any = {"if_match": version} if is_strong else {}
        if length is not None:
            options["range"] = (start, start + length)
        elif start:
            options["range"] = {"offset": start}

        def get() -> bytes:
            answer = obstore.get(self._client, self._path(key), options=options or None)
            if version is not None and _version(answer.meta) != version:
                raise MissingError(f"{self._shown(key)}: {CHANGED}")
            return self._whole(key, answer)

        try:
            return self._tried(key, get)
        except _PastEndError:
            return b""

    def begin(self, key: str, length: int) -> tuple[Entry, bytes]:
        """Return what `stat` does, and so many of an object's first bytes, by one request."""
        import obstore

        def get() -> tuple[Entry, bytes]:
            answer = obstore.get(self._client, self._path(key), options={"range": (0, length)})
            return Entry(key, answer.meta["size"], _version(answer.meta)), self._whole(key, answer)

        try:
            return self._tried(key, get)
        except _PastEndError:  # it is empty
            return self.stat(key), b""

    def put(self, key: str, content: bytes | Path) -> str:
        """Write an object whole or not at all; a large one goes up in parts."""
        import obstore

        self._need_writing()
        send = partial(obstore.put, self._client, self._path(key), content, chunk_size=PART_BYTES)
        return _quoted(self._tried(key, send)["e_tag"]) or self.stat(key).version

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Write an object unless there is one.

        Where an answer was lost, the object is looked at: if it holds this very content, it counts as written.
        """
        return self._conditional(key, content, "create")

    def put_if_unchanged(self, key: str, content: bytes, version: str) -> bool:
        """Write an object that still has a version; return whether it had."""
        import obstore

        mode: dict[str, Any] = {"e_tag": version}
        if self.place.scheme == "gs":  # which compares generations
            try:
                meta = self._tried(key, lambda: obstore.head(self._client, self._path(key)))
            except MissingError:
                return False
            if _version(meta) != version:
                return False
            mode["version"] = meta["version"]
        return self._conditional(key, content, mode)

    def delete(self, key: str) -> None:
        """Delete an object."""
        import obstore

        self._need_writing()
        try:
            self._tried(key, lambda: obstore.delete(self._client, self._path(key)))
        except MissingError:
            return

    def copy(self, key: str, to: str) -> str:
        """Let the storage copy an object; of one that holds more than `COPY_BYTES` S3 refuses to."""
        import obstore

        self._need_writing()
        self._tried(key, lambda: obstore.copy(self._client, self._path(key), self._path(to)))
        return self.stat(to).version

    def lease(self, key: str, token: str = "") -> AbstractContextManager[Lease]:
        """Hold a name by an object that is written again and again."""
        return object_lease(self, key, token=token)

    def _conditional(self, key: str, content: bytes, mode: Any) -> bool:
        """Put under a condition. obstore sends it once: of a request sent twice it could not tell whose write won."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        self._need_writing()
        lost: Failures = []

        def send() -> bool:
            try:
                obstore.put(self._once, self._path(key), content, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return bool(lost) and self._holds(key, content)
            except FileNotFoundError as error:  # the version to be replaced is gone, or the bucket
                told = refusal(self._shown(key), error)
                if isinstance(told, MissingError):
                    return False
                raise
            return True

        return self._tried(key, send, lost)

    def _whole(self, key: str, answer: Any) -> bytes:
        """Return an answer's bytes, unless it ends early."""
        first, end = answer.range
        content = bytes(answer.bytes())
        if len(content) != end - first:
            raise StoreError(
                f"{self._shown(key)}: the answer was cut short; run the same command again", is_transient=True
            )
        return content

    def _holds(self, key: str, content: bytes) -> bool:
        try:
            return self.read(key) == content
        except MissingError:
            return False

    def _tried(self, key: str, request: Callable[[], T], lost: Failures | None = None) -> T:
        """Send a request, again where it failed for the moment; obstore has tried some kinds of failure by itself.

        Raises:
            StoreError: what the storage said last.
        """
        from obstore.exceptions import BaseError, PreconditionError

        begin, pause_s = time.monotonic(), self.budget.pause_s
        left = self.budget.tries
        while True:
            try:
                return request()
            except StoreError as error:
                told = error
            except PreconditionError:
                raise MissingError(f"{self._shown(key)}: {CHANGED}") from None
            except (BaseError, FileNotFoundError, OSError, ValueError) as error:
                if any(words in str(error) for words in PAST_END):
                    raise _PastEndError from None
                told = refusal(self._shown(key), error)
            left -= 1
            if not told.is_transient or not left or time.monotonic() - begin > self.budget.most_s:
                raise told from None
            if lost is not None:
                lost.append(told)
            time.sleep(pause_s)
            pause_s *= 2

    def _path(self, key: str) -> str:
        return "/".join(filter(None, (self.place.key, checked_key(key))))

    def _shown(self, key: str) -> str:
        return f"{self.place.root}/{key}" if key == self.place.key else f"{self.url}/{key}".rstrip("/")

    def _need_writing(self) -> None:
        if not self.can_write:
            raise StoreError(f"{self.url}: a web server is read only; name a folder or s3://, gs://, az://")

    @cached_property
    def _client(self) -> Any:
        return _client(self.place.scheme, self.place.bucket, self.budget, _surroundings())

    @cached_property
    def _once(self) -> Any:
        once = Budget(1, self.budget.pause_s, self.budget.most_s)
        return _client(self.place.scheme, self.place.bucket, once, _surroundings())

    def __reduce__(self) -> tuple[type["ObjectStore"], tuple[Place, Budget]]:
        """Travel without connections and without credentials: the other process has its own."""
        return type(self), (self.place, self.budget)


class _PastEndError(Exception):
    """A range that begins behind the end."""


def open_object_store(url: str, budget: Budget = USUAL_BUDGET) -> ObjectStore:
    """Return the store of a URL of a bucket or of a folder in one.

    Raises:
        StoreError: the URL is none.
    """
    place = place_of(url)
    return ObjectStore(Place(place.scheme, place.bucket, place.key.strip("/")), budget)


def object_at(url: str) -> tuple[ObjectStore, str]:
    """Return the store of the folder that an object lies in, and its key there.

    Raises:
        StoreError: the URL is none.
    """
    place = place_of(url)
    folder, _, name = place.key.rpartition("/")
    return ObjectStore(Place(place.scheme, place.bucket, folder.strip("/"))), name


def _version(meta: Any) -> str:
    """Return an object's ETag, or its time of change where a server gives none."""
    return _quoted(meta["e_tag"]) or str(meta["last_modified"].isoformat())


def _quoted(etag: str | None) -> str:
    """Return an ETag as answers to GET have it: Azure's listings, and some others, leave the quotes out."""
    return f'"{etag}"' if etag and not etag.endswith('"') else etag or ""


def _surroundings() -> tuple[tuple[str, str], ...]:
    """Return the variables that say which servers and credentials are used: other ones, another client."""
    names = ("AWS_", "AZURE_", "AZURITE_", "GOOGLE_")
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith(names)))


@lru_cache(64)
def _client(scheme: str, bucket: str, budget: Budget, surroundings: tuple[tuple[str, str], ...]) -> Any:
    """Connect: credentials come from the environment, then from AWS's profile, then from the instance's role.

    Raises:
        StoreError: what the surroundings say is not understood.
    """
    from obstore.exceptions import BaseError
    from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

    environment = dict(surroundings)
    options: Any = {"connect_timeout": timedelta(seconds=CONNECT_S), "timeout": timedelta(seconds=REQUEST_S)}
    retries: Any = budget.obstore()
    try:
        if scheme == "s3":
            given: dict[str, Any] = profile(environment | {"HOME": os.environ.get("HOME", "")})
            endpoint = given.get("endpoint") or environment.get("AWS_ENDPOINT_URL") or environment.get("AWS_ENDPOINT")
            options["allow_http"] = bool(endpoint and endpoint.startswith("http://"))
            return S3Store(bucket, client_options=options, retry_config=retries, **given)
        if scheme == "gs":
            options["allow_http"] = google_endpoint(environment).startswith("http://")
            return GCSStore(bucket, client_options=options, retry_config=retries)
        if scheme == "az":
            options["allow_http"] = environment.get("AZURE_STORAGE_ENDPOINT", "").startswith("http://")
            if not {"AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_USE_EMULATOR"} & environment.keys():
                raise StoreError(f"az://{bucket}: of which account? set AZURE_STORAGE_ACCOUNT_NAME")
            return AzureStore(bucket, client_options=options, retry_config=retries)
        options["allow_http"] = scheme == "http"
        return HTTPStore(f"{scheme}://{bucket}", client_options=options, retry_config=retries)
    except (BaseError, ValueError) as error:
        raise refusal(f"{scheme}://{bucket}", error) from None
