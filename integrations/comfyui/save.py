"""Save with settings: files as `sample` writes them, with all that made them inside and beside them."""

import re
from pathlib import Path
from typing import Any

from core.errors import UserError
from integrations.comfyui.host import output_folder
from integrations.comfyui.pixels import from_image
from integrations.comfyui.ports import SETTINGS, Node, Port

DIGITS = 5


def save(images: Any, settings: dict[str, Any], filename_prefix: str) -> dict[str, Any]:
    """Write a video (or of one frame a picture) into ComfyUI's output folder, under the next free number.

    Raises:
        UserError: a name that leads out of the folder, or sides that H.264 cannot have.
    """
    from sampling.files import Sample, write_sample  # it brings the models along, which takes seconds

    frames = from_image(images)
    if len(frames) > 1 and (frames.shape[1] % 2 or frames.shape[2] % 2):
        raise UserError(
            f"{frames.shape[2]}x{frames.shape[1]} px: a video's sides must be even", field="images", fix="crop a pixel"
        )
    root = output_folder().resolve()
    stem = (root / filename_prefix.strip()).resolve()
    if root not in stem.parents:
        raise UserError(
            "leads out of the output folder",
            field="filename_prefix",
            value=filename_prefix,
            fix="name a file in it",
        )
    suffix = ".mp4" if len(frames) > 1 else ".png"
    target = stem.with_name(f"{stem.name}_{_next(stem):0{DIGITS}}{suffix}")
    write_sample(Sample(frames, float(settings["fps"]), settings), target)
    subfolder = str(target.parent.relative_to(root))
    shown = {"filename": target.name, "subfolder": "" if subfolder == "." else subfolder, "type": "output"}
    return {"ui": {"images": [shown], "animated": (len(frames) > 1,)}, "result": ()}


def _next(stem: Path) -> int:
    """Return the number after the highest that is taken."""
    if not stem.parent.is_dir():
        return 1
    taken = [re.fullmatch(rf"{re.escape(stem.name)}_(\d+)\..*", path.name) for path in stem.parent.iterdir()]
    return max((int(match[1]) for match in taken if match), default=0) + 1


SAVE_NODE = Node(
    "SelectsSave",
    "Save with settings (Selects)",
    "An .mp4 or .png in the output folder, with the settings inside it and beside it as .json.",
    (
        Port("images", "IMAGE", "from a sampler, or what was made of its frames"),
        Port("settings", SETTINGS, "from the sampler"),
        Port("filename_prefix", "STRING", "a name, with folders if you like", "selects/sample"),
    ),
    (),
    save,
    writes=True,
)
