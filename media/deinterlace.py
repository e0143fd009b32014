"""Frames as they are shown: settled colours, and whole pictures where the file holds two fields in each frame."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import av
from av.filter import Graph
from av.video.frame import VideoFrame

from core.errors import MediaError
from media.colour import settled
from media.stream_decoder import Damage, RawFrame
from media.types import SourceFacts

_OWN_CLOCK = Fraction(1, 1000)
"""of the filter: a file's own may jump"""

Item = RawFrame | Damage


def as_shown(items: Iterator[Item], facts: SourceFacts) -> Iterator[Item]:
    """Yield every decoded frame of a source as everything else looks at it: `colour.settled` and deinterlaced.

    Raises:
        MediaError: what `items` raises, after all frames before it were given; or pixels that cannot be converted.
    """
    ready = map(_settled, items)
    return ready if facts.interlaced == "progressive" else deinterlaced(ready, facts.interlaced)


def _settled(item: Item) -> Item:
    if isinstance(item, Damage):
        return item
    frame = settled(item.frame)
    return item if frame is item.frame else replace(item, frame=frame)


def deinterlaced(items: Iterator[Item], first_field: str) -> Iterator[Item]:
    """Deinterlace frames by FFmpeg's bwdif, one for each, with the times that they have.

    Each is given once the next one is known, whose fields it is compared with; a stream's first and last frame, and
    those beside damage or a change of size, have a neighbour on one side alone.

    Args:
        items: frames of any size and format, with settled colours, and stretches of damage, which pass.
        first_field: `tff` or `bff`.
    """
    weaver: _Bwdif | None = None
    try:
        for item in items:
            if weaver is not None and (isinstance(item, Damage) or weaver.kind != _kind(item.frame)):
                yield from weaver.finish()
                weaver = None
            if isinstance(item, Damage):
                yield item
                continue
            weaver = weaver or _Bwdif(item.frame, first_field)
            yield from weaver.push(item)
    except MediaError:
        yield from weaver.finish() if weaver is not None else ()
        raise
    yield from weaver.finish() if weaver is not None else ()


def _kind(frame: VideoFrame) -> tuple[int, int, str, int, int]:
    return frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range


class _Bwdif:
    """A filter graph for frames of one kind."""

    def __init__(self, frame: VideoFrame, first_field: str):
        self.kind = _kind(frame)
        self._graph = Graph()
        self._count = 0
        self._waiting: deque[tuple[RawFrame, int | None, Fraction | None]] = deque()
        source = source_for(self._graph, frame, _OWN_CLOCK)
        bwdif = self._graph.add("bwdif", f"mode=send_frame:parity={first_field}:deint=all")
        self._graph.link_nodes(source, bwdif, self._graph.add("buffersink")).configure()

    def push(self, raw: RawFrame) -> Iterator[RawFrame]:
        """Take a frame; yield those that are ready."""
        frame = raw.frame
        self._waiting.append((raw, frame.pts, frame.time_base))
        frame.pts, frame.time_base = self._count, _OWN_CLOCK
        self._count += 1
        self._graph.push(frame)
        return self._ready()

    def finish(self) -> Iterator[RawFrame]:
        """Yield the frames that are still waiting."""
        self._graph.push(None)
        return self._ready()

    def _ready(self) -> Iterator[RawFrame]:
        while True:
            try:
                woven = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            assert isinstance(woven, VideoFrame)
            raw, pts, time_base = self._waiting.popleft()
            woven.pts, woven.duration = pts, raw.frame.duration
            if time_base is not None:
                woven.time_base = time_base
            yield replace(raw, frame=woven)


def source_for(graph: Graph, frame: VideoFrame, time_base: Fraction) -> av.filter.context.FilterContext:
    """Add the source of a filter graph that takes frames like this one, colours included."""
    return graph.add(
        "buffer",
        video_size=f"{frame.width}x{frame.height}",
        pix_fmt=frame.format.name,
        time_base=str(time_base),
        pixel_aspect="1/1",
        colorspace=str(frame.colorspace),
        range=str(frame.color_range),
    )
