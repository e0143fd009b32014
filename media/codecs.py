"""Which codecs the bundled FFmpeg decodes and encodes, of those that curation meets and needs."""

from dataclasses import dataclass

import av

DECODERS = ("h264", "hevc", "av1", "vp8", "vp9", "mpeg2video", "mpeg4", "prores", "mjpeg", "ffv1", "dnxhd")
ENCODERS = ("libx264", "libx265", "aac")
"""what clips are written with"""


@dataclass(frozen=True)
class Codecs:
    """What FFmpeg has and lacks.

    Attributes:
        ffmpeg: version of libavcodec.
        missing_decoders: codecs that sources may have and that cannot be decoded here.
        missing_encoders: encoders that clips are written with and that are not here.
    """

    ffmpeg: str
    missing_decoders: tuple[str, ...]
    missing_encoders: tuple[str, ...]


def read_codecs() -> Codecs:
    """Ask the FFmpeg that PyAV bundles."""
    numbers = av.library_versions.get("libavcodec", ())
    return Codecs(
        "libavcodec " + ".".join(map(str, numbers)),
        tuple(name for name in DECODERS if not _has(name, "r")),
        tuple(name for name in ENCODERS if not _has(name, "w")),
    )


def _has(name: str, mode: str) -> bool:
    try:
        av.Codec(name, mode)
    except av.codec.codec.UnknownCodecError:
        return False
    return True
