"""The training config: strict YAML, every key with its meaning (`run_pipeline.py recipe FILE` shows them)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from curation.settings import build, key
from curation.settings_file import override, read_yaml


@dataclass(frozen=True)
class DataSettings:
    """Which rows are trained on."""

    metadata: str = key("", "an output of `curate`, a JSON array, a webvid .csv or a metadata.jsonl (--data)")
    root: str | None = key(None, "folder that relative paths start from; null: the metadata's own")
    absolute: bool = key(False, "allow absolute paths and paths that leave the root")
    where: str | None = key(None, "rows kept, as `aesthetic > 5 and motion < 3` (--where)")
    weight: str | None = key(None, "factor on a row's loss, an expression over score columns (--weight)")
    validation: float = key(0.0, "share of rows held out for the validation loss, chosen by hash of the row's id")

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing."""
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation {self.validation} must be at least 0 and below 1")


@dataclass(frozen=True)
class BucketSettings:
    """Which shapes rows are brought to, and how they are batched."""

    sizes_px: tuple[int, ...] = key((512,), "areas, by the side of the square: 512 is 512² pixels")
    aspects: tuple[str, ...] = key(("16/9", "4/3", "1/1", "3/4", "9/16"), "width/height; the nearest is taken")
    frames: tuple[int, ...] = key((17, 25, 33, 49), "lengths in frames, each 4n+1; the longest that fits is taken")
    max_fps: float = key(30.0, "frames are taken by time over the whole clip, at most at this rate")
    tokens_per_row: int | None = key(
        None, "token-length training: a row takes any size, with as many frames as give at most these tokens"
    )
    upscale: bool = key(True, "enlarge rows that are smaller than every size; false refuses them")
    tokens_per_micro_batch: int = key(16384, "rows of a bucket that are computed at once: budget // tokens, at least 1")
    micro_batches_per_step: int = key(8, "micro-batches of one optimizer step over all workers; they must divide it")

    def __post_init__(self) -> None:
        """Refuse shapes that the models cannot take."""
        if not self.sizes_px or not self.aspects or not self.frames:
            raise ValueError("sizes_px, aspects and frames each need at least one value")
        for n in self.frames:
            if n < 1 or (n - 1) % 4:
                low = max(0, n - 1) // 4 * 4 + 1
                raise ValueError(f"frames {n}: not 4n+1; the nearest are {low} and {low + 4}")
        if min(self.sizes_px) < 16 or self.max_fps <= 0:
            raise ValueError("sizes_px must be at least 16, max_fps above 0")
        if self.tokens_per_micro_batch < 1 or self.micro_batches_per_step < 1:
            raise ValueError("tokens_per_micro_batch and micro_batches_per_step must be at least 1")


@dataclass(frozen=True)
class ModelSettings:
    """Which weights training starts from: a preset's name, or a folder."""

    base: str | None = key(None, "a pipeline folder in diffusers layout; gives every part that is not named here")
    transformer: str | None = key(
        None, "preset (tiny, 12b, tiny-inpaint, 12b-inpaint) or folder with config.json and safetensors"
    )
    vae: str | None = key(None, "preset (tiny, magvit) or folder; a transformer wants a trained one")
    text_encoder: str | None = key(None, "`tiny` (built here) or folder of a Qwen2-VL with its tokenizer beside it")
    text_tokens: int = key(256, "positions of the text; V5.1 weights were trained with 256 and need all of them")


@dataclass(frozen=True)
class LoraSettings:
    """Adapters on a frozen base; rank 0 trains all weights."""

    rank: int = key(0, "0: full training")
    alpha: float | None = key(None, "scale is alpha / rank; null: alpha = rank")
    dora: bool = key(False, "weight-decomposed LoRA (arXiv 2402.09353)")
    targets: tuple[str, ...] = key((), "linear layers adapted; empty: the architecture's own list")


@dataclass(frozen=True)
class ObjectiveSettings:
    """What the transformer learns to predict."""

    kind: Literal["flow", "epsilon", "v_prediction"] = key("flow", "flow (V5.1), epsilon or v_prediction (V4, V5)")
    timesteps: Literal["logit_normal", "uniform", "mode"] = key(
        "logit_normal", "density that noise levels are drawn from"
    )
    shift: float = key(1.0, "flow: noise levels are pushed up by this factor, sigma·s / (1 + (s−1)·sigma)")
    text_dropout: float = key(0.1, "share of rows trained with the empty caption, for guidance")


@dataclass(frozen=True)
class InpaintSettings:
    """What the model sees of the video that it learns to complete."""

    masks: dict[str, float] = key(
        {},
        "share of each kind of mask, as {first_frames: 0.8, all: 0.2}, of box, all (text-to-video), first_frames, "
        "both_ends, timed_box, noise, patches, ellipse, circle, frame_drop; empty: EasyAnimate V5's shares",
    )
    reference_noise: bool = key(True, "lay noise on the known pixels, of deviation exp(N(-3, 0.5)), as V5 does")
    zeroed: float = key(
        0.9, "share of wholly masked rows whose condition is all zeros, which is how V5 is asked for text-to-video"
    )
    widen: bool = key(
        False, "begin from a text-to-video transformer: its condition channels are added with weights of zero"
    )

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        if not 0 <= self.zeroed <= 1:
            raise ValueError(f"zeroed {self.zeroed} must be between 0 and 1")


