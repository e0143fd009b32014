"""Writing clips: frame-exact transcoding and still images."""

import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from av.video.frame import PictureType, VideoFrame
from PIL import Image

from core.errors import MediaError
from core.files import atomic_path
from media.decode import raw_frames
from media.encoder import encoder_for, keeps_hdr
from media.image import is_upright_jpeg, read_image
from media.settings import CutSettings
from media.shape import TICKS, Box, Shaper, copy_colors, pixel_box, shrunk_size, target_size
from media.sound import open_sound
from media.stream_decoder import Damage, RawFrame
from media.stretch import Excerpt, Stretch
from media.timeline import Clock
from media.types import SourceFacts, Span
from media.written import TimedTrack, Written, clip_rate, writing

IMAGE_QUALITY = 95
Watcher = Callable[[VideoFrame, int], None]
"""Called with a frame as it is written and its time in `shape.TICKS`."""


def transcode(excerpt: Excerpt, cut: CutSettings, box: Box | None, to: Path, watcher: Watcher | None = None) -> Written:
    """Write an excerpt as H.264 in MP4, frame for frame, upright and with square pixels, with its sound as AAC.

    Frame times are kept (also variable ones) unless `cut.fps` asks for a constant rate, and the file is as long
    as the span. Pictures are written with 8 bits and tags that say what they are: HDR is tone-mapped, unless `cut.hdr`
    keeps it as 10-bit HEVC. `excerpt.beat` is called after each frame, since encoding a large clip takes a while;
    `watcher` with each frame as it goes to the encoder.

    Raises:
        MediaError: the span cannot be read, or gives another number of frames than when it was analysed.
    """
    facts, span, beat = excerpt.facts, excerpt.span, excerpt.beat
    times_s: list[float] = []
    size, tick = (0, 0), -1
    with (
        atomic_path(to) as temporary,
        open_sound(excerpt, cut.audio) as sound,
        writing(temporary) as output,
    ):
        stream = None
        shown = _with_times(excerpt)
        for raw, time_s in shown if cut.fps is None else _at_rate(shown, cut.fps, span.duration_s):
            if stream is None:
                size = target_size(raw.facts, cut, box)
                rate = cut.fps or facts.fps or 25.0
                name, pixel_format, options = encoder_for(cut, facts)
                stream = output.add_stream(name, rate=Fraction(rate).limit_denominator(60000))
                stream.width, stream.height, stream.pix_fmt = *size, pixel_format
                codec = stream.codec_context
                codec.time_base = TICKS
                codec.options = options
                if name == "libx265":
                    codec.codec_tag = "hvc1"  # by which QuickTime knows it
                sound.add_to(output)
                shape = Shaper(raw.facts, box, size, keep_hdr=keeps_hdr(cut, facts))
                track = TimedTrack(output)
            ready = shape(raw.frame)
            if not times_s:
                copy_colors(ready, codec)  # before the sound begins the file
            sound.write(time_s)
            tick = max(round(time_s / TICKS), tick + 1)  # times a tick apart may round to the same one
            ready.pts, ready.time_base = tick, TICKS
            ready.pict_type = PictureType.NONE
            if watcher is not None:
                watcher(ready, tick)
            track.add(stream.encode(ready))
            times_s.append(time_s)
            beat(0.0)
        if stream is None:
            raise MediaError("no frame could be read again", span.start_s)
        track.add(stream.encode(None))
        track.close(max(round(span.duration_s / TICKS), tick + 1))
        if cut.fps is None and len(times_s) != span.num_frames:
            raise MediaError(f"{len(times_s)} frames where the analysis saw {span.num_frames}", span.start_s)
        written_sound = sound.close()
        output.close()
        sound.settle(temporary)
    fps = cut.fps or clip_rate(times_s, span.duration_s, facts)
    return Written(*size, fps, len(times_s), span, written_sound)


def write_image(
    path: Path, facts: SourceFacts, cut: CutSettings, box: Box | None, max_pixels: int, to: Path
) -> Written:
    """Write a still image as JPEG: byte for byte where it is one already, else at quality 95.

    Raises:
        MediaError: the image cannot be read again.
    """
    span = Span(0.0, 0.0, 0, 1)
    whole = box is None and (cut.short_side_px is None or min(facts.width_px, facts.height_px) <= cut.short_side_px)
    with atomic_path(to) as temporary:
        if whole and is_upright_jpeg(path):
            shutil.copyfile(path, temporary)
            return Written(facts.width_px, facts.height_px, None, 1, span)
        pixels = read_image(path, max_pixels)
        if box is not None:
            left, top, right, bottom = pixel_box(box, facts.width_px, facts.height_px)
            pixels = pixels[top:bottom, left:right]
        image = Image.fromarray(np.ascontiguousarray(pixels))
        size = shrunk_size(image.width, image.height, cut.short_side_px)
        if size != image.size:
            image = image.resize(size, Image.Resampling.LANCZOS)
        image.save(temporary, "JPEG", quality=IMAGE_QUALITY)
        return Written(*image.size, None, 1, span)


def _with_times(excerpt: Excerpt) -> Iterator[tuple[RawFrame, float]]:
    """Read a span's frames again, with times from its start, strictly rising by at least a tick."""
    path, facts, span = excerpt.path, excerpt.facts, excerpt.span
    beat, limits = excerpt.beat, excerpt.limits
    if facts.declared_frames is None:  # packets without times: count frames instead
        frames = (
            item for item in raw_frames(Stretch(path, facts, beat=beat, limits=limits)) if isinstance(item, RawFrame)
        )
        step_s = 1 / (facts.fps or 25.0)
        last_frame = span.start_frame + span.num_frames
        for index, raw in enumerate(islice(frames, span.start_frame, last_frame)):
            yield raw, index * step_s
        return
    clock, last_s = Clock.of(facts), -1.0
    bounds = clock.first_pts(span.start_s), clock.first_pts(span.end_s)
    # No further than the span's own frames: right behind them the file may be damaged.
    for item in islice(raw_frames(Stretch(path, facts, *bounds, beat, limits)), span.num_frames):
        if isinstance(item, Damage):
            raise MediaError(f"{item.what}, where the analysis saw none", clock.seconds(item.start_pts))
        time_s = clock.seconds(item.pts) - span.start_s if item.pts is not None else last_s
        last_s = max(time_s, last_s + float(TICKS)) if last_s >= 0 else 0.0
        yield item, last_s


def _at_rate(
    frames: Iterator[tuple[RawFrame, float]], fps: float, duration_s: float
) -> Iterator[tuple[RawFrame, float]]:
    """Repeat or leave out frames for a constant rate: each output time shows the frame on screen then."""
    held: RawFrame | None = None
    index, count = 0, max(1, round(duration_s * fps))
    for frame, time_s in frames:
        while held is not None and index < count and index / fps < time_s - 1e-6:
            yield held, index / fps
            index += 1
        held = frame
    while held is not None and index < count:
        yield held, index / fps
        index += 1
