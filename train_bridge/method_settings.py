"""Sections of a training config that one method reads alone: inpaint, reward, control."""

from dataclasses import dataclass
from typing import Literal

from core.settings import key


@dataclass(frozen=True)
class InpaintSettings:
    """What the model sees of the video that it learns to complete."""

    masks: dict[str, float] = key(
        {},
        "share of each kind of mask, as {first_frames: 0.8, all: 0.2}, of box, all (text-to-video), first_frames, "
        "both_ends, timed_box, noise, patches, ellipse, circle, frame_drop; empty: EasyAnimate V5's shares",
        min=0,
    )
    reference_noise: bool = key(True, "lay noise on the known pixels, of deviation exp(N(-3, 0.5)), as V5 does")
    zeroed: float = key(
        0.9,
        "share of wholly masked rows whose condition is all zeros, which is how V5 is asked for text-to-video",
        min=0, max=1,
    )  # fmt: skip
    widen: bool = key(
        False, "begin from a text-to-video transformer: its condition channels are added with weights of zero"
    )


@dataclass(frozen=True)
class RewardTerm:
    """How one reward counts."""

    weight: float = key(1.0, "factor on its loss, which is mean |reward − best| · scale; 0: it is only watched", min=0)
    best: float | None = key(None, "value that it is pulled towards; null: the reward's own")
    scale: float | None = key(None, "factor that brings it to the size of others; null: the reward's own", min=0)
    low: float | None = key(None, "rewards below count as this, and are pulled no further")
    high: float | None = key(None, "rewards above count as this, and are pulled no further")


@dataclass(frozen=True)
class RewardSettings:
    """What is sampled, how it is judged, and where gradients flow."""

    prompts: str | None = key(None, "file of prompts, one a line, or JSON; the captions of data.metadata come besides")
    held_out: str | None = key(
        None, "file of prompts sampled every watch.validate_every steps with fixed seeds; null: data.validation's share"
    )
    terms: dict[str, RewardTerm] = key(
        {},
        "rewards by name, as {aesthetic: {weight: 1}, stillness: {}}, of brightness, contrast, sharpness, motion, "
        "stillness (a penalty for videos that freeze), aesthetic, caption_alignment, hps_v2_1, pickscore, random_cnn",
    )
    also: tuple[str, ...] = key((), "rewards logged on held-out prompts besides; those without weights always are")
    weights: str | None = key(None, "folder of weights (`weights fetch`); null: SELECTS_WEIGHTS, else the hub's cache")
    steps: int = key(50, "denoising steps of a sample", min=1, max=1000)
    guidance: float = key(6.0, "scale of classifier-free guidance; 1: none", min=0)
    sampler: Literal["flow_euler", "ddim"] | None = key(None, "null: the one that fits the model")
    gradient: Literal["last", "tail", "uniform", "random"] = key(
        "random", "steps that have a gradient: the last one, the last gradient_steps, evenly spread, or any"
    )
    gradient_steps: int = key(5, "how many steps have a gradient", min=1, max=1000)
    stop_input: bool = key(False, "no gradient through the network's input (DRTune, arXiv 2405.00760)")
    decoded_latents: int = key(1, "latent frames that are decoded and judged; motion and stillness need 2", min=1)
    num_frames: int = key(49, "of a sample", min=1)
    height_px: int = key(256, "of a sample", min=16)
    width_px: int = key(256, "of a sample", min=16)
    checkpointing: bool = key(
        True, "recompute each kept step and the decoder in the backward pass: memory of one step, slower by a third"
    )


@dataclass(frozen=True)
class ControlSettings:
    """What the model sees of control maps, and of a reference image."""

    zeroed: float = key(0.2, "share of rows that see no control map, or no camera path, as published", min=0, max=1)
    reference_zeroed: float = key(0.2, "share of rows that see no reference image, as published", min=0, max=1)
    reference_first: float = key(
        0.4,
        "share of the reference images that are the clip's first frame, as published; others are any frame of it, for "
        "which the clip is decoded at every step",
        min=0, max=1,
    )  # fmt: skip
    widen: Literal["control", "control_reference", "camera_reference"] | None = key(
        None, "begin from a text-to-video transformer: channels for these are added with weights of zero"
    )
