"""What EasyAnimate V1–V3 share as families; each states its own numbers in its file."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.errors import ModelError, one_line
from models.transformers.architecture import Shape
from models.transformers.blocks.pixart_video import IMAGE_WIDTH, Transformer3DModel, conditioned_channels
from models.transformers.blocks.zero import widened
from models.transformers.conditioning import Conditioning
from models.transformers.defaults import FamilyDefaults, ObjectiveFacts
from models.weights.json_file import read_json
from models.weights.published_config import known_fields
from models.weights.state_dict import fit_state_dict, read_state_dict, take_weights

SETTLED: Mapping[str, Any] = {
    "patch_3d": False,
    "fake_3d": False,
    "casual_3d": False,
    "casual_3d_upsampler_index": None,
    "time_position_encoding_before_transformer": False,
    "qk_norm": False,
    "after_norm": False,
    "norm_type": "ada_norm_single",
    "attention_type": "default",
    "only_cross_attention": False,
    "double_self_attention": False,
    "use_linear_projection": False,
    "num_vector_embeds": None,
    "upcast_attention": False,
}
"""Fields of published configs that change the arithmetic, with the one value that is supported: the published one."""
WITHOUT_EFFECT: frozenset[str] = frozenset((
    *("num_embeds_ada_norm", "norm_num_groups", "time_patch_size"),
    # what a trainer's moving average of the weights keeps
    *("decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup"),
    "add_noise_in_inpaint_model",
))
"""Fields that are kept and written back, and that the prediction does not depend on."""
ARGUMENTS: frozenset[str] = frozenset(inspect.signature(Transformer3DModel.__init__).parameters) - {"self"}
SIZE_KEY = "adaln_single.emb.resolution_embedder.linear_1.weight"
"""there are no published configs of some models that may be told resolution and aspect ratio: their weights say it"""
PLACES_KEY = "pos_embed.pos_embed"
"""sinusoids, which old files hold and the network computes"""
TEMPORAL_LAYERS = "attn_temporal"
"""in the names of all layers that image models do not have, but for the long skip connections"""
LINEAR: Sequence[str] = (
    "to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2", "proj_in", "proj_out", "linear", "linear_1", "linear_2",
)  # fmt: skip
"""Linear layers that a LoRA adapts, as EasyAnimate's does: every one."""
PIXART: dict[str, Any] = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "cross_attention_dim": 1152,
    "attention_bias": True,
    "sample_size": 64,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "caption_channels": 4096,
}
"""PixArt-XL/2, as trained on images of 512x512 px."""
TINY: dict[str, Any] = PIXART | {
    "num_attention_heads": 4,
    "attention_head_dim": 24,
    "cross_attention_dim": 96,
    "sample_size": 8,
    "caption_channels": 64,
}
T5 = "t5"
T5_TOKENS = 120
NOISE = ObjectiveFacts(
    "epsilon",
    {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "steps_offset": 1,
        "prediction_type": "epsilon",
        "clip_sample": False,
    },
    variance="trained",
)
"""Noise and its variance are learned (arXiv 2102.09672) over linear betas."""
TINY_MOTION: dict[str, Any] = {"num_attention_heads": 2, "temporal_position_encoding_max_len": 32}


