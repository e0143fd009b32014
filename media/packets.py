"""A stream's packets in the order of decoding, on one timeline, with a word on what is missing between them."""

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from media.container import READ_ERRORS
from media.timeline import Unwrapper
from media.types import Heartbeat

BYTE_POSITIONS_TELL = frozenset({"matroska,webm"})
"""Formats whose packets lie one behind the other, so that bytes between them which no packet holds are damage."""
LEAST_HOLE_BYTES = 256
"""Heads of blocks and clusters take less."""
READ_TRIES = 5
"""How often reading goes on after an error that brought no further packet."""
HELD_BYTES = 64 << 20
"""Of a group of pictures that is longer, packets are decoded rather than held."""


class Seam(Enum):
    """What lies between a packet and the one before it."""

    NONE = "nothing"
    JOINED = "the clock starts anew"
    HOLE = "bytes that cannot be read"


class Placed(NamedTuple):
    """A packet on the timeline, and how it follows the one before; a tuple, since there are millions of them."""

    packet: Packet
    seam: Seam = Seam.NONE


def usual_step_s(stream: VideoStream) -> float:
    """Return how long a frame is shown as the container declares, 1/25 s where it does not."""
    rate = stream.average_rate or stream.guessed_rate
    return float(1 / rate) if rate and 1 <= rate <= 1000 else 1 / 25


def read_packets(container: InputContainer, stream: VideoStream, unwrapper: Unwrapper | None) -> Iterator[Placed]:
    """Yield a stream's packets, the empty one that asks the decoder for its last frames at the end.

    Reading goes on after errors as long as that brings packets.

    Args:
        container: at its beginning, or where it was sought.
        stream: the one whose packets are wanted.
        unwrapper: puts packets onto one timeline; null where the container was sought, in a file whose clock is even.

    Raises:
        one of READ_ERRORS: the last one, if it ended the reading.
    """
    watches_bytes = container.format.name in BYTE_POSITIONS_TELL
    reached: int | None = None  # byte behind the last packet of any stream
    is_hole = False
    fruitless = 0
    while True:
        try:
            for packet in container.demux() if watches_bytes else container.demux(stream):
                fruitless = 0
                if not watches_bytes:
                    jumped = unwrapper is not None and packet.size > 0 and unwrapper.place(packet)
                    yield Placed(packet, Seam.JOINED) if jumped else Placed(packet)
                    continue
                if packet.pos is not None and packet.size:
                    is_hole |= reached is not None and packet.pos - reached > LEAST_HOLE_BYTES
                    reached = packet.pos + packet.size
                if packet.stream_index != stream.index:
                    continue
                jumped = packet.size > 0 and unwrapper is not None and unwrapper.place(packet)
                yield Placed(packet, Seam.HOLE if is_hole else Seam.JOINED if jumped else Seam.NONE)
                is_hole = False
            return
        except READ_ERRORS:
            fruitless += 1
            if fruitless > READ_TRIES:
                raise


def from_keyframe(packets: Iterator[Placed], start_pts: int, beat: Heartbeat) -> Iterator[Placed]:
    """Skip, without decoding, to the last keyframe at or before a time; for files that cannot be sought."""
    held: list[Placed] = []
    held_bytes = 0
    for placed in packets:
        packet = placed.packet
        beat(0.0)
        if packet.is_keyframe and packet.pts is not None and packet.pts <= start_pts:
            held, held_bytes = [], 0
        held.append(placed)
        held_bytes += packet.size
        clock = packet.dts if packet.dts is not None else packet.pts
        if (clock is not None and clock >= start_pts) or held_bytes > HELD_BYTES:
            break
    yield from held
    yield from packets
