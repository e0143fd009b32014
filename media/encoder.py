"""Which encoder writes a clip, and how it is set."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

from media.settings import CutSettings
from media.types import SourceFacts

MAP_QP = 26
"""x264's quantiser of control maps: white lines on black come back pixel for pixel up to 38"""


def keeps_hdr(cut: CutSettings, facts: SourceFacts) -> bool:
    """Return whether a clip is written as HDR."""
    return cut.hdr == "keep" and facts.transfer != "sdr"


class EncoderChoice(NamedTuple):
    """FFmpeg's name of an encoder, the pixel format that it is given, and its options."""

    name: str
    pixel_format: str
    options: dict[str, str]


def encoder_for(cut: CutSettings, facts: SourceFacts) -> EncoderChoice:
    """Return the encoder's name, its pixel format and its options: x264, or x265 with 10 bits for HDR that is kept."""
    if keeps_hdr(cut, facts):
        return EncoderChoice("libx265", "yuv420p10le", x265_options(cut.crf, cut.preset, facts.mastering))
    return EncoderChoice("libx264", "yuv420p", x264_options(cut.crf, cut.preset))


def x264_options(crf: int, preset: str) -> dict[str, str]:
    """Return the encoder's options; equal frames then give equal files.

    With AVX-512, x264's macroblock tree reads memory that nobody wrote at some widths (320, 480, 848 px), so that
    files differ from run to run; its AVX2 code does not, and is as fast.
    """
    options = {"crf": str(crf), "preset": preset, "threads": "1"}
    if _has_avx512():
        options["x264-params"] = "asm=AVX2"
    return options


@cache
def _has_avx512() -> bool:
    try:
        return "avx512f" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return False


def x265_options(crf: int, preset: str, mastering: str) -> dict[str, str]:
    """Return the encoder's options; one thread, so that equal frames give equal files.

    Args:
        crf: x265's quality.
        preset: its speed.
        mastering: `SourceFacts.mastering`, which the file repeats.
    """
    quiet = "log-level=none:pools=none:frame-threads=1:wpp=0:hdr10-opt=1:repeat-headers=1"
    return {"crf": str(crf), "preset": preset, "x265-params": f"{quiet}:{mastering}".rstrip(":")}


def map_options() -> dict[str, str]:
    """Return the encoder's options for control maps: the fastest, without looking ahead at what is not there to save.

    Half the time of x264's own `ultrafast` at a constant quality; equal frames give equal files.
    """
    options = x264_options(0, "ultrafast")
    del options["crf"]
    fastest = "rc-lookahead=0:scenecut=0:no-psy=1:chroma-me=0"
    return options | {"qp": str(MAP_QP), "x264-params": ":".join([*options.get("x264-params", "").split(), fastest])}
