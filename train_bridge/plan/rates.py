"""The frame rate that `buckets.fps: null` stands for: the model family's."""

import dataclasses

from models.transformers.easyanimate_v5 import EasyAnimate
from models.transformers.table import find_architecture
from train_bridge.config import TrainConfig
from train_bridge.parts import Parts


def at_family_rate(config: TrainConfig, parts: Parts) -> TrainConfig:
    """Return the config with a number for `buckets.fps`: as given, else the rate of the model's family.

    A VAE that is trained alone is one of EasyAnimate V5.
    """
    if config.buckets.fps is not None:
        return config
    family = find_architecture(parts.transformer)[0] if parts.transformer else EasyAnimate()
    return dataclasses.replace(config, buckets=dataclasses.replace(config.buckets, fps=family.rate_fps))
