"""EasyAnimate V5/V5.1: MMDiT with full 3D attention (arXiv 2405.18991), as diffusers implements it."""

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.transformers.transformer_easyanimate import EasyAnimateTransformerBlock
from torch import nn

from models.conditions.masks import V5_PROBABILITIES
from models.conditions.spec import EASYANIMATE_V5
from models.errors import ModelError, check_weights, one_line
from models.transformers.architecture import Shape
from models.transformers.blocks.zero import widened
from models.transformers.conditioning import Conditioning
from models.transformers.defaults import FamilyDefaults, ObjectiveFacts, SamplerFacts
from models.transformers.easyanimate_v5_names import has_published_names, to_diffusers, to_published
from models.transformers.easyanimate_v5_presets import V5 as V5_PRESETS
from models.transformers.easyanimate_v5_presets import V5_1 as V5_1_PRESETS
from models.transformers.published_folder import load_folder
from models.weights.json_file import read_json
from models.weights.published_config import known_fields
from models.weights.weight_files import DIFFUSERS_STEM, find_weights


class EasyAnimateTransformer3DModel(diffusers.EasyAnimateTransformer3DModel, PeftAdapterMixin, CacheMixin):
    """Diffusers' class with the LoRA and caching mixins that it lacks.

    It bears the same name so that the `config.json` it writes is read by diffusers, and the other way round.
    """

    _repeated_blocks = ["EasyAnimateTransformerBlock"]


V5_1 = FamilyDefaults(
    name="EasyAnimate V5.1",
    autoencoder="magvit16",
    text_encoder="qwen2_vl",
    text_tokens=256,
    objective=ObjectiveFacts("flow"),
    kinds=EASYANIMATE_V5,
    masks=V5_PROBABILITIES,
    sampler=SamplerFacts("flow_euler", steps=50, guidance=6.0, num_frames=49, fps=8.0),
)
ZERO_TERMINAL_SNR = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
}
"""V5's scheduler: at the last step nothing is left of the data (Lin et al., arXiv 2305.08891), and sampling begins
there, which needs trailing steps"""
V5 = replace(
    V5_1,
    name="EasyAnimate V5",
    text_encoder="clip_and_mt5",
    text_tokens=77,
    objective=ObjectiveFacts("v_prediction", ZERO_TERMINAL_SNR),
    sampler=SamplerFacts("ddim", steps=50, guidance=6.0, num_frames=49, fps=8.0),
)


class EasyAnimate:
    """V5.1 and V5 as the trainer and the sampler use them; a config with a second text is V5's."""

    class_name = "EasyAnimateTransformer3DModel"
    rate_fps = 8.0
    fields: Collection[str] = frozenset(inspect.signature(EasyAnimateTransformer3DModel.__init__).parameters) - {"self"}
    presets: Mapping[str, Mapping[str, Any]] = {**V5_1_PRESETS, **V5_PRESETS}
    lora_targets: Sequence[str] = (
        "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
    )  # fmt: skip
    image_lora_excludes: Sequence[str] = ()

    def takes(self, config: Mapping[str, Any]) -> bool:
        """Return true: no other family has this class name."""
        return True

    def defaults(self, config: Mapping[str, Any]) -> FamilyDefaults:
        """Return V5's facts where there is a second text, else V5.1's."""
        return V5_1 if config.get("text_embed_dim_t5") is None else V5

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Build with random weights."""
        return EasyAnimateTransformer3DModel(**config)

    def load(self, folder: Path, dtype: torch.dtype | None = None) -> nn.Module:
        """Load `config.json` and weights, under diffusers' names or those they were published with.

        Safetensors may be plain or of a variant such as fp16; a pickle of tensors is read as well.

        Raises:
            ModelError: files are missing or do not fit each other.
        """
        if has_published_names(folder):
            return load_folder(folder, self.fields, self.build, dtype, to_diffusers)
        try:
            known_fields(read_json(folder / "config.json"), self.fields, folder / "config.json")
            variant = find_weights(folder, DIFFUSERS_STEM).variant
            loaded: Any = EasyAnimateTransformer3DModel.from_pretrained(
                folder,
                torch_dtype=dtype,
                variant=variant,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError, ImportError) as error:
            raise ModelError(f"{folder}: no transformer can be loaded ({one_line(error)})") from None
        model, report = loaded
        check_weights(report, folder)
        network: nn.Module = model
        return network

    def published(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the weights with what attention does with text in an attention of its own."""
        return to_published(state)

    def shape(self, model: nn.Module) -> Shape:
        """Return the numbers that cost depends on."""
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
        conditioning: Conditioning,
    ) -> torch.Tensor:
        """Run the network; see `Architecture.predict`.

        It attends to all of a text's tokens, padding among them: masks act within the text encoders alone.
        """
        network: Any = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        if (conditioning.second_text is None) != (network.config.text_embed_dim_t5 is None):
            raise ModelError(
                "EasyAnimate V5 reads two texts, of the bilingual CLIP and mT5; V5.1 reads one text, of Qwen2-VL; give "
                "what belongs to the transformer"
            )
        prediction: torch.Tensor = model(
            latents,
            timesteps,
            encoder_hidden_states=conditioning.text,
            encoder_hidden_states_t5=conditioning.second_text,
            inpaint_latents=conditioning.latents,
            return_dict=False,
        )[0]
        return prediction

    def widen(self, model: nn.Module, condition_channels: int | None = None) -> None:
        """Add input channels with weights of zero; see `Architecture.widen`."""
        config: Any = model.config
        old: Any = model.proj
        channels = config.out_channels + (condition_channels or 1 + config.out_channels)
        model.proj = widened(old, channels)
        model.register_to_config(in_channels=channels)  # type: ignore[operator]

    def set_reference_noise(self, model: nn.Module, *, noisy: bool) -> None:
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
