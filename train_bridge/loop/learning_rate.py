"""The learning rate of each step: it follows from the step's number alone, so that a resumed run has the same."""

import math

from train_bridge.config import TrainSettings


def learning_rate(train: TrainSettings, step: int) -> float:
    """Return the rate of a step.

    It rises evenly over `warmup_steps`; after them it stays, or falls to 0 at the end of `steps`: along half a cosine
    (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts), or evenly.

    Args:
        train: the resolved settings.
        step: from 0.
    """
    if step < train.warmup_steps:
        return train.learning_rate * (step + 1) / train.warmup_steps
    if train.schedule == "constant":
        return train.learning_rate
    passed = min(1.0, (step - train.warmup_steps) / max(1, train.steps - train.warmup_steps))
    share = 0.5 * (1 + math.cos(math.pi * passed)) if train.schedule == "cosine" else 1 - passed
    return train.learning_rate * share
