"""What a sample was made from: in the `.json` beside it, and in the file itself."""

import json
from pathlib import Path
from typing import Any

import av
from PIL import Image

from core.files import read_head
from sampling.pictures import COMMENT

MOST_BYTES = 1 << 20


def settings_of(file: Path) -> dict[str, Any]:
    """Return what a file was sampled with, from the `.json` beside it; nothing where there is none that can be read."""
    try:
        settings = json.loads(read_head(file.with_suffix(".json"), MOST_BYTES))
    except (OSError, ValueError, RecursionError):  # not there, no JSON, or too much of it
        return {}
    return settings if isinstance(settings, dict) else {}


def settings_within(file: Path) -> dict[str, Any]:
    """Return what a video or picture was sampled with, from the file itself; nothing where it does not say."""
    try:
        if file.suffix.lower() == ".png":
            with Image.open(file, formats=("PNG",)) as image:
                image.load()  # the text may follow the pixels
                text = str(image.info.get(COMMENT, ""))
        else:
            with av.open(str(file)) as container:
                text = container.metadata.get(COMMENT, "")
        settings = json.loads(text[:MOST_BYTES])
    except (OSError, ValueError, SyntaxError, RecursionError, Image.DecompressionBombError, av.FFmpegError):
        return {}
    return settings if isinstance(settings, dict) else {}
