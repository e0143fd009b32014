"""Media that clients send: checked by their content, written beside the job that they are for."""

import base64
import binascii
import hashlib
import io
import re
import warnings
from pathlib import Path

from PIL import Image

from core.errors import UserError
from core.files import atomic_write

MOST_PIXELS = 100_000_000
"""of an image; larger ones are decompression bombs or mistakes"""
FORMATS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp"}
VIDEOS = ((4, b"ftyp", "mp4"), (0, b"\x1a\x45\xdf\xa3", "mkv"), (8, b"AVI ", "avi"))
"""offset, the bytes there, and the extension of containers"""
TEXTS = frozenset({"trajectory", "camera_file"})
"""fields whose file may be a text"""
DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,", re.ASCII)


def decode_data_url(field: str, text: str) -> bytes:
    """Return the bytes of a data URL; other addresses are not opened.

    Raises:
        UserError: it is none, or its base64 is broken.
    """
    match = DATA_URL.match(text)
    if not match:
        raise UserError(f"{field}: no data URL; send `data:image/png;base64,…`, or the file itself in a form")
    try:
        return base64.b64decode(text[match.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise UserError(f"{field}: its base64 is broken; encode the file again") from None


def extension_of(field: str, content: bytes) -> str:
    """Return the extension for a file, by its content: a name that a client gives says nothing.

    Raises:
        UserError: neither an image nor a video, or an image of too many pixels.
    """
    if field in TEXTS and is_text(content):
        return "txt"
    for offset, mark, extension in VIDEOS:
        if content[offset : offset + len(mark)] == mark:
            return extension
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=tuple(FORMATS)) as image:
                width, height, kind = *image.size, image.format
    except Image.DecompressionBombError:
        raise UserError(f"{field}: has more than {MOST_PIXELS // 1_000_000} megapixels; scale it") from None
    except (OSError, ValueError, SyntaxError):
        kinds = "PNG, JPEG, WebP, BMP, MP4, MOV, MKV, WebM or AVI"
        raise UserError(f"{field}: neither an image nor a video that is taken here; send {kinds}") from None
    if width * height > MOST_PIXELS:
        raise UserError(f"{field}: {width}x{height} px are more than {MOST_PIXELS // 1_000_000} megapixels; scale it")
    return FORMATS[str(kind)]


def is_text(content: bytes) -> bool:
    """Return whether content is UTF-8 without NUL."""
    try:
        return "\0" not in content.decode()
    except ValueError:
        return False


def keep(field: str, content: bytes, folder: Path) -> str:
    """Write a file under its content's name; return the name.

    Raises:
        UserError: neither an image nor a video, or an image of too many pixels.
    """
    name = f"{hashlib.sha256(content).hexdigest()[:32]}.{extension_of(field, content)}"
    atomic_write(folder / name, content, to_disk=False)
    return name
