"""The VAEs of slices give what diffusers' modules give by the same rules of time, and see no further than they may."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLMagvit
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.autoencoder_kl_magvit import EasyAnimateCausalConv3d, EasyAnimateUpsampler3D
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from vaes import signed, stirred

from models.errors import ModelError
from models.vae import slice_vae
from models.vae.cached_slice_vae import CACHED_SLICE
from models.vae.magvit import Stretch, _upsample
from models.vae.magvit4 import MAGVIT4
from models.vae.mid_attention import MidAttention
from models.vae.slice_vae import SLICE
from models.vae.table import AUTOENCODERS, MAGVIT16, PRESETS, build_vae, kind_of, kind_of_config
from models.vae.video_vae import TrainableVAE, check_frames, decode_frames, encode_moments, frame_pieces

torch.set_num_threads(1)

MAGVIT = "AutoencoderKLMagvit"
SLICED = ("tiny-magvit4", "tiny-slice", "tiny-cached-slice")
KINDS = {"magvit4": MAGVIT4, "slice": SLICE, "cached-slice": CACHED_SLICE}


def without_attention(vae: Any) -> Any:
    """Diffusers' modules have none: let it add nothing."""
    for module in vae.modules():
        if isinstance(module, MidAttention):
            nn.init.zeros_(module.to_out.weight)
            nn.init.zeros_(module.to_out.bias)
    return vae


def forget(vae: AutoencoderKLMagvit, doubles: bool = False) -> None:
    """Clear what diffusers' modules keep; upsamplers that believe they have been called double the first frame, too."""
    for module in vae.modules():
        if isinstance(module, EasyAnimateCausalConv3d | EasyAnimateUpsampler3D):
            module._clear_conv_cache()
        if doubles and isinstance(module, EasyAnimateUpsampler3D):
            module.prev_features = torch.zeros(())


def symmetric(vae: AutoencoderKLMagvit) -> AutoencoderKLMagvit:
    """Put torch's own convolutions, with zeros around in time, in the place of the causal ones."""
    for parent in list(vae.modules()):
        for name, conv in list(parent.named_children()):
            if isinstance(conv, EasyAnimateCausalConv3d):
                plain = nn.Conv3d(
                    conv.in_channels, conv.out_channels, 3, conv.stride, (1, *conv.padding[1:]), dtype=conv.weight.dtype
                )
                plain.load_state_dict(conv.state_dict())
                setattr(parent, name, plain)
    return vae


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("preset", KINDS)
def test_weights_are_as_many_as_published_by_the_published_names(preset: str) -> None:
    with torch.device("meta"):
        ours = build_vae(PRESETS[preset])
        theirs = AutoencoderKLMagvit(latent_channels=4).state_dict()
    state = ours.state_dict()
    assert sum(tensor.numel() for tensor in state.values()) == 245_979_879
    assert sum(parameter.numel() for parameter in ours.encoder.parameters()) == 100_009_608
    assert sum(parameter.numel() for parameter in ours.decoder.parameters()) == 145_970_179
    more = {
        f"{part}.mid_block.attentions.0.{layer}.{kind}"
        for part in ("encoder", "decoder")
        for layer in ("group_norm", "to_q", "to_k", "to_v", "to_out")
        for kind in ("weight", "bias")
    }
    assert state.keys() == theirs.keys() | more
    assert len(more) == 20
    assert all(state[name].shape == theirs[name].shape for name in theirs)
    assert state["decoder.mid_block.attentions.0.to_q.weight"].shape == (512, 512)
    assert kind_of(ours) is KINDS[preset]


def test_the_attention_is_that_of_the_image_vae_over_all_places() -> None:
    ours = MidAttention(8, 2).double()
    theirs = Attention(8, heads=1, dim_head=8, norm_num_groups=2, eps=1e-6, bias=True, residual_connection=True)
    theirs.load_state_dict({k.replace("to_out.", "to_out.0."): v for k, v in ours.state_dict().items()})
    x = signed(2, 8, 3, 4, 5)
    found = theirs.double()(x.flatten(3)).unflatten(3, (4, 5))
    same(ours(x), found)


def test_a_slice_of_v2_is_what_diffusers_makes_of_it_in_one_chunk() -> None:
    vae = without_attention(stirred("tiny-magvit4"))
    frames = signed(2, 3, 18, 16, 24)
    mean, logvar = encode_moments(vae, frames)
    assert mean.shape == (2, 4, 6, 2, 3)
    found = []
    for part in frames.split(9, dim=2):
        forget(vae)
        found.append(vae.quant_conv(vae.encoder(part)))
    same(torch.cat([mean, logvar], dim=1), torch.cat(found, dim=2))
    # An image, in which nothing is doubled in time, both ways.
    forget(vae)
    same(decode_frames(vae, mean[:, :, :1]), vae.decoder(vae.post_quant_conv(mean[:, :, :1])))


