"""Rows' own noise levels: tilted as the formula says, within their bounds, and the objective's density without."""

import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from models.denoise.densities import draw_shaped, level_of, share_below
from models.denoise.objectives import draw_quantile, make_objective
from train_bridge.data.timesteps import parse_timesteps

DENSITIES = ("logit_normal", "uniform", "mode")


def drawn(density: str, tilt: float, low: float = 0.0, high: float = 1.0, count: int = 4000) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    return np.array([float(draw_shaped(density, tilt, low, high, generator)) for _ in range(count)])


@pytest.mark.parametrize("density", DENSITIES)
def test_no_tilt_is_the_density_itself(density):
    generator = torch.Generator().manual_seed(1)
    plain = np.sort([float(draw_quantile(density, generator)) for _ in range(4000)])
    assert np.abs(np.sort(drawn(density, 0.0)) - plain).max() < 0.06, "Kolmogorov and Smirnov's distance, in levels"


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.77, 0.99])
def test_shares_and_levels_are_each_others_inverse(density, share):
    assert share_below(density, level_of(density, share)) == pytest.approx(share, abs=1e-7)


@pytest.mark.parametrize("tilt", [-30.0, -4.0, -0.5, 0.5, 4.0, 30.0])
def test_the_mean_of_tilted_draws_is_that_of_the_formula(tilt):
    expected = 1 / (1 - math.exp(-tilt)) - 1 / tilt
    assert drawn("uniform", tilt).mean() == pytest.approx(expected, abs=0.02)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(DENSITIES), st.floats(-50, 50), st.floats(0, 0.98), st.floats(0.01, 1), st.integers(0, 2**31))
def test_draws_keep_within_their_bounds(density, tilt, low, width, seed):
    high = min(1.0, low + width)
    found = float(draw_shaped(density, tilt, low, high, torch.Generator().manual_seed(seed)))
    assert low - 1e-6 <= found <= high + 1e-6


@pytest.mark.parametrize("kind", ["flow", "epsilon", "v_prediction"])
@pytest.mark.parametrize("t", [1.0, 200.0, 500.0, 999.0])
def test_timesteps_and_quantiles_are_each_others_inverse(kind, t):
    objective = make_objective(kind, 3.0 if kind == "flow" else None)
    back = objective.timesteps(torch.tensor([objective.quantile_of(t)], dtype=torch.float64))
    assert float(back) == pytest.approx(t, abs=1.0 if kind != "flow" else 1e-6)


def test_tqd_sends_motion_to_much_noise_and_fine_looks_to_little():
    table = pa.table({"motion": [9.0, 1.0, 5.0, None], "look": [1.0, 9.0, 5.0, 3.0]})
    found = parse_timesteps("tqd(motion, look); min(t) = 100 if motion > 6 else 0;max(t)=900").values(table)
    assert found[0].tolist() == [4 * (1 - 0), 100, 900]
    assert found[1].tolist() == [4 * (0 - 1), 0, 900]
    assert found[2, 0] == pytest.approx(4 * (0.5 - 2 / 3)) and np.isnan(found[3]).any()
    stronger = parse_timesteps("tqd(motion, look, 8)").values(table)
    assert stronger[0].tolist() == [8, 0, 1000]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1; 2", "a tilt is there twice"),
        ("min(t) = 1; min(t) = 2", r"min\(t\) is there twice"),
        (" ", "empty"),
        ("max(t) = ", "empty"),
        ("tqd(motion; look)", "not readable"),
    ],
)
def test_what_cannot_be_read_is_refused(text, why):
    with pytest.raises(UserError, match=why):
        parse_timesteps(text)


def test_a_semicolon_in_quotes_divides_nothing():
    found = parse_timesteps("1 if name == 'a;b' else 0; max(t) = 500").values(pa.table({"name": ["a;b", "c"]}))
    assert found.tolist() == [[1, 0, 500], [0, 0, 500]]
