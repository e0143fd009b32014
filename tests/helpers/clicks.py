"""Footage with clicks at known times, and where they are heard in a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

TIMES_S = (0.5, 1.25, 2.0, 3.123)
FPS = 25
CLICK_S = 1e-4


@dataclass(frozen=True)
class Heard:
    """What a player makes of a file's sound: seconds from its first picture."""

    clicks_s: list[float]
    start_s: float
    end_s: float
    rate_hz: int
    layout: str


def click_track(rate_hz: int, length_s: float, times_s: Sequence[float], channels: int = 1) -> np.ndarray:
    """Return float32 (C, N), silent but for short clicks."""
    track = np.zeros((channels, round(rate_hz * length_s)), np.float32)
    for time_s in times_s:
        begin = round(time_s * rate_hz)
        track[:, begin : begin + max(1, round(CLICK_S * rate_hz))] = 0.9
    return track


def frame_of(samples: np.ndarray, rate_hz: int, start: int, layout: str) -> av.AudioFrame:
    """Return float32 (C, N) as a frame whose first sample is the `start`th."""
    packed = np.ascontiguousarray(samples.T).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, start, Fraction(1, rate_hz)
    return frame


def write_clicks(
    path: Path,
    codec: str,
    rate_hz: int = 48000,
    layout: str = "mono",
    length_s: float = 4.0,
    times_s: Sequence[float] = TIMES_S,
    sound_s: Sequence[tuple[float, float]] | None = None,
    picture_starts_s: float = 0.0,
    picture_times_s: Sequence[float] | None = None,
) -> Path:
    """Write grey pictures with a counter in their brightness, and a click track.

    Args:
        sound_s: the stretches in which there is sound at all; null: everywhere.
        picture_starts_s: of the first picture; click times are on the same clock.
        picture_times_s: of every picture, instead of an even rate.
    """
    channels = av.AudioLayout(layout).nb_channels
    video_codec, options = "libx264", {"preset": "ultrafast", "g": str(FPS)}
    if path.suffix == ".webm":
        video_codec, options = "libvpx", {"g": str(FPS), "deadline": "realtime", "cpu-used": "8"}
    with av.open(str(path), "w") as output:
        picture = output.add_stream(video_codec, rate=FPS, options=options)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        picture.codec_context.time_base = Fraction(1, 1000)
        sound = output.add_stream(codec, rate=rate_hz, layout=layout)
        times = picture_times_s or [picture_starts_s + i / FPS for i in range(round(length_s * FPS))]
        track = click_track(rate_hz, picture_starts_s + length_s, times_s, channels)
        pieces = []
        for begin_s, end_s in sound_s or [(0.0, picture_starts_s + length_s)]:
            end = min(round(end_s * rate_hz), track.shape[1])
            pieces += [(begin, min(begin + 1024, end)) for begin in range(round(begin_s * rate_hz), end, 1024)]
        for index, time_s in enumerate(times):
            while pieces and pieces[0][0] / rate_hz <= time_s:
                begin, end = pieces.pop(0)
                output.mux(sound.encode(frame_of(track[:, begin:end], rate_hz, begin, layout)))
            frame = av.VideoFrame.from_ndarray(np.full((48, 64), 20 + index * 2 % 200, np.uint8), format="gray")
            frame.pts, frame.time_base = round(time_s * 1000), Fraction(1, 1000)
            output.mux(picture.encode(frame))
        output.mux(picture.encode(None))
        for begin, end in pieces:
            output.mux(sound.encode(frame_of(track[:, begin:end], rate_hz, begin, layout)))
        output.mux(sound.encode(None))
    return path


def heard(path: Path, index: int = 0) -> Heard:
    """Decode a file's sound as a player does, and find the clicks."""
    with av.open(str(path)) as container:
        zero_s = next(container.decode(video=0)).time
    clicks: list[float] = []
    start_s, end_s = None, 0.0
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="flt")
        for raw in container.decode(audio=index):
            for frame in resampler.resample(raw):
                loud = np.abs(frame.to_ndarray().reshape(-1, frame.layout.nb_channels)).max(1)
                time_s = raw.time - zero_s
                start_s = time_s if start_s is None else start_s
                end_s = time_s + frame.samples / frame.sample_rate
                for place in np.flatnonzero(loud > 0.25):
                    at_s = time_s + place / frame.sample_rate
                    if not clicks or at_s - clicks[-1] > 0.02:
                        clicks.append(at_s)
        assert start_s is not None
        return Heard(clicks, start_s, end_s, raw.sample_rate, raw.layout.name)
