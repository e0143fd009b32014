"""An output that a run writes in a bucket: made in a folder of this machine, committed to the bucket as it goes.

    STAGE/runs/<name of the URL>/    .lock: held by the system for one process of this machine
        state.json                   the folder's token and id, and the last commit that it knows
        out/                         the output; of clips that the bucket has and this machine not, stand-ins

Whoever runs holds the lease in the bucket. The folder is ahead of the last commit where that was made from it, and
is thrown away where it was not: then the output is as the last commit has it.
"""

import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path

from core.errors import RunError, UserError
from core.files import atomic_write, linked, make_folder
from core.lock import locked
from core.storage.lease import held_by, told
from core.storage.object_store import ObjectStore
from core.storage.place import record_place
from core.storage.staging import stage_folder, staged, version_number
from core.storage.store import Lease, LostError, StoreError
from curation.folders import PARTS
from curation.inputs.outputs import RECIPE
from curation.output.bucket import (
    WITHIN_PARTS,
    ChangingError,
    Digests,
    complete,
    expect_same_output,
    files_of,
    publish,
    pull,
)
from curation.output.commits import LEASE, Commit, commit_key, commit_text, last_commit, leftovers, remove_held
from curation.output.compaction import parts_at_rest
from curation.output.deliveries import Handoff, Receiver
from curation.output.stand_ins import may_stand_in, stands_for
from curation.output.table import part_files

EVERY_VARIABLE = "SELECTS_COMMIT_S"
USUAL_EVERY_S = 60.0
TRIES = 5
UNKNOWN = "?"
LOOK_S = 1.0
SHARE = 10
"""between two commits passes at least so many times the time that one takes"""


@dataclass(frozen=True)
class _State:
    """What a working folder remembers.

    Attributes:
        token: by which a lease that was taken for the folder is known.
        id: of its content; another one once it is thrown away.
        seen: mark of the last commit that it knows.
    """

    token: str
    id: str
    seen: str


@dataclass(frozen=True)
class Layout:
    """What is committed of a folder, and when.

    Attributes:
        mark: the file by which such an output is known.
        at_rest: from the folder to its files by path, while nobody writes.
        at_work: likewise while a run writes, given another folder for copies of what grows.
        stands_in: of a path, whether a stand-in does where a run goes on.
        news: what of the folder is looked at every second, and committed whenever it changes; null: time alone.
    """

    mark: str
    at_rest: Callable[[Path], dict[str, Path]]
    at_work: Callable[[Path, Path], dict[str, Path]]
    stands_in: Callable[[str], bool] = lambda path: False
    news: Callable[[Path], object] | None = None


def _files_with_parts(out: Path) -> dict[str, Path]:
    # Parts first: what they name was written before them. One that is folded meanwhile shows in the table.
    parts = {f"{WITHIN_PARTS}{file.name}": file for file in part_files(out)}
    return dict(files_of(out)) | parts


def _files_with_linked_parts(out: Path, aside: Path) -> dict[str, Path]:
    """Return the files of an output whose parts are merged meanwhile: those of now, by names of their own."""
    links = aside / PARTS
    make_folder(links)
    with parts_at_rest():
        parts = {f"{WITHIN_PARTS}{file.name}": linked(file, links / file.name) for file in part_files(out)}
    for link in links.iterdir():
        if f"{WITHIN_PARTS}{link.name}" not in parts:
            link.unlink(missing_ok=True)
    return dict(files_of(out)) | parts


CURATED = Layout(RECIPE, _files_with_parts, _files_with_linked_parts, may_stand_in)
"""an output of `curate`"""


