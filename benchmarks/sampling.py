"""What samplers, first-block caching and 8-bit weights cost in exactness: `python -m benchmarks.sampling [STEPS]`.

A transformer of the preset `tiny` learns four drawn latents for STEPS steps (600: about a minute of one core); all
errors are norms of differences of latents over norms, means over the four texts.
"""

import sys
from collections.abc import Callable

import torch
from torch import nn

from models.denoise.first_block_cache import first_block_cache
from models.denoise.generate import Course, Denoiser, Prompted, generate_latents
from models.denoise.objectives import make_objective
from models.denoise.samplers import SAMPLERS, make_scheduler
from models.memory.modes import place
from models.transformers.conditioning import Conditioning
from models.transformers.easyanimate_v5 import EasyAnimate

FAMILY, OBJECTIVE = EasyAnimate(), make_objective("flow")
CLIPS, SHAPE = 4, (16, 3, 8, 8)


def latents_of(clip: int, shift: float) -> torch.Tensor:
    """Draw a blob that moves right or left, in its own channels."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, SHAPE[2]), torch.linspace(-1, 1, SHAPE[3]), indexing="ij")
    frames = []
    for time in range(SHAPE[1]):
        place_x = -0.6 + 0.4 * time * (1 if clip % 2 else -1) + shift
        blob = torch.exp(-((x - place_x) ** 2 + (y - 0.2 * clip) ** 2) * 4)
        frames.append(torch.stack([blob * ((channel % 4 == clip) * 2 - 0.5) for channel in range(SHAPE[0])]))
    video = torch.stack(frames, 1)
    return (video - video.mean()) / video.std()


def train(steps: int, texts: torch.Tensor) -> nn.Module:
    """Learn the four clips."""
    network = FAMILY.build(FAMILY.presets["tiny"])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    draw = torch.Generator().manual_seed(1)
    for _ in range(steps):
        clips = torch.randint(0, CLIPS, (CLIPS,), generator=draw)
        data = torch.stack([latents_of(int(c), 0.1 * float(torch.randn((), generator=draw))) for c in clips])
        levels, noise = OBJECTIVE.timesteps(torch.rand(CLIPS, generator=draw)), torch.randn(data.shape, generator=draw)
        said = FAMILY.predict(network, OBJECTIVE.corrupt(data, noise, levels), levels, Conditioning(texts[clips]))
        (said - OBJECTIVE.target(data, noise, levels)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return network.eval()


def sample(network: nn.Module, text: torch.Tensor, steps: int, guidance: float, name: str = "flow_euler"):
    """Sample one text with its own noise."""
    scheduler = make_scheduler(OBJECTIVE.scheduler_config(), steps, name)
    return generate_latents(
        Denoiser(FAMILY, network, scheduler),
        Prompted(Conditioning(text), Conditioning(torch.zeros_like(text)), guidance),
        SHAPE,
        Course(steps),
        torch.Generator().manual_seed(3),
    )


def error(found: Callable[[torch.Tensor], torch.Tensor], expected: list[torch.Tensor], texts: torch.Tensor) -> float:
    """Compare samples of all texts."""
    pairs = [(found(texts[k : k + 1]), expected[k]) for k in range(CLIPS)]
    return sum(float((one - other).norm() / other.norm()) for one, other in pairs) / CLIPS


def main() -> None:
    """Print three tables."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    texts = torch.randn(CLIPS, 12, 64)
    network = train(int(sys.argv[1]) if len(sys.argv) > 1 else 600, texts)
    each = [texts[k : k + 1] for k in range(CLIPS)]

    print("sampler      steps  error against 200 steps of flow_heun, guidance 4")
    exact = [sample(network, text, 200, 4.0, "flow_heun") for text in each]
    for name in (name for name, sampler in SAMPLERS.items() if "flow" in sampler.objectives):
        for steps in (8, 20, 50):
            found = error(lambda text, n=name, s=steps: sample(network, text, s, 4.0, n), exact, texts)
            print(f"{name:12} {steps:5}  {found:.4f}")

    print("\ncache_threshold  steps  guidance  share cached  error")
    for steps, guidance in ((20, 1.0), (20, 4.0), (50, 1.0), (50, 4.0)):
        exact = [sample(network, text, steps, guidance) for text in each]
        for threshold in (0.05, 0.1, 0.2, 0.4):
            shares = []

            def cached(text: torch.Tensor, s: int = steps, g: float = guidance, t: float = threshold) -> torch.Tensor:
                with first_block_cache(network, t) as skipped:
                    latents = sample(network, text, s, g)
                shares.append(skipped.share)  # noqa: B023
                return latents

            found = error(cached, exact, texts)
            print(f"{threshold:15} {steps:6} {guidance:9} {sum(shares) / CLIPS:13.2f}  {found:.4f}")

    print("\nweights in 8 bits: guidance, error of 20 steps")
    exact = {guidance: [sample(network, text, 20, guidance) for text in each] for guidance in (1.0, 4.0)}
    place({"transformer": network}, "model_cpu_offload_and_qfloat8", torch.device("cpu"))
    for guidance, whole in exact.items():
        print(guidance, f"{error(lambda text, g=guidance: sample(network, text, 20, g), whole, texts):.4f}")


if __name__ == "__main__":
    main()
