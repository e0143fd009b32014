"""First-block caching: what it leaves out, what that costs, and that one sample does not know of another."""

import pytest
import torch
from closeness import close

from models.denoise.first_block_cache import Skipped, first_block_cache
from models.denoise.generate import Course, Denoiser, Prompted, generate_latents
from models.denoise.objectives import make_objective
from models.denoise.samplers import make_scheduler
from models.errors import ModelError
from models.memory.modes import QFLOAT8_TOLERANCE, place
from models.transformers.conditioning import Conditioning
from models.transformers.easyanimate_v5 import EasyAnimate

torch.set_num_threads(1)
FAMILY = EasyAnimate()
STEPS = 24
SOME = 0.6
"""a threshold that lets half of the predictions go, with random weights; trained ones change less per step"""


def network(layers: int = 3) -> torch.nn.Module:
    torch.manual_seed(0)
    config = {"num_attention_heads": 2, "num_layers": layers, "mmdit_layers": layers}
    return FAMILY.build(FAMILY.presets["tiny"] | config).eval()


def sample(model: torch.nn.Module, threshold: float | None, seed: int = 0) -> tuple[torch.Tensor, Skipped]:
    draw = torch.Generator().manual_seed(1)
    text, negative = (torch.randn(1, 8, 64, generator=draw) for _ in range(2))
    scheduler = make_scheduler(make_objective("flow").scheduler_config(), STEPS)
    with first_block_cache(model, threshold) as skipped:
        latents = generate_latents(
            Denoiser(FAMILY, model, scheduler),
            Prompted(Conditioning(text), Conditioning(negative), 3.0),
            (16, 2, 4, 4),
            Course(STEPS),
            torch.Generator().manual_seed(seed),
        )
    return latents, skipped


def test_more_is_left_out_and_the_error_grows_with_the_threshold() -> None:
    model = network()
    exact, _ = sample(model, None)
    shares, errors = [], []
    for threshold in (1e-6, 0.5, 0.8, 1.2):
        latents, skipped = sample(model, threshold)
        assert skipped.calls == STEPS
        shares.append(skipped.share)
        errors.append(((latents - exact).norm() / exact.norm()).item())
    assert shares[0] == errors[0] == 0.0
    assert shares == sorted(shares)
    assert shares[1] > 0.2
    assert shares[-1] > 0.8
    assert errors == sorted(errors)
    assert 0 < errors[1] < 0.01
    assert errors[-1] < 0.1


def test_a_sample_does_not_depend_on_those_before_it() -> None:
    model = network()
    alone, few = sample(model, SOME, seed=5)
    assert 0 < few.cached < STEPS
    sample(model, SOME, seed=9)
    assert close(sample(model, SOME, seed=5)[0], alone)


def test_afterwards_the_network_is_as_before_also_when_something_went_wrong() -> None:
    model = network()
    exact, _ = sample(model, None)
    with pytest.raises(KeyboardInterrupt), first_block_cache(model, 0.5):
        raise KeyboardInterrupt
    latents, none = sample(model, None)
    assert close(latents, exact)
    assert none == Skipped()
    assert none.share == 0.0
    assert not model.is_cache_enabled
    assert not any(block._forward_pre_hooks for block in model.modules())


@pytest.mark.parametrize("mode", ["sequential_cpu_offload", "model_cpu_offload_and_qfloat8"])
def test_caching_and_memory_modes_go_together(mode: str) -> None:
    exact, few = sample(network(), SOME)
    model = network()
    place({"transformer": model}, mode, torch.device("cpu"), caching=True)
    latents, skipped = sample(model, SOME)
    if mode == "sequential_cpu_offload":
        assert close(latents, exact)
        assert skipped == few
    else:
        assert (latents - exact).norm() / exact.norm() < QFLOAT8_TOLERANCE
        assert skipped.cached > 0


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan"), float("inf")])
def test_thresholds_that_mean_nothing_are_refused(threshold: float) -> None:
    with pytest.raises(ModelError, match="must be above 0"), first_block_cache(network(), threshold):
        pass


def test_one_block_leaves_nothing_to_skip() -> None:
    with pytest.raises(ModelError, match="has 1 block, so nothing to skip"), first_block_cache(network(1), 0.1):
        pass
