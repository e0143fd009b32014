"""EasyAnimate V4: HunyuanDiT 1.1 (arXiv 2405.08748) with attention among the tokens of all frames."""

import inspect
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.conditions.spec import EASYANIMATE_V3
from models.errors import ModelError
from models.transformers.architecture import Shape
from models.transformers.blocks.hunyuan_transformer import HunyuanTransformer3DModel
from models.transformers.conditioning import Conditioning
from models.transformers.defaults import FamilyDefaults, ObjectiveFacts, SamplerFacts
from models.transformers.published_folder import load_folder

V4_XL_2 = {
    "num_attention_heads": 16,
    "attention_head_dim": 88,
    "hidden_size": 1408,
    "num_layers": 40,
    "mlp_ratio": 4.3637,
    "in_channels": 4,
    "out_channels": 8,
    "patch_size": 2,
    "n_query": 16,
    "projection_dim": 1024,
    "cross_attention_dim": 1024,
    "cross_attention_dim_t5": 2048,
    "pooled_projection_dim": 1024,
    "text_len": 77,
    "text_len_t5": 256,
    "time_position_encoding": True,
}
TINY = V4_XL_2 | {
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "hidden_size": 128,
    "num_layers": 6,
    "mlp_ratio": 4.0,
    "n_query": 4,
    "projection_dim": 32,
    "cross_attention_dim": 64,
    "cross_attention_dim_t5": 64,
    "pooled_projection_dim": 32,
}
V4 = FamilyDefaults(
    name="EasyAnimate V4",
    autoencoder="cached_slice",
    text_encoder="clip_and_mt5_140",
    text_tokens=77,
    objective=ObjectiveFacts(
        "v_prediction",
        {
            "_class_name": "DDIMScheduler",
            "num_train_timesteps": 1000,
            "beta_start": 0.00085,
            "beta_end": 0.03,
            "beta_schedule": "scaled_linear",
            "prediction_type": "v_prediction",
            "steps_offset": 1,
            "clip_sample": False,
        },
        variance="ignored",
    ),
    kinds=EASYANIMATE_V3,
    masks={"box": 0.05, "all": 0.3, "first_frames": 0.3, "both_ends": 0.3, "timed_box": 0.05},
    sampler=SamplerFacts("euler", steps=25, guidance=7.0, num_frames=144, fps=24.0, image_from=0.6),
    image_encoder="clip_tokens",
    reference_noise=False,
)
INPAINT_LATENTS = 3
"""of the latents' channels that an inpainting model reads: noisy, mask and masked video, both encoded by the VAE"""


class EasyAnimateV4:
    """The family as the trainer and the sampler use it."""

    class_name = "HunyuanTransformer3DModel"
    rate_fps = 24.0
    fields: Collection[str] = frozenset(inspect.signature(HunyuanTransformer3DModel.__init__).parameters) - {"self"}
    presets: Mapping[str, Mapping[str, Any]] = {
        "tiny-v4": TINY,
        "tiny-v4-inpaint": TINY | {"in_channels": 12},
        "v4": V4_XL_2,
        "v4-inpaint": V4_XL_2 | {"in_channels": 12},
    }
    lora_targets: Sequence[str] = ("to_q", "to_k", "to_v", "to_out.0")
    image_lora_excludes: Sequence[str] = ()

    def takes(self, config: Mapping[str, Any]) -> bool:
        """Return True: no other family has the class name."""
        return True

    def defaults(self, config: Mapping[str, Any]) -> FamilyDefaults:
        """Return V4's facts."""
        return V4

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Build with random weights.

        Raises:
            ModelError: a variant that was never published with weights, or sizes that do not fit together.
        """
        if config.get("basic_block_type", "basic") != "basic" or config.get("after_norm", False):
            raise ModelError("config.json: V4 is read with basic_block_type basic and after_norm false, as published")
        try:
            return HunyuanTransformer3DModel(**config)
        except ValueError as error:
            raise ModelError(f"config.json: {error}") from None

    def load(self, folder: Path, dtype: torch.dtype | None = None) -> nn.Module:
        """Load `config.json` and weights, safetensors or a pickle of tensors.

        Raises:
            ModelError: files are missing or do not fit each other.
        """
        return load_folder(folder, self.fields, self.build, dtype)

    def published(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the weights: they bear the published names."""
        return dict(state)

    def shape(self, model: nn.Module) -> Shape:
        """Return the numbers that cost depends on."""
        config: Any = model.config
        return Shape(
            width=config.hidden_size,
            layers=config.num_layers,
            mlp_ratio=config.mlp_ratio,
            patch=config.patch_size,
            in_channels=config.in_channels,
            out_channels=config.out_channels // 2 if config.learn_sigma else config.out_channels,
            text_dim=config.cross_attention_dim,
            parameters=sum(p.numel() for p in model.parameters()),
            image_dim=0 if model.clip_projection is None else config.projection_dim,
        )

    def predict(
        self, model: nn.Module, latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """Run the network; see `Architecture.predict`.

        The text is that of the bilingual CLIP, the second text that of mT5, both padded to the model's lengths. The
        second half of the channels belongs to a learned variance, which is not trained.
        """
        second = conditioning.second_text
        if second is None:
            raise ModelError("EasyAnimate V4 reads text by two encoders; give embeddings of the second one, too")
        prediction: torch.Tensor = model(
            latents,
            timesteps,
            conditioning.text,
            second,
            text_mask=conditioning.text_mask,
            second_text_mask=conditioning.second_text_mask,
            condition=conditioning.latents,
            image=conditioning.image,
            image_mask=conditioning.image_mask,
            size_px=conditioning.size_px,
        )
        return prediction

    def widen(self, model: nn.Module, condition_channels: int | None = None) -> None:
        """Add channels for mask and masked video and attention to a condition image, in place; all say nothing yet.

        Raises:
            ModelError: it has them already, or another number of condition channels is asked for.
        """
        network: Any = model
        own = (INPAINT_LATENTS - 1) * network.latent_channels
        if condition_channels not in (None, own):
            raise ModelError(f"{condition_channels} condition channels: EasyAnimate V4 takes {own}, of mask and video")
        if network.config.in_channels != network.latent_channels:
            raise ModelError(f"the transformer has {network.config.in_channels} input channels; it is widened already")
        network.widen(INPAINT_LATENTS * network.latent_channels)

    def set_reference_noise(self, model: nn.Module, *, noisy: bool) -> None:
        """Note whether known pixels bear noise."""
        model.register_to_config(add_noise_in_inpaint_model=noisy)  # type: ignore[operator]

    def unused_parameters(self, model: nn.Module) -> list[str]:
        """Name none: every parameter acts on the output."""
        return []
