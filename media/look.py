"""A look at a video that is not here: whether it can be read at all, from a few per cent of it."""

from collections.abc import Iterator
from contextlib import contextmanager

from av.container import InputContainer

from core.errors import MediaError
from core.limits import Limits
from core.storage.ranged import RangedFile
from media.container import READ_ERRORS, opened
from media.content import HEAD_BYTES, kind_of
from media.probe import first_look
from media.types import Heartbeat

BUFFER_BYTES = 8192
"""that FFmpeg reads at a time: its usual 32 kB are more than many an index"""


def refusal_of(file: RangedFile, limits: Limits, beat: Heartbeat) -> str | None:
    """Return why `probe_video` would refuse a video; null where it would not, or where that is not known.

    It does what `probe_video` does first, in the same words: opens it, chooses a stream, decodes a frame.
    """

    @contextmanager
    def opening() -> Iterator[InputContainer]:
        file.seek(0)
        with opened(file, limits, BUFFER_BYTES) as container:
            yield container

    head = file.read(HEAD_BYTES)
    if kind_of(head) != "video" or head.startswith(b"GIF"):  # what is no video by its content is looked at otherwise
        return None
    try:
        first_look(opening, beat, limits)
    except MediaError as error:
        return None if file.is_spent else str(error)
    except READ_ERRORS:  # of a file that seems to end
        return None
    return None
