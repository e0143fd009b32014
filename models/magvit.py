"""The causal 3D networks of `AutoencoderKLMagvit`, walked without state.

diffusers runs these networks in chunks (the first frame, then four frames, or one latent, at a time) and keeps the
end of each chunk inside the convolutions. That forbids gradient checkpointing, and every convolution is many small
calls. Here the same modules, with their own weights, are applied to whole sequences: a causal convolution over
the sequence equals the chunked one, and what does depend on chunks is computed per chunk:

- group normalisation without `spatial_group_norm`, whose statistics span a chunk;
- temporal upsampling, which skips the first frame and, if trilinear, never looks beyond its chunk.

A sequence may also be walked in stretches of whole chunks: the ends of the convolutions' inputs then pass from one
stretch to the next in a dict of the caller's. The result is the same; memory is that of one stretch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_magvit import (
    EasyAnimateCausalConv3d,
    EasyAnimateDecoder,
    EasyAnimateEncoder,
    EasyAnimateResidualBlock3D,
    EasyAnimateUpsampler3D,
)
from torch import nn
from torch.utils.checkpoint import checkpoint

ENCODER_CHUNK = 4
"""frames that diffusers encodes at once after the first (`num_sample_frames_batch_size`)"""
DECODER_CHUNK = 1
"""latent frames that diffusers decodes at once (`num_latent_frames_batch_size`)"""

SLOW_CONV3D = 20480
"""batch × channels × frames × rows up to which torch convolves a single sequence on a CPU without oneDNN"""


@dataclass(frozen=True)
class Stretch:
    """How one stretch of a sequence is walked.

    Attributes:
        begins: it starts with the sequence's first frame, which is a chunk of its own.
        ends: last input frames of each convolution, read from the stretch before and written for the next;
            None where the stretch is the whole sequence.
        checkpointing: recompute the activations of each stage in the backward pass.
    """

    begins: bool = True
    ends: dict[nn.Module, torch.Tensor] | None = None
    checkpointing: bool = False

    def __post_init__(self) -> None:
        """Refuse to recompute what depends on `ends`, which the recomputation would overwrite."""
        if self.checkpointing and self.ends is not None:
            raise ValueError("gradient checkpointing needs the whole sequence at once")


def encode(encoder: EasyAnimateEncoder, frames: torch.Tensor, stretch: Stretch) -> torch.Tensor:
    """Run the encoder.

    Args:
        encoder: diffusers' module.
        frames: (B, 3, T, H, W); T = 4n+1 in the first stretch, 4n in others.
        stretch: how to walk.

    Returns:
        (B, 2·C, t, H/8, W/8), with t = n+1 or n.
    """
    chunk = ENCODER_CHUNK
    x = causal_conv(encoder.conv_in, frames, stretch)
    for block in encoder.down_blocks:
        for residual in block.convs:
            x = _stage(_residual, stretch, residual, x, chunk)
        if block.downsampler is not None:
            x = _stage(_downsample, stretch, block.downsampler.conv, x)
            chunk //= block.temporal_downsample_factor
    for residual in encoder.mid_block.convs:
        x = _stage(_residual, stretch, residual, x, chunk)
    return _stage(_output, stretch, encoder, x, chunk)


def decode(decoder: EasyAnimateDecoder, latents: torch.Tensor, stretch: Stretch) -> torch.Tensor:
    """Run the decoder.

    Args:
        decoder: diffusers' module.
        latents: (B, C, t, h, w).
        stretch: how to walk.

    Returns:
        (B, 3, T, 8·h, 8·w), with T = 4·(t−1)+1 in the first stretch, 4·t in others.
    """
    chunk = DECODER_CHUNK
    x = causal_conv(decoder.conv_in, latents, stretch)
    for residual in decoder.mid_block.convs:
        x = _stage(_residual, stretch, residual, x, chunk)
    for block in decoder.up_blocks:
        for residual in block.convs:
            x = _stage(_residual, stretch, residual, x, chunk)
        if block.upsampler is not None:
            x = _stage(_upsample, stretch, block.upsampler, x, chunk)
            chunk *= 2 if block.upsampler.temporal_upsample else 1
    return _stage(_output, stretch, decoder, x, chunk)


def causal_conv(conv: EasyAnimateCausalConv3d, x: torch.Tensor, stretch: Stretch) -> torch.Tensor:
    """Convolve so that a frame depends on earlier ones only; the first frame is repeated before the beginning."""
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    if x.shape[2] == 1 and stretch.begins and stretch.ends is None:
        # An image: all taps in time fall on the one frame, so their sum does a third of the work.
        y = F.conv2d(x[:, :, 0], conv.weight.sum(dim=2), conv.bias, conv.stride[1:], conv.padding[1:])
        return y.unsqueeze(2)
    if stretch.begins:
        x = torch.cat([*[x[:, :, :1]] * conv.temporal_padding, x], dim=2)
    else:
        assert stretch.ends is not None
        x = torch.cat([stretch.ends[conv], x], dim=2)
    if stretch.ends is not None:  # a clone: a view would keep the whole stretch in memory
        stretch.ends[conv] = x[:, :, stride - kernel :].clone()
    if x.device.type == "cpu" and x.shape[0] == 1 and x.shape[:4].numel() <= SLOW_CONV3D:
        # The same with the taps in time as channels: frames are then the batch of a 2D convolution.
        frames = (x.shape[2] - kernel) // stride + 1
        taps = [x[:, :, i : i + (frames - 1) * stride + 1 : stride] for i in range(kernel)]
        folded = torch.cat(taps, dim=1).transpose(1, 2).flatten(0, 1)
        weight = conv.weight.transpose(1, 2).flatten(1, 2)
        y = F.conv2d(folded, weight, conv.bias, conv.stride[1:], conv.padding[1:])
        return y.unflatten(0, (1, frames)).transpose(1, 2)
    return F.conv3d(x, conv.weight, conv.bias, conv.stride, conv.padding)


def group_norm(norm: nn.GroupNorm, x: torch.Tensor, chunk: int, begins: bool) -> torch.Tensor:
    """Normalise with statistics per chunk of frames, the sequence's first frame being one of its own."""
    batch, channels, frames, height, width = x.shape
    if begins and chunk > 1 and frames > 1:
        first = group_norm(norm, x[:, :, :1], 1, False)
        return torch.cat([first, group_norm(norm, x[:, :, 1:], chunk, False)], dim=2)
    chunks = x.transpose(1, 2).reshape(-1, min(chunk, frames), channels, height, width).transpose(1, 2)
    chunks = F.group_norm(chunks, norm.num_groups, norm.weight, norm.bias, norm.eps)
    return chunks.transpose(1, 2).reshape(batch, frames, channels, height, width).transpose(1, 2)


