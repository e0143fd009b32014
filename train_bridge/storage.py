"""A storage that takes no more while a run writes: one line, whichever library met it."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from core.errors import STORAGE_FAILED, STORAGE_FULL
from core.files import writing

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""what is said of writing alone; the other reasons count where the file is known and ours"""
RUST_REASON = re.compile(r"\(os error (\d+)\)")


@contextmanager
def storing(*folders: Path) -> Iterator[None]:
    """Tell of a storage that refuses what a block writes under some folders.

    torch and safetensors raise errors of their own where a file cannot be written; the reason is found in them.

    Args:
        folders: the block's own; the first is named where the file is not known.

    Raises:
        OutputError: no room, no permission, or a storage that fails just now.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        found = _reason(error)
        if found is None:
            raise
        place = Path(found.filename) if isinstance(found.filename, str) else None
        is_ours = place is not None and any(place.absolute().is_relative_to(f.absolute()) for f in folders)
        if found.errno in FULL or (is_ours and found.errno in STORAGE_FULL | STORAGE_FAILED):
            with writing(place if place is not None and is_ours else folders[0]):
                raise found from None
        raise


def _reason(error: BaseException) -> OSError | None:
    """Find what the system said, in an error or in those that it followed."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, OSError):
        if isinstance(seen, SafetensorError) and (match := RUST_REASON.search(str(seen))):
            return OSError(int(match[1]), str(seen))
        seen = seen.__cause__ or seen.__context__
    return seen
