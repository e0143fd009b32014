"""What is asked for by which option: errors name the request's attributes and keys, the command line its words."""

from collections.abc import Mapping

from core.errors import UserError, renamed

COMMON: Mapping[str, str] = {
    "output": "--output",
    "weights": "--weights",
    "ray_address": "--ray-address",
    "metrics_port": "--metrics-port",
}
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "export": {"absolute": "--absolute", "where": "--where", "clips": "--clips"},
    "find": {
        **{name: f"--{name}" for name in ("limit", "least", "where", "by", "write")},
    },
    "evaluate": {"reference": "--reference"},
    "report": {"sheets": "--sheets", "page": "--page"},
    **dict.fromkeys(
        ("plan", "train"),
        {
            "data.metadata": "data.metadata (--data)",
            "data.where": "data.where (--where)",
            "data.weight": "data.weight (--weight)",
            "data.clips": "data.clips (--clips)",
        },
    ),
    **dict.fromkeys(
        ("serve", "review"),
        {"host": "--host", "port": "--port", "token_file": "--token-file"},
    ),
    "sample": {
        "prompt": "--prompt",
        "prompts": "--part",
        "prompts_file": "--prompts",
        "negative": "--negative",
        "seed": "--seed",
        "seeds": "--seeds",
        "size": "--size",
        "width_px": "--size",
        "height_px": "--size",
        "num_frames": "--frames",
        "fps": "--fps",
        "image": "--image",
        "end_image": "--end-image",
        "video": "--video",
        "mask": "--mask",
        "strength": "--strength",
        "segments": "--segments",
        "length": "--length",
        "overlap": "--overlap",
        "steps": "--steps",
        "guidance": "--guidance",
        "sampler": "--sampler",
        "lora": "--lora",
        "fuse_loras": "--fuse-lora",
        "memory": "--memory",
        "vae_tiling": "--vae-tiling",
        "cache_threshold": "--cache-threshold",
        "control": "--control",
        "control_kind": "--control-kind",
        "reference": "--reference",
        "camera": "--camera",
        "camera_speed": "--camera-speed",
        "trajectory": "--trajectory",
        "control_scale": "--control-scale",
        "control_start": "--control-start",
        "control_end": "--control-end",
    },
}
"""by command, beside those that are the same in all"""


def in_options(error: Exception, command: str) -> str:
    """Return an error's line with the options of a command in place of fields: `--frames` for `num_frames`."""
    names = {**COMMON, **OPTIONS.get(command, {})}
    return error.line(names) if isinstance(error, UserError) else renamed(str(error), names)
