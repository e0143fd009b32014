"""Recipes and training configs that come with the command, and where they lie once it is installed."""

from pathlib import Path

CONFIGS = Path(__file__).resolve().parent


def config_file(text: str) -> Path:
    """Return the file that a word means: the one of that path, else the one of that name that comes with the command.

    So `configs/web_video.yaml` works in every folder, and so do `web_video.yaml` and `web_video`.
    """
    path = Path(text)
    if path.exists() and not path.is_dir():
        return path
    name = text.removeprefix("configs/")
    if "/" not in name:
        for shipped in (CONFIGS / name, CONFIGS / f"{name}.yaml"):
            if shipped.suffix == ".yaml" and shipped.is_file():
                return shipped
    return path
