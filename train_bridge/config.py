"""The training config: strict YAML, every key with its meaning (`run_pipeline.py recipe FILE` shows them)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core.settings import build, key
from core.settings_file import override, read_yaml
from train_bridge.method_settings import ControlSettings, InpaintSettings, RewardSettings
from train_bridge.methods.table import METHODS, MethodKind


@dataclass(frozen=True)
class DataSettings:
    """Which rows are trained on."""

    metadata: str = key(
        "",
        "an output of `curate`, a JSON array, a webvid .csv, a metadata.jsonl, "
        "a folder of clips with .txt captions, or a WebDataset (--data)",
    )
    root: str | None = key(None, "folder that relative paths start from; null: the metadata's own")
    absolute: bool = key(False, "allow absolute paths and paths that leave the root")
    where: str | None = key(None, "rows kept, as `aesthetic > 5 and motion < 3` (--where)")
    clips: str | None = key(None, "file of clip ids, one a line: rows kept, as `find --write` writes it (--clips)")
    weight: str | None = key(None, "factor on a row's loss, an expression over score columns (--weight)")
    captions: dict[str, float] = key(
        {},
        "several captions a row: the share of each column, such as {caption: 0.2, caption_en_medium: 0.3, "
        "caption_en_short: 0.5}; one is drawn each epoch, of those that a row has; empty: the caption alone",
        min=0,
    )
    repeat: str | None = key(
        None,
        "how often a row is drawn an epoch, an expression: 2, 0.25 (every fourth epoch), tier(motion, 0.25, 1, 1), "
        "x * quota(cluster, 0.02) (no cluster has more than 2 % of the draws); null: each row once",
    )
    timesteps: str | None = key(
        None,
        "how each row's noise levels lie, an expression: its tilt, above 0 towards much noise, below 0 towards little, "
        "such as tqd(motion, visual_quality); with bounds after it, in timesteps 0..1000: "
        "tqd(motion, visual_quality); min(t) = 800 if aesthetic < 4 else 0; null: all rows as objective.timesteps says",
    )
    validation: float = key(0.0, "share of sources (or rows) held out for the validation loss", min=0, below=1)
    validation_by: Literal["source", "content", "row"] = key(
        "source",
        "what is held out as a whole: all clips of a source, all captions of a clip (content), or single rows",
    )
    max_crop: float = key(
        0.25, "share of the picture that cropping to a bucket's aspect may take off; else refused", min=0, max=1
    )
    letterbox: bool = key(False, "fit rows that max_crop would refuse in whole, between black bars")
    control: str | None = key(
        None,
        "method control: which maps, as canny, or several drawn by shares, as canny:2,lines:1; null: the only map of "
        "each row, such as its control_file_path",
    )
    unpacked: str | None = key(None, "folder that a WebDataset's shards are unpacked to; null: one in the user's cache")


@dataclass(frozen=True)
class BucketSettings:
    """Which shapes rows are brought to, and how they are batched."""

    sizes_px: tuple[int, ...] = key((512,), "areas, by the side of the square: 512 is 512² pixels", min=16, max=16384)
    aspects: tuple[str, ...] = key(
        ("2.39/1", "16/9", "4/3", "1/1", "3/4", "9/16"),
        "width/height; the nearest is taken, and the rest of the picture cropped",
    )
    frames: tuple[int, ...] = key(
        (17, 25, 33, 49), "lengths in frames, as the VAE takes them (V5: 4n+1); the longest that fits is taken", min=1
    )
    fps: float | None = key(
        None,
        "rate at which frames are taken; null: the model family's (8 for EasyAnimate V5 and V5.1); "
        "0: none, frames are spread over each whole clip, whatever its length",
        min=0, max=1000,
    )  # fmt: skip
    shorter: Literal["smaller_bucket", "drop", "slow_down"] = key(
        "smaller_bucket",
        "clips that do not fill the longest of `frames` at fps: a smaller_bucket, dropped where none is small enough; "
        "drop them all; or smaller_bucket, and slow_down those too short for any: frames spread over the whole clip",
    )
    longer: Literal["windows", "middle", "first", "speed_up"] = key(
        "windows",
        "clips longer than their bucket at fps: as many windows as fit, the middle one, the first one, or speed_up: "
        "frames spread over whole clips that are longer than the longest of `frames`",
    )
    low_rate: Literal["drop", "repeat"] = key("drop", "clips of fewer frames a second than fps: drop, or repeat some")
    max_fps: float = key(30.0, "where frames are spread over a whole clip: the highest rate", above=0, max=1000)
    tokens_per_row: int | None = key(
        None, "token-length training: a row takes any size, with as many frames as give at most these tokens", min=1
    )
    upscale: bool = key(True, "enlarge rows that are smaller than every size; false refuses them")
    tokens_per_micro_batch: int = key(
        16384, "rows of a bucket that are computed at once: budget // tokens, at least 1", min=1
    )
    micro_batches_per_step: int = key(
        8, "micro-batches of one optimizer step over all workers; they must divide it", min=1
    )

    def __post_init__(self) -> None:
        """Refuse empty lists; what the VAE takes is known later (`parts.check_frames`)."""
        if not self.sizes_px or not self.aspects or not self.frames:
            raise ValueError("sizes_px, aspects and frames each need at least one value")


@dataclass(frozen=True)
class ModelSettings:
    """Which weights training starts from: a preset's name, or a folder."""

    base: str | None = key(None, "a pipeline folder in diffusers layout; gives every part that is not named here")
    transformer: str | None = key(
        None,
        "preset (tiny or 12b, also with -inpaint, -control, -control-reference or -camera after it), or folder with "
        "config.json and safetensors",
    )
    vae: str | None = key(
        None,
        "preset (tiny, magvit; of V1 to V4: image-vae, magvit4, slice, cached-slice, and each with tiny- before it) "
        "or folder; a transformer wants a trained one",
    )
    text_encoder: str | None = key(None, "`tiny` (built here) or folder of a Qwen2-VL with its tokenizer beside it")
    image_encoder: str | None = key(
        None,
        "inpaint of V3 and V4: `tiny` (built here) or folder of a CLIP, whose tokens of a start image the model sees; "
        "null: that of model.base, or none",
    )
    text_tokens: int = key(
        256, "positions of the text; V5.1 weights were trained with 256 and need all of them", min=1, max=32768
    )


