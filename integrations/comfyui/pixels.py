"""ComfyUI's IMAGE, MASK and VIDEO, and the files that the sampler reads: the same 8-bit pixels on both sides."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from core.errors import UserError
from integrations.comfyui.host import temporary_folder
from sampling.media import look
from sampling.pictures import write_image, write_lossless

SAME_LENGTH_S = 0.02


def to_image(frames: np.ndarray) -> torch.Tensor:
    """Return uint8 (T, H, W, 3) as IMAGE."""
    return torch.from_numpy(np.ascontiguousarray(frames)).to(torch.float32) / 255


def from_image(images: torch.Tensor) -> np.ndarray:
    """Return IMAGE as uint8 (T, H, W, 3); an alpha channel is left out."""
    return np.asarray((images[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy())


def from_mask(mask: torch.Tensor) -> np.ndarray:
    """Return MASK (H, W) or (B, H, W) as uint8 (B, H, W, 3)."""
    grey = (mask.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    grey = grey if grey.ndim == 3 else grey[None]
    return np.repeat(grey[..., None], 3, axis=3)


def picture_file(images: torch.Tensor, what: str) -> Path:
    """Write the one picture of an IMAGE as PNG, named by its content.

    Raises:
        UserError: it holds several.
    """
    pixels = from_image(images)
    if len(pixels) != 1:
        raise UserError(f"holds {len(pixels)} pictures", field=what, fix="give one; several are a video")
    return _picture(pixels[0])


def frames_file(pixels: np.ndarray, fps: float) -> Path:
    """Write frames uint8 (T, H, W, 3) without loss, named by their content; one frame as PNG."""
    if len(pixels) == 1:
        return _picture(pixels[0])
    path = temporary_folder() / f"{_content(pixels, fps)}.mp4"
    if not path.is_file():
        write_lossless(pixels, fps, path)
    return path


def video_file(video: Any) -> Path:
    """Return the file of a VIDEO; of one that is none, or a part of one, its frames are written without loss."""
    source = video.get_stream_source() if hasattr(video, "get_stream_source") else None
    if isinstance(source, str):
        duration_s = look("video", Path(source)).file.extent.duration_s
        if abs(duration_s - float(video.get_duration())) < SAME_LENGTH_S:
            return Path(source)
    parts = video.get_components()
    return frames_file(from_image(parts.images), float(parts.frame_rate))


def _picture(pixels: np.ndarray) -> Path:
    path = temporary_folder() / f"{_content(pixels, 0.0)}.png"
    if not path.is_file():
        write_image(Image.fromarray(pixels), path)
    return path


def _content(pixels: np.ndarray, fps: float) -> str:
    return content_name(f"{pixels.shape} {fps}".encode(), np.ascontiguousarray(pixels).data)


def content_name(*parts: "bytes | memoryview") -> str:
    """Return a file's name for some content: 128 bits of its digest in hex."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:32]