def _stage(
    run: Callable[..., torch.Tensor], stretch: Stretch, module: nn.Module, x: torch.Tensor, *chunk: int
) -> torch.Tensor:
    """Run one stage, which the backward pass may recompute."""
    if stretch.checkpointing and torch.is_grad_enabled():
        recomputed: torch.Tensor = checkpoint(run, stretch, module, x, *chunk, use_reentrant=False)
        return recomputed
    return run(stretch, module, x, *chunk)


def _residual(stretch: Stretch, block: EasyAnimateResidualBlock3D, x: torch.Tensor, chunk: int) -> torch.Tensor:
    span = 1 if block.spatial_group_norm else chunk
    y = block.nonlinearity(group_norm(block.norm1, x, span, stretch.begins))
    y = causal_conv(block.conv1, y, stretch)
    y = block.nonlinearity(group_norm(block.norm2, y, span, stretch.begins))
    y = causal_conv(block.conv2, block.dropout(y), stretch)
    return (y + block.shortcut(x)) / block.output_scale_factor


def _downsample(stretch: Stretch, conv: EasyAnimateCausalConv3d, x: torch.Tensor) -> torch.Tensor:
    return causal_conv(conv, F.pad(x, (0, 1, 0, 1)), stretch)


def _upsample(stretch: Stretch, upsampler: EasyAnimateUpsampler3D, x: torch.Tensor, chunk: int) -> torch.Tensor:
    x = causal_conv(upsampler.conv, F.interpolate(x, scale_factor=(1, 2, 2), mode="nearest"), stretch)
    if not upsampler.temporal_upsample:
        return x
    first, rest = (x[:, :, :1], x[:, :, 1:]) if stretch.begins else (x[:, :, :0], x)
    if rest.shape[2] and upsampler.spatial_group_norm:
        rest = rest.repeat_interleave(2, dim=2)
    elif rest.shape[2]:
        batch, channels, frames, height, width = rest.shape
        chunks = rest.transpose(1, 2).reshape(-1, chunk, channels, height, width).transpose(1, 2)
        chunks = F.interpolate(chunks, scale_factor=(2, 1, 1), mode="trilinear")
        rest = chunks.transpose(1, 2).reshape(batch, 2 * frames, channels, height, width).transpose(1, 2)
    return torch.cat([first, rest], dim=2)


def _output(
    stretch: Stretch, network: EasyAnimateEncoder | EasyAnimateDecoder, x: torch.Tensor, chunk: int
) -> torch.Tensor:
    span = 1 if network.spatial_group_norm else chunk
    x = network.conv_act(group_norm(network.conv_norm_out, x, span, stretch.begins))
    return causal_conv(network.conv_out, x, stretch)