@dataclass(frozen=True)
class LoraSettings:
    """Adapters on a frozen base; rank 0 trains all weights."""

    rank: int = key(0, "0: full training", min=0, max=8192)
    alpha: float | None = key(None, "scale is alpha / rank; null: alpha = rank", above=0)
    dora: bool = key(False, "weight-decomposed LoRA (arXiv 2402.09353)")
    targets: tuple[str, ...] = key((), "linear layers adapted; empty: the architecture's own list")
    images_only: bool = key(
        False, "leave out the layers along time (V1 to V3), for an adapter that is trained on images and acts on videos"
    )
    init: str | None = key(None, "adapter to begin from: a run, its lora folder, or a file in diffusers or kohya keys")


@dataclass(frozen=True)
class ObjectiveSettings:
    """What the transformer learns to predict."""

    kind: Literal["flow", "epsilon", "v_prediction"] | None = key(
        None,
        "flow (V5.1), epsilon (V1 to V3) or v_prediction (V4, V5); null: what the base was trained for, or without "
        "model.base what the transformer's family is",
    )
    timesteps: Literal["logit_normal", "uniform", "mode"] = key(
        "logit_normal", "density that noise levels are drawn from"
    )
    shift: float | None = key(
        None,
        "flow: noise levels are pushed up by this factor, sigma·s / (1 + (s−1)·sigma), in training, samples and "
        "export; null: the base's, or 1 without model.base",
        above=0,
    )
    high_noise_weight: float = key(
        1.0,
        "epsilon: where there is more noise than picture, a row's error counts as many times as there is more, at most "
        "so many times (truncated SNR, arXiv 2202.00512), without which a short training learns little from captions; "
        "1: all rows alike, as published",
        min=1,
    )
    text_dropout: float = key(0.1, "share of rows trained with the empty caption, for guidance", min=0, max=1)


