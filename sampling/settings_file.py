"""What a sample was made from: in the `.json` beside it, and, without places of the machine, in the file itself."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
from PIL import Image

from core.files import read_head
from models.conditions.camera_path import PRESETS as CAMERAS
from sampling.pictures import COMMENT

MOST_BYTES = 1 << 20
PLACES = frozenset({"model", "image", "end_image", "video", "mask", "control", "reference", "trajectory"})
"""settings that name a file or folder of the machine on which a sample was made"""


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


def is_place(name: str, value: object) -> bool:
    """Return whether a setting is a place on this machine: a camera's path is one, its preset is none."""
    return name in PLACES or (name == "camera" and value not in CAMERAS)


def without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that name files, models and adapters without saying where they lie."""
    found: dict[str, Any] = {name: _name_of(v) if is_place(name, v) else v for name, v in settings.items()}
    if "loras" in found:
        found["loras"] = [{**lora, "path": _name_of(lora["path"])} for lora in found["loras"]]
    return found


def _name_of(place: object) -> str:
    path = Path(str(place))
    return path.name if path.name not in ("", "..") else path.resolve().name
