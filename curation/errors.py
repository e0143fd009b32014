"""The errors that data, the world and users cause; our own bugs raise as what they are."""


class UserError(Exception):
    """A request that cannot be carried out: one line that says what, where and the mend; exit 2."""


class MediaError(Exception):
    """A source, or a part of it, that cannot be read: it becomes a `failed` row.

    Attributes:
        time_s: presentation time from which on the source is unreadable, None when nothing was read.
    """

    def __init__(self, message: str, time_s: float | None = None):
        """Keep one line of text and the time at which reading ended."""
        super().__init__(" ".join(message.split()))
        self.time_s = time_s

    def __reduce__(self) -> tuple[type["MediaError"], tuple[str, float | None]]:
        """Let the time survive the way between processes."""
        return type(self), (str(self), self.time_s)


def nearest(word: str, choices: list[str]) -> str:
    """Give ` (did you mean 'x'?)` for a word close to one of the choices, else list the choices."""
    import difflib

    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else f" (known: {', '.join(sorted(choices))})"
