"""Encoding decoded sound: which form the encoder takes, and one unbroken stream from blocks."""

from fractions import Fraction

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer

from media.sound_reader import Block

ENCODERS = {"mp4": "aac", "matroska": "aac", "webm": "libopus"}
"""By FFmpeg's name of the container; WebM holds no AAC."""
AAC_RATES_HZ = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
OPUS_RATES_HZ = (48000,)
BIT_RATE_BPS = 96_000
"""For each channel at 48 kHz; in proportion at lower rates."""
LAYOUTS = frozenset({"mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1", "quad", "2.1", "3.0(back)"})
"""What comes back as it is: AAC's channel configurations 1 to 7 (ISO/IEC 14496-3), and what it can describe besides."""
SAME_ORDER = {"5.0(side)": "5.0", "5.1(side)": "5.1", "quad(side)": "quad", "downmix": "stereo"}
"""Layouts with the same channels in the same order, at slightly other places in the room: only the name changes."""
LARGER = {
    **dict.fromkeys(("3.1", "4.1"), "5.1"),
    **dict.fromkeys(("6.0", "6.0(front)", "hexagonal", "6.1", "6.1(back)", "6.1(front)", "7.0", "7.0(front)"), "7.1"),
    **dict.fromkeys(("7.1(wide)", "7.1(wide-side)", "octagonal"), "7.1"),
}
"""Layouts that are mixed into one that has room for all of them, by FFmpeg's matrix (libswresample, rematrix.c)."""
UNNAMED = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""Where a file gives a number of channels alone; of more than 8 the first two are kept."""
FALLBACK = "stereo"
"""What all others are mixed to."""
PIECE_S = 1.0
"""Silence is written in pieces of this length."""


def encoded_rate_hz(rate_hz: int, rates_hz: tuple[int, ...]) -> int:
    """Return the supported rate nearest to one, by ratio; the higher one of two that are as near."""
    return min(rates_hz, key=lambda known: (max(known / rate_hz, rate_hz / known), -known))


def named_layout(layout: str, channels: int) -> tuple[str, int]:
    """Return a layout that says where its channels are, and how many channels of the source it takes."""
    if not layout.endswith(" channels"):
        return SAME_ORDER.get(layout, layout), channels
    return (UNNAMED[channels], channels) if channels in UNNAMED else (FALLBACK, 2)


def encoded_layout(named: str) -> str:
    """Return the layout that is written: the same one where AAC has it, else a larger one, else stereo."""
    return named if named in LAYOUTS else LARGER.get(named, FALLBACK)


class Encoder:
    """Encodes blocks as one unbroken stream: silence where nothing was, the form of the first block throughout."""

    def __init__(self, first: Block, container: str):
        """Choose the form by the first block."""
        self._layout, self._in_rate_hz = first.layout, first.rate_hz
        self._in_layout, self._num_channels = named_layout(first.layout, first.samples.shape[0])
        self.codec = {"libopus": "opus"}.get(ENCODERS[container], ENCODERS[container])
        self._name, self._is_mp4 = ENCODERS[container], container == "mp4"
        rates_hz = AAC_RATES_HZ if self._name == "aac" else OPUS_RATES_HZ
        self.rate_hz = encoded_rate_hz(first.rate_hz, rates_hz)
        self._out_layout = encoded_layout(self._in_layout)
        self.channels = av.AudioLayout(self._out_layout).nb_channels
        self.silent_s = 0.0
        """silence written so far where the source had no sound"""
        self.skips = 0
        """samples at the encoded rate that a late track has to skip first"""
        self._next = first.start
        self._start = first.start if first.start > 1 else 0
        self._has_first_packet = False

    def add_to(self, output: OutputContainer) -> None:
        """Add a stream."""
        self._output = output
        stream = output.add_stream(self._name, rate=self.rate_hz, layout=self._out_layout)
        assert isinstance(stream, AudioStream)
        codec = stream.codec_context
        codec.time_base = Fraction(1, self.rate_hz)
        codec.thread_count = 1
        codec.bit_rate = round(BIT_RATE_BPS * self.channels * min(1.0, self.rate_hz / 48000))
        self._stream = stream

    def write(self, block: Block) -> None:
        """Encode a block, after the silence before it."""
        samples, start = block.samples, block.start
        if (block.rate_hz, block.layout) != (self._in_rate_hz, self._layout):
            samples = _converted(block, self._in_layout, self._in_rate_hz)
            start = round(block.start / block.rate_hz * self._in_rate_hz)
        missing = start - self._next
        self.silent_s += max(0, missing) / self._in_rate_hz
        while missing > 0:
            piece = min(missing, round(PIECE_S * self._in_rate_hz))
            self._encode(np.zeros((self._num_channels, piece), np.float32))
            missing -= piece
        self._encode(samples[:, max(0, -missing) :])

    def close(self) -> None:
        """Write what the encoder still holds."""
        self._mux(None)

    def _encode(self, samples: np.ndarray) -> None:
        if samples.shape[1]:
            self._mux(self._frame(samples))
            self._next += samples.shape[1]

    def _frame(self, samples: np.ndarray) -> AudioFrame:
        frame = _packed(samples[: self._num_channels], self._in_layout)
        frame.sample_rate, frame.time_base = self._in_rate_hz, Fraction(1, self._in_rate_hz)
        frame.pts = self._next
        return frame

    def _mux(self, frame: AudioFrame | None) -> None:
        for packet in self._stream.encode(frame):
            pts = packet.pts or 0
            if not self._has_first_packet and self._start and self._is_mp4:
                self.skips = round(self._start / self._in_rate_hz * self.rate_hz) - pts
            self._has_first_packet = True
            packet.pts = packet.dts = pts + self.skips
            self._output.mux(packet)


def _packed(samples: np.ndarray, layout: str) -> AudioFrame:
    """Return float32 (C, N) as a packed frame: PyAV reads planar ones of 8 channels and more beyond their planes."""
    return AudioFrame.from_ndarray(np.ascontiguousarray(samples.T).reshape(1, -1), format="flt", layout=layout)


def _converted(block: Block, layout: str, rate_hz: int) -> np.ndarray:
    """Return a block's samples, float32 (C, N), in another layout and rate."""
    named, channels = named_layout(block.layout, block.samples.shape[0])
    frame = _packed(block.samples[:channels], named)
    frame.sample_rate = block.rate_hz
    resampler = av.AudioResampler(format="flt", layout=layout, rate=rate_hz)
    parts = [part.to_ndarray() for f in (frame, None) for part in resampler.resample(f)]
    packed = np.concatenate(parts, axis=1) if parts else np.zeros((1, 0), np.float32)
    return packed.reshape(-1, av.AudioLayout(layout).nb_channels).T
