"""The parts of V4's network against plain loops, torch's own layers and diffusers' where it has them."""

import math

import pytest
import torch
from diffusers.models.embeddings import HunyuanCombinedTimestepTextSizeStyleEmbedding, get_2d_rotary_pos_embed
from torch import nn
from torch.nn import functional

from models.transformers.blocks.hunyuan_block import ClipGate
from models.transformers.blocks.hunyuan_embedding import TimeTextSizeEmbedding
from models.transformers.blocks.hunyuan_resampler import Resampler, grid_sinusoids
from models.transformers.blocks.hunyuan_rope import fit_into, rotary_2d

torch.set_num_threads(1)
GRIDS = [(32, 32), (24, 42), (42, 24), (8, 8), (48, 84), (1, 5), (60, 33)]


def looped(height: int, width: int, head_dim: int, base: int) -> torch.Tensor:
    """Angles of every token and pair of channels, one at a time: (height·width, head_dim/2)."""
    scale = base / max(height, width)
    top, left = round((base - round(height * scale)) / 2), round((base - round(width * scale)) / 2)
    rows = []
    for i in range(height):
        for j in range(width):
            y = top + round(height * scale) * i / height
            x = left + round(width * scale) * j / width
            row = []
            for axis in (x, y):
                for pair in range(head_dim // 4):
                    row.append(axis / 10000.0 ** (2 * pair / (head_dim / 2)))
            rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("head_dim", [16, 88])
def test_rotary_positions_are_those_of_a_plain_loop(grid: tuple[int, int], head_dim: int) -> None:
    cos, sin = rotary_2d(*grid, head_dim, 32)
    angles = looped(*grid, head_dim, 32).repeat_interleave(2, dim=1)
    assert cos.shape == sin.shape == (grid[0] * grid[1], head_dim)
    assert torch.allclose(cos.double(), angles.cos(), atol=1e-5)
    assert torch.allclose(sin.double(), angles.sin(), atol=1e-5)


def test_they_are_diffusers_where_the_grid_fills_the_square_and_elsewhere_not() -> None:
    same = get_2d_rotary_pos_embed(88, ((0, 0), (32, 32)), (32, 32), output_type="pt")
    for ours, theirs in zip(rotary_2d(32, 32, 88, 32), same, strict=True):
        assert torch.allclose(ours, theirs.to(ours.dtype), atol=1e-5)
    (top, bottom), (left, right) = fit_into(24, 42, 32)
    other = get_2d_rotary_pos_embed(88, ((top, left), (bottom, right)), (24, 42), output_type="pt")
    assert not torch.allclose(rotary_2d(24, 42, 88, 32)[0], other[0].float(), atol=1e-2)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_grid_lies_in_the_middle_of_the_square_in_its_own_aspect(grid: tuple[int, int]) -> None:
    (top, bottom), (left, right) = fit_into(*grid, 32)
    assert top >= 0 and bottom <= 32 and left >= 0 and right <= 32
    assert abs(top - (32 - bottom)) <= 1 and abs(left - (32 - right)) <= 1
    assert max(bottom - top, right - left) == 32
    assert abs((bottom - top) * grid[1] - (right - left) * grid[0]) <= max(grid)


def test_the_embedding_of_time_text_and_size_is_diffusers() -> None:
    torch.manual_seed(0)
    theirs = HunyuanCombinedTimestepTextSizeStyleEmbedding(48, 20, 9, 32)
    ours = TimeTextSizeEmbedding(48, 20, 9, 32)
    ours.load_state_dict(theirs.state_dict())
    times, text = torch.tensor([3.0, 900.0]), torch.randn(2, 9, 32)
    size = torch.tensor([[384, 672], [64, 32]])
    meta = torch.tensor([[1024, 1024, 384, 672, 0, 0], [1024, 1024, 64, 32, 0, 0]])
    expected = theirs(times, text, meta, torch.zeros(2, dtype=torch.long), hidden_dtype=torch.float32)
    assert torch.allclose(ours(times, text, size), expected, atol=1e-5)
    assert not torch.allclose(ours(times, text, size.flip(0)), expected, atol=1e-3)


def test_the_gates_norm_has_the_width_for_epsilon() -> None:
    torch.manual_seed(0)
    gate, tokens = ClipGate(32), torch.randn(2, 5, 32)
    nn.init.normal_(gate.norm.weight)
    nn.init.normal_(gate.norm.bias)

    def plain(epsilon: float) -> torch.Tensor:
        centred = tokens - tokens.mean(2, keepdim=True)
        normed = centred / (tokens.var(2, unbiased=False, keepdim=True) + epsilon).sqrt()
        first, second = gate.proj(normed * gate.norm.weight + gate.norm.bias).chunk(2, dim=2)
        return first * functional.gelu(second)

    assert torch.allclose(gate(tokens), plain(32.0), atol=1e-5)
    assert not torch.allclose(gate(tokens), plain(1e-6), atol=1e-2)


def test_the_sinusoids_of_a_square_are_those_of_a_loop() -> None:
    found = grid_sinusoids(3, 16)
    for row in range(3):
        for column in range(3):
            parts = [(column, math.sin), (column, math.cos), (row, math.sin), (row, math.cos)]
            expected = [function(place / 10000 ** (i / 4)) for place, function in parts for i in range(4)]
            assert found[3 * row + column].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("in_dim", "count"), [(24, 4), (20, 4), (20, 9), (24, 16)])
def test_the_resampler_is_torchs_attention_from_queries_to_a_picture(in_dim: int, count: int) -> None:
    torch.manual_seed(0)
    resampler = Resampler(4, 24, 2, in_dim)
    for parameter in resampler.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    theirs = nn.MultiheadAttention(24, 2, batch_first=True)
    theirs.load_state_dict(resampler.attn.state_dict())
    tokens = torch.randn(2, count, in_dim)
    values = resampler.ln_kv(resampler.kv_proj(tokens))
    positions = resampler.pos_embed
    if count != 4:
        picture = positions.reshape(1, 2, 2, 24).permute(0, 3, 1, 2)
        resized = functional.interpolate(picture, size=math.isqrt(count), mode="bicubic")
        positions = resized.permute(0, 2, 3, 1).reshape(count, 24)
    queries = (resampler.ln_q(resampler.query) + resampler.pos_embed).expand(2, -1, -1)
    expected = theirs(queries, values + positions, values)[0]
    assert torch.allclose(resampler(tokens), expected, atol=1e-5)
    assert not resampler.pos_embed.requires_grad


def test_what_is_no_square_is_refused() -> None:
    with pytest.raises(ValueError, match="5 queries must be a square"):
        Resampler(5, 24, 2, 24)
    with pytest.raises(ValueError, match="257 image tokens are no square; give them without the class token"):
        Resampler(4, 24, 2, 24)(torch.zeros(1, 257, 24))