@dataclass(frozen=True)
class VaeLossSettings:
    """The VAE's loss."""

    l1: float = key(1.0, "weight of the absolute error", min=0)
    l2: float = key(0.0, "weight of the squared error", min=0)
    kl: float = key(1e-6, "weight of the KL divergence to the unit Gaussian", min=0)
    lpips: float = key(0.0, "weight of the perceptual distance; needs lpips_weights", min=0)
    lpips_weights: str | None = key(None, "file with VGG16 and LPIPS weights (safetensors or state dict)")
    gan: float = key(0.0, "weight of the adversarial loss (3D PatchGAN, hinge)", min=0)
    gan_start_step: int = key(50_000, "optimizer step at which the adversarial loss sets in", min=0)


@dataclass(frozen=True)
class VaeSettings:
    """How a VAE begins, which of its parts are trained, and what is exported with it."""

    start: str | None = key(
        None,
        "folder of a VAE whose weights the preset of model.vae begins with: an image VAE's are inflated, those of a "
        "video VAE with the same weights (MagViT of 4 channels, Slice, cached Slice) are taken as they are",
    )
    inflation: Literal["zero", "mean"] = key(
        "zero",
        "how an image VAE's convolutions are inflated: on a frame's own tap, with zeros on other frames', or a third "
        "on each",
    )
    decoder_only: bool = key(
        False, "train the decoder alone, beneath latents that stay as they are; usual with vae_loss.l1=0 and l2=1"
    )

    measure_scale: bool | None = key(
        None,
        "measure the latents' deviation after training and export scaling_factor by it; false: keep the VAE's; "
        "null: measure for a preset, and keep that of a folder given or begun with, on which transformers rely",
    )
    scale_clips: int = key(16, "clips that are encoded to measure it, evenly over the data", min=1, max=10_000)


@dataclass(frozen=True)
class TrainSettings:
    """How weights are changed."""

    steps: int = key(1000, "optimizer steps in all", min=1)
    learning_rate: float = key(1e-4, "of Adam, after the warm-up", above=0, max=1)
    warmup_steps: int = key(0, "steps over which the rate rises from 0", min=0)
    schedule: Literal["constant", "cosine", "linear"] = key(
        "constant",
        "the rate after the warm-up: constant, or falling to 0 at the end of `steps`, along half a cosine or evenly",
    )
    optimizer: Literal["adamw", "adamw_8bit"] = key("adamw", "adamw_8bit needs bitsandbytes and a GPU")
    betas: tuple[float, float] = key((0.9, 0.999), "Adam's two decay rates", min=0, below=1)
    weight_decay: float = key(
        0.01, "share of a weight taken off at each step, times the rate; norms and biases keep theirs", min=0
    )
    max_grad_norm: float = key(1.0, "gradients are clipped to this norm", above=0)
    skip_nonfinite: int = key(
        3, "steps of a run that are passed over where the loss or gradient norm is not finite; one more ends it", min=0
    )
    ema: float | None = key(
        None, "decay of the running mean of the weights, which is then the model; null: none", min=0, below=1
    )
    precision: Literal["float32", "bf16"] = key("float32", "bf16: autocast, master weights stay float32")
    gradient_checkpointing: bool = key(
        False, "recompute activations in the backward pass: less memory, slower by a third"
    )
    seed: int = key(0, "decides order, noise, dropout, initial weights and what is held out", min=0, max=2**63 - 1)
    cache: str | None = key(None, "folder of latents and texts; null: OUTPUT/cache; `none`: straight from video")
    memory_gb: float | None = key(None, "memory of one device; null: measured", above=0)


