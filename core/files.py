"""Files and folders that appear whole or not at all: readers see the old content or the new, never half.

Everything is written under a hidden temporary name in the same folder, brought to disk, and then renamed.
Temporary names begin with a dot, so that globs and Parquet readers pass over what a killed process left.
"""

import contextlib
import ctypes
import errno
import hashlib
import io
import itertools
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from core.errors import STORAGE_FAILED, STORAGE_FULL, OutputError

TEMPORARY_NAME = re.compile(r"^\..*\.tmp-(?P<pid>\d+)-(?P<host>[0-9a-f]{4})[0-9a-f]{4}(\.[^.]+)?$", re.DOTALL)
SWAP_NAME = re.compile(r"^\.(?P<name>.+)\.swap-(new|old)$", re.DOTALL)
HOST = hashlib.blake2b(socket.gethostname().encode("utf-8", "surrogateescape"), digest_size=2).hexdigest()
_numbers = itertools.count(secrets.randbelow(1 << 16))
STEM_BYTES = 150  # names may have 255 bytes; the temporary one needs room for pid and random part
AT_FDCWD = -100
PIECE_BYTES = 1 << 20
RENAME_EXCHANGE = 2
CLOCK_STEP_S = 5.0
"""by which a process may seem to have started after what it wrote: clocks are set now and then"""
# What a kernel or file system says that cannot exchange two names (NFS, some FUSE and overlay systems).
CANNOT_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM})


def temporary_path(path: Path) -> Path:
    """Return an unused hidden name beside `path`: `.<stem>.tmp-<pid>-<machine><number><extension>`.

    So whoever finds it can tell whether its writer lives, see `remove_leftovers`.
    """
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= 32 else ""
    stem = os.fsdecode(os.fsencode(path.stem)[:STEM_BYTES])
    number = next(_numbers) % (1 << 16)
    return path.with_name(f".{stem}.tmp-{os.getpid()}-{HOST}{number:04x}{suffix}")


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Read a file that comes from outside, or nothing of it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger; whatever it is (a device, too, which has no end), no more is read.
    """
    content = io.BytesIO()
    with path.open("rb") as file:  # in pieces: a read of so many bytes would take the memory for all of them at once
        while piece := file.read(min(PIECE_BYTES, most_bytes + 1 - content.tell())):
            content.write(piece)
    if content.tell() > most_bytes:
        raise ValueError(f"larger than {most_bytes >> 20} MB")
    return content.getvalue()


def read_head(path: str | Path, most_bytes: int) -> bytes:
    """Read the first bytes of a file that lies among those of others; a pipe or device is no file.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: no file can have this name.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a named pipe would wait for a writer
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        return file.read(most_bytes)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell of a storage that refuses what the block writes.

    Raises:
        OutputError: no room, no permission, or a storage that fails just now.
    """
    try:
        yield
    except OSError as error:
        if error.errno in STORAGE_FULL:
            fix = "free space or grant access, and run the same command to resume"
            raise OutputError(f"{path}: cannot be written ({os.strerror(error.errno or 0)}); {fix}") from None
        if error.errno in STORAGE_FAILED:
            fix = "fix the storage, and run the same command to resume"
            raise OutputError(
                f"{path}: cannot be written ({os.strerror(error.errno or 0)}); {fix}", is_transient=True
            ) from None
        raise


def make_folder(path: Path) -> None:
    """Make a folder, with those above it, unless it is there.

    Raises:
        OutputError: the storage refuses.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def sync_file(path: Path) -> None:
    """Bring a file's content, or a folder's list of names, to disk; a system that cannot is left alone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (PermissionError, IsADirectoryError):  # folders on Windows cannot be opened
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Bring every file and folder at and under `folder` to disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            sync_file(Path(parent) / name)
        sync_file(Path(parent))


@contextlib.contextmanager
def atomic_path(path: Path, *, to_disk: bool = True) -> Iterator[Path]:
    """Yield a temporary file name that becomes `path` when the block ends well.

    Args:
        path: the file to be; its folder must exist.
        to_disk: whether to wait for the disk, which takes milliseconds. Without it a killed process still leaves the
            file whole or not at all; after a power cut it may be empty.

    Yields:
        A name in the same folder with the same extension. The block must create it and close it.

    Raises:
        FileNotFoundError: the block ended without having created the file.
        OutputError: the storage refuses to be written.
    """
    path = Path(path)
    temporary = temporary_path(path)
    with writing(path):
        try:
            yield temporary
            if to_disk:
                sync_file(temporary)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):  # what broke the block must be what is told
                temporary.unlink()
            raise
        if to_disk:
            sync_file(path.parent)


def atomic_write(path: Path, content: bytes | str, *, to_disk: bool = True) -> None:
    """Write a whole file at once, as `atomic_path` does; text goes out as UTF-8 with its line ends untouched."""
    with atomic_path(path, to_disk=to_disk) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def linked(path: Path, link: Path) -> Path:
    """Return another name of a file that never changes, under which it is there when the first name is gone.

    Where the file system gives no second names it is the first one.

    Raises:
        FileNotFoundError: there is no such file.
    """
    try:
        os.link(path, link)
    except FileExistsError:
        return link
    except FileNotFoundError:
        raise
    except OSError:
        return path
    return link


@contextlib.contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of `final` when the block ends well (see `swap_folder`).

    Args:
        final: the folder to be, whether it exists or not; its parent must exist.

    Yields:
        An existing, empty folder beside it.

    Raises:
        OutputError: the storage refuses to be written.
    """
    final = Path(final)
    temporary = temporary_path(final)
    with writing(final):
        recover_swap(final)
        temporary.mkdir()
        try:
            yield temporary
            swap_folder(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def swap_folder(new: Path, final: Path) -> None:
    """Put a complete folder in the place of another, then delete the one that was there.

    Where the system can exchange two names in one step, `final` exists at every instant. Elsewhere it is
    missing between two renames; `recover_swap` repairs what a crash left there.

    Args:
        new: complete folder in the same parent folder as `final`; gone afterwards.
        final: the place; need not exist.

    Raises:
        OSError: a rename failed; `final` is then as it was, or `recover_swap` makes it whole.
    """
    new, final = Path(new), Path(final)
    recover_swap(final)
    sync_tree(new)
    if not final.exists():
        os.rename(new, final)
        sync_file(final.parent)
        return
    # Fixed names, so that whoever comes after a crash knows what lies there: `incoming` is a complete new
    # folder until the exchange, and the old one after it.
    incoming, outgoing = _incoming(final), _outgoing(final)
    os.rename(new, incoming)
    if _exchange(incoming, final):
        sync_file(final.parent)
        shutil.rmtree(incoming, ignore_errors=True)
        return
    os.rename(final, outgoing)
    os.rename(incoming, final)
    sync_file(final.parent)
    shutil.rmtree(outgoing, ignore_errors=True)


def recover_swap(final: Path) -> bool:
    """Repair `final` after a crash inside `swap_folder`, and delete what the swap left behind.

    A missing `final` gets the new folder (it was complete before the swap began), else the old one.

    Returns:
        True when `final` was missing and is back.
    """
    final = Path(final)
    incoming, outgoing = _incoming(final), _outgoing(final)
    repaired = False
    if not final.exists() and outgoing.exists():
        os.rename(incoming if incoming.exists() else outgoing, final)
        sync_file(final.parent)
        repaired = True
    for leftover in (incoming, outgoing):
        if leftover.exists():
            shutil.rmtree(leftover, ignore_errors=True)
    return repaired


def remove_leftovers(folder: Path, older_than_s: float = 24 * 3600.0) -> int:
    """Delete temporary files and folders directly under `folder` that killed processes left.

    What a living process of this machine writes stays. What another machine wrote on a shared disk goes by its age.

    Args:
        folder: where to look.
        older_than_s: age from which files of other machines go; 0, for whoever holds the folder's lock: at once.

    Returns:
        How many were deleted.
    """
    count = 0
    for name in os.listdir(folder):  # of a million clips: half the time that `scandir` takes
        found = TEMPORARY_NAME.match(name) if name[0] == "." else None
        if found is None:
            continue
        path = os.path.join(folder, name)
        with contextlib.suppress(FileNotFoundError):  # its owner may be finishing just now
            state = os.lstat(path)
            if not _is_left(int(found["pid"]), state.st_mtime, older_than_s, is_here=found["host"] == HOST):
                continue
            if stat.S_ISDIR(state.st_mode):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)
            count += 1
    return count


