"""Opening media: local files only, one decoder thread, damage is an error."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from curation.errors import MediaError

# A media file may refer to others (playlists, data references); nothing but this file is opened.
_OPEN_OPTIONS = {"protocol_whitelist": "file"}
# A damaged slice is an error, not a grey patch that ends up in the training data.
_DECODE_OPTIONS = {"err_detect": "explode"}

av.logging.set_level(av.logging.PANIC)


@contextmanager
def open_video(path: Path) -> Iterator[InputContainer]:
    """Open a media file.

    Raises:
        MediaError: not a file that FFmpeg can open.
    """
    try:
        container = av.open(str(path), options=dict(_OPEN_OPTIONS), metadata_errors="replace")
    except FileNotFoundError:
        raise MediaError("the file is gone") from None
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(f"not a readable media file ({reason(error)})") from None
    with container:
        yield container


def best_video_stream(container: InputContainer) -> VideoStream:
    """Choose the largest moving video stream; of equals the longest, then the first.

    Raises:
        MediaError: the file has no video stream.
    """
    moving = [s for s in container.streams.video if not _is_cover(s)]
    if not moving:
        kinds = sorted({s.type for s in container.streams})
        raise MediaError(f"no video stream (the file holds {', '.join(kinds) or 'nothing'})")
    for stream in moving:
        if stream.codec_context is None:
            raise MediaError("no decoder for its video codec")
    return max(moving, key=lambda s: (s.codec_context.width * s.codec_context.height, s.frames, -s.index))


def stream_of(container: InputContainer, index: int) -> VideoStream:
    """Give the video stream of this index.

    Raises:
        MediaError: it is not there any more, or no video.
    """
    for stream in container.streams.video:
        if stream.index == index:
            return stream
    raise MediaError("the file has changed: its video stream is gone")


def prepare_decoder(stream: VideoStream) -> None:
    """Decode in this thread alone and treat damage as an error."""
    stream.codec_context.thread_count = 1
    stream.codec_context.options = dict(_DECODE_OPTIONS)


def reason(error: BaseException) -> str:
    """Give FFmpeg's words without numbers and file names."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)