def test_nine_frames_come_back_from_three_latents_and_slices_know_nothing_of_each_other() -> None:
    vae = stirred("tiny-magvit4")
    latents = signed(1, 4, 9, 2, 2, seed=3)
    whole = decode_frames(vae, latents)
    assert whole.shape == (1, 3, 27, 16, 16)
    same(whole, torch.cat([decode_frames(vae, part) for part in latents.split(3, dim=2)], dim=2))


@given(st.integers(0, 2))
@settings(max_examples=3, deadline=None)
def test_in_time_v2_doubles_all_but_the_first_frame_between_neighbours(place: int) -> None:
    # A decoder of nothing but its upsampling: a constant video of rising brightness.
    x = torch.zeros(1, 1, 3, 2, 2, dtype=torch.float64)
    x[:, :, place] = 1.0
    vae = stirred("tiny-magvit4")
    upsampler = vae.decoder.up_blocks[1].upsampler
    with torch.no_grad():
        upsampler.conv.weight.zero_()
        upsampler.conv.bias.zero_()
        channels = range(upsampler.conv.out_channels)
        for channel in channels:
            upsampler.conv.weight[channel, channel, 2, 1, 1] = 1.0
    y = _upsample(Stretch(first="single"), upsampler, x.expand(1, len(channels), 3, 2, 2), None)[0, 0, :, 0, 0]
    assert y.shape == (5,)
    # Linear between the second and third frame, at a quarter and three quarters; the first stays single.
    expected = {0: [1, 0, 0, 0, 0], 1: [0, 1, 0.75, 0.25, 0], 2: [0, 0, 0.25, 0.75, 1]}[place]
    same(y, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("preset", ["tiny-slice", "tiny-cached-slice"])
def test_slices_are_encoded_with_zeros_around_them_each_by_itself(preset: str) -> None:
    vae = without_attention(stirred(preset))
    frames = signed(1, 3, 17, 16, 16)
    mean, logvar = kind_of(vae).encode(vae, frames, None, checkpointing=False)
    assert mean.shape == (1, 4, 5, 2, 2)
    plain = symmetric(without_attention(stirred(preset)))
    parts = [frames[:, :, :1], frames[:, :, 1:9], frames[:, :, 9:]]  # one frame over comes first
    same(torch.cat([mean, logvar], dim=1), torch.cat([plain.quant_conv(plain.encoder(p)) for p in parts], dim=2))


def test_without_sharing_each_slice_is_decoded_as_if_it_were_alone() -> None:
    vae = without_attention(stirred("tiny-slice"))
    latents = signed(1, 4, 6, 2, 2, seed=3)
    apart = torch.cat(list(slice_vae.decode_slices(vae, latents, 2, checkpointing=False, shares=False)), dim=2)
    assert apart.shape == (1, 3, 24, 16, 16)
    same(apart, torch.cat([decode_frames(vae, part) for part in latents.split(2, dim=2)], dim=2))
    plain = symmetric(without_attention(stirred("tiny-slice")))
    forget(plain, doubles=True)
    same(apart, torch.cat([plain.decoder(plain.post_quant_conv(p)) for p in latents.split(2, dim=2)], dim=2))
    forget(plain)  # a single latent is an image
    same(decode_frames(vae, latents[:, :, :1]), plain.decoder(plain.post_quant_conv(latents[:, :, :1])))


@given(slices=st.integers(2, 5), changed=st.integers(0, 4), lone=st.booleans())
@settings(max_examples=10, deadline=None)
def test_sharing_changes_a_slice_and_its_neighbours_and_no_others(slices: int, changed: int, lone: bool) -> None:
    vae, changed = stirred("tiny-slice"), min(changed, slices - 1)
    first = int(lone)  # a latent of its own before the slices
    latents = signed(1, 4, 2 * slices + first, 2, 2, seed=3)
    other = latents.clone()
    other[:, :, first + 2 * changed] += 1.0
    made, moved = (list(frame_pieces(vae, z)) for z in (latents, other))
    assert [piece.shape[2] for piece in made] == [1] * first + [8] * slices
    for place in range(slices):
        difference = (made[first + place] - moved[first + place]).abs().max()
        assert bool(difference > 1e-3) == (abs(place - changed) <= 1), (place, difference)
    if lone:
        same(moved[0], made[0])
        same(made[0], decode_frames(vae, latents[:, :, :1]))


def test_groups_of_v4_are_what_diffusers_convolutions_give_with_their_memory() -> None:
    vae = without_attention(stirred("tiny-cached-slice"))
    latents = signed(2, 4, 6, 2, 2, seed=3)
    forget(vae, doubles=True)
    found = [vae.decoder(vae.post_quant_conv(part)) for part in latents.split(2, dim=2)]
    forget(vae)
    same(decode_frames(vae, latents), torch.cat(found, dim=2))


@given(latents=st.integers(2, 7), batch=st.integers(1, 2))
@settings(max_examples=8, deadline=None)
def test_the_cached_vae_gives_in_one_go_what_it_gives_group_by_group(latents: int, batch: int) -> None:
    vae = stirred("tiny-cached-slice")
    z = signed(batch, 4, latents, 2, 2, seed=3)
    with torch.enable_grad():
        whole = decode_frames(vae, z)
    with torch.no_grad():
        pieces = list(frame_pieces(vae, z))
    assert len(pieces) == (latents + 1) // 2
    # One latent over was one frame to the encoder.
    assert whole.shape[2] == 4 * latents if latents % 2 == 0 else 4 * (latents - 1) + 1
    same(torch.cat(pieces, dim=2), whole.detach())


@given(groups=st.integers(2, 4), changed=st.integers(0, 3))
@settings(max_examples=6, deadline=None)
def test_the_cached_vae_sees_nothing_after_a_group(groups: int, changed: int) -> None:
    vae, changed = stirred("tiny-cached-slice"), min(changed, groups - 1)
    latents = signed(1, 4, 2 * groups, 2, 2, seed=3)
    other = latents.clone()
    other[:, :, 2 * changed + 1] += 1.0
    with torch.no_grad():
        made, moved = (list(frame_pieces(vae, z)) for z in (latents, other))
    for place in range(groups):
        difference = (made[place] - moved[place]).abs().max()
        assert bool(difference > 1e-3) == (place >= changed), (place, difference)


def test_an_image_of_v4_is_decoded_as_that_of_v3() -> None:
    cached, slices = stirred("tiny-cached-slice"), stirred("tiny-slice")
    latent = signed(1, 4, 1, 2, 2, seed=3)
    same(decode_frames(cached, latent), decode_frames(slices, latent))
    frames = signed(1, 3, 8, 16, 16)
    same(encode_moments(cached, frames)[0], encode_moments(slices, frames)[0])


@pytest.mark.parametrize(("preset", "num_frames"), zip(SLICED, (18, 24, 24), strict=True))
def test_checkpointing_changes_memory_and_not_gradients(preset: str, num_frames: int) -> None:
    vae, frames = stirred(preset), signed(1, 3, num_frames, 16, 16)
    noise = signed(1, 4, *kind_of(vae).grid(vae.config).latent_shape(num_frames, 16, 16), seed=5)
    found, kept = {}, {}
    for checkpointing in (False, True):
        seen: dict[int, int] = {}

        def keep(tensor: torch.Tensor, seen: dict[int, int] = seen) -> torch.Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            made, mean, logvar = TrainableVAE(vae, checkpointing=checkpointing)(frames, noise)
        kept[checkpointing] = sum(seen.values())
        assert made.shape == frames.shape
        loss = made.square().mean() + mean.square().mean() + logvar.mean()
        found[checkpointing] = torch.autograd.grad(loss, list(vae.parameters()))
    for plain, recomputed in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-9, atol=1e-12)
    assert all(float(gradient.abs().max()) > 0 for name, gradient in zip(vae.state_dict(), found[False], strict=True))
    assert kept[True] < 0.6 * kept[False]


