"""Sound of files whose clock starts anew midway: each piece's sound moves with the pictures of that piece."""

from collections import deque
from collections.abc import Iterator

from av.packet import Packet

from media.timeline import Unwrapper

SOUND_STEP_S = 0.02
"""How long a packet of sound of unknown length is heard."""
MOST_HELD = 4096
"""Packets that wait for the pictures of their piece; with more of them the piece has none."""


class JoinedPieces:
    """Gives sound the offset that the pictures of its piece were given.

    Sound and pictures each show where a piece begins by a jump of their own clock; sound that comes first waits for
    the pictures' jump, whose offset is known only then.
    """

    def __init__(self, pictures: Unwrapper, sound: Unwrapper, ticks: float):
        """Follow two streams; `ticks` of the sound's clock make one of the pictures'."""
        self._pictures, self._sound, self._ticks = pictures, sound, ticks
        self._offsets = [0]  # by piece, in ticks of the pictures' clock
        self._held: deque[tuple[int, Packet]] = deque()

    def picture(self, packet: Packet) -> None:
        """Take notice of a picture's packet."""
        if self._pictures.place(packet):
            self._offsets.append(self._pictures.offset)

    def hold(self, packet: Packet) -> None:
        """Take a packet of sound."""
        pts, dts = packet.pts, packet.dts
        if packet.size:
            self._sound.place(packet)
            packet.pts, packet.dts = pts, dts  # the sound's own offset is not the pictures'
        self._held.append((self._sound.jumps, packet))

    def ready(self) -> Iterator[Packet]:
        """Yield packets whose piece is known, with times on the pictures' timeline."""
        while self._held and (self._held[0][0] < len(self._offsets) or len(self._held) > MOST_HELD):
            yield self._moved(*self._held.popleft())

    def rest(self) -> Iterator[Packet]:
        """Yield all that is left."""
        while self._held:
            yield self._moved(*self._held.popleft())

    def _moved(self, piece: int, packet: Packet) -> Packet:
        offset = round(self._offsets[min(piece, len(self._offsets) - 1)] * self._ticks)
        packet.pts = None if packet.pts is None else packet.pts + offset
        packet.dts = None if packet.dts is None else packet.dts + offset
        return packet
