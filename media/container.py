"""Opening media: this one file and nothing else, one decoder thread, damage is an error."""

import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from core.errors import STORAGE_FAILED, MediaError
from core.limits import Limits

USUAL_LIMITS = Limits()
FORMATS = (
    *("mov", "matroska", "avi", "asf", "flv", "live_flv", "gif", "ogg", "rm", "mxf", "dv", "yuv4mpegpipe"),
    *("mpegts", "mpeg", "mpegvideo", "m4v", "h264", "hevc", "ivf", "obu", "av1"),
)
"""FFmpeg's demuxers for what `sources.VIDEO_SUFFIXES` takes; none that opens other files, and none for text."""
# FFmpeg is handed the bytes of one open file. It may open nothing by itself, by whatever protocol: neither what
# a playlist, a data reference or a subtitle track names, nor a file whose name looks like a URL or a pattern.
_OPEN_OPTIONS = {"protocol_whitelist": "none", "format_whitelist": ",".join(FORMATS)}
# A damaged slice is an error, not a grey patch that ends up in the training data.
_DECODE_OPTIONS = {"err_detect": "explode"}
_OPTIONS_OF = {"gif": {"trans_color": "0"}}  # what is transparent lies on black, as in every other format
_HEAD_BYTES = 64
BUFFER_BYTES = 32768
"""that FFmpeg reads of a file at a time"""
_TEXTS = {
    b"#extm3u": "an HLS playlist",
    b"ffconcat": "a list of files for FFmpeg",
    b"# vobsub": "an index of VobSub subtitles",
    b"v=0\no=": "a session description (SDP)",
    b"v=0\r\no=": "a session description (SDP)",
    b"[playlist]": "a playlist",
    b"[reference]": "a list of references",
    b"rtsptext": "a reference to a stream",
    b"<?xml": "an XML document",
    b"<mpd ": "a DASH manifest",
    b"<!doctype": "an HTML page",
    b"<html": "an HTML page",
}
"""How texts begin that lead elsewhere or are often saved in place of a video, in lower case."""
READ_ERRORS = (av.error.FFmpegError, OSError, IndexError)
"""What demuxing and decoding raise; IndexError is PyAV's own, of a stream that begins midway in MPEG-TS."""
_MOST = 2**31 - 1  # FFmpeg's options are C integers

av.logging.set_level(av.logging.PANIC)


