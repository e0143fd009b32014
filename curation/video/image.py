"""Still images: upright RGB pixels and facts."""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from curation.errors import MediaError
from curation.types import SourceFacts
from curation.video.container import open_file

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Pillow's readers of plain pixels: none that starts another program, as EPS does."""


def read_image(path: Path, max_pixels: int) -> np.ndarray:
    """Read an image as uint8 (H, W, 3) RGB, turned as its EXIF says; transparency is laid on black.

    Of several pictures in the file the first is read.

    Raises:
        MediaError: not a readable image, or more than `max_pixels` pixels.
    """
    with _opened(path) as image:
        if image.width * image.height > max_pixels:
            raise MediaError(f"{image.width}x{image.height} is more than the {max_pixels} pixels of limits.max_pixels")
        upright = ImageOps.exif_transpose(image)
        return np.ascontiguousarray(np.asarray(_opaque(upright)))


def image_facts(path: Path, pixels: np.ndarray) -> SourceFacts:
    """Give the facts of an image that was read.

    Raises:
        MediaError: it cannot be read any more.
    """
    with _opened(path) as image:
        codec, mode = (image.format or "image").lower(), image.mode
    height, width = pixels.shape[:2]
    depth = 16 if mode.startswith("I") or mode == "F" else 8
    return SourceFacts("image", width, height, codec, declared_frames=1, pixel_format=mode, bit_depth=depth)


def is_upright_jpeg(path: Path) -> bool:
    """Tell whether a file can be used as a training JPEG byte for byte.

    Raises:
        MediaError: it cannot be read.
    """
    with _opened(path) as image:
        return image.format == "JPEG" and image.mode == "RGB" and image.getexif().get(0x0112, 1) == 1


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image; what Pillow says of its content, then or later, is a MediaError."""
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
        except (OSError, SyntaxError, ValueError, EOFError, RuntimeError, TypeError, struct.error) as error:
            # RuntimeError is what Pillow's AVIF reader says of damage.
            raise MediaError(f"image cannot be decoded ({error})") from None


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit grey: keep the picture, not the raw scale
        values = np.asarray(image, np.float64)
        top = max(255.0, 65535.0 if values.max() > 255 else 255.0)
        return Image.fromarray((values * 255 / top).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("RGB")
    return image.convert("RGB")
