"""Files and folders that appear whole or not at all: readers see the old content or the new, never half.

Everything is written under a hidden temporary name in the same folder, brought to disk, and then renamed.
Temporary names begin with a dot, so that globs and Parquet readers pass over what a killed process left.
"""

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from curation.errors import STORAGE_FAILED, STORAGE_FULL, OutputError

TEMPORARY_NAME = re.compile(r"^\..*\.tmp-\d+-[0-9a-f]{8}(\.[^.]+)?$", re.DOTALL)
STEM_BYTES = 150  # names may have 255 bytes; the temporary one needs room for pid and random part
AT_FDCWD = -100
RENAME_EXCHANGE = 2
# What a kernel or file system says that cannot exchange two names (NFS, some FUSE and overlay systems).
CANNOT_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM})


def temporary_path(path: Path) -> Path:
    """Give an unused hidden name beside `path`: `.<stem>.tmp-<pid>-<random><extension>`."""
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= 32 else ""
    stem = os.fsdecode(os.fsencode(path.stem)[:STEM_BYTES])
    return path.with_name(f".{stem}.tmp-{os.getpid()}-{secrets.token_hex(4)}{suffix}")


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
            mend = "make room or give access, and run the same command again: it goes on from here"
            raise OutputError(f"{path}: cannot be written ({os.strerror(error.errno or 0)}); {mend}") from None
        if error.errno in STORAGE_FAILED:
            mend = "see to the storage, and run the same command again: it goes on from here"
            raise OutputError(f"{path}: cannot be written ({os.strerror(error.errno or 0)}); {mend}", True) from None
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
def atomic_path(path: Path, to_disk: bool = True) -> Iterator[Path]:
    """Lend a temporary file name that becomes `path` when the block ends well.

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


def atomic_write(path: Path, content: bytes | str, to_disk: bool = True) -> None:
    """Write a whole file at once, as `atomic_path` does; text goes out as UTF-8 with its line ends untouched."""
    with atomic_path(path, to_disk) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """Lend a temporary folder that takes the place of `final` when the block ends well (see `swap_folder`).

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

    Age decides, not the process id in the name: on a shared disk the id may belong to another machine.

    Returns:
        How many were deleted.
    """
    count = 0
    for name in os.listdir(folder):  # of a million clips: half the time that `scandir` takes
        if name[0] != "." or not TEMPORARY_NAME.match(name):
            continue
        path = os.path.join(folder, name)
        with contextlib.suppress(FileNotFoundError):  # its owner may be finishing just now
            found = os.lstat(path)
            if older_than_s > 0 and time.time() - found.st_mtime < older_than_s:  # a clock set back: from the future
                continue
            if stat.S_ISDIR(found.st_mode):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)
            count += 1
    return count


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
