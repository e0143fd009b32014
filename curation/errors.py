"""The errors that data, the world and users cause; our own bugs raise as what they are."""

import errno

from curation.outside_text import printable, without_secrets

STORAGE_FAILED = frozenset({
    errno.EIO,
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.ENOTCONN,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EREMOTEIO,
})
"""What a storage says that may answer in a moment."""
STORAGE_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM})
"""What a storage says that takes no more until somebody mends it."""


class UserError(Exception):
    """A request that cannot be carried out: one line that says what, where and the mend; exit 2."""


class RunError(Exception):
    """The world broke a run: one line that says what and the mend; exit 1. What is finished is kept.

    Running the same command again goes on from there.
    """


class OutputError(RunError):
    """The storage refuses to be written.

    Attributes:
        is_transient: it may well take the same write in a moment.
    """

    def __init__(self, message: str, is_transient: bool = False):
        """Keep one line of text and whether to try again."""
        super().__init__(message)
        self.is_transient = is_transient

    def __reduce__(self) -> tuple[type["OutputError"], tuple[str, bool]]:
        """Let it survive the way between processes."""
        return type(self), (str(self), self.is_transient)


class MediaError(Exception):
    """A source, or a part of it, that cannot be read: it becomes a `failed` row.

    Attributes:
        time_s: presentation time from which on the source is unreadable, None when nothing was read.
        is_transient: the storage failed, not the content: reading again may well succeed.
    """

    def __init__(self, message: str, time_s: float | None = None, is_transient: bool = False):
        """Keep one line of text, the time at which reading ended, and whether to try again."""
        super().__init__(printable(without_secrets(" ".join(message.split()))))
        self.time_s = time_s
        self.is_transient = is_transient

    def __reduce__(self) -> tuple[type["MediaError"], tuple[str, float | None, bool]]:
        """Let all of it survive the way between processes."""
        return type(self), (str(self), self.time_s, self.is_transient)


def nearest(word: str, choices: list[str]) -> str:
    """Give ` (did you mean 'x'?)` for a word close to one of the choices, else list the choices."""
    import difflib

    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else f" (known: {', '.join(sorted(choices))})"
