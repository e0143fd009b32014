"""The sound of a stretch of a source as one channel of one rate, read once and given clip by clip."""

import math
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame

from core.limits import Limits
from media.container import USUAL_LIMITS
from media.sound_reader import Block, SoundReader
from media.stretch import Excerpt
from media.types import Heartbeat, SourceFacts, Span, no_heartbeat

TO_THE_END_S = 1e6
"""the length of a stretch whose end is not known: no sound is so long"""
DOUBT_S = 0.5
"""Sound this near to damage is doubtful: the reader looks so far ahead where time stamps are rounded."""


@dataclass(frozen=True, eq=False)
class _Piece:
    """Sound without a gap: `start` counted from the stretch's start, float32 (N,), both at the track's rate."""

    start: int
    samples: np.ndarray

    @property
    def end(self) -> int:
        return self.start + len(self.samples)


class SoundTrack:
    """Reads along with the clips, which are asked for in the order of time: nothing is read twice, or before it is due.

    Channels are averaged. What clips have left behind is forgotten, so that memory is bounded by the longest clip.
    """

    def __init__(
        self,
        path: Path,
        facts: SourceFacts,
        rate_hz: int,
        stretch_s: tuple[float, float | None] = (0.0, None),
        beat: Heartbeat = no_heartbeat,
        limits: Limits = USUAL_LIMITS,
    ):
        """Open nothing yet.

        Args:
            path: the source.
            facts: of the source.
            rate_hz: samples per second that are given.
            stretch_s: from where to where clips may lie, in seconds from the source's first frame; null: to its end.
            beat: called for each packet read.
            limits: as for pictures.
        """
        self._start_s, end_s = stretch_s
        self._rate_hz = rate_hz
        span = Span(self._start_s, self._start_s + TO_THE_END_S if end_s is None else end_s, 0, 0)
        self._reader = SoundReader(Excerpt(path, facts, span, beat, limits))
        self._blocks: Generator[Block, None, None] | None = None
        self._is_over = facts.audio_index is None
        self._resampler: _Resampler | None = None
        self._pieces: deque[_Piece] = deque()
        self._damaged_s: list[tuple[float, float]] = []
        self._reached_s = 0.0  # from the stretch's start

    def take(self, span: Span) -> np.ndarray | None:
        """Return the sound of a clip: float32 (N,), about -1..1, with silence where there is none within it.

        None where the clip has no sound at all, where some of it cannot be decoded, or where it was forgotten.

        Args:
            span: of the clip, not before that of an earlier call.

        Raises:
            MediaError: the storage failed, or the file is gone.
        """
        begin_s, end_s = span.start_s - self._start_s, span.end_s - self._start_s
        self._read(begin_s, end_s)
        if any(begin_s < after_s and before_s < end_s for before_s, after_s in self._damaged_s):
            return None
        begin = round(begin_s * self._rate_hz)
        sound = np.zeros(round(span.duration_s * self._rate_hz), np.float32)
        is_heard = False
        for piece in self._pieces:
            first, last = max(piece.start, begin), min(piece.end, begin + len(sound))
            if first < last:
                sound[first - begin : last - begin] = piece.samples[first - piece.start : last - piece.start]
                is_heard = True
        return sound if is_heard else None

    def _read(self, begin_s: float, end_s: float) -> None:
        """Read up to the end of a clip, and forget what lies before its beginning."""
        self._forget(begin_s)
        if self._blocks is None and not self._is_over:
            self._blocks = self._reader.blocks()
        # The resampler holds back its last samples until it sees the next ones.
        while not self._is_over and self._reached_s < end_s + DOUBT_S:
            assert self._blocks is not None
            block = next(self._blocks, None)
            next_s = math.inf if block is None else block.start / block.rate_hz
            if self._reader.problem is not None:
                self._damaged_s.append((self._reached_s - DOUBT_S, next_s + DOUBT_S))
                self._reader.problem = None
            if block is None:
                self._is_over = True
                self._pieces.extend(self._resampler.rest() if self._resampler else ())
            else:
                self._add(block)
                self._forget(begin_s)

    def _add(self, block: Block) -> None:
        if self._resampler is None or not self._resampler.continues(block):
            self._pieces.extend(self._resampler.rest() if self._resampler else ())
            self._resampler = _Resampler(block, self._rate_hz)
        self._pieces.extend(self._resampler.add(block))
        self._reached_s = (block.start + block.samples.shape[1]) / block.rate_hz

    def _forget(self, begin_s: float) -> None:
        while self._pieces and self._pieces[0].end <= begin_s * self._rate_hz:
            self._pieces.popleft()
        self._damaged_s = [stretch for stretch in self._damaged_s if stretch[1] > begin_s]


class _Resampler:
    """Brings blocks that follow each other without a gap to one channel of one rate."""

    def __init__(self, first: Block, rate_hz: int):
        self._input_hz, self._expected = first.rate_hz, first.start
        self._place = round(first.start / first.rate_hz * rate_hz)
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=rate_hz)

    def continues(self, block: Block) -> bool:
        """Return whether a block follows the one before."""
        return block.rate_hz == self._input_hz and abs(block.start - self._expected) <= 1

    def add(self, block: Block) -> list[_Piece]:
        self._expected = block.start + block.samples.shape[1]
        mono = np.ascontiguousarray(block.samples.mean(axis=0, dtype=np.float32)[None])
        frame = AudioFrame.from_ndarray(mono, format="flt", layout="mono")
        frame.sample_rate = self._input_hz
        return self._given(self._resampler.resample(frame))

    def rest(self) -> list[_Piece]:
        """Return what it held back."""
        return self._given(self._resampler.resample(None))

    def _given(self, frames: list[AudioFrame]) -> list[_Piece]:
        found = []
        for frame in frames:
            piece = _Piece(self._place, frame.to_ndarray().reshape(-1))
            if len(piece.samples):
                found.append(piece)
                self._place = piece.end
        return found
