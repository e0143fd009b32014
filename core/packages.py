"""Where packages lie: ours, which worker processes are told so that they import the same code, and those of others."""

import importlib.util
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
"""folder that holds every package of ours"""
PACKAGES = (
    *("core", "media", "models", "curation", "operators", "controls", "captioners", "configs"),
    *("sampling", "train_bridge", "evaluation", "demo", "serving", "integrations", "cli"),
)


def package_folders(module: str) -> list[Path]:
    """Return the folders of an installed package; none where it is not installed. It is located, not imported."""
    spec = importlib.util.find_spec(module)
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
