"""A lease on an object store: an object that its holder writes again and again; a dead holder's is taken over.

No clock is compared with another machine's. Whoever wants a lease that is held watches it: where its version stays
the same for longer than a holder may be silent, the holder is dead, and the object is replaced on condition that it
still has that version. A holder that could not renew in time knows it before anybody may take over.

Whoever can prove that the holder is dead, because a lock of the system on this machine says so, need not watch: it
names the holder's token, and takes over at once.
"""

import json
import math
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from core.errors import UserError
from core.sanitize import printable
from core.storage.store import Entry, Lease, LostError, MissingError, StoreError

BEAT_S = 5.0
"""between two renewals"""
SILENCE_S = 30.0
"""after which a holder counts as dead; it gives up by itself after half of it"""

NO_VERSION = '"00000000000000000000000000000000"'
"""of no object"""


class Conditional(Protocol):
    """What a lease needs of a store."""

    @property
    def url(self) -> str:
        """Its root."""
        ...

    def stat(self, key: str) -> Entry:
        """Return size and version."""
        ...

    def read(self, key: str, start: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        """Return bytes."""
        ...

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Write unless there is one."""
        ...

    def put_if_unchanged(self, key: str, content: bytes, version: str) -> bool:
        """Write what still has a version."""
        ...

    def delete(self, key: str) -> None:
        """Delete."""
        ...


class _Holder:
    """Renews a lease from a thread of its own, until it is given up or lost."""

    def __init__(self, store: Conditional, key: str, token: str, beat_s: float, silence_s: float):
        self._store, self._key, self._beat_s, self._silence_s = store, key, beat_s, silence_s
        self._given, self._token, self._number = token, f"{token}{uuid.uuid4().hex}", 0
        self._version = ""
        self._begun_s = self._renewed_s = time.monotonic()
        self._is_lost = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def content(self) -> bytes:
        """Return what the object holds next: never twice the same, so that its version changes."""
        self._number += 1
        owner = f"process {os.getpid()} on {socket.gethostname()}"
        held = {"owner": owner, "token": self._token, "number": self._number}
        return json.dumps(held | {"held_s": round(time.monotonic() - self._begun_s)}).encode()

    def take(self) -> None:
        """Take the lease, after its holder's death if need be.

        Raises:
            UserError: it is held and renewed, or the storage cannot keep a lease.
        """
        if not self._store.put_if_absent(self._key, self.content()):
            seen = self._wait_for_silence()
            was_free = seen is None and self._store.put_if_absent(self._key, self.content())
            if not was_free and (seen is None or not self._store.put_if_unchanged(self._key, self.content(), seen)):
                raise UserError(f"{self._store.url} has just been taken by another process; wait for it to end")
        self._version = self._own_version()
        self._expect_conditions()
        self._renewed_s = time.monotonic()
        self._thread.start()

    def check(self) -> None:
        """Return if the lease is still held.

        Raises:
            LostError: another process has taken it.
            StoreError: it could not be renewed for too long.
        """
        if self._is_lost:
            raise LostError(f"{self._store.url}: the lease was lost to another process; run the same command again")
        if time.monotonic() - self._renewed_s > self._silence_s / 2:
            raise StoreError(
                f"{self._store.url}: the lease could not be renewed in time; run the same command again",
                is_transient=True,
            )

    def give_up(self) -> None:
        """Stop renewing, and delete the object if it is still ours."""
        self._end.set()
        self._thread.join()
        if not self._is_lost:
            with suppress(StoreError):  # it becomes free by itself
                if json.loads(self._store.read(self._key, version=self._version))["token"] == self._token:
                    self._store.delete(self._key)

    def _wait_for_silence(self) -> str | None:
        """Watch the object; return the version that stayed the same for too long, None where it is gone.

        Raises:
            UserError: its version changed.
        """
        seen, held = self._look()
        begin = time.monotonic()
        until, tells_s = begin + self._silence_s, begin + 1.2 * self._beat_s  # by then who lives has renewed it
        while seen is not None and time.monotonic() < until and not self._is_own(held):
            time.sleep(min(self._beat_s, self._silence_s) / 4)
            now, held = self._look()
            if now is not None and now != seen:
                raise UserError(f"{self._store.url} is in use by {told(held)}; wait for it to end, or stop it")
            seen = now
            if seen is not None and time.monotonic() > tells_s:
                silent_s, tells_s = time.monotonic() - begin, math.inf
                left = f"waiting up to {self._silence_s - silent_s:.0f} s"
                words = f"{left}: {told(held)} held {self._store.url} and has been silent for {silent_s:.0f} s"
                print(printable(words), file=sys.stderr, flush=True)
        return seen

    def _is_own(self, held: Mapping[str, Any]) -> bool:
        return bool(self._given) and str(held.get("token", "")).startswith(self._given)

    def _look(self) -> tuple[str | None, Mapping[str, Any]]:
        try:
            return self._store.stat(self._key).version, held_by(self._store, self._key)
        except MissingError:
            return None, {}

    def _own_version(self) -> str:
        version = self._store.stat(self._key).version
        if json.loads(self._store.read(self._key, version=version))["token"] != self._token:
            raise UserError(f"{self._store.url} has just been taken by another process; wait for it to end")
        return version

    def _expect_conditions(self) -> None:
        """Ask for two writes that must be refused.

        Raises:
            StoreError: the storage did one of them.
        """
        is_replaced = self._store.put_if_absent(self._key, self.content())
        if is_replaced or self._store.put_if_unchanged(self._key, self.content(), NO_VERSION):
            self._store.delete(self._key)
            raise StoreError(
                f"{self._store.url}: this storage ignores conditions on writes (If-None-Match, If-Match), so that two runs "
                "could overwrite each other; use one that keeps to them"
            )

    def _renew(self) -> None:
        while not self._end.wait(self._beat_s):
            begin = time.monotonic()
            try:
                if not self._store.put_if_unchanged(self._key, self.content(), self._version):
                    self._is_lost = True
                    return
                self._version = self._own_version()
                self._renewed_s = begin
            except MissingError:
                self._is_lost = True
                return
            except UserError as error:  # fails for the moment: `check` tells when that was too long
                self._is_lost = not isinstance(error, StoreError)
                if self._is_lost:
                    return


def held_by(store: Conditional, key: str) -> Mapping[str, Any]:
    """Return what a lease's object says of its holder; nothing where it is gone or a foreign one."""
    try:
        held = json.loads(store.read(key))
    except (MissingError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def told(held: Mapping[str, Any]) -> str:
    """Return who holds a lease, and for how long, as messages say it."""
    owner, held_s = str(held.get("owner") or "another process"), held.get("held_s")
    return f"{owner} (for {held_s:.0f} s)" if isinstance(held_s, int | float) else owner


@contextmanager
def object_lease(
    store: Conditional, key: str, beat_s: float = BEAT_S, silence_s: float = SILENCE_S, token: str = ""
) -> Iterator[Lease]:
    """Hold a name on an object store while the block runs.

    Args:
        store: where the object lies.
        key: its name.
        beat_s: between two renewals.
        silence_s: after which a holder counts as dead, the same for all who use the name.
        token: how the tokens of the caller's own leases begin, whose holders are dead; nothing: there are none.

    Yields:
        The lease; `check` it before what only its holder may write.

    Raises:
        UserError: another process holds it; that it does takes up to one renewal to see.
    """
    holder = _Holder(store, key, token, beat_s, silence_s)
    holder.take()
    try:
        yield holder
    finally:
        holder.give_up()
