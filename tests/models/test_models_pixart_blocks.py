"""Motion modules, skips and PixArt's blocks: against diffusers, plain loops, and what must not change anything."""

import dataclasses

import pytest
import torch
from closeness import close
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from hypothesis import given, settings
from hypothesis import strategies as st
from pixart import FAMILIES, TIMES, build, caption, frame_by_frame, image_model, noise, predicted, trained
from torch import nn
from torch.nn import functional

from models.errors import ModelError
from models.transformers.blocks.motion import (
    GLOBAL,
    GRID_MODULE,
    PLAIN_MODULE,
    TEMPORAL,
    MotionModule,
    MotionSettings,
    from_sequences,
    motion_settings,
    to_sequences,
)
from models.transformers.blocks.pixart import FramePatches, join_patches
from models.transformers.blocks.skips import Skips, skip_count, skip_layers

torch.set_num_threads(1)
each = pytest.mark.parametrize("preset", FAMILIES)
TIGHT = 1e-5
ONE = MotionSettings(2, 1, temporal_position_encoding=True, temporal_position_encoding_max_len=8)


@each
@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 12), (16, 8)])
def test_with_new_layers_at_zero_each_frame_is_diffusers_pixart(preset: str, height: int, width: int) -> None:
    model = build(preset, in_channels=4)
    image = image_model(len(model.transformer_blocks))
    model.load_state_dict(image.state_dict(), strict=False)
    latents = noise(height=height, width=width)
    expected = frame_by_frame(image, latents, caption())
    found = predicted(FAMILIES[preset], model, latents, caption())
    assert found.shape == (2, 8, 3, height, width)
    assert close(found, expected, TIGHT)
    for block in model.transformer_blocks:
        nn.init.normal_(block.attn_temporal.temporal_transformer.proj_out.weight, std=0.1)
    assert not close(predicted(FAMILIES[preset], model, latents, caption()), expected, 1e-2)


def test_the_number_of_text_channels_may_be_the_models_own() -> None:
    model = trained(build("tiny-v1", caption_channels=None, cross_attention_dim=64))
    image = image_model(4, caption_channels=None, cross_attention_dim=64)
    image.load_state_dict({k: v for k, v in model.state_dict().items() if "temporal" not in k})
    for block in model.transformer_blocks:
        nn.init.zeros_(block.attn_temporal.temporal_transformer.proj_out.weight)
        nn.init.zeros_(block.attn_temporal.temporal_transformer.proj_out.bias)
    found = predicted(FAMILIES["tiny-v1"], model, noise(), caption())
    assert close(found, frame_by_frame(image, noise(), caption()), TIGHT)


def test_models_that_are_told_the_size_agree_with_diffusers() -> None:
    wide = {"num_attention_heads": 8, "cross_attention_dim": 192, "sample_size": 128, "num_layers": 2}
    model = build("tiny-v1", **wide)
    image = trained(image_model(2, **{key: value for key, value in wide.items() if key != "num_layers"}))
    model.load_state_dict(image.state_dict(), strict=False)
    sizes = torch.tensor([[64.0, 96.0], [512.0, 512.0]])
    latents = noise(frames=1)

    def expected(sizes: torch.Tensor) -> torch.Tensor:
        added = {"resolution": sizes, "aspect_ratio": sizes[:, :1] / sizes[:, 1:]}
        with torch.no_grad():
            return image(
                latents[:, :, 0], caption().text, TIMES, added, encoder_attention_mask=caption().text_mask.long()
            ).sample[:, :, None]

    told = dataclasses.replace(caption(), size_px=sizes)
    assert close(predicted(FAMILIES["tiny-v1"], model, latents, told), expected(sizes), TIGHT)
    own = predicted(FAMILIES["tiny-v1"], model, latents, caption())
    assert close(own, expected(torch.tensor([[64.0, 64.0]] * 2)), TIGHT), "8 px for a latent"
    assert not close(own, expected(sizes), 1e-3)


def test_fresh_size_embedders_change_nothing() -> None:
    wide = {"num_attention_heads": 8, "cross_attention_dim": 192, "sample_size": 128}
    model = build("tiny-v1", **wide)
    sizes = [torch.tensor([[64.0, 96.0]] * 2), torch.tensor([[512.0, 64.0]] * 2)]
    found = [
        predicted(FAMILIES["tiny-v1"], model, noise(), dataclasses.replace(caption(), size_px=size)) for size in sizes
    ]
    assert close(*found)


