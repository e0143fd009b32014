"""A config as it is written down: with the URLs of what was copied from buckets, so that any machine can go on."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.storage.place import called
from train_bridge.config import TrainConfig

PLACES = (
    *("data.metadata", "data.root", "data.clips"),
    *("model.base", "model.transformer", "model.vae", "model.text_encoder", "model.image_encoder"),
    *("lora.init", "vae.start", "vae_loss.lpips_weights", "reward.prompts", "reward.held_out", "reward.weights"),
)
"""keys that name files and folders that are read"""


def placed(config: TrainConfig, values: Mapping[str, str | None]) -> TrainConfig:
    """Return a config with other places, by dotted key."""
    for key, value in values.items():
        section, name = key.split(".")
        part = dataclasses.replace(getattr(config, section), **{name: value})
        config = dataclasses.replace(config, **{section: part})
    return config


def places_of(config: TrainConfig) -> dict[str, str]:
    """Return the places that a config names, by dotted key."""
    found: dict[str, Any] = {key: getattr(getattr(config, key.split(".")[0]), key.split(".")[1]) for key in PLACES}
    return {key: value for key, value in found.items() if value}


def as_named(config: TrainConfig) -> TrainConfig:
    """Return a config that names URLs in the place of copies of this machine.

    A root that belongs to the copy of an output is none: another machine makes its own.
    """
    names: dict[str, str | None] = {}
    for key, value in places_of(config).items():
        if Path(value).is_absolute() and (name := called(Path(value))) != str(Path(value)):
            names[key] = name
    if "data.root" in names and names["data.root"] == names.get("data.metadata", config.data.metadata):
        names["data.root"] = None
    return placed(config, names)
