"""The 3D networks of `AutoencoderKLMagvit`, walked without state.

diffusers runs these networks in chunks (the first frame, then four frames, or one latent, at a time) and keeps the
end of each chunk inside the convolutions. That forbids gradient checkpointing, and every convolution is many small
calls. Here the same modules, with their own weights, are applied to whole sequences: a causal convolution over
the sequence equals the chunked one, and what does depend on chunks is computed per chunk:

- group normalisation without `spatial_group_norm`, whose statistics span a chunk;
- temporal upsampling, which skips the first frame and, if trilinear, never looks beyond its chunk.

A sequence may also be walked in stretches of whole chunks: the ends of the convolutions' inputs then pass from one
stretch to the next in a dict of the caller's. The result is the same; memory is that of one stretch.

The VAEs of EasyAnimate V2 to V4 are the same networks with attention between the residual blocks in the middle, and
walk time by other rules, which `Stretch` names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_magvit import (
    EasyAnimateCausalConv3d,
    EasyAnimateDecoder,
    EasyAnimateEncoder,
    EasyAnimateMidBlock3d,
    EasyAnimateResidualBlock3D,
    EasyAnimateUpsampler3D,
)
from torch import nn
from torch.utils.checkpoint import checkpoint

from models.vae.mid_attention import MidAttention, attentions_of

ENCODER_CHUNK = 4
"""frames that diffusers encodes at once after the first (`num_sample_frames_batch_size`)"""
DECODER_CHUNK = 1
"""latent frames that diffusers decodes at once (`num_latent_frames_batch_size`)"""

SLOW_CONV3D = 20480
"""batch × channels × frames × rows up to which torch convolves a single sequence on a CPU without oneDNN"""


First = Literal["chunk", "single", "usual"]
"""what a sequence's first frame is: a chunk of its own, which is not doubled in time; not doubled either, but of one
chunk with those after it; or a frame like all others"""


@dataclass(frozen=True)
class Stretch:
    """How one stretch of a sequence is walked.

    Attributes:
        begins: it starts with the sequence's first frame.
        ends: last input frames of each convolution, read from the stretch before and written for the next;
            None where the stretch is the whole sequence.
        checkpointing: recompute the activations of each stage in the backward pass.
        first: what the first frame is.
        symmetric: convolutions see zeros before the first and after the last frame, instead of the first one repeated
            before the beginning: not causal, for slices that are walked each by itself.
    """

    begins: bool = True
    ends: dict[nn.Module, torch.Tensor] | None = None
    checkpointing: bool = False
    first: First = "chunk"
    symmetric: bool = False

    @property
    def first_apart(self) -> bool:
        """Whether its first frame is a chunk of its own."""
        return self.begins and self.first == "chunk"

    def __post_init__(self) -> None:
        """Refuse to recompute what depends on `ends`, which the recomputation would overwrite."""
        if self.checkpointing and self.ends is not None:
            raise ValueError("gradient checkpointing needs the whole sequence at once")


def encode(
    encoder: EasyAnimateEncoder, frames: torch.Tensor, stretch: Stretch, chunk: int | None = ENCODER_CHUNK
) -> torch.Tensor:
    """Run the encoder.

    Args:
        encoder: diffusers' module.
        frames: (B, 3, T, H, W); where the first is a chunk, T = 4n+1 in the first stretch, 4n in others.
        stretch: how to walk.
        chunk: frames over which the groups are normalised; None: all of them.

    Returns:
        (B, 2·C, t, H/8, W/8), with T halved twice, rounded up.
    """
    x = convolve(encoder.conv_in, frames, stretch)
    for block in encoder.down_blocks:
        for residual in block.convs:
            x = _stage(_residual, stretch, residual, x, chunk)
        if block.downsampler is not None:
            x = _stage(_downsample, stretch, block.downsampler.conv, x)
            chunk = chunk and chunk // block.temporal_downsample_factor
    x = _mid(stretch, encoder.mid_block, x, chunk)
    return _stage(_output, stretch, encoder, x, chunk)


def decode(
    decoder: EasyAnimateDecoder, latents: torch.Tensor, stretch: Stretch, chunk: int | None = DECODER_CHUNK
) -> torch.Tensor:
    """Run the decoder.

    Args:
        decoder: diffusers' module.
        latents: (B, C, t, h, w).
        stretch: how to walk.
        chunk: latent frames over which the groups are normalised and time is interpolated; None: all of them.

    Returns:
        (B, 3, T, 8·h, 8·w), with T = 4·t, and 3 fewer in a first stretch whose first frame is not doubled.
    """
    return decode_features(decoder, mid_features(decoder, latents, stretch, chunk), stretch, chunk)


def mid_features(
    decoder: EasyAnimateDecoder, latents: torch.Tensor, stretch: Stretch, chunk: int | None = DECODER_CHUNK
) -> torch.Tensor:
    """Run the decoder's first part, whose features (B, D, t, h, w) are as many frames as the latents (see `decode`)."""
    return _mid(stretch, decoder.mid_block, convolve(decoder.conv_in, latents, stretch), chunk)


def decode_features(
    decoder: EasyAnimateDecoder, x: torch.Tensor, stretch: Stretch, chunk: int | None = DECODER_CHUNK
) -> torch.Tensor:
    """Run the rest of the decoder on the features in its middle (see `decode`)."""
    for block in decoder.up_blocks:
        for residual in block.convs:
            x = _stage(_residual, stretch, residual, x, chunk)
        if block.upsampler is not None:
            x = _stage(_upsample, stretch, block.upsampler, x, chunk)
            chunk = chunk and chunk * (2 if block.upsampler.temporal_upsample else 1)
    return _stage(_output, stretch, decoder, x, chunk)


