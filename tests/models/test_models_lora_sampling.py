"""Several adapters with scales, laid over the weights or fused into them: the same samples; strangers are named."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from adapters import QUERY, build, random_weights
from closeness import close
from torch import nn

from models.denoise.generate import Course, Denoiser, Prompted, generate_latents
from models.denoise.objectives import make_objective
from models.denoise.samplers import make_scheduler
from models.errors import ModelError
from models.lora.adapters import apply_lora, fuse
from models.lora.files import Factors, LoraWeights, read_lora, write_lora
from models.memory.modes import place
from models.transformers.conditioning import Conditioning
from models.transformers.easyanimate_v5 import EasyAnimate

torch.set_num_threads(1)
STEPS = 8
FUSED_TOLERANCE = 1e-5
"""relative difference of sampled latents in float32; 2e-7 was measured"""


def sample(model: nn.Module, sampler: str | None = None) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    text, negative = (torch.randn(1, 6, 16, generator=draw) for _ in range(2))
    scheduler = make_scheduler(make_objective("flow").scheduler_config(), STEPS, sampler)
    return generate_latents(
        Denoiser(EasyAnimate(), model, scheduler),
        Prompted(Conditioning(text), Conditioning(negative), 4.0),
        (4, 3, 8, 8),
        Course(STEPS),
        torch.Generator().manual_seed(2),
    )


def with_adapters(order: tuple[int, ...], folder: Path, fused: bool, dora: bool = False) -> nn.Module:
    model = build()
    for number in order:
        target = folder / str(number)
        if not target.is_dir():
            target.mkdir(parents=True)
            write_lora(random_weights(build(), number, 2 + number, 3.0, dora and number == 1), target)
        apply_lora(model, read_lora(target), f"lora_{number}", (0.8, -0.4, 1.3)[number])
    if fused:
        fuse(model)
    return model


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("sampler", ["flow_euler", "unipc"])
def test_three_adapters_fused_or_not_give_the_same_sample(tmp_path: Path, dora: bool, sampler: str) -> None:
    plain = sample(build(), sampler)
    apart = sample(with_adapters((0, 1, 2), tmp_path, False, dora), sampler)
    fused = sample(with_adapters((0, 1, 2), tmp_path, True, dora), sampler)
    assert difference(apart, plain) > 0.01
    assert difference(fused, apart) < FUSED_TOLERANCE


@pytest.mark.parametrize("fused", [False, True])
def test_the_order_of_plain_adapters_does_not_matter(tmp_path: Path, fused: bool) -> None:
    samples = [sample(with_adapters(order, tmp_path, fused)) for order in itertools.permutations(range(3))][::2]
    assert max(difference(other, samples[0]) for other in samples[1:]) < FUSED_TOLERANCE


@pytest.mark.parametrize("fused", [False, True])
def test_adapters_and_offload_go_together_to_the_bit(tmp_path: Path, fused: bool) -> None:
    expected = sample(with_adapters((0, 1, 2), tmp_path, fused))
    model = with_adapters((0, 1, 2), tmp_path, fused)
    place({"transformer": model}, "sequential_cpu_offload", torch.device("cpu"))
    assert close(sample(model), expected)


def test_the_file_that_does_not_fit_is_named_with_its_keys(tmp_path: Path) -> None:
    factors = Factors(torch.ones(1, 32), torch.ones(32, 1), 1.0)
    write_lora(LoraWeights({QUERY: factors, "blocks.3.to_strange": factors}), tmp_path)
    model = with_adapters((0,), tmp_path, False)
    with pytest.raises(ModelError) as refused:
        apply_lora(model, read_lora(tmp_path), "second")
    words = str(refused.value)
    assert words.startswith(f"LoRA {tmp_path}")
    assert "1 of 2 layers do not fit this model (blocks.3.to_strange: no such linear layer)" in words
    assert "\n" not in words
    assert close(sample(model), sample(with_adapters((0,), tmp_path, False)))  # nothing was laid over it


def test_an_adapter_that_is_not_finite_is_refused_when_read(tmp_path: Path) -> None:
    weights = random_weights(build(), 1, 2, 2.0)
    weights.layers[QUERY].up[0, 0] = math.nan
    for file in write_lora(weights, tmp_path):
        with pytest.raises(ModelError, match=r"values are not finite at 1 keys .*to_q"):
            read_lora(file)
