"""Vision-language models that the captioners know by a short name, with what is to be known before using one.

Prompts follow each model's own chat template, and frames its own preprocessing, so that nothing of it is kept here.
Every one takes frames as a video. The Qwen models read the frames' times (in their position codes, and since
Qwen3-VL in words); the others are told the times in the prompt.

No VILA or NVILA: vLLM 0.32 does not run them (their own server does, for the captioner `endpoint`). LLaVA-OneVision
stands in: the same design, trained on much the same data.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from core.errors import nearest

BYTES_PER_WEIGHT = 2
"""bfloat16, as published"""
GPU_GB = 80
"""of the GPUs that `gpus` counts"""
FIT = 0.8
"""Share of the GPUs' memory that weights may fill: the rest is for activations and the attention's cache."""


@dataclass(frozen=True)
class Preset:
    """One published model.

    Attributes:
        repository: on the hub, `owner/name`.
        parameters_b: weights in billions, vision tower included.
        gpus: of 80 GB, that hold one engine in bfloat16; their number must divide the attention heads.
        licence: SPDX name, or the name that its authors give it.
        is_timed: the model itself reads the frames' times.
    """

    repository: str
    parameters_b: float
    gpus: int
    licence: str
    is_timed: bool

    @property
    def weights_gb(self) -> float:
        """Memory that the weights take, and about the size of the download, in GB (10^9 bytes)."""
        return self.parameters_b * BYTES_PER_WEIGHT


APACHE = "Apache-2.0"
QWEN = "Qwen licence: commercial use up to 100 million monthly users"
RESEARCH = "Qwen Research licence: no commercial use"

PRESETS: dict[str, Preset] = {
    "qwen2.5-vl-3b": Preset("Qwen/Qwen2.5-VL-3B-Instruct", 3.75, 1, RESEARCH, True),
    "qwen2.5-vl-7b": Preset("Qwen/Qwen2.5-VL-7B-Instruct", 8.29, 1, APACHE, True),
    "qwen2.5-vl-32b": Preset("Qwen/Qwen2.5-VL-32B-Instruct", 33.5, 2, APACHE, True),
    "qwen2.5-vl-72b": Preset("Qwen/Qwen2.5-VL-72B-Instruct", 73.4, 4, QWEN, True),
    "qwen3-vl-2b": Preset("Qwen/Qwen3-VL-2B-Instruct", 2.13, 1, APACHE, True),
    "qwen3-vl-4b": Preset("Qwen/Qwen3-VL-4B-Instruct", 4.44, 1, APACHE, True),
    "qwen3-vl-8b": Preset("Qwen/Qwen3-VL-8B-Instruct", 8.77, 1, APACHE, True),
    "qwen3-vl-32b": Preset("Qwen/Qwen3-VL-32B-Instruct", 33.4, 2, APACHE, True),
    "qwen3-vl-30b-a3b": Preset("Qwen/Qwen3-VL-30B-A3B-Instruct", 31.1, 1, APACHE, True),
    "qwen3-vl-235b-a22b": Preset("Qwen/Qwen3-VL-235B-A22B-Instruct", 236.0, 8, APACHE, True),
    # The `-hf` repositories need no code of their own.
    "internvl3-1b": Preset("OpenGVLab/InternVL3-1B-hf", 0.94, 1, APACHE, False),
    "internvl3-2b": Preset("OpenGVLab/InternVL3-2B-hf", 2.09, 1, APACHE, False),
    "internvl3-8b": Preset("OpenGVLab/InternVL3-8B-hf", 7.94, 1, APACHE, False),
    "internvl3-14b": Preset("OpenGVLab/InternVL3-14B-hf", 15.1, 1, APACHE, False),
    "internvl3-38b": Preset("OpenGVLab/InternVL3-38B-hf", 38.4, 2, APACHE, False),
    "internvl3-78b": Preset("OpenGVLab/InternVL3-78B-hf", 78.4, 4, QWEN, False),
    "llava-onevision-0.5b": Preset("llava-hf/llava-onevision-qwen2-0.5b-ov-hf", 0.89, 1, APACHE, False),
    "llava-onevision-7b": Preset("llava-hf/llava-onevision-qwen2-7b-ov-hf", 8.03, 1, APACHE, False),
    "llava-onevision-72b": Preset("llava-hf/llava-onevision-qwen2-72b-ov-hf", 73.2, 4, QWEN, False),
}


def repository_of(model: str) -> str:
    """Return the repository of a preset; any other repository or folder as it is.

    Raises:
        ValueError: neither a preset, nor `owner/name`, nor a folder.
    """
    if model in PRESETS:
        return PRESETS[model].repository
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model) or (model and (Path(model).is_absolute() or Path(model).is_dir())):
        return model
    raise ValueError(f"model: '{model}' is no preset, folder or owner/name{nearest(model, list(PRESETS))}")


def weights_gb_of(model: str) -> float | None:
    """Return the memory that a model's weights take in bfloat16, by its preset or the preset's repository, in GB."""
    for name, preset in PRESETS.items():
        if model in (name, preset.repository):
            return preset.weights_gb
    return None


def gpus_of(model: str) -> int:
    """Return the GPUs that one engine of a model needs: as its preset says; one for any other."""
    return PRESETS[model].gpus if model in PRESETS else 1
