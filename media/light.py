"""What an HDR source says of its light: the mastering display and the brightest content."""

import struct
from fractions import Fraction
from typing import Any, TypedDict

from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame

_MASTERING = struct.Struct("=20i2i")  # AVMasteringDisplayMetadata: ten rationals, has_primaries, has_luminance
_LEVEL = struct.Struct("=2I")  # AVContentLightMetadata: MaxCLL, MaxFALL


class Light(TypedDict):
    """Fields of `SourceFacts`."""

    peak_nits: float | None
    mastering: str


def light_of(frame: VideoFrame) -> Light:
    """Return the brightest light that a frame's source states, and both statements as options of x265."""
    options, peaks = [], []
    if (data := side_data(frame, Type.MASTERING_DISPLAY_METADATA)) is not None and len(data) >= _MASTERING.size:
        *numbers, has_primaries, has_luminance = _MASTERING.unpack(data[: _MASTERING.size])
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        values = [float(Fraction(number, over)) if over else 0.0 for number, over in pairs]
        darkest, brightest = values[8:]
        if has_luminance and brightest > 0:
            peaks.append(brightest)
        if has_primaries and has_luminance:
            chromaticities = zip(values[0:8:2], values[1:8:2], strict=True)
            red, green, blue, white = (f"({round(x * 50000)},{round(y * 50000)})" for x, y in chromaticities)
            places = f"G{green}B{blue}R{red}WP{white}"
            options.append(f"master-display={places}L({round(brightest * 10000)},{round(darkest * 10000)})")
    if (data := side_data(frame, Type.CONTENT_LIGHT_LEVEL)) is not None and len(data) >= _LEVEL.size:
        content, average = _LEVEL.unpack(data[: _LEVEL.size])
        if content > 0:
            peaks.append(float(content))
            options.append(f"max-cll={content},{average}")
    return {"peak_nits": min(peaks) if peaks else None, "mastering": ":".join(options)}


def side_data(frame: VideoFrame, kind: Type) -> bytes | None:
    """Return what a frame carries of one kind beside its picture."""
    carried: Any = frame.side_data  # PyAV's stubs know of motion vectors alone
    found = carried.get(kind)
    return None if found is None else bytes(found)