def convolve(conv: EasyAnimateCausalConv3d, x: torch.Tensor, stretch: Stretch) -> torch.Tensor:
    """Convolve, causally or with zeros around in time.

    Causally a frame depends on earlier ones only, and the first is repeated before the beginning.
    """
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    if x.shape[2] == 1 and stretch.begins and stretch.ends is None:
        # An image: all taps in time fall on the one frame, or all but the middle one on zeros: a third of the work.
        taps = conv.weight[:, :, kernel // 2] if stretch.symmetric else conv.weight.sum(dim=2)
        y = F.conv2d(x[:, :, 0], taps, conv.bias, conv.stride[1:], conv.padding[1:])
        return y.unsqueeze(2)
    if stretch.symmetric:
        x = F.pad(x, (0, 0, 0, 0, kernel // 2, kernel // 2))
    elif stretch.begins:
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


def group_norm(norm: nn.GroupNorm, x: torch.Tensor, chunk: int | None, *, first_apart: bool) -> torch.Tensor:
    """Normalise with statistics per chunk of frames (see `in_chunks`)."""

    def normalise(part: torch.Tensor) -> torch.Tensor:
        return F.group_norm(part, norm.num_groups, norm.weight, norm.bias, norm.eps)

    return in_chunks(normalise, x, chunk, first_apart=first_apart)


def in_chunks(
    run: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, chunk: int | None, *, first_apart: bool = False
) -> torch.Tensor:
    """Run a function on each chunk of frames by itself, as rows of one batch.

    Args:
        run: takes (B', C, frames, H, W) and gives as many channels and pixels.
        x: (B, C, T, H, W).
        chunk: frames of one; the last may have fewer. None: all of them.
        first_apart: the first frame is a chunk of its own, before the others.
    """
    batch, channels, frames, height, width = x.shape
    if chunk is None or frames < chunk:
        chunk = frames
    if first_apart and frames > 1 and chunk > 1:
        return torch.cat([run(x[:, :, :1]), in_chunks(run, x[:, :, 1:], chunk)], dim=2)
    if over := frames % chunk:
        return torch.cat([in_chunks(run, x[:, :, :-over], chunk), run(x[:, :, -over:])], dim=2)
    y = run(x.transpose(1, 2).reshape(-1, chunk, channels, height, width).transpose(1, 2))
    return y.transpose(1, 2).reshape(batch, -1, channels, height, width).transpose(1, 2)


def _stage(
    run: Callable[..., torch.Tensor], stretch: Stretch, module: nn.Module, x: torch.Tensor, *chunk: int | None
) -> torch.Tensor:
    """Run one stage, which the backward pass may recompute."""
    if stretch.checkpointing and torch.is_grad_enabled():
        recomputed: torch.Tensor = checkpoint(run, stretch, module, x, *chunk, use_reentrant=False)
        return recomputed
    return run(stretch, module, x, *chunk)


def _mid(stretch: Stretch, block: EasyAnimateMidBlock3d, x: torch.Tensor, chunk: int | None) -> torch.Tensor:
    attentions = attentions_of(block)
    for i, residual in enumerate(block.convs):
        if i and attentions:
            x = _stage(_attend, stretch, attentions[i - 1], x, chunk)
        x = _stage(_residual, stretch, residual, x, chunk)
    return x


def _attend(stretch: Stretch, attention: MidAttention, x: torch.Tensor, chunk: int | None) -> torch.Tensor:
    return in_chunks(attention, x, chunk, first_apart=stretch.first_apart)


def _residual(stretch: Stretch, block: EasyAnimateResidualBlock3D, x: torch.Tensor, chunk: int | None) -> torch.Tensor:
    span = 1 if block.spatial_group_norm else chunk
    y = block.nonlinearity(group_norm(block.norm1, x, span, first_apart=stretch.first_apart))
    y = convolve(block.conv1, y, stretch)
    y = block.nonlinearity(group_norm(block.norm2, y, span, first_apart=stretch.first_apart))
    y = convolve(block.conv2, block.dropout(y), stretch)
    return (y + block.shortcut(x)) / block.output_scale_factor


def _downsample(stretch: Stretch, conv: EasyAnimateCausalConv3d, x: torch.Tensor) -> torch.Tensor:
    return convolve(conv, F.pad(x, (0, 1, 0, 1)), stretch)


def _upsample(stretch: Stretch, upsampler: EasyAnimateUpsampler3D, x: torch.Tensor, chunk: int | None) -> torch.Tensor:
    x = convolve(upsampler.conv, F.interpolate(x, scale_factor=(1, 2, 2), mode="nearest"), stretch)
    if not upsampler.temporal_upsample:
        return x
    single = stretch.begins and stretch.first != "usual"
    first, rest = (x[:, :, :1], x[:, :, 1:]) if single else (x[:, :, :0], x)
    if rest.shape[2] and upsampler.spatial_group_norm:
        rest = rest.repeat_interleave(2, dim=2)
    elif rest.shape[2]:
        rest = in_chunks(_double, rest, chunk)
    return torch.cat([first, rest], dim=2)


def _double(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=(2, 1, 1), mode="trilinear")


def _output(
    stretch: Stretch, network: EasyAnimateEncoder | EasyAnimateDecoder, x: torch.Tensor, chunk: int | None
) -> torch.Tensor:
    span = 1 if network.spatial_group_norm else chunk
    x = network.conv_act(group_norm(network.conv_norm_out, x, span, first_apart=stretch.first_apart))
    return convolve(network.conv_out, x, stretch)