class RemoteOutput:
    """An output in a bucket while a run holds it; its methods are called by one thread at a time."""

    def __init__(self, store: ObjectStore, place: Path, lease: Lease, state: _State, layout: Layout = CURATED):
        """Bring the working folder up to the bucket's last commit, unless it is ahead of it.

        Raises:
            UserError: it holds an output of another kind.
        """
        self.folder = place / "out"
        self._store, self._place, self._lease, self._state = store, place, lease, state
        self._layout = layout
        self._digests = Digests()
        self._last = last_commit(store)
        self._restore()
        self._receiver = Receiver(self.handoff, store, self.folder)
        self.receive()

    @property
    def url(self) -> str:
        """Where the output lies."""
        return self._store.url

    @property
    def handoff(self) -> Handoff:
        """Where workers that do not see the folder leave what they make."""
        return Handoff(self.url, self._state.id)

    def receive(self) -> None:
        """Take what such workers have made into the folder.

        Raises:
            RunError: the storage refuses.
        """
        try:
            self._receiver.receive()
        except StoreError as error:
            raise RunError(str(error)) from None

    def _restore(self) -> None:
        last, stands_in = self._last, self._layout.stands_in
        if last.number and self._layout.mark not in last.files:
            raise UserError(f"{self.url}: holds an output of another command; give another place")
        is_ahead = self._state.seen == _mark(last) or last.by == self._state.id
        if not (is_ahead and self.folder.is_dir()):
            self._remember(replace(self._state, id=uuid.uuid4().hex, seen=UNKNOWN))
            shutil.rmtree(self.folder, ignore_errors=True)
            if last.number:
                pull(self._store, self.folder, lambda path: not stands_in(path), stands_in, last)
            self._remember(replace(self._state, seen=_mark(last)))
        record_place(self.folder, self.url)
        complete(self._store, last)

    def commit(self) -> None:
        """Upload what the bucket does not have and commit it; workers that still write are waited for.

        Raises:
            RunError: the storage refuses, or the lease was lost.
        """
        for _ in range(TRIES):
            try:
                return self._commit(self._layout.at_rest(self.folder))
            except UserError as error:
                raise RunError(str(error)) from None
            except ChangingError:
                time.sleep(1.0)
        raise RunError(f"{self.url}: the output changes while it is committed; run the same command to resume")

    def _commit(self, files: dict[str, Path]) -> None:
        """Upload what the bucket does not have and commit it.

        Raises:
            UserError: the storage refuses, or another process has taken the output.
            ChangingError: workers changed what was uploaded; nothing was committed.
        """
        if not self._last.number:
            expect_same_output(self.folder, self._store, self._last, self._layout.mark)
        by, self._digests.objects = self._state.id, self._receiver.objects
        self._last = publish(files, self._store, self._lease, self._last, digests=self._digests, by=by)
        self._remember(replace(self._state, seen=_mark(self._last)))
        self._receiver.forget({each.digest for each in self._last.files.values()})
        if self._last.number > 2:  # the one before is left to whoever reads it at this moment
            self._store.delete(commit_key(self._last.number - 2))

    def whole(self, file: Path) -> Path:
        """Return a file of the folder; of a stand-in a copy of what it stands for, which is there for a while.

        Raises:
            StoreError: the storage refuses, or does not hold it any more.
        """
        digest, files = stands_for(file, file.stat().st_size), self._last.files
        if digest is None:
            return file
        pushed = files.get(file.relative_to(self.folder).as_posix())
        if pushed is None or pushed.digest != digest:  # it was moved since
            pushed = next((each for each in files.values() if each.digest == digest), None)
        if pushed is None:
            raise StoreError(f"{self.url}: does not hold {file.name} any more; run the same command again")
        with staged(f"{self.url}/{pushed.object}", version_number(pushed.version), lambda count: None) as copy:
            return copy

    @contextmanager
    def committing(self, on_loss: Callable[[], None]) -> Iterator[None]:
        """Commit again and again while a block runs in which workers write and parts are merged; nothing is folded.

        Args:
            on_loss: called where the output cannot be committed any more, since another process has taken it.
        """
        end = threading.Event()
        thread = threading.Thread(target=self._keep_committing, args=(end, on_loss), daemon=True)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()

    def _keep_committing(self, end: threading.Event, on_loss: Callable[[], None]) -> None:
        news = self._layout.news
        every_s = float(os.environ.get(EVERY_VARIABLE) or USUAL_EVERY_S) if news is None else LOOK_S
        pause_s, seen = every_s, news and news(self.folder)
        while not end.wait(pause_s):
            begin, now = time.monotonic(), news and news(self.folder)
            if news is not None and now == seen:
                continue
            try:
                self.receive()
                self._commit(self._layout.at_work(self.folder, self._aside))
                seen = now
            except UserError as error:  # a storage that refuses may not later; the end of the run tells, if it does
                if isinstance(error, LostError) or not isinstance(error, StoreError):
                    on_loss()
                    return
            except (ChangingError, RunError, OSError):
                pass  # likewise: files come and go, a disk may be full
            pause_s = every_s if news else max(every_s, SHARE * (time.monotonic() - begin))

    def finish(self, *, is_complete: bool) -> None:
        """Commit the last state, and remove what it does not need: here, too, where nothing is left to do."""
        self.commit()
        remove_held(self._store, self._lease, leftovers(self._store, self._last))
        if is_complete:
            for folder in (self.folder, self._aside):
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def _aside(self) -> Path:
        return self._place / "aside"

    def _remember(self, state: _State) -> None:
        self._state = state
        atomic_write(self._place / "state.json", json.dumps(asdict(state)))


def _mark(commit: Commit) -> str:
    """Return what tells a commit from every other; nothing where there is none."""
    return blake2b(commit_text(commit), digest_size=16).hexdigest() if commit.number else ""


def place_for(url: str) -> Path:
    """Return where this machine works on an output that lies at a URL."""
    return stage_folder() / "runs" / blake2b(url.encode(), digest_size=12).hexdigest()


@contextmanager
def remote_output(store: ObjectStore, layout: Layout = CURATED) -> Iterator[RemoteOutput]:
    """Hold an output in a bucket while the block runs.

    Raises:
        UserError: another process holds it; says which, and for how long.
        StoreError: the storage refuses.
    """
    place = place_for(store.url)
    make_folder(place)
    with _held_here(store, place):
        state = _state_of(place)
        with store.lease(LEASE, state.token) as lease:  # a holder of this token is dead, since the lock here is ours
            yield RemoteOutput(store, place, lease, state, layout)


@contextmanager
def _held_here(store: ObjectStore, place: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(place))
        except UserError:
            raise UserError(
                f"{store.url} is in use by {told(held_by(store, LEASE))}; wait for it to end, or stop it"
            ) from None
        yield


def _state_of(place: Path) -> _State:
    """Return what a folder remembers; one that remembers nothing that can be read begins anew."""
    try:
        return _State(**json.loads((place / "state.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        shutil.rmtree(place / "out", ignore_errors=True)
        state = _State(uuid.uuid4().hex, uuid.uuid4().hex, UNKNOWN)
        atomic_write(place / "state.json", json.dumps(asdict(state)))
        return state