def _is_left(pid: int, changed_s: float, older_than_s: float, *, is_here: bool) -> bool:
    """Return whether a temporary file's writer is dead: none has its number, or who has it began only afterwards."""
    if not is_here:
        return older_than_s <= 0 or time.time() - changed_s >= older_than_s
    if pid == os.getpid() and older_than_s <= 0:
        return True  # whoever holds the lock and looks for leftovers writes nothing meanwhile
    try:
        writer = psutil.Process(pid)
        is_zombie = writer.status() == psutil.STATUS_ZOMBIE  # dead, and nobody has asked how it ended
        return is_zombie or writer.create_time() > changed_s + CLOCK_STEP_S
    except psutil.AccessDenied:
        return False
    except (psutil.Error, OverflowError):
        return True


def tidy(*folders: Path) -> None:
    """Delete what killed processes left half written in folders, and finish what they were exchanging.

    For whoever holds the lock under which the folders are written; those that do not exist are passed over.
    """
    for folder in folders:
        if folder.is_dir():
            for name in {found["name"] for found in map(SWAP_NAME.match, os.listdir(folder)) if found}:
                recover_swap(folder / name)
            remove_leftovers(folder, older_than_s=0.0)


def _incoming(final: Path) -> Path:
    return final.with_name(f".{final.name}.swap-new")


def _outgoing(final: Path) -> Path:
    return final.with_name(f".{final.name}.swap-old")


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two names in one step.

    Returns:
        False when this system or file system has no such step; nothing has changed then.
    """
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux, or a C library without it
        return False
    if renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), ctypes.c_uint(RENAME_EXCHANGE)) == 0:
        return True
    code = ctypes.get_errno()
    if code in CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), os.fspath(b))
