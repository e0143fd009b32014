"""Speech: in which share of a clip somebody talks, told from its sound.

The detector is Silero VAD 6.2 (github.com/snakers4/silero-vad): for every 32 ms of sound at 16 kHz how likely it is
speech, in 6000 languages by its makers' count. Singing is heard as speech where words are clear. All windows of a clip
go through the network in one call, which gives what its makers' loop over single windows gives.

- package: `silero-vad` 6.2.3 (extra `sound`), which holds the network as ONNX; it is read, not imported, so that
  `pip install --no-deps silero-vad==6.2.3` does, too, and spares torch, which the package asks for;
- weights' licence: MIT (Silero Team, 2020 to present);
- sha256: 9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85, checked before use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from core.settings import key
from curation.schema import VIDEO
from curation.types import ClipInput, Sampling, Scorer, Scores

if TYPE_CHECKING:
    from models.weights.wheels import WheelWeights

RATE_HZ = 16_000
WINDOW, CONTEXT = 512, 64
"""samples that the network judges at once, and those before them that it sees as well"""
MOST_WINDOWS = 512
"""windows in one call, which bounds memory; the network's state is handed on"""
CALMER = 0.15
"""Speech lasts until a window is so much below the threshold."""
SHORTEST, PAUSE = 250 / 32, 100 / 32
"""Shorter speech is none and shorter pauses are speech, in windows of 32 ms: the defaults of the network's makers."""


def windows_of(sound: np.ndarray) -> np.ndarray:
    """Divide sound into what the network sees: float32 (N,) into (W, 64 + 512), the last window filled with silence."""
    count = -(-len(sound) // WINDOW)
    padded = np.zeros(CONTEXT + max(1, count) * WINDOW, np.float32)
    padded[CONTEXT : CONTEXT + len(sound)] = sound
    return np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + WINDOW)[::WINDOW][:count]


def probabilities(session: Any, sound: np.ndarray) -> np.ndarray:
    """Return how likely each window is speech: float32 (W,), of sound (N,) at 16 kHz."""
    state = {"h": np.zeros((1, 1, 128), np.float32), "c": np.zeros((1, 1, 128), np.float32)}
    found = [np.zeros(0, np.float32)]
    windows = windows_of(sound)
    for begin in range(0, len(windows), MOST_WINDOWS):
        some = np.ascontiguousarray(windows[begin : begin + MOST_WINDOWS])
        values, state["h"], state["c"] = session.run(["speech_probs", "hn", "cn"], {"input": some} | state)
        found.append(np.asarray(values, np.float32).reshape(-1))
    return np.concatenate(found)


def spoken(likely: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    """Return the stretches of speech, in windows, half-open.

    Speech begins with a window of at least `threshold`, and ends where windows fall below it by `CALMER` and none
    reaches it again before a pause is over.
    """
    found: list[tuple[int, int]] = []
    begin, calm = None, None
    low = max(threshold - CALMER, 0.01)
    for place, value in enumerate(likely.tolist()):
        if value >= threshold:
            begin, calm = place if begin is None else begin, None
        elif begin is not None and value < low:
            calm = place if calm is None else calm
            if place - calm >= PAUSE:
                found.append((begin, calm))
                begin, calm = None, None
    if begin is not None:
        found.append((begin, len(likely)))
    return [(first, end) for first, end in found if end - first > SHORTEST]


@lru_cache(maxsize=2)
def _session(weights: "WheelWeights") -> Any:
    """Open the network, once in a process: it is loaded for every segment. A GPU would wait more than compute."""
    from models.scorers.onnx_session import open_session
    from models.weights.wheels import read_wheel

    return open_session(read_wheel(weights), "cpu")


@dataclass(frozen=True)
class Speech:
    """Share of a clip in which somebody talks, 0..1; null without sound, or where some of it cannot be decoded."""

    threshold: float = key(0.5, "how likely a window of 32 ms must be speech", above=0.0, below=1.0)

    writes: ClassVar[tuple[str, ...]] = ("speech",)
    media: ClassVar[frozenset[str]] = VIDEO
    pool: ClassVar[str | None] = None
    sound_hz: ClassVar[int] = RATE_HZ

    @property
    def sampling(self) -> Sampling | None:
        """No frames."""
        return None

    @property
    def wheel(self) -> "WheelWeights":
        """The package that holds its weights."""
        from models.weights.wheels import SILERO

        return SILERO

    def load(self) -> Scorer:
        """Open the network and give the scoring function.

        Raises:
            ModelError: the package is not installed.
        """
        session = _session(self.wheel)

        def score(clips: Sequence[ClipInput]) -> list[Scores]:
            return [{"speech": None if clip.sound is None else self._share(session, clip.sound)} for clip in clips]

        return score

    def _share(self, session: Any, sound: np.ndarray) -> float | None:
        likely = probabilities(session, sound)
        if not len(likely) or not np.isfinite(likely).all():
            return None
        return sum(end - begin for begin, end in spoken(likely, self.threshold)) / len(likely)
