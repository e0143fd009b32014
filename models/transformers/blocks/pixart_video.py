"""The network of EasyAnimate V1–V3 (arXiv 2405.18991): PixArt-α with a motion module in every block.

One class, as in the published files, whose `config.json` says what a version has: which motion modules, long skip
connections, condition channels and image tokens. Without the motion modules its weights have the names and shapes of
diffusers' `PixArtTransformer2DModel`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.embeddings import PixArtAlphaTextProjection
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import AdaLayerNormSingle
from torch import nn

from models.errors import ModelError
from models.transformers.blocks.motion import GLOBAL, GRID_MODULE, motion_settings
from models.transformers.blocks.pixart import FramePatches, PixArtVideoBlock, join_patches, mask_bias
from models.transformers.blocks.skips import Skips, skip_layers
from models.transformers.blocks.zero import zero

HYBRID = "global_motionmodule"
"""basic_block_type of models with one kind of motion module in even blocks and another in odd ones"""
UNIFORM = "motionmodule"
IMAGE_WIDTH = 768
"""of the image embeddings of CLIP ViT-L/14"""
IMAGE_TOKENS = 8
"""that one embedding becomes"""
PIXELS_PER_LATENT = 8
SIZES_SAMPLE = 128
"""sample_size of the image models that are told resolution and aspect ratio"""
SIZE_PARTS = 3
"""embeddings that make up that of a size: height, width and their ratio"""


class Transformer3DModel(ModelMixin, ConfigMixin, PeftAdapterMixin, CacheMixin):
    """The network; it bears the published name, so that the `config.json` it writes is read by EasyAnimate."""

    _supports_gradient_checkpointing = True
    _no_split_modules = ["PixArtVideoBlock"]
    _repeated_blocks = ["PixArtVideoBlock"]
    _skip_layerwise_casting_patterns = ["pos_embed", "norm", "adaln_single"]

    @register_to_config
    def __init__(
        self,
        *,
        num_attention_heads: int = 16,
        attention_head_dim: int = 72,
        in_channels: int = 4,
        out_channels: int = 8,
        num_layers: int = 28,
        dropout: float = 0.0,
        cross_attention_dim: int | None = None,
        attention_bias: bool = True,
        sample_size: int = 64,
        patch_size: int = 2,
        activation_fn: str = "gelu-approximate",
        norm_elementwise_affine: bool = False,
        norm_eps: float = 1e-6,
        interpolation_scale: float | None = None,
        use_additional_conditions: bool | None = None,
        caption_channels: int | None = 4096,
        basic_block_type: str = UNIFORM,
        enable_uvit: bool = False,
        motion_module_type: str = GRID_MODULE,
        motion_module_kwargs: Mapping[str, Any] | None = None,
        motion_module_kwargs_even: Mapping[str, Any] | None = None,
        motion_module_kwargs_odd: Mapping[str, Any] | None = None,
    ):
        """Build with random weights; the arguments are the fields of the published `config.json`.

        Raises:
            ModelError: values that do not fit together or are not supported.
        """
        super().__init__()
        width = num_attention_heads * attention_head_dim
        sized = sample_size == SIZES_SAMPLE if use_additional_conditions is None else use_additional_conditions
        if sized and width % SIZE_PARTS:
            raise ModelError(f"use_additional_conditions: the width, {width}, must be a multiple of {SIZE_PARTS}")
        if basic_block_type == UNIFORM:
            motions = (motion_settings(motion_module_type, motion_module_kwargs),) * 2
        elif basic_block_type == HYBRID:
            motions = (
                motion_settings(motion_module_type, motion_module_kwargs_even),
                motion_settings(motion_module_type, motion_module_kwargs_odd),
            )
        else:
            raise ModelError(f"basic_block_type {basic_block_type!r}: must be {UNIFORM} or {HYBRID}")
        self._sized, self._motions, self._layers = sized, motions, num_layers
        scale = max(sample_size // 64, 1) if interpolation_scale is None else interpolation_scale
        self.pos_embed = FramePatches(in_channels, width, patch_size, sample_size, scale)
        self.transformer_blocks = nn.ModuleList(
            PixArtVideoBlock(
                width, num_attention_heads, cross_attention_dim or width, motions[number % 2], activation_fn,
                norm_eps, dropout, bias=attention_bias, affine=norm_elementwise_affine,
            )
            for number in range(num_layers)
        )  # fmt: skip
        self.long_connect_fc = skip_layers(num_layers, width) if enable_uvit else None
        self.norm_out = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.proj_out = nn.Linear(width, patch_size * patch_size * out_channels)
        self.adaln_single = AdaLayerNormSingle(width, use_additional_conditions=sized)
        if sized:
            for embedder in (self.adaln_single.emb.resolution_embedder, self.adaln_single.emb.aspect_ratio_embedder):
                zero(embedder.linear_2)
        self.caption_projection = PixArtAlphaTextProjection(caption_channels, width) if caption_channels else None
        self.clip_projection: nn.Module | None = None
        if in_channels == conditioned_channels(out_channels):
            self.add_image_tokens()
        self.gradient_checkpointing = False

    def add_image_tokens(self) -> None:
        """Add the layers that make tokens of an image's embedding, all of them zero vectors at first."""
        width = self.proj_out.in_features
        made = PixArtAlphaTextProjection(IMAGE_WIDTH, IMAGE_TOKENS * width)
        zero(made.linear_2)
        self.clip_projection = made.to(self.proj_out.weight.device, self.proj_out.weight.dtype)

    def forward(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        text: torch.Tensor,
        text_mask: torch.Tensor | None = None,
        condition: torch.Tensor | None = None,
        image: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        size_px: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Predict noise and its variance.

        Args:
            latents: noisy latents (B, C, F, H, W).
            timesteps: (B,), 0..1000.
            text: embeddings of the captions (B, L, D).
            text_mask: (B, L), 1 or True for tokens; None: all are.
            condition: channels that follow the latents (B, C', F, H, W); None: zeros, as for text-to-video.
            image: CLIP's embeddings of condition images (B, K, 768); None: there is none.
            image_mask: (B, K), or (B, 8·K) for the tokens that they become, 1 or True for those to be seen; None: all.
            size_px: height and width (B, 2), for models that are told; None: 8 px for a latent.

        Returns:
            (B, C_out, F, H, W): half of the channels are the noise, half its variance.

        Raises:
            ModelError: latents or conditions of a shape that the network cannot take.
        """
        hidden, grid = self.pos_embed(self._with_condition(latents, condition))
        self._check_grid(grid)
        modulation, embedded = self._modulation(latents, timesteps, size_px, hidden.dtype)
        seen, bias = self._seen(text, text_mask, image, image_mask, hidden.dtype)
        layers = self.long_connect_fc if self.long_connect_fc is not None else nn.ModuleList()
        skips = Skips(layers, self._layers)
        for number, block in enumerate(self.transformer_blocks):
            hidden = skips.before(number, hidden)
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden = self._gradient_checkpointing_func(block, hidden, seen, bias, modulation, grid)
            else:
                hidden = block(hidden, seen, bias, modulation, grid)
            skips.after(number, hidden)
        shift, scale = (self.scale_shift_table[None] + embedded[:, None]).chunk(2, dim=1)
        patches = self.proj_out(self.norm_out(hidden) * (1 + scale) + shift)
        return join_patches(patches, grid, self.config.patch_size)

    def _with_condition(self, latents: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        """Put the condition's channels, or zeros, behind the latents."""
        wanted, patch = self.pos_embed.proj.in_channels, self.config.patch_size
        if any(side % patch for side in latents.shape[-2:]):
            raise ModelError(f"latents {tuple(latents.shape)}: height and width must be multiples of {patch}")
        free = wanted - latents.shape[1]
        if condition is None and free > 0:
            condition = latents.new_zeros(len(latents), free, *latents.shape[2:])
        given = 0 if condition is None else condition.shape[1]
        if given != free:
            raise ModelError(
                f"latents with {latents.shape[1]} channels and conditions with {given}: the model takes {wanted} in "
                "all; give what it was trained with"
            )
        return latents if condition is None else torch.cat([latents, condition.to(latents.dtype)], dim=1)

    def _check_grid(self, grid: tuple[int, int, int]) -> None:
        frames, height, width = grid
        for settings in self._motions:
            side, longest = settings.block_size, settings.temporal_position_encoding_max_len
            if any(kind != GLOBAL for kind in settings.attention_block_types) and (height % side or width % side):
                pixels = side * self.config.patch_size * PIXELS_PER_LATENT
                raise ModelError(
                    f"{height}x{width} tokens: the motion module wants multiples of {side}; choose a height and width "
                    f"that are multiples of {pixels} px"
                )
            if settings.temporal_position_encoding and frames > longest:
                raise ModelError(f"{frames} latent frames: the motion module takes at most {longest}; choose fewer")

    def _modulation(
        self, latents: torch.Tensor, timesteps: torch.Tensor, size_px: torch.Tensor | None, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the blocks' modulation (B, 6·C) and the embedded timestep (B, C)."""
        sizes = None
        if self._sized:
            if size_px is None:
                sides = torch.tensor(latents.shape[-2:], device=latents.device) * PIXELS_PER_LATENT
                size_px = sides.expand(len(latents), 2)
            size_px = size_px.to(latents.device, torch.float32)
            sizes = {"resolution": size_px, "aspect_ratio": size_px[:, :1] / size_px[:, 1:]}
        modulation, embedded = self.adaln_single(timesteps, sizes, batch_size=len(latents), hidden_dtype=dtype)
        return modulation, embedded

    def _seen(
        self,
        text: torch.Tensor,
        text_mask: torch.Tensor | None,
        image: torch.Tensor | None,
        image_mask: torch.Tensor | None,
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return what cross-attention looks at, the image's tokens behind the text's, and its bias."""
        seen = text if self.caption_projection is None else self.caption_projection(text)
        if self.clip_projection is None:
            if image is not None:
                raise ModelError("an image condition, for a model without image tokens; leave it out or choose another")
            return seen, None if text_mask is None else mask_bias(text_mask, dtype)
        if text_mask is None:
            text_mask = text.new_ones(text.shape[:2])
        if image is None:  # computed nevertheless: data parallelism wants a gradient for each weight
            image, image_mask = text.new_zeros(len(text), 1, IMAGE_WIDTH), text.new_zeros(len(text), 1)
        tokens = self.clip_projection(image.to(text.dtype)).reshape(len(text), -1, seen.shape[-1])
        if image_mask is None:
            image_mask = text.new_ones(tokens.shape[:2])
        elif image_mask.shape[1] != tokens.shape[1]:
            image_mask = image_mask.repeat_interleave(tokens.shape[1] // image_mask.shape[1], dim=1)
        mask = torch.cat([text_mask.to(dtype), image_mask.to(dtype)], dim=1)
        return torch.cat([seen, tokens], dim=1), mask_bias(mask, dtype)


def conditioned_channels(out_channels: int) -> int:
    """Return the channels in of a model with image conditions: latents, encoded mask and encoded masked video.

    Half of the channels out are latents, the others their variance.
    """
    return 3 * (out_channels // 2)
