"""Configs of runs that were started by earlier versions: what they lack means what was done then."""

import dataclasses
from pathlib import Path
from typing import Any

from core.settings_file import read_yaml
from train_bridge.config import TrainConfig, load_config

THEN: dict[str, Any] = {
    "buckets.fps": 0.0,
    "buckets.aspects": ("16/9", "4/3", "1/1", "3/4", "9/16"),
    "data.max_crop": 1.0,
    "data.validation_by": "row",
}
"""defaults of runs whose config has no number for `buckets.fps`: nothing was done yet by any of these limits"""


def load_run_config(file: Path) -> TrainConfig:
    """Read the config that a run was started with.

    Raises:
        UserError: as `load_config`.
    """
    config = load_config(file)
    if config.buckets.fps is not None:
        return config
    values = dict(THEN)
    if "aspects" in (read_yaml(file, "training config").get("buckets") or {}):
        del values["buckets.aspects"]
    return _changed(config, values)


def as_begun(config: TrainConfig, file: Path) -> TrainConfig:
    """Return a config with the defaults of the time when a run was started, so that the same command goes on with it.

    Args:
        config: what is asked for now.
        file: the run's config; where there is none, nothing changes.
    """
    if not file.is_file():
        return config
    then, standard = load_run_config(file), TrainConfig()
    kept = {key: old for key, old in THEN.items() if _at(config, key) == _at(standard, key) and _at(then, key) == old}
    return _changed(config, kept)


def _at(config: TrainConfig, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def _changed(config: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    for key, value in values.items():
        section, name = key.split(".")
        part = dataclasses.replace(getattr(config, section), **{name: value})
        config = dataclasses.replace(config, **{section: part})
    return config
