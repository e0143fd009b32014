"""The rows of a method that samples from prompts alone: a prompt each, all of one shape."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.errors import UserError
from models.geometry import Bucket, LatentGrid
from train_bridge.config import TrainConfig
from train_bridge.data.drawn_captions import all_captions, caption_share_notes
from train_bridge.data.held_out import is_held_out
from train_bridge.data.metadata import read_metadata
from train_bridge.data.prompts import read_prompts
from train_bridge.data.quotas import with_quotas
from train_bridge.data.row_weights import relative_weights
from train_bridge.plan.buckets import Assignment
from train_bridge.plan.mixture import mixture_notes
from train_bridge.plan.plan import Rows, quotas_of
from train_bridge.types import Refusal, TrainRow

STANDARD_FPS = 8.0


def collect_prompts(config: TrainConfig, grid: LatentGrid) -> Rows:
    """Return a row for each prompt of `reward.prompts` and for each row of `data.metadata`, whichever are named.

    Rows of the metadata have the captions that `data.captions` draws from, and are drawn as `data.repeat` says; a
    prompt of a file is in no group of a quota. A row that shares a caption with a held-out one is not trained on.

    Raises:
        UserError: neither is named, one cannot be read, or no prompt is left to train on.
    """
    settings, quotas = config.reward, quotas_of(config.data)
    try:
        bucket = Bucket(settings.num_frames, settings.height_px, settings.width_px, grid)
    except ValueError as error:
        raise UserError(f"reward.num_frames, height_px, width_px: {error}") from None
    rows: list[TrainRow] = []
    refused: tuple[Refusal, ...] = ()
    left_out = 0
    if settings.prompts:
        path = Path(settings.prompts)
        alone = (None,) * len(quotas)
        rows += [replace(_row(text, path), groups=alone) for text in read_prompts(path, "reward.prompts")]
    if config.data.metadata:
        metadata = read_metadata(config.data)
        refused, left_out = metadata.refused, metadata.left_out
        rows += metadata.rows
    if not settings.prompts and not config.data.metadata:
        fix = "name one, or give `data.metadata`"
        raise UserError("names no file, and there are no captions either", field="reward.prompts", fix=fix)
    held_out: list[TrainRow] = []
    if settings.held_out:
        path = Path(settings.held_out)
        held_out = [_row(text, path) for text in read_prompts(path, "reward.held_out")]
    elif config.data.validation:
        held_out = [row for row in rows if is_held_out(row.row_id, config.data.validation)]
    apart = set(all_captions(held_out))
    wanted = [row for row in rows if apart.isdisjoint(all_captions([row]))]
    train = [row for row in wanted if row.repeat > 0]
    if not train:
        why = f"{len(apart)} are held out" if apart else f"{len(refused)} were refused, {left_out} left out by where"
        raise UserError(f"reward: no prompt is left to train on ({why}); write more, or hold out fewer")
    train = list(with_quotas(train, quotas))
    held_out = [replace(row, repeat=1.0) for row in held_out]
    notes = (
        f"{len(train)} prompts to sample from, {len(held_out)} held out",
        *mixture_notes(train, wanted, quotas),
        *caption_share_notes(train),
    )
    train, held_out = _shaped(train, bucket, config), _shaped(held_out, bucket, config)
    relative_weights(train)
    never = len(wanted) - len(train)
    return Rows(
        tuple(train), _assignment(len(train), bucket), tuple(held_out), _assignment(len(held_out), bucket), refused,
        left_out, 0, notes, never,
    )  # fmt: skip


def _row(text: str, path: Path) -> TrainRow:
    name = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    return TrainRow(f"prompt-{name}", path, text, "video")


def _shaped(rows: Sequence[TrainRow], bucket: Bucket, config: TrainConfig) -> list[TrainRow]:
    """Return rows of the shape that is sampled, whatever their clips are."""
    seconds = bucket.num_frames / (config.buckets.fps or STANDARD_FPS)
    shape = replace(
        TrainRow("", Path(), "", "video"),
        width_px=bucket.width_px,
        height_px=bucket.height_px,
        num_frames=bucket.num_frames,
        duration_s=seconds,
    )
    return [
        replace(
            shape, row_id=r.row_id, path=r.path, caption=r.caption, weight=r.weight, repeat=r.repeat,
            captions=r.captions, caption_shares=r.caption_shares,
        )
        for r in rows
    ]  # fmt: skip


def _assignment(count: int, bucket: Bucket) -> Assignment:
    return Assignment((bucket,), np.zeros((count, 1), np.int32), [], 0)
