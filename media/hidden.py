"""Packets that hold nothing to be shown."""

from av.packet import Packet


def is_hidden(packet: Packet, codec: str) -> bool:
    """Return whether a packet of VP8 or VP9 holds nothing but a reference frame that is never shown.

    Such a packet stands on a time of its own, which another packet shows, or close beside it. In the other
    codecs (and in VP9 by its superframes) what is hidden travels in the packet of what is shown.
    """
    if codec not in _HIDES or not packet.size:
        return False
    return _HIDES[codec](memoryview(packet))


def _vp8_hides(data: memoryview) -> bool:
    return not data[0] >> 4 & 1  # RFC 6386, 9.1: show_frame


def _vp9_hides(data: memoryview) -> bool:
    """Read the head of the uncompressed header: VP9 bitstream specification, 6.2 and annex B."""
    mark = data[-1]
    if mark >> 5 == 0b110:
        index = 2 + ((mark >> 3 & 3) + 1) * ((mark & 7) + 1)
        if len(data) >= index and data[-index] == mark:
            return False  # a superframe: its last frame is shown
    profile = data[0] >> 5 & 1 | data[0] >> 3 & 2
    bit = 3 - (profile == 3)  # a reserved bit comes after profile 3
    return not data[0] >> bit & 1 and not data[0] >> bit - 2 & 1  # neither show_existing_frame nor show_frame


_HIDES = {"vp8": _vp8_hides, "vp9": _vp9_hides}
