"""What `plan` says of memory beyond one number: the cache's passes, and which cards would do for adapters."""

from collections.abc import Sequence
from functools import partial

import torch

from models.memory.cost import RowsAtOnce
from models.memory.training_need import CARDS_GB, CardRow, card_rows
from train_bridge.config import TrainConfig
from train_bridge.loop.beside import beside_transformer, cache_need
from train_bridge.loop.trained import add_adapter
from train_bridge.parts import Parts, empty_transformer
from train_bridge.plan.plan import BucketPlan
from train_bridge.plan.predict import trained_how


def plan_notes(config: TrainConfig, parts: Parts, buckets: Sequence[BucketPlan], device: torch.device) -> list[str]:
    """Write the lines; none for a VAE, whose plan counts all there is.

    Args:
        config: the resolved config.
        parts: where the networks come from.
        buckets: of the plan.
        device: what it would run on.
    """
    if config.kind.trains_vae:
        return []
    lines = []
    if config.train.cache != "none":
        need = cache_need(config, parts, [line.bucket for line in buckets], device)
        lines.append(
            f"before training, the cache's passes take about {need.text_bytes / 1e9:.3g} GB with the text encoder, "
            f"then {need.vae_bytes / 1e9:.3g} GB with the VAE; the text encoder is gone when training begins"
        )
    if config.lora.rank:
        worst = max(buckets, key=lambda line: line.memory_bytes)
        lines.append(
            f"ways to keep the base, for bucket {worst.bucket} with {worst.rows_per_micro_batch} rows (predicted):"
        )
        lines += [_line(row) for row in cards_of(config, parts, worst)]
    return lines


def cards_of(config: TrainConfig, parts: Parts, worst: BucketPlan) -> list[CardRow]:
    """Predict each way to keep the base, for one line of the plan."""
    family, network = empty_transformer(parts)
    shape = family.shape(network)
    with torch.device("meta"):
        add_adapter(network, family, config)
    beside = partial(beside_transformer(config, parts).added_to, bucket=worst.bucket, rows=worst.rows_per_micro_batch)
    batch = RowsAtOnce(worst.bucket.tokens, config.model.text_tokens, worst.rows_per_micro_batch)
    return card_rows(network, shape, batch, trained_how(config.train), beside)


def _line(row: CardRow) -> str:
    keys = [key for key, on in (("fp8_base", row.mode.fp8), ("offload_blocks", row.mode.offload)) if on]
    card = row.smallest_card_gb
    host = f", {row.host_bytes / 1e9:.3g} GB of main memory" if row.host_bytes else ""
    mode = " + ".join(f"memory.{key}" for key in keys) or "on the device"
    return f"  {mode:42}{row.device_bytes / 1e9:>7.3g} GB{host}; " + (
        f"a card of {card} GB" if card else f"no card of {CARDS_GB[-1]} GB or less"
    )
