"""The network of EasyAnimate V4: HunyuanDiT 1.1 (arXiv 2405.08748) with frames and condition images."""

from functools import partial

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.embeddings import PatchEmbed, PixArtAlphaTextProjection
from diffusers.models.normalization import AdaLayerNormContinuous
from torch import nn

from models.transformers.blocks.hunyuan_block import HunyuanBlock
from models.transformers.blocks.hunyuan_embedding import TimeTextSizeEmbedding
from models.transformers.blocks.hunyuan_resampler import Resampler
from models.transformers.blocks.hunyuan_rope import rotary_2d
from models.transformers.blocks.pixart import join_patches
from models.transformers.blocks.zero import widened

BASE_PX = 512
"""side of the pictures that the positions are fitted into"""
PIXELS_PER_LATENT = 8


class HunyuanTransformer3DModel(ModelMixin, ConfigMixin, PeftAdapterMixin, CacheMixin):
    """Tokens of all frames through blocks; the later half takes what the earlier half said, last first.

    Its parameters bear the names of the published files. `in_channels` other than the latents' (half of `out_channels`
    where a variance is learned) means channels of a condition, and then attention to a condition image.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["HunyuanBlock"]
    _repeated_blocks = ["HunyuanBlock"]
    _skip_layerwise_casting_patterns = ["pos_embed", "norm", "pooler", "ln_q", "ln_kv", "t_embed", "style_embedder"]

    @register_to_config
    def __init__(
        self,
        *,
        num_attention_heads: int = 16,
        attention_head_dim: int = 88,
        in_channels: int = 4,
        out_channels: int = 8,
        patch_size: int = 2,
        n_query: int = 16,
        projection_dim: int = 768,
        activation_fn: str = "gelu-approximate",
        sample_size: int = 32,
        hidden_size: int = 1152,
        num_layers: int = 28,
        mlp_ratio: float = 4.0,
        learn_sigma: bool = True,
        cross_attention_dim: int = 1024,
        norm_type: str = "layer_norm",
        cross_attention_dim_t5: int = 2048,
        pooled_projection_dim: int = 1024,
        text_len: int = 77,
        text_len_t5: int = 256,
        basic_block_type: str = "basic",
        time_position_encoding: bool = False,
        after_norm: bool = False,
        rope_in_first_block: bool = True,
        add_noise_in_inpaint_model: bool = False,
    ):
        """Take the fields of a published `config.json`; those that are not used belong to unpublished variants.

        Args:
            num_attention_heads: of every attention.
            attention_head_dim: channels of a head, a multiple of 4.
            in_channels: latent channels in, with those of a condition.
            out_channels: latent channels out, twice the latents' where a variance is learned.
            patch_size: latent pixels along a token's side.
            n_query: tokens that a condition image becomes.
            projection_dim: channels of a condition image's tokens.
            activation_fn: of the MLPs.
            sample_size: not used.
            hidden_size: channels of a token: heads times channels of a head.
            num_layers: blocks, an even number.
            mlp_ratio: hidden channels of the MLP over those of a token.
            learn_sigma: the second half of the output belongs to a variance.
            cross_attention_dim: channels of tokens of the first text.
            norm_type: not used.
            cross_attention_dim_t5: channels of tokens of the second text.
            pooled_projection_dim: channels of the pooled second text.
            text_len: tokens of the first text.
            text_len_t5: tokens of the second text.
            basic_block_type: not used.
            time_position_encoding: each block adds sinusoids of the frame.
            after_norm: not used.
            rope_in_first_block: the first block's attention among tokens has positions, as when V4 was released; later
                code of its authors leaves them out.
            add_noise_in_inpaint_model: known pixels of a condition bear noise, as they do not with published weights.

        Raises:
            ValueError: sizes do not fit together.
        """
        super().__init__()
        width = num_attention_heads * attention_head_dim
        if width != hidden_size or num_layers < 2 or num_layers % 2 or attention_head_dim % 4:
            raise ValueError(
                f"hidden_size {hidden_size} must be {num_attention_heads} heads of {attention_head_dim} channels (a "
                f"multiple of 4), and num_layers {num_layers} an even number"
            )
        self.latent_channels = out_channels // 2 if learn_sigma else out_channels
        self.text_embedder = PixArtAlphaTextProjection(
            cross_attention_dim_t5, 4 * cross_attention_dim_t5, cross_attention_dim, act_fn="silu_fp32"
        )
        self.text_embedding_padding = nn.Parameter(torch.randn(text_len + text_len_t5, cross_attention_dim))
        self.pos_embed = PatchEmbed(
            sample_size, sample_size, patch_size, in_channels, embed_dim=width, pos_embed_type=None
        )  # fmt: skip
        self.time_extra_emb = TimeTextSizeEmbedding(width, pooled_projection_dim, text_len_t5, cross_attention_dim_t5)
        has_image = in_channels != self.latent_channels
        self.blocks = nn.ModuleList(
            HunyuanBlock(
                width,
                num_attention_heads,
                cross_attention_dim,
                int(width * mlp_ratio),
                activation_fn,
                skip=number > num_layers // 2,
                image=has_image,
                frames=time_position_encoding,
            )
            for number in range(num_layers)
        )
        self.clip_padding: nn.Parameter | None = None
        self.clip_projection: Resampler | None = None
        if has_image:
            self._add_resampler()
        self.norm_out = AdaLayerNormContinuous(width, width, elementwise_affine=False, eps=1e-6)
        self.proj_out = nn.Linear(width, patch_size * patch_size * out_channels)
        self.gradient_checkpointing = False

    def forward(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        text: torch.Tensor,
        second_text: torch.Tensor,
        text_mask: torch.Tensor | None = None,
        second_text_mask: torch.Tensor | None = None,
        condition: torch.Tensor | None = None,
        image: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        size_px: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Predict.

        Args:
            latents: noisy latents (B, C, F, H, W).
            timesteps: (B,), 0..1000.
            text: tokens of the first text (B, text_len, cross_attention_dim).
            second_text: tokens of the second text (B, text_len_t5, cross_attention_dim_t5).
            text_mask: (B, text_len), True or 1 for a token; a learned vector stands for padding. None: all are tokens.
            second_text_mask: likewise; but the pooled text is that of all its tokens, padding among them.
            condition: mask and masked video, both encoded (B, 2·C, F, H, W); None: zeros, which say that nothing is
                known.
            image: tokens of a condition image (B, K, projection_dim), K a square; None: none.
            image_mask: (B, any), whether a sample has a condition image: any of its entries. None: all have.
            size_px: height and width of the sample (B, 2); None: the latents' times 8.

        Returns:
            (B, out_channels, F, H, W).

        Raises:
            ValueError: texts of other lengths, or channels that the model does not have.
        """
        batch, _, frames, high, wide = latents.shape
        latents = torch.cat((latents, *self._condition(latents, condition)), dim=1)
        if size_px is None:
            size_px = torch.tensor([[high, wide]], device=latents.device).expand(batch, 2) * PIXELS_PER_LATENT
        side = self.config.patch_size
        tokens = self.pos_embed(latents.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, frames)).flatten(1, 2)
        time = self.time_extra_emb(timesteps, second_text, size_px.to(latents.device))
        texts = self.text_tokens(text, second_text, text_mask, second_text_mask)
        images = self.image_tokens(batch, image, image_mask, latents)
        cos, sin = rotary_2d(
            high // side, wide // side, self.config.attention_head_dim, BASE_PX // PIXELS_PER_LATENT // side
        )
        rotary = (cos.to(latents.device).repeat(frames, 1), sin.to(latents.device).repeat(frames, 1))
        half, skips = self.config.num_layers // 2, list[torch.Tensor]()
        for number, block in enumerate(self.blocks):
            skip = skips.pop() if number > half else None
            inputs = (tokens, texts, time, rotary, frames, images, skip)
            turned = partial(block, turns_itself=number > 0 or self.config.rope_in_first_block)
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                tokens = self._gradient_checkpointing_func(turned, *inputs)
            else:
                tokens = turned(*inputs)
            if number < half - 1:
                skips.append(tokens)
        patches = self.proj_out(self.norm_out(tokens, time.float()))
        return join_patches(patches, (frames, high // side, wide // side), side)

    def text_tokens(
        self,
        text: torch.Tensor,
        second_text: torch.Tensor,
        text_mask: torch.Tensor | None,
        second_text_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return both texts as the blocks attend to them (B, text_len + text_len_t5, cross_attention_dim).

        Raises:
            ValueError: texts of other lengths.
        """
        found, wanted = (text.shape[1], second_text.shape[1]), (self.config.text_len, self.config.text_len_t5)
        if found != wanted:
            raise ValueError(f"texts of {found[0]} and {found[1]} tokens; this model reads {wanted[0]} and {wanted[1]}")
        tokens = torch.cat((text, self.text_embedder(second_text)), dim=1)
        masks = [
            torch.ones(part.shape[:2], dtype=torch.bool, device=tokens.device) if mask is None else mask.bool()
            for part, mask in ((text, text_mask), (second_text, second_text_mask))
        ]
        is_token = torch.cat([mask.to(tokens.device) for mask in masks], dim=1).unsqueeze(2)
        return torch.where(is_token, tokens, self.text_embedding_padding.to(tokens.dtype))

    def image_tokens(
        self, batch: int, image: torch.Tensor | None, mask: torch.Tensor | None, like: torch.Tensor
    ) -> torch.Tensor | None:
        """Return the condition image as the blocks attend to it (B, n_query, cross_attention_dim); None without blocks.

        Args:
            batch: B.
            image: its tokens, or None for no image at all.
            mask: which samples have one; see `forward`.
            like: a tensor of the type and device that are computed in.

        Raises:
            ValueError: an image for a model without attention to one.
        """
        if self.clip_projection is None or self.clip_padding is None:
            if image is not None:
                raise ValueError(
                    "a condition image for a model without attention to one; give none, or widen the model"
                )
            return None
        if image is None:  # what is learned stays in the graph, so that every worker has gradients for all of it
            image = like.new_zeros(batch, self.config.n_query, self.config.projection_dim)
            mask = torch.zeros(batch, 1)
        tokens = self.clip_projection(image)
        if mask is None:
            return tokens
        return torch.where(mask.bool().any(1).to(tokens.device)[:, None, None], tokens, self.clip_padding)

    def widen(self, channels: int) -> None:
        """Add channels for a condition and attention to an image, which change nothing until trained.

        Args:
            channels: latent channels in, from now on.
        """
        old: nn.Conv2d = self.pos_embed.proj
        self.pos_embed.proj = widened(old, channels)
        self._add_resampler()
        for block in self.blocks:
            silent: HunyuanBlock = block  # type: ignore[assignment]
            silent.add_image(self.config.hidden_size, self.config.num_attention_heads, self.config.cross_attention_dim)
            nn.init.zeros_(silent.norm_clip_out.weight)  # type: ignore[union-attr]
            nn.init.zeros_(silent.norm_clip_out.bias)  # type: ignore[union-attr]
        self.to(old.weight.device, old.weight.dtype)
        self.register_to_config(in_channels=channels)

    def _add_resampler(self) -> None:
        self.clip_padding = nn.Parameter(torch.randn(self.config.n_query, self.config.cross_attention_dim) * 0.02)
        self.clip_projection = Resampler(
            self.config.n_query,
            self.config.cross_attention_dim,
            self.config.num_attention_heads,
            self.config.projection_dim,
        )

    def _condition(self, latents: torch.Tensor, condition: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        more = self.config.in_channels - latents.shape[1]
        if condition is None:
            return (latents.new_zeros(latents.shape[0], more, *latents.shape[2:]),) if more else ()
        if condition.shape[1] != more:
            raise ValueError(
                f"{latents.shape[1]} latent and {condition.shape[1]} condition channels; this model has "
                f"{self.config.in_channels} in all"
            )
        return (condition,)
