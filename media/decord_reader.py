"""decord as the alternative frame reader (recipe key `reader: decord`)."""

from collections.abc import Iterator

import cv2
import numpy as np

from core.errors import MediaError
from media.animated import CONTAINERS
from media.container import open_video, prepare_decoder, reason, stream_of
from media.decode import read_frames
from media.frame import DecodedFrame, RgbFrame
from media.stretch import Stretch
from media.timeline import Clock
from media.types import Lost


def read_frames_decord(stretch: Stretch) -> Iterator[DecodedFrame | Lost]:
    """Decode the frames of a stretch with decord: a `FrameReader`.

    decord turns frames upright itself and ignores the pixel aspect, which is applied here. Its own FFmpeg,
    of 2018, knows no limits and follows playlists over the network, so the file must pass ours first. It knows no
    HDR, no fields, no mirror images and no animated images: such sources are read by `decode.read_frames`.

    Raises:
        MediaError: decord cannot read the file, or damage.
    """
    path, facts = stretch.path, stretch.facts
    is_plain = facts.transfer == "sdr" and facts.interlaced == "progressive" and not facts.is_mirrored
    if facts.container in CONTAINERS or not is_plain:
        yield from read_frames(stretch)
        return
    import decord  # heavy, and only for those who ask for it

    clock = Clock.of(facts)
    with open_video(path, stretch.limits) as container:
        prepare_decoder(stream_of(container, facts.stream_index), stretch.limits)
    try:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        shown = reader.get_frame_timestamp(range(len(reader)))  # (N, 2): begin and end in seconds
    except (decord.DECORDError, RuntimeError) as error:
        raise MediaError(f"decord: {_first_line(error)}") from None
    times_s = np.round(shown[:, 0].astype(np.float64) - float(shown[0, 0]), 6)
    lengths_s = np.append(np.diff(times_s), max(float(shown[-1, 1] - shown[-1, 0]), 0.0))
    start_s = clock.seconds(stretch.start_pts) if stretch.start_pts is not None else 0.0
    end_s = clock.seconds(stretch.end_pts) if stretch.end_pts is not None else np.inf
    slack_s = 0.5e-3  # decord's times are float32
    wanted = np.flatnonzero((times_s >= start_s - slack_s) & (times_s < end_s - slack_s))
    for index, position in enumerate(wanted):
        try:
            if index == 0 and position:
                reader.seek_accurate(int(position))
            pixels = reader.next().asnumpy()
        except (decord.DECORDError, StopIteration, RuntimeError) as error:
            raise MediaError(f"decord: {_first_line(error)}", float(times_s[position])) from None
        size = (facts.width_px, facts.height_px)
        if (pixels.shape[1], pixels.shape[0]) != size:
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        yield RgbFrame(pixels, index, float(times_s[position]), round(float(lengths_s[position]), 6))


def _first_line(error: BaseException) -> str:
    return reason(error).strip().splitlines()[-1] if reason(error).strip() else type(error).__name__
