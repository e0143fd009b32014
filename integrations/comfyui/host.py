"""What ComfyUI gives its nodes, imported when a node runs: folders, progress, interruption, memory, videos.

Without ComfyUI (in tests, in scripts) files go to `output` in the working folder, and nothing else is missed.
"""

import importlib
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

MODEL_FOLDERS = ("Selects", "EasyAnimate")
"""within ComfyUI's `models`"""


def module(name: str) -> ModuleType | None:
    """Return a module of ComfyUI; None where it is not there."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def output_folder() -> Path:
    """Return where files that people keep go."""
    folders = module("folder_paths")
    return Path(folders.get_output_directory()) if folders else Path("output").absolute()


def temporary_folder() -> Path:
    """Return where files go that the next start may delete; it is made."""
    folders = module("folder_paths")
    root = Path(folders.get_temp_directory()) if folders else Path(tempfile.gettempdir())
    folder = root / "selects"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def model_folders() -> list[Path]:
    """Return the folders in which models are looked for by name."""
    folders = module("folder_paths")
    return [Path(folders.models_dir) / name for name in MODEL_FOLDERS] if folders else []


def make_room() -> None:
    """Let ComfyUI take its own models off the GPU, so that `auto` measures what can be had."""
    management = module("comfy.model_management")
    if management:
        management.unload_all_models()
        management.soft_empty_cache()


def progress() -> Callable[[int, int], None]:
    """Return what tells ComfyUI of steps done and in all, and ends the run there when somebody has cancelled it."""
    utils, management = module("comfy.utils"), module("comfy.model_management")
    bar: list[Any] = []

    def tell(done: int, total: int) -> None:
        if management:
            management.throw_exception_if_processing_interrupted()
        if utils:
            if not bar:
                bar.append(utils.ProgressBar(total))
            bar[0].update_absolute(done, total)

    return tell


def video_of(images: Any, fps: float) -> Any:
    """Return ComfyUI's VIDEO of frames; None where this ComfyUI has none.

    Args:
        images: float32 (T, H, W, 3).
        fps: frames a second.
    """
    latest = module("comfy_api.latest")
    if latest is None:
        return None
    rate = Fraction(fps).limit_denominator(1001)
    parts = latest.Types.VideoComponents(images=images, audio=None, frame_rate=rate)
    return latest.InputImpl.VideoFromComponents(parts)
