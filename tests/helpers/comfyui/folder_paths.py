"""ComfyUI's folders; tests set `base`."""

from pathlib import Path

base = Path(".")
models_dir = "models"


def get_output_directory() -> str:
    return str(base / "output")


def get_temp_directory() -> str:
    return str(base / "temp")


def get_input_directory() -> str:
    return str(base / "input")
