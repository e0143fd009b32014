"""EasyAnimate V5/V5.1: MMDiT with full 3D attention (arXiv 2405.18991), as diffusers implements it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.transformers.transformer_easyanimate import EasyAnimateTransformerBlock
from torch import nn

from models.architecture import Shape
from models.errors import ModelError, check_weights, one_line


class EasyAnimateTransformer3DModel(diffusers.EasyAnimateTransformer3DModel, PeftAdapterMixin, CacheMixin):
    """Diffusers' class with the LoRA and caching mixins that it lacks.

    It bears the same name so that the `config.json` it writes is read by diffusers, and the other way round.
    """

    _repeated_blocks = ["EasyAnimateTransformerBlock"]


TINY = {
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "num_layers": 4,
    "mmdit_layers": 4,
    "time_embed_dim": 128,
    "text_embed_dim": 64,
    "add_norm_text_encoder": True,
    "add_noise_in_inpaint_model": False,
}
TINY_INPAINT = TINY | {"in_channels": 33, "add_noise_in_inpaint_model": True}
V5_1_12B = {
    "num_attention_heads": 48,
    "attention_head_dim": 64,
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "num_layers": 48,
    "mmdit_layers": 48,
    "time_embed_dim": 512,
    "text_embed_dim": 3584,
    "add_norm_text_encoder": True,
    "add_noise_in_inpaint_model": False,
}


class EasyAnimate:
    """The family as the trainer and the sampler use it."""

    class_name = "EasyAnimateTransformer3DModel"
    presets: Mapping[str, Mapping[str, Any]] = {
        "tiny": TINY,
        "tiny-inpaint": TINY_INPAINT,
        "12b": V5_1_12B,
        "12b-inpaint": V5_1_12B | {"in_channels": 33, "add_noise_in_inpaint_model": True},
    }
    lora_targets: Sequence[str] = (
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
    )  # fmt: skip

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Build with random weights."""
        return EasyAnimateTransformer3DModel(**config)

    def load(self, folder: Path, dtype: torch.dtype | None = None) -> nn.Module:
        """Load `config.json` and safetensors.

        Raises:
            ModelError: files are missing or do not fit each other.
        """
        try:
            loaded: Any = EasyAnimateTransformer3DModel.from_pretrained(
                folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{folder}: no transformer can be loaded ({one_line(error)})") from None
        model, report = loaded
        check_weights(report, folder)
        network: nn.Module = model
        return network

    def shape(self, model: nn.Module) -> Shape:
        """Give the numbers that cost depends on."""
        config: Any = model.config
        return Shape(
            width=config.num_attention_heads * config.attention_head_dim,
            layers=config.num_layers,
            mlp_ratio=4.0,
            patch=config.patch_size,
            in_channels=config.in_channels,
            out_channels=config.out_channels,
            text_dim=config.text_embed_dim,
            parameters=sum(p.numel() for p in model.parameters()),
        )

    def predict(
        self,
        model: nn.Module,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        text: torch.Tensor,
        condition: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run the network; see `Architecture.predict`."""
        prediction: torch.Tensor = model(
            latents, timesteps, encoder_hidden_states=text, inpaint_latents=condition, return_dict=False
        )[0]
        return prediction

    def widen(self, model: nn.Module) -> None:
        """Add input channels with weights of zero; see `Architecture.widen`."""
        config: Any = model.config
        old: Any = model.proj
        channels = 2 * config.out_channels + 1
        wide: Any = nn.Conv2d(channels, old.out_channels, old.kernel_size, old.stride, bias=old.bias is not None)
        wide = wide.to(old.weight.device, old.weight.dtype)
        with torch.no_grad():
            wide.weight.zero_()
            wide.weight[:, : old.in_channels] = old.weight
            if old.bias is not None:
                wide.bias.copy_(old.bias)
        model.proj = wide
        model.register_to_config(in_channels=channels)  # type: ignore[operator]

    def set_reference_noise(self, model: nn.Module, noisy: bool) -> None:
        """Note whether known pixels bear noise, where diffusers' pipeline looks for it."""
        model.register_to_config(add_noise_in_inpaint_model=noisy)  # type: ignore[operator]

    def unused_parameters(self, model: nn.Module) -> list[str]:
        """Name what only feeds the text stream of the last block, which nothing reads."""
        last = f"transformer_blocks.{len(model.transformer_blocks) - 1}."  # type: ignore[arg-type]
        dead = (f"{last}attn1.to_add_out.", f"{last}txt_ff.")
        return [name for name, _ in model.named_parameters() if name.startswith(dead)]


def enable_caching() -> None:
    """Tell diffusers' caching hooks what the block returns; without it they do not know this family."""
    TransformerBlockRegistry.register(
        EasyAnimateTransformerBlock,
        TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=1),
    )
