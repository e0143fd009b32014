"""What a worker needs to train on rewards: prompts as batches, networks that judge, and what it keeps of the base."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from core.errors import UserError
from curation.schema import BY_NAME
from models.conditions.spec import ConditionSpec
from models.denoise.gradient_sampling import SAMPLERS, kept_steps
from models.denoise.objectives import objective_of
from models.denoise.samplers import make_scheduler
from models.errors import ModelError
from models.rewards.table import FREE, REWARDS, find_reward
from models.transformers.conditioning import Conditioning
from models.weights.find import find_weights
from sampling.pictures import contact_sheet, write_image
from train_bridge.config import TrainConfig
from train_bridge.data.drawn_captions import drawn_caption
from train_bridge.loop.batches import to_device
from train_bridge.loop.parallel import Worker
from train_bridge.loop.stop_when import check_stop_when
from train_bridge.loop.trainer import row_seeds
from train_bridge.method_settings import RewardTerm
from train_bridge.methods.reward import Reward, SaveFrames, Term
from train_bridge.methods.types import Batch
from train_bridge.noise_levels import objective_for
from train_bridge.parts import Parts
from train_bridge.plan.planner import EpochPlan, places_of_rank
from train_bridge.types import MicroBatch, TrainRow

NONFINITE = "nonfinite"
"""folder of a run with samples that a reward could not judge"""
IN_A_ROW = 3
"""steps in a row that may be skipped; the last of them ends the run"""


@dataclass(frozen=True)
class Prompts:
    """Texts of prompts, and their words for rewards that read them.

    Attributes:
        rows: all prompts, by position; of one with several captions an epoch has one (`data.captions`).
        texts: prompts → their embeddings.
        seed: of the draw of captions.
    """

    rows: Sequence[TrainRow]
    texts: Callable[[Sequence[str]], Conditioning]
    seed: int = 0

    def __call__(self, micro: MicroBatch, seeds: tuple[int, ...]) -> Batch:
        """Read and stack."""
        prompts = tuple(drawn_caption(self.rows[row], micro.epoch, self.seed) for row in micro.rows)
        weights = torch.tensor(micro.weights)
        return Batch(seeds=seeds, weights=weights, conditioning=self.texts(prompts), prompts=prompts)


def check_reward(config: TrainConfig, parts: Parts) -> None:
    """Find what can be found wrong in the config before anything is read.

    Raises:
        UserError: with the key and the fix.
        ModelError: likewise, told by the models; a reward that there is not, or that cannot be differentiated.
    """
    asked = config.reward
    if not any(term.weight for term in asked.terms.values()):
        rewards = ", ".join(REWARDS)
        raise UserError(f"reward.terms: no reward with a weight above 0; name one or more of {rewards}")
    names = (*asked.terms, *asked.also)
    scores = frozenset(name for name, column in BY_NAME.items() if column.writer not in ("sources", "judge"))
    for name in names:
        if find_reward(name, scores).min_frames > 1 and asked.decoded_latents < 2:
            raise UserError(f"reward.decoded_latents: {name} looks at change; set it to 2 or more")
    try:
        kept_steps(asked.gradient, asked.gradient_steps, asked.steps, "")
    except ModelError as error:
        raise UserError(f"{error}; lower it, or raise reward.steps") from None
    for name, term in asked.terms.items():
        if term.low is not None and term.high is not None and term.low >= term.high:
            raise UserError(f"reward.terms.{name}: low {term.low:g} must be below high {term.high:g}")
    if config.launch.sharding == "fsdp" and config.launch.workers > 1:
        raise UserError("launch.sharding fsdp: rewards are trained with ddp; set launch.sharding=ddp")
    if config.reward.held_out is None and not config.data.validation and config.watch.stop_when:
        raise UserError("watch.stop_when: needs held-out prompts; name a file in reward.held_out, or data.validation")
    make_scheduler(objective_for(config, parts).scheduler_config(), asked.steps, sampler_for(config, parts))
    watched = judged_names(config)
    check_stop_when(
        config.watch.stop_when, ["reward_loss", "distance", *watched, *(f"{name}_base" for name in watched)]
    )


def check_reward_weights(config: TrainConfig) -> None:
    """Find the weights of all rewards of a run, before anything is encoded; those that lack are fetched.

    Raises:
        ModelError: weights that are not to be had, with file, size and command.
    """
    for name in judged_names(config):
        for weights in find_reward(name).needs:
            find_weights(weights, config.reward.weights)


def sampler_for(config: TrainConfig, parts: Parts) -> str:
    """Return the sampler that gradients flow through."""
    if config.reward.sampler is not None:
        return config.reward.sampler
    return SAMPLERS[0] if objective_of(objective_for(config, parts).scheduler_config()) == "flow" else SAMPLERS[1]


def judged_names(config: TrainConfig) -> tuple[str, ...]:
    """Return the rewards of a run: those trained on, those asked for besides, and those that need no weights."""
    asked = config.reward
    enough = asked.decoded_latents > 1
    free = (name for name in FREE if enough or REWARDS[name].min_frames < 2)
    return tuple(dict.fromkeys((*asked.terms, *asked.also, *free)))


def load_terms(config: TrainConfig, device: torch.device) -> dict[str, Term]:
    """Load the rewards, those that are only watched with a weight of 0.

    Raises:
        ModelError: weights that are not there.
    """
    terms = {}
    for name in judged_names(config):
        reward, asked = find_reward(name), config.reward.terms.get(name, RewardTerm(weight=0.0))
        terms[name] = Term(
            reward.load(device, config.reward.weights),
            asked.weight,
            reward.best if asked.best is None else asked.best,
            reward.scale if asked.scale is None else asked.scale,
            float("-inf") if asked.low is None else asked.low,
            float("inf") if asked.high is None else asked.high,
        )
    return terms


def nothing_known(spec: ConditionSpec, shape: tuple[int, int, int, int]) -> torch.Tensor | None:
    """Return what tells a model with condition channels that nothing is known; None for one without."""
    return torch.zeros(1, spec.channels(shape[0]), *shape[1:]) if spec.parts else None


def keep_frames(run: Path, worker: Worker) -> SaveFrames:
    """Return what keeps samples that a reward could not judge, in a folder of the run."""

    def save(step: int, frames: np.ndarray, prompts: Sequence[str]) -> None:
        folder = run / NONFINITE
        folder.mkdir(exist_ok=True)
        name = f"step-{step + 1:08d}" + (f"-worker-{worker.rank}" if worker.world_size > 1 else "")
        write_image(contact_sheet(list(frames), list(prompts)), folder / f"{name}.png")

    return save


def remember_base(method: Reward, plan: EpochPlan, batches: Callable[..., Batch], worker: Worker) -> None:
    """Sample the held-out prompts with the weights that a whole training begins from, before they change."""
    method.transformer.to(worker.device)
    for step in range(plan.num_steps):
        micros = plan.micro_batches(step)
        for place in places_of_rank(len(micros), worker.rank, worker.world_size):
            seeds = row_seeds(0, f"validation {step}", place, len(micros[place].rows))
            method.remember_base(to_device(batches(micros[place], seeds), worker.device))


@contextmanager
def without_adapters(network: nn.Module) -> Iterator[None]:
    """Take the adapters out of a network for a while, and leave it as it was.

    Yields:
        Nothing.
    """
    layers = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
    trained = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, is_trained in trained:
            parameter.requires_grad_(is_trained)
