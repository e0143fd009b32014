"""Noise quantiles with a row's own tilt and bounds, drawn through the inverse of the distribution function."""

import math

import torch

from models.denoise.objectives import MODE_SCALE, Density

FLAT = 1e-6
"""a tilt so small changes no number that is drawn"""
BISECTIONS = 60


def level_of(density: Density, share: float) -> float:
    """Return the noise quantile 0..1 below which a share of an objective's density lies."""
    if density == "uniform":
        return share
    if density == "logit_normal":
        normal = torch.special.ndtri(torch.tensor(share, dtype=torch.float64))
        return float(torch.sigmoid(normal))
    rest = 1.0 - share  # the map from uniform numbers to levels falls
    return 1 - rest - MODE_SCALE * (math.cos(math.pi * rest / 2) ** 2 - 1 + rest)


def share_below(density: Density, level: float) -> float:
    """Return the share of an objective's density below a noise quantile, the inverse of `level_of`."""
    if level <= 0 or level >= 1 or density == "uniform":
        return min(max(level, 0.0), 1.0)
    if density == "logit_normal":
        return float(torch.special.ndtr(torch.logit(torch.tensor(level, dtype=torch.float64))))
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if level_of(density, middle) < level else (low, middle)
    return (low + high) / 2


def draw_shaped(density: Density, tilt: float, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """Draw one noise quantile, shape (1,), from a density that is tilted by exp(tilt·u) and cut at two levels.

    u is the share of the density below a level, so that a tilt of 0 without bounds is the density itself. A positive
    tilt a draws much noise: the mean of u is 1/(1 − exp(−a)) − 1/a, 0.69 for a = 2.5, 0.77 for a = 4.

    Args:
        density: of the objective.
        tilt: a.
        low: lowest noise quantile, 0..1.
        high: highest, above `low`.
        generator: on the CPU.
    """
    first, last = share_below(density, low), share_below(density, high)
    drawn = float(torch.rand(1, generator=generator, dtype=torch.float64))
    width = last - first
    if abs(tilt * width) < FLAT:
        share = first + drawn * width
    elif tilt > 0:  # from the end where the density is highest, so that nothing overflows
        share = last + math.log(math.exp(-tilt * width) + drawn * -math.expm1(-tilt * width)) / tilt
    else:
        share = first + math.log(1 + drawn * math.expm1(tilt * width)) / tilt
    return torch.tensor([min(max(level_of(density, share), low), high)], dtype=torch.float32)
