"""The errors that data, the world and users cause; our own bugs raise as what they are."""

import errno
import re
from collections.abc import Callable, Mapping
from functools import partial

from core.sanitize import printable, without_secrets

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
"""What a storage says that takes no more until somebody fixes it."""


class UserError(Exception):
    """A request that cannot be carried out: one line that says what, where and the fix; exit 2.

    Texts name other parts of the request in backticks, by their names in Python. Whoever asked in other words, such as
    the command line with its options, translates them (`cli.fields`).

    Attributes:
        problem: what is wrong.
        field: what of the request: an attribute, such as `num_frames`, or a dotted key; null where no single one is.
        value: what it was given as, or beside what, where that helps.
        fix: what to do about it, where `problem` does not say it.
    """

    def __init__(self, problem: str, *, field: str | None = None, value: object = None, fix: str | None = None):
        """Keep the parts of the line."""
        super().__init__(problem)
        self.problem, self.field, self.fix = problem, field, fix
        self.value = None if value is None else str(value)

    def __str__(self) -> str:
        """Return the line."""
        return self.line({})

    def line(self, names: Mapping[str, str]) -> str:
        """Return the line with other names for some fields, by the names that they have here."""
        what = [] if self.field is None else [names.get(self.field, self.field)]
        what += [] if self.value is None else [renamed(self.value, names)]
        fix = "" if self.fix is None else f"; {renamed(self.fix, names)}"
        return (f"{' '.join(what)}: " if what else "") + renamed(self.problem, names) + fix


class RunError(Exception):
    """The world broke a run: one line that says what and the fix; exit 1. What is finished is kept.

    Running the same command resumes the run.
    """


class OutputError(RunError):
    """The storage refuses to be written.

    Attributes:
        is_transient: it may well take the same write in a moment.
    """

    def __init__(self, message: str, *, is_transient: bool = False):
        """Keep one line of text and whether to try again."""
        super().__init__(message)
        self.is_transient = is_transient

    def __reduce__(self) -> tuple[Callable[..., "OutputError"], tuple[str]]:
        """Let it survive the way between processes."""
        return partial(type(self), is_transient=self.is_transient), (str(self),)


class MediaError(Exception):
    """A source, or a part of it, that cannot be read: it becomes a `failed` row.

    Attributes:
        time_s: presentation time from which on the source is unreadable, None when nothing was read.
        is_transient: the storage failed, not the content: reading again may well succeed.
        end_s: where it can be read again, None where it cannot.
    """

    def __init__(
        self, message: str, time_s: float | None = None, end_s: float | None = None, *, is_transient: bool = False
    ):
        """Keep one line of text, the stretch that cannot be read, and whether to try again."""
        super().__init__(printable(without_secrets(" ".join(message.split()))))
        self.time_s = time_s
        self.is_transient = is_transient
        self.end_s = end_s

    def __reduce__(self) -> tuple[Callable[..., "MediaError"], tuple[str, float | None]]:
        """Let all of it survive the way between processes."""
        make = partial(type(self), end_s=self.end_s, is_transient=self.is_transient)
        return make, (str(self), self.time_s)


def renamed(text: str, names: Mapping[str, str]) -> str:
    """Return a text in which fields in backticks have other names; a word in backticks that has none stays."""
    return re.sub(r"`([a-z_.]+)`", lambda found: names.get(found[1], found[0]), text)


def nearest(word: str, choices: list[str]) -> str:
    """Return ` (did you mean 'x'?)` for a word close to one of the choices, else list the choices."""
    import difflib

    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else f" (known: {', '.join(sorted(choices))})"
