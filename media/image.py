"""Still images: upright RGB pixels and facts."""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from core.errors import MediaError
from media.colour import BLACK
from media.container import open_file
from media.types import SourceFacts

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Pillow's readers of plain pixels: none that starts another program, as EPS does."""
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, TypeError, struct.error)
"""What Pillow raises of damage; RuntimeError is what its AVIF reader says."""
_BITS_PER_SAMPLE = 258  # of TIFF


def read_image(path: Path, max_pixels: int) -> np.ndarray:
    """Read an image as uint8 (H, W, 3) RGB, turned as its EXIF says; transparency is laid on black.

    Of several pictures in the file the first is read.

    Raises:
        MediaError: not a readable image, or more than `max_pixels` pixels.
    """
    with opened(path) as image:
        if image.width * image.height > max_pixels:
            raise MediaError(f"{image.width}x{image.height} is more than the {max_pixels} pixels of limits.max_pixels")
        return upright_pixels(image)


def upright_pixels(image: Image.Image) -> np.ndarray:
    """Return the picture that an open image is at, uint8 (H, W, 3) RGB, turned as its EXIF says, laid on black."""
    upright = ImageOps.exif_transpose(image)
    return np.ascontiguousarray(np.asarray(_opaque(upright)))


def image_facts(path: Path, pixels: np.ndarray) -> SourceFacts:
    """Return the facts of an image that was read.

    Raises:
        MediaError: it cannot be read any more.
    """
    with opened(path) as image:
        codec, mode = (image.format or "image").lower(), image.mode
    height, width = pixels.shape[:2]
    depth = 16 if mode.startswith("I") or mode == "F" else 8
    return SourceFacts("image", width, height, codec, declared_frames=1, pixel_format=mode, bit_depth=depth)


def is_upright_jpeg(path: Path) -> bool:
    """Return whether a file can be used as a training JPEG byte for byte.

    Raises:
        MediaError: it cannot be read.
    """
    with opened(path) as image:
        return image.format == "JPEG" and image.mode == "RGB" and image.getexif().get(0x0112, 1) == 1


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image; what Pillow says of its content, then or later, is a MediaError.

    Raises:
        MediaError: not a readable image, too large for Pillow, or damaged.
    """
    with open_file(path) as file:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(io.BufferedReader(file), formats=FORMATS) as image:
                    yield image
        except UnidentifiedImageError:
            raise MediaError("not a readable image") from None
        except Image.DecompressionBombError:
            most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            raise MediaError(f"more pixels than limits.max_pixels, or than the {most} that Pillow opens") from None
        except DECODE_ERRORS as error:
            raise MediaError(f"image cannot be decoded ({error})") from None


def _opaque(image: Image.Image) -> Image.Image:
    """Return an image as 8-bit RGB; transparency is laid on black, as in videos."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image, np.float64), posinf=np.inf, neginf=0.0)
        codes = np.clip(np.rint(values * (255 / _white(image, values))), 0, 255).astype(np.uint8)
        return Image.fromarray(codes).convert("RGB")
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (*BLACK, 255))
        return Image.alpha_composite(black, rgba).convert("RGB")
    return image.convert("RGB")


def _white(image: Image.Image, values: np.ndarray) -> float:
    """Return the value that is white in a picture of deep grey.

    16-bit integers say it. Floats and 32-bit integers do not: it is the smallest of 1 (floats), 255 and 65535 that
    none of the picture's values passes, else the largest of them.
    """
    bits = image.getexif().get(_BITS_PER_SAMPLE) if image.format == "TIFF" else None
    if image.mode.startswith("I;16") or image.format == "PNG" or bits in (16, (16,)):
        return 65535.0
    finite = values[np.isfinite(values)]
    most = float(finite.max()) if finite.size else 0.0
    ends = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    return next((end for end in ends if most <= end), most)