class OpenFile(io.FileIO):
    """One regular file, read for a decoder; remembers what its storage refused.

    A decoder's own "input/output error" means damage just as often, so it does not count; what the system
    said while the file was read does.
    """

    def __init__(self, path: Path):
        """Open a file; a named pipe or a device is refused, without waiting for it.

        Raises:
            MediaError: there is no such file, or it cannot be read.
        """
        self.error: OSError | None = None
        try:
            super().__init__(path, "r", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
        except OSError as error:
            raise storage_error(error) from None
        self.name = "media" + (path.suffix if path.suffix.isascii() else "")  # FFmpeg goes by the suffix, too
        self.status = os.fstat(self.fileno())
        if not stat.S_ISREG(self.status.st_mode):
            self.close()
            raise MediaError("not a regular file")

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes; after an error there are no more."""
        return self._watched(super().read, size, b"")

    def readinto(self, buffer: Any, /) -> int:
        """Read some bytes into a buffer; after an error there are no more."""
        return self._watched(super().readinto, buffer, 0)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go elsewhere; a place that no file can have is answered as C does."""
        try:
            return super().seek(offset, whence)
        except (OSError, OverflowError):
            return -errno.EINVAL

    def _watched(self, read: Callable[[Any], Any], argument: Any, nothing: Any) -> Any:
        if self.error is not None:
            return nothing
        try:
            return read(argument)
        except OSError as error:
            self.error = error
            raise


@contextmanager
def open_file(path: Path) -> Iterator[OpenFile]:
    """Open a regular file; if its storage refused to give it whole, that is the error, whatever came of it.

    Raises:
        MediaError: there is no such file, or it cannot be read.
    """
    file = OpenFile(path)
    try:
        yield file
    except Exception:
        if file.error is not None:
            raise storage_error(file.error) from None
        raise
    finally:
        file.close()
    if file.error is not None:
        raise storage_error(file.error)


def storage_error(error: OSError) -> MediaError:
    """Return what the storage refused, and whether it may give it later."""
    if isinstance(error, FileNotFoundError):
        return MediaError("the file is gone (No such file or directory)")
    return MediaError(error.strerror or type(error).__name__, is_transient=error.errno in STORAGE_FAILED)


@contextmanager
def open_video(path: Path, limits: Limits = USUAL_LIMITS) -> Iterator[InputContainer]:
    """Open a media file.

    Raises:
        MediaError: not a file that FFmpeg can open, not a video format, or above a limit.
    """
    with open_file(path) as file, opened(file, limits) as container:
        yield container


@contextmanager
def opened(file: Any, limits: Limits, buffer_bytes: int = BUFFER_BYTES) -> Iterator[InputContainer]:
    """Open what reads, seeks and tells as a file does; raises as `open_video` does.

    Args:
        file: at its beginning.
        limits: bounds on what it may hold.
        buffer_bytes: read at a time.
    """
    refuse_text(file)
    options = _OPEN_OPTIONS | {
        "max_streams": str(min(limits.max_streams + 1, _MOST)),
        "max_pixels": str(min(limits.max_pixels, _MOST)),  # reaches the decoders that guess the format
    }
    try:
        container = av.open(file, options=options, metadata_errors="replace", buffer_size=buffer_bytes)
    except (av.error.FFmpegError, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOMEM:
            raise MediaError("more streams than limits.max_streams, or needs too much memory") from None
        raise MediaError(f"not a readable media file ({reason(error)})") from None
    with container:
        if len(container.streams) > limits.max_streams:
            raise MediaError(f"more than the {limits.max_streams} streams of limits.max_streams")
        yield container


def refuse_text(file: Any) -> None:
    """Refuse what begins as a playlist or another text, whatever a demuxer may find further down in it.

    Raises:
        MediaError: it is one.
    """
    head = file.read(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    file.seek(0)
    for beginning, what in _TEXTS.items():
        if head.startswith(beginning):
            raise MediaError(f"not a video file ({what})")


def stream_of(container: InputContainer, index: int) -> VideoStream:
    """Return the video stream of this index.

    Raises:
        MediaError: it is not there any more, or no video.
    """
    for stream in container.streams.video:
        if stream.index == index and stream.codec_context is not None:
            return stream
    raise MediaError("the file has changed: its video stream is gone")


def prepare_decoder(stream: VideoStream, limits: Limits = USUAL_LIMITS) -> None:
    """Decode in this thread alone, treat damage as an error, and refuse pictures above the limit unseen.

    Raises:
        MediaError: the declared size is above the limit.
    """
    codec = stream.codec_context
    refuse_size(codec.width, codec.height, limits)
    codec.thread_count = 1
    codec.options = (
        _DECODE_OPTIONS | _OPTIONS_OF.get(codec.name, {}) | {"max_pixels": str(min(limits.max_pixels, _MOST))}
    )


def refuse_size(width: int, height: int, limits: Limits) -> None:
    """Refuse a picture above the limit.

    Raises:
        MediaError: it is.
    """
    if width * height > limits.max_pixels:
        raise MediaError(f"{width}x{height} is more than the {limits.max_pixels} pixels of limits.max_pixels")


def damage(error: BaseException) -> str:
    """Return what a decoder refused; a size that grows in mid-stream and damage cannot always be told apart."""
    log = getattr(error, "log", None) or (0, "", "")
    if "exceeds" in log[2]:
        return "a picture has more pixels than limits.max_pixels"
    if getattr(error, "errno", None) in (errno.EINVAL, errno.ENOMEM, errno.ERANGE):
        return f"{reason(error)}: damaged, or more pixels than limits.max_pixels"
    return reason(error)


def reason(error: BaseException) -> str:
    """Return FFmpeg's words without numbers and file names."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