@dataclass(frozen=True)
class PixArtFamily:
    """One of the families; see `Architecture` for what the trainer and the sampler use.

    Attributes:
        facts: with what a model is trained and sampled.
        rate_fps: frames a second of the videos that the published weights were trained with.
        presets: configurations by name.
        video_fields: fields that a video model has beside those of the image model that it begins with.
        takes_images: whether it has channels and tokens for condition images.
        takes: whether a `config.json` with the class name is this family's.
        lora_targets: names of the linear layers that LoRA adapts; `*` stands for any number.
    """

    facts: FamilyDefaults
    rate_fps: float
    presets: Mapping[str, Mapping[str, Any]]
    video_fields: Mapping[str, Any]
    takes_images: bool
    takes: Callable[[Mapping[str, Any]], bool]
    lora_targets: Sequence[str] = LINEAR

    @property
    def class_name(self) -> str:
        """Return `_class_name` in `config.json`, which the three families share."""
        return Transformer3DModel.__name__

    def defaults(self, config: Mapping[str, Any]) -> FamilyDefaults:
        """Return the family's facts."""
        return self.facts

    @property
    def fields(self) -> Collection[str]:
        """Return the names of the fields that `build` takes."""
        return ARGUMENTS | SETTLED.keys() | WITHOUT_EFFECT

    @property
    def image_lora_excludes(self) -> Sequence[str]:
        """Return parts of the names of layers that a LoRA of images alone leaves as they are."""
        return (TEMPORAL_LAYERS,)

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Build with random weights; fields without effect are kept in the model's config.

        Raises:
            ModelError: values that are not supported or do not fit together.
        """
        for field, value in SETTLED.items():
            if config.get(field, value) != value:
                raise ModelError(f"{field} {config[field]!r}: only {value!r} is supported; choose another model")
        model = Transformer3DModel(**{field: value for field, value in config.items() if field in ARGUMENTS})
        model.register_to_config(**{field: value for field, value in config.items() if field not in ARGUMENTS})
        return model

    def load(self, folder: Path, dtype: torch.dtype | None = None) -> nn.Module:
        """Load `config.json` and its weights, safetensors or PyTorch's.

        Raises:
            ModelError: files are missing or do not fit each other.
        """
        folder = Path(folder)
        try:
            config = known_fields(read_json(folder / "config.json"), self.fields, folder / "config.json")
            tensors = read_state_dict(folder)
            tensors.pop(PLACES_KEY, None)
            with torch.device("meta"):
                model = self.build(config | {"use_additional_conditions": SIZE_KEY in tensors})
        except ModelError as error:
            raise ModelError(f"{folder}: {str(error).removeprefix(f'{folder}: ')}") from None
        except (OSError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
            raise ModelError(f"{folder}: no transformer can be loaded ({one_line(error)})") from None
        fit_state_dict(tensors, model.state_dict(), folder, "config.json")
        take_weights(model, tensors, dtype)
        return model.eval()

    def published(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the weights: they bear the published names."""
        return dict(state)

    def shape(self, model: nn.Module) -> Shape:
        """Return the numbers that cost depends on."""
        config: Any = model.config
        return Shape(
            width=config.num_attention_heads * config.attention_head_dim,
            layers=config.num_layers,
            mlp_ratio=4.0,
            patch=config.patch_size,
            in_channels=config.in_channels,
            out_channels=config.out_channels // 2,
            text_dim=config.caption_channels,
            parameters=sum(p.numel() for p in model.parameters()),
            image_dim=0 if model.clip_projection is None else IMAGE_WIDTH,
        )

    def predict(
        self, model: nn.Module, latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """Run the network: half of the channels are the noise, half its variance; see `Architecture.predict`."""
        prediction: torch.Tensor = model(
            latents,
            timesteps,
            conditioning.text,
            text_mask=conditioning.text_mask,
            condition=conditioning.latents,
            image=conditioning.image,
            image_mask=conditioning.image_mask,
            size_px=conditioning.size_px,
        )
        return prediction

    def widen(self, model: nn.Module, condition_channels: int | None = None) -> None:
        """Add channels for an encoded mask and masked video, and image tokens; see `Architecture.widen`.

        Raises:
            ModelError: the model has them, or another number of condition channels is asked for.
        """
        config: Any = model.config
        old: Any = model.pos_embed.proj  # type: ignore[union-attr]
        channels = conditioned_channels(config.out_channels)
        own = channels - config.out_channels // 2
        if condition_channels not in (None, own):
            raise ModelError(
                f"{condition_channels} condition channels: {self.facts.name} takes {own}, of mask and video"
            )
        if old.in_channels >= channels:
            raise ModelError(f"the model has {old.in_channels} channels in, with image conditions; nothing to widen")
        model.pos_embed.proj = widened(old, channels)  # type: ignore[union-attr]
        model.add_image_tokens()  # type: ignore[operator]
        model.register_to_config(in_channels=channels)  # type: ignore[operator]

    def set_reference_noise(self, model: nn.Module, *, noisy: bool) -> None:
        """Note whether known pixels bear noise."""
        model.register_to_config(add_noise_in_inpaint_model=noisy)  # type: ignore[operator]

    def unused_parameters(self, model: nn.Module) -> list[str]:
        """Return no names: every output depends on every parameter."""
        return []