@given(
    batch=st.integers(1, 2), frames=st.integers(1, 4), rows=st.integers(1, 3), columns=st.integers(1, 3),
    high=st.integers(1, 3), wide=st.integers(1, 3),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_sequences_hold_the_tokens_of_a_block_in_order_and_come_back(
    batch: int, frames: int, rows: int, columns: int, high: int, wide: int
) -> None:
    grid = (frames, rows * high, columns * wide)
    tokens = torch.arange(batch * frames * grid[1] * grid[2] * 2.0).reshape(batch, -1, 2)
    sequences = to_sequences(tokens, grid, (high, wide))
    assert torch.equal(from_sequences(sequences, grid, (high, wide)), tokens)
    video = tokens.reshape(batch, *grid, 2)
    expected = [
        torch.stack([
            video[b, f, row * high + n, column * wide + m]
            for f in range(frames) for n in range(high) for m in range(wide)
        ])
        for b in range(batch) for row in range(rows) for column in range(columns)
    ]  # fmt: skip
    assert torch.equal(sequences, torch.stack(expected))


def plain_motion(module: MotionModule, tokens: torch.Tensor, grid: tuple[int, int, int], side: int) -> torch.Tensor:
    """Compute one motion module for tokens (F·H·W, C) in float64 by loops over blocks and heads."""
    weights = {name: tensor.double() for name, tensor in module.temporal_transformer.state_dict().items()}
    frames, height, width = grid
    channels = tokens.shape[-1]
    video = tokens.double().reshape(frames, height, width, channels)
    normed = torch.stack([
        functional.group_norm(
            frame.permute(2, 0, 1)[None], 32, weights["norm.weight"], weights["norm.bias"], 1e-6
        )[0].permute(1, 2, 0)
        for frame in video
    ])  # fmt: skip
    hidden = functional.linear(normed, weights["proj_in.weight"], weights["proj_in.bias"])
    inner = module.temporal_transformer.transformer_blocks[0]
    for number, attention in enumerate(inner.attention_blocks):
        prefix = f"transformer_blocks.0.attention_blocks.{number}."
        norm = f"transformer_blocks.0.norms.{number}."
        n = functional.layer_norm(hidden, (channels,), weights[f"{norm}weight"], weights[f"{norm}bias"], 1e-5)
        numbers = torch.arange(frames).double()[:, None]
        rates = 10000.0 ** (-torch.arange(0, channels, 2).double() / channels)
        sinusoid = torch.stack([(numbers * rates).sin(), (numbers * rates).cos()], -1).flatten(1)
        n = n + sinusoid[:, None, None]
        whole = attention._is_global
        high, wide = (height, width) if whole else (side, side)
        out = torch.zeros_like(n)
        for row in range(0, height, high):
            for column in range(0, width, wide):
                block = n[:, row : row + high, column : column + wide].reshape(-1, channels)
                q, k, v = (block @ weights[f"{prefix}to_{part}.weight"].T for part in "qkv")
                heads = []
                for h in range(attention.heads):
                    own = slice(h * channels // attention.heads, (h + 1) * channels // attention.heads)
                    scores = q[:, own] @ k[:, own].T / (channels // attention.heads) ** 0.5
                    heads.append(scores.softmax(-1) @ v[:, own])
                joined = torch.cat(heads, -1) @ weights[f"{prefix}to_out.0.weight"].T
                joined = joined + weights[f"{prefix}to_out.0.bias"]
                out[:, row : row + high, column : column + wide] = joined.reshape(frames, high, wide, channels)
        hidden = hidden + out
    ff = "transformer_blocks.0."
    n = functional.layer_norm(hidden, (channels,), weights[f"{ff}ff_norm.weight"], weights[f"{ff}ff_norm.bias"], 1e-5)
    value, gate = functional.linear(n, weights[f"{ff}ff.net.0.proj.weight"], weights[f"{ff}ff.net.0.proj.bias"]).chunk(
        2, -1
    )
    hidden = hidden + functional.linear(
        value * functional.gelu(gate), weights[f"{ff}ff.net.2.weight"], weights[f"{ff}ff.net.2.bias"]
    )
    result = functional.linear(hidden, weights["proj_out.weight"], weights["proj_out.bias"]) + video
    return result.reshape(-1, channels)


@pytest.mark.parametrize(
    ("kinds", "side"), [((TEMPORAL, TEMPORAL), 1), ((TEMPORAL, TEMPORAL), 2), ((TEMPORAL, GLOBAL), 1)]
)
def test_a_motion_module_is_what_plain_loops_compute(kinds: tuple[str, ...], side: int) -> None:
    torch.manual_seed(0)
    made = dataclasses.replace(ONE, attention_block_types=kinds, block_size=side)
    module = trained(MotionModule(32, made))
    grid = (3, 4, 6)
    tokens = torch.randn(2, 72, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = module(tokens, grid)
    for row in range(2):
        assert close(found[row], plain_motion(module, tokens[row], grid, side).float(), 1e-5)


def test_attention_along_time_reaches_its_block_alone_and_global_attention_all() -> None:
    grid = (3, 4, 4)
    tokens = torch.randn(1, 48, 32, generator=torch.Generator().manual_seed(1))
    other = tokens.reshape(3, 4, 4, 32).clone()
    other[2, 3, 2] += torch.randn(32, generator=torch.Generator().manual_seed(2))

    def reached(kind: str, side: int) -> set[tuple[int, int]]:
        torch.manual_seed(0)
        settings = dataclasses.replace(ONE, attention_block_types=(kind,), block_size=side)
        module = trained(MotionModule(32, settings))
        attention = module.temporal_transformer.transformer_blocks[0].attention_blocks[0]
        with torch.no_grad():
            moved = attention(tokens, grid) - attention(other.reshape(1, 48, 32), grid)
        places = moved.reshape(3, 4, 4, 32).abs().amax(-1)[0] > 1e-7  # of the first frame
        return {(int(row), int(column)) for row, column in places.nonzero()}

    assert reached(TEMPORAL, 1) == {(3, 2)}
    assert reached(TEMPORAL, 2) == {(2, 2), (2, 3), (3, 2), (3, 3)}
    assert len(reached(GLOBAL, 1)) == 16


def test_a_single_frame_may_go_without_its_number() -> None:
    torch.manual_seed(0)
    with_number = trained(MotionModule(32, ONE))
    without = MotionModule(32, dataclasses.replace(ONE, remove_time_embedding_in_photo=True))
    without.load_state_dict(with_number.state_dict())
    image, video = torch.randn(1, 4, 32), torch.randn(1, 8, 32)
    with torch.no_grad():
        assert not close(with_number(image, (1, 2, 2)), without(image, (1, 2, 2)), 1e-3)
        assert close(with_number(video, (2, 2, 2)), without(video, (2, 2, 2)))


def test_settings_of_a_motion_module_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert motion_settings(GRID_MODULE, {"block_size": 2}).block_size == 2
    assert motion_settings(PLAIN_MODULE, {"block_size": 2}).block_size == 1
    assert motion_settings(PLAIN_MODULE, None) == MotionSettings()
    motion_settings(PLAIN_MODULE, {"zero_initialize": True, "global_num_attention_heads": 16, "qk_norm": False})
    assert capsys.readouterr().err == ""
    motion_settings(PLAIN_MODULE, {"never_heard_of": 3})
    assert "'never_heard_of'" in capsys.readouterr().err
    for kind, values, said in (
        ("Grid", {}, "motion_module_type 'Grid'"),
        (PLAIN_MODULE, {"attention_block_types": ["Spatial_Self"]}, "'Spatial_Self' must be"),
        (PLAIN_MODULE, {"temporal_attention_dim_div": 2}, "only 1"),
        (PLAIN_MODULE, {"qk_norm": True}, "qk_norm True: only False"),
        (PLAIN_MODULE, {"global_attention": True}, "global_attention True"),
    ):
        with pytest.raises(ModelError, match=said):
            motion_settings(kind, values)
    with pytest.raises(ModelError, match="multiple of 32 and of its 8 heads"):
        MotionModule(40, MotionSettings())


@given(layers=st.integers(0, 40))
@settings(max_examples=41, deadline=None)
def test_skips_join_mirror_images_last_in_first_out(layers: int) -> None:
    count = skip_count(layers)
    assert count == max(0, -(-layers // 2) - 1)
    connections = skip_layers(layers, 1)
    assert len(connections) == count and not any(p.any() for p in connections.parameters())
    with torch.no_grad():
        for layer in connections:
            nn.init.ones_(layer.weight)
    skips = Skips(connections, layers)
    joined = {}
    for number in range(layers):
        got = skips.before(number, torch.zeros(1, 1))
        if got.any():
            joined[number] = int(got.item()) - 1
        skips.after(number, torch.full((1, 1), number + 1.0))
    assert joined == {layers - 1 - early: early for early in range(count)}
    assert all(number > layers / 2 for number in joined), "the later half"


def test_the_published_depth_has_13_skips_from_block_15_on() -> None:
    assert skip_count(28) == 13
    assert [skip_count(layers) for layers in (1, 2, 3, 4, 5, 6)] == [0, 0, 1, 1, 2, 2]


def test_each_skip_matters_once_it_is_trained() -> None:
    model = build("tiny-v2")
    expected = predicted(FAMILIES["tiny-v2"], model, noise(), caption())
    for number, layer in enumerate(model.long_connect_fc):
        nn.init.eye_(layer.weight)
        assert not close(predicted(FAMILIES["tiny-v2"], model, noise(), caption()), expected, 1e-3), number
        nn.init.zeros_(layer.weight)
    assert close(predicted(FAMILIES["tiny-v2"], model, noise(), caption()), expected)


@given(frames=st.integers(1, 3), height=st.integers(1, 3), width=st.integers(1, 3), patch=st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_patches_are_joined_where_they_were_cut(frames: int, height: int, width: int, patch: int) -> None:
    cut = FramePatches(4, patch * patch * 4, patch, 8 * patch, 1.0)
    video = torch.randn(2, 4, frames, height * patch, width * patch)
    identity = torch.eye(patch * patch * 4).reshape(patch, patch, 4, -1).permute(3, 2, 0, 1)  # (p, q, c) → channel
    with torch.no_grad():
        cut.proj.weight.copy_(identity)
        cut.proj.bias.zero_()
        tokens, grid = cut(video)
        places = get_2d_sincos_pos_embed(tokens.shape[-1], grid[1:], base_size=8)
    assert grid == (frames, height, width)
    bare = tokens.reshape(2, frames, height * width, -1) - places.float()
    assert torch.allclose(join_patches(bare.reshape(tokens.shape), grid, patch), video, atol=1e-5)