@pytest.mark.parametrize("preset", SLICED)
def test_wide_pictures_are_walked_in_tiles(preset: str) -> None:
    vae = stirred(preset, torch.float32, narrow=False)
    size = kind_of(vae).grid(vae.config).latents_per_slice
    latents = signed(1, 4, 2 * size, 8, 12, seed=3, dtype=torch.float32)
    with torch.no_grad():
        one = decode_frames(vae, latents[..., :8])
        vae.enable_tiling(64, 64, 48, 48)
        untouched = decode_frames(vae, latents[..., :8])
        pieces = list(frame_pieces(vae, latents))
        left = decode_frames(vae, latents[..., :8])
    torch.testing.assert_close(untouched, one)
    made = torch.cat(pieces, dim=2)
    assert len(pieces) == (1 if preset == "tiny-cached-slice" else 2)  # what is kept between groups is of one tile
    assert made.shape == (1, 3, one.shape[2], 64, 96)
    # Where tiles do not overlap, a picture is that of its own tile, in the second slice, too
    torch.testing.assert_close(made[..., :32], left[..., :32])


REFUSED: tuple[tuple[str, int, str], ...] = (
    ("tiny-magvit4", 12, "12 frames are not 9n or 1; take 9 or 18"),
    ("tiny-slice", 12, "12 frames are not 8n or 1; take 8 or 16"),
    ("tiny-cached-slice", 7, "7 frames are not 8n or 1; take 1 or 8"),
    ("tiny-image-vae", 0, "0 frames are not at least 1; take 1 or 2"),
)


