"""Walking a picture in tiles, so that memory is that of one tile; neighbours overlap and are blended linearly.

Sizes are those of diffusers' `AutoencoderKLMagvit.enable_tiling`. Unlike there all tiles are equally large, and
encoding puts each tile where it belongs (diffusers 0.42 lays 64 latents of each tile beside each other where they
overlap by 8). Normalisation sees one tile instead of the whole picture, so that the result differs faintly.
"""

import math
from collections.abc import Callable
from typing import Any

import torch


def needs_tiles(vae: Any, height_px: int, width_px: int) -> bool:
    """Return whether a VAE is to work in tiles and the picture is larger than one."""
    return bool(vae.use_tiling) and (height_px > vae.tile_sample_min_height or width_px > vae.tile_sample_min_width)


def in_tiles(
    run: Callable[[torch.Tensor], torch.Tensor],
    whole: torch.Tensor,
    tile: tuple[int, int],
    stride: tuple[int, int],
    unit: int,
) -> torch.Tensor:
    """Run a network tile by tile.

    Args:
        run: takes (B, C, T, h, w) and returns another number of channels, frames and pixels, in fixed proportion.
        whole: (B, C, T, H, W).
        tile: height and width of a tile, in what `whole` is counted in; multiples of `unit`.
        stride: largest distance of neighbours; less than the tile.
        unit: tiles begin at multiples of it.

    Returns:
        What `run` gives for the whole, about.
    """
    height, width = whole.shape[-2:]
    tops, lefts = starts(height, tile[0], stride[0], unit), starts(width, tile[1], stride[1], unit)
    high, wide = min(tile[0], height), min(tile[1], width)
    result: torch.Tensor | None = None
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            part = run(whole[..., top : top + high, left : left + wide])
            tall, broad = part.shape[-2] * height // high, part.shape[-1] * width // wide
            if result is None:
                result = part.new_zeros(*part.shape[:3], tall, broad)
            down = _weights(tops, high, height, tall)[row]
            across = _weights(lefts, wide, width, broad)[column]
            y, x = top * tall // height, left * broad // width
            weight = down[y : y + part.shape[-2], None] * across[None, x : x + part.shape[-1]]
            result[..., y : y + part.shape[-2], x : x + part.shape[-1]] += part * weight.to(part.device)
    assert result is not None
    return result


def starts(length: int, tile: int, stride: int, unit: int) -> list[int]:
    """Return where tiles begin along one side: spread evenly, the first at 0, the last ending at the end.

    Args:
        length: of the side, a multiple of `unit`.
        tile: length of a tile.
        stride: largest distance.
        unit: of which all are multiples.
    """
    if length <= tile:
        return [0]
    count = math.ceil((length - tile) / stride)
    return [round((length - tile) / unit * place / count) * unit for place in range(count + 1)]


def tile_sizes(vae: Any, scale: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return size and stride of tiles as diffusers' `enable_tiling` sets them, in units of `scale` pixels."""
    size = vae.tile_sample_min_height // scale, vae.tile_sample_min_width // scale
    return size, (vae.tile_sample_stride_height // scale, vae.tile_sample_stride_width // scale)


def tiled(
    vae: Any, run: Callable[[torch.Tensor], torch.Tensor], whole: torch.Tensor, scale: int, side_px: int = 8
) -> torch.Tensor:
    """Run a network on a whole picture, or in tiles where the VAE is to work in tiles and the picture is larger.

    Args:
        vae: with diffusers' settings of tiles.
        run: as for `in_tiles`.
        whole: (B, C, T, h, w), frames or latents.
        scale: pixels along one side of what `whole` is counted in: 1, or `side_px`.
        side_px: pixels along one side of a latent.
    """
    if needs_tiles(vae, whole.shape[-2] * scale, whole.shape[-1] * scale):
        return in_tiles(run, whole, *tile_sizes(vae, scale), side_px // scale)
    return run(whole)


def _weights(begins: list[int], tile: int, length: int, scaled: int) -> torch.Tensor:
    """Return each tile's share of each place along one side, (tiles, scaled): ramps where tiles overlap; sums are 1."""
    places = torch.arange(scaled, dtype=torch.float32) + 0.5
    shares = torch.zeros(len(begins), scaled)
    for place, begin in enumerate(begins):
        first, last = begin * scaled / length, (begin + tile) * scaled / length
        # How deep a place lies in what the tile shares with each neighbour; whole where it shares nothing.
        rise = fall = torch.ones(scaled)
        if place:
            shared = (begins[place - 1] + tile) * scaled / length - first
            rise = (places - first) / shared
        if place + 1 < len(begins):
            shared = last - begins[place + 1] * scaled / length
            fall = (last - places) / shared
        inside = (places > first) & (places < last)
        shares[place] = torch.where(inside, torch.minimum(rise, fall).clamp(0, 1), torch.zeros(1))
    return shares / shares.sum(dim=0)