@dataclass(frozen=True)
class VaeLossSettings:
    """The VAE's loss."""

    l1: float = key(1.0, "weight of the absolute error")
    l2: float = key(0.0, "weight of the squared error")
    kl: float = key(1e-6, "weight of the KL divergence to the unit Gaussian")
    lpips: float = key(0.0, "weight of the perceptual distance; needs lpips_weights")
    lpips_weights: str | None = key(None, "file with VGG16 and LPIPS weights (safetensors or state dict)")
    gan: float = key(0.0, "weight of the adversarial loss (3D PatchGAN, hinge)")
    gan_start_step: int = key(50_000, "optimizer step at which the adversarial loss sets in")


@dataclass(frozen=True)
class TrainSettings:
    """How weights are changed."""

    steps: int = key(1000, "optimizer steps in all")
    learning_rate: float = key(1e-4, "")
    warmup_steps: int = key(0, "steps over which the rate rises from 0")
    optimizer: Literal["adamw", "adamw_8bit"] = key("adamw", "adamw_8bit needs bitsandbytes and a GPU")
    betas: tuple[float, float] = key((0.9, 0.999), "Adam's two decay rates")
    weight_decay: float = key(0.01, "")
    max_grad_norm: float = key(1.0, "gradients are clipped to this norm")
    ema: float | None = key(None, "decay of the running mean of the weights, which is then the model; null: none")
    precision: Literal["float32", "bf16"] = key("float32", "bf16: autocast, master weights stay float32")
    gradient_checkpointing: bool = key(
        False, "recompute activations in the backward pass: less memory, slower by a third"
    )
    seed: int = key(0, "decides order, noise, dropout and initial weights")
    cache: str | None = key(None, "folder of latents and texts; null: OUTPUT/cache; `none`: straight from video")
    memory_gb: float | None = key(None, "memory of one device; null: measured")


@dataclass(frozen=True)
class WatchSettings:
    """What is written while training."""

    log_every: int = key(10, "steps between lines of log.jsonl and TensorBoard")
    checkpoint_every: int = key(500, "steps between checkpoints")
    keep_checkpoints: int = key(3, "older ones are deleted")
    validate_every: int = key(0, "steps between validation losses; 0: never")
    sample_every: int = key(0, "steps between samples; 0: never")
    prompts: tuple[str, ...] = key((), "captions to sample, each with its own fixed seed")
    sample_steps: int = key(20, "denoising steps of those samples")


@dataclass(frozen=True)
class LaunchSettings:
    """Who computes."""

    workers: int = key(0, "0: in this process; else that many Ray Train workers")
    cpus_per_worker: int = key(1, "CPUs that a worker books")
    gpus_per_worker: float = key(0.0, "GPUs that a worker books")
    device: str | None = key(None, "GPU that costs are predicted for, such as H100; null: what this machine has")
    sharding: Literal["ddp", "fsdp"] = key("ddp", "ddp: whole weights on each worker; fsdp: divided (FSDP2)")
    max_restarts: int = key(3, "times the workers are started again from the last checkpoint after one died")


@dataclass(frozen=True)
class TrainConfig:
    """A resolved training config."""

    method: Literal["text_to_video", "inpaint", "vae"] = key(
        "text_to_video", "text_to_video; inpaint: likewise, with images, videos and masks as condition; vae"
    )
    data: DataSettings = key(DataSettings(), "which rows")
    buckets: BucketSettings = key(BucketSettings(), "which shapes and batches")
    model: ModelSettings = key(ModelSettings(), "which weights")
    lora: LoraSettings = key(LoraSettings(), "adapters")
    objective: ObjectiveSettings = key(ObjectiveSettings(), "text_to_video, inpaint: what is predicted")
    inpaint: InpaintSettings = key(InpaintSettings(), "inpaint: masks and noise")
    vae_loss: VaeLossSettings = key(VaeLossSettings(), "vae: the loss")
    train: TrainSettings = key(TrainSettings(), "how weights are changed")
    watch: WatchSettings = key(WatchSettings(), "what is written")
    launch: LaunchSettings = key(LaunchSettings(), "who computes")


def load_config(path: Path, overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read a training config and change keys of it.

    Args:
        path: YAML file.
        overrides: `train.steps=100` and the like; values are YAML.
        values: plain values by dotted key, such as {"data.where": "motion < 3"}.

    Raises:
        UserError: unreadable, unknown key (with the nearest name) or value out of range.
    """
    raw = read_yaml(path, "training config", "; see configs/train_*.yaml")
    for text in overrides:
        override(raw, text, "train.steps=100")
    for name, value in (values or {}).items():
        section, last = name.split(".")
        raw[section] = (raw.get(section) or {}) | {last: value}
    return build(TrainConfig, raw, "config")