@pytest.mark.parametrize(("preset", "count", "said"), REFUSED)
def test_lengths_that_a_vae_cannot_take_are_refused_with_the_nearest_two(preset: str, count: int, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        check_frames(stirred(preset), torch.zeros(1, 3, count, 16, 16))


@pytest.mark.parametrize("preset", (*SLICED, "tiny-image-vae"))
def test_latents_of_other_channels_are_refused(preset: str) -> None:
    with pytest.raises(ModelError, match=r"the VAE decodes \(batch, 4, frames"):
        decode_frames(stirred(preset), torch.zeros(1, 16, 2, 2, 2))


def test_configs_that_do_not_fit_are_refused_in_one_line() -> None:
    def refused(said: str, *changes: tuple[str, Any]) -> None:
        with pytest.raises(ModelError, match=said) as caught:
            build_vae({**PRESETS["tiny-slice"], **dict(changes)})
        assert "\n" not in str(caught.value)

    refused("knows no key 'latent_chanels'", ("latent_chanels", 4))
    refused(
        "mini_batch_encoder 8 and mini_batch_decoder 3 do not go together: 8 frames are 2", ("mini_batch_decoder", 3)
    )
    refused("compression 4x4x4 is not supported", ("block_out_channels", (8, 8, 8)), *(
        (f"{way}_block_types", [f"SpatialTemporal{way.title()}Block3D"] * 3) for way in ("down", "up")
    ))  # fmt: skip
    refused("mini_batch_encoder None: give the frames of a slice", ("mini_batch_encoder", None))
    refused("divisible", ("norm_num_groups", 3))
    refused("several attention heads are not supported", ("mid_block_num_attention_heads", 8))
    with pytest.raises(ModelError, match="frames_at_once 4: must be a multiple of 8"):
        encode_moments(stirred("tiny-slice"), signed(1, 3, 16, 16, 16), frames_at_once=4)


PUBLISHED: tuple[tuple[dict[str, Any], Any], ...] = (
    # As a wrapper of V3's published weights has it: by the class name of the image VAE.
    ({"_class_name": "AutoencoderKL", "slice_compression_vae": True, "latent_channels": 4}, SLICE),
    ({"_class_name": MAGVIT, "cache_compression_vae": True, "slice_compression_vae": True}, CACHED_SLICE),
    ({"_class_name": MAGVIT, "latent_channels": 4, "scaling_factor": 0.18215}, MAGVIT4),
    ({"_class_name": MAGVIT, "ch": 128, "ch_mult": [1, 2, 4, 4], "mid_block_attention_type": "3d"}, MAGVIT4),
)


@pytest.mark.parametrize(("config", "kind"), PUBLISHED)
def test_published_configs_tell_their_kind(config: dict[str, Any], kind: Any) -> None:
    blocks = ["SpatialDownBlock3D", *["SpatialTemporalDownBlock3D"] * 3]
    assert kind_of_config({**config, "down_block_types": blocks}) is kind
    with torch.device("meta"):
        vae = build_vae({**config, "down_block_types": blocks})
    assert sum(parameter.numel() for parameter in vae.parameters()) == 245_979_879
    assert kind_of(vae) is kind


def test_v5_and_image_vaes_stay_what_they_are() -> None:
    later = {"_class_name": MAGVIT, "latent_channels": 4, "spatial_group_norm": True}
    assert kind_of_config(later) is MAGVIT16
    assert kind_of_config({"_class_name": MAGVIT, "mid_block_attention_type": "spatial"}) is MAGVIT16
    assert kind_of_config({"latent_channels": 4}) is MAGVIT16
    assert kind_of_config({"_class_name": "AutoencoderKL", "latent_channels": 4}) is AUTOENCODERS["AutoencoderKL"][-1]