@dataclass(frozen=True)
class MemorySettings:
    """How a frozen base is kept on the device while its adapters are trained."""

    fp8_base: bool = key(False, "keep the base's block weights in 8 bits, scaled by weight; they are half as large")
    offload_blocks: bool = key(
        False, "keep the base's blocks in main memory and fetch each when it computes; needs gradient_checkpointing"
    )


@dataclass(frozen=True)
class WatchSettings:
    """What is written while training."""

    log_every: int = key(10, "steps between lines of log.jsonl and TensorBoard", min=1)
    checkpoint_every: int = key(500, "steps between checkpoints", min=1)
    keep_checkpoints: int = key(3, "older ones are deleted", min=1)
    validate_every: int = key(0, "steps between validation losses; 0: never", min=0)
    sample_every: int = key(0, "steps between samples; 0: never", min=0)
    prompts: tuple[str, ...] = key((), "captions to sample, each with its own fixed seed")
    stop_when: tuple[str, ...] = key(
        (),
        "conditions on the validation's numbers that stop the run, such as [motion < 0.5 * motion_base, distance > 2]",
    )
    sample_steps: int = key(20, "denoising steps of those samples", min=1, max=1000)


@dataclass(frozen=True)
class LaunchSettings:
    """Who computes."""

    workers: int = key(0, "0: in this process; else that many Ray Train workers", min=0)
    cpus_per_worker: int = key(1, "CPUs that a worker books", min=1)
    gpus_per_worker: float = key(0.0, "GPUs that a worker books", min=0)
    decoders: int = key(2, "media processes of a worker that trains from video; each decodes a row ahead of it", min=1)
    device: str | None = key(None, "GPU that costs are predicted for, such as H100; null: what this machine has")
    sharding: Literal["ddp", "fsdp"] = key("ddp", "ddp: whole weights on each worker; fsdp: divided (FSDP2)")
    max_restarts: int = key(3, "times the workers are started again after one died; -1: without end", min=-1)


@dataclass(frozen=True)
class ResumeSettings:
    """What may differ from the config that a run was started with."""

    allow: tuple[str, ...] = key(
        (), "keys, such as [train.learning_rate, data.metadata]; others that differ are refused when a run goes on"
    )


@dataclass(frozen=True)
class TrainConfig:
    """A resolved training config."""

    method: Literal["text_to_video", "inpaint", "control", "vae", "reward"] = key(
        "text_to_video",
        "text_to_video; inpaint: likewise, with images, videos and masks as condition; control: likewise, with control "
        "maps, camera paths and reference images; vae; reward: sampled from prompts, by the gradient of rewards",
    )
    data: DataSettings = key(DataSettings(), "which rows")
    buckets: BucketSettings = key(BucketSettings(), "which shapes and batches")
    model: ModelSettings = key(ModelSettings(), "which weights")
    lora: LoraSettings = key(LoraSettings(), "adapters")
    objective: ObjectiveSettings = key(ObjectiveSettings(), "text_to_video, inpaint, control: what is predicted")
    inpaint: InpaintSettings = key(InpaintSettings(), "inpaint: masks and noise")
    control: ControlSettings = key(ControlSettings(), "control: maps and reference images")
    reward: RewardSettings = key(RewardSettings(), "reward: what is sampled and how it is judged")
    vae_loss: VaeLossSettings = key(VaeLossSettings(), "vae: the loss")
    vae: VaeSettings = key(VaeSettings(), "vae: what is exported")
    train: TrainSettings = key(TrainSettings(), "how weights are changed")
    memory: MemorySettings = key(MemorySettings(), "lora: how the frozen base is kept")
    watch: WatchSettings = key(WatchSettings(), "what is written")
    launch: LaunchSettings = key(LaunchSettings(), "who computes")
    resume: ResumeSettings = key(ResumeSettings(), "what may differ when a run goes on")

    @property
    def kind(self) -> MethodKind:
        """What the method trains, and what it needs."""
        return METHODS[self.method]


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
