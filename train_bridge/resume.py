"""What may differ when a run goes on: little by itself, more where `resume.allow` names it; moved data are the same."""

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from core.errors import UserError, nearest
from train_bridge.data.rows_file import count_refused, read_rows
from train_bridge.plan.plan import Rows
from train_bridge.types import TrainRow
from train_bridge.used_weights import NAMED

DATA_KEYS = ("data.metadata", "data.root")
"""keys that say where the rows lie; the rows count, and not where they lie"""
SHAPES = "the checkpoint's weights have other shapes"
NEVER: Mapping[str, str] = {
    "method": "another method trains other networks",
    "lora.rank": SHAPES,
    "lora.targets": "the checkpoint's adapter has other layers",
    "lora.dora": "the checkpoint's adapter has other weights",
    "lora.init": "the run has started already",
    "train.optimizer": "its moments are of another kind",
    "inpaint.widen": SHAPES,
    "control.widen": SHAPES,
}
"""keys that cannot differ, and why"""


def check_allowed(allowed: Sequence[str], known: Collection[str]) -> None:
    """Refuse names in `resume.allow` that are no keys, or keys that can never differ.

    Args:
        allowed: what the config says; a section, such as `data`, stands for all of its keys.
        known: all keys.

    Raises:
        UserError: with the name.
    """
    sections = {key[:place] for key in known for place, letter in enumerate(key) if letter == "."}
    for name in allowed:
        if name not in known and name not in sections:
            raise UserError(f"there is no key '{name}'{nearest(name, sorted(known))}", field="resume.allow")
        if name in NEVER:
            raise UserError(f"{name} cannot differ ({NEVER[name]})", field="resume.allow", fix=_instead(name))


def is_allowed(key: str, allowed: Sequence[str]) -> bool:
    """Return whether `resume.allow` names a key, or the section that it is in."""
    return key not in NEVER and any(key == name or key.startswith(f"{name}.") for name in allowed)


def check_settings(
    run: Path, now: Mapping[str, object], then: Mapping[str, object], allowed: Sequence[str]
) -> list[str]:
    """Refuse settings that differ and may not.

    Args:
        run: the run's folder, for the message.
        now: what is asked for, by dotted key.
        then: what the run was started with.
        allowed: names of `resume.allow`.

    Returns:
        The keys that differ and may.

    Raises:
        UserError: with the first key that differs, and how to allow it.
    """
    differing = [key for key in {**now, **then} if now.get(key) != then.get(key)]
    for key in differing:
        holds = f"{run}: holds a run with {key}={then.get(key)!r}, this one asks for {now.get(key)!r}"
        if key in NEVER:
            raise UserError(f"{holds}, which cannot differ ({NEVER[key]}); {_instead(key)}")
        if key == "vae_loss.gan" and not (now.get(key) and then.get(key)):
            raise UserError(f"{holds}, and the checkpoint has no discriminator to go on with; take another `output`")
        if not is_allowed(key, allowed):
            raise UserError(f"{holds}; keep it, allow it with resume.allow=[{key}], or take another `output`")
    return differing


def check_weights(run: Path, now: Mapping[str, str], then: Mapping[str, str], allowed: Sequence[str]) -> None:
    """Refuse other weights than those that a run was started with, wherever they lie.

    Args:
        run: the run's folder, for the message.
        now: ids by key (`used_weights`).
        then: those of the run.
        allowed: names of `resume.allow`.

    Raises:
        UserError: with the first key whose content differs, and how to allow it.
    """
    for key in NAMED:
        if now.get(key) != then.get(key) and not is_allowed(key, allowed):
            what = "another schedule of noise" if key == "model.base" else "other weights"
            way = _instead(key) if key in NEVER else f"allow it with resume.allow=[{key}], or take another `output`"
            raise UserError(f"{run}: {key} names {what} than the run was started with; put them back, {way}")


def check_rows(run: Path, key: str, file: Path, rows: Rows, ids: Mapping[Path, str] | None) -> bool:
    """Return whether data that lie elsewhere are those that the run was started with.

    A row is the same where all that is known of it but its place is: name, caption, span, size and length; or, with
    ids of files, its content instead of its name and the name of its source.

    Args:
        run: the run's folder, for the message.
        key: which differs: `data.metadata` or `data.root`.
        file: the rows of the run (`rows_file`).
        rows: those that are there now, with rows among them that the run refused when it was read.
        ids: content ids of the files there now; None: not known yet.

    Returns:
        True where they are the same; False where they are not by name, and ids could tell more.

    Raises:
        UserError: they are others.
    """
    then = read_rows(file, rows.train_buckets.buckets[0].grid)
    there = (*rows.train, *rows.validation)
    before = (*then.train, *then.validation)
    if ids is None:
        wanted, found = Counter(map(_by_name, before)), Counter(map(_by_name, there))
    else:
        kept = {Path(path): content for path, content in then.content_ids.items()}
        wanted = Counter(_by_content(row, kept) for row in before)
        found = Counter(_by_content(row, ids) for row in there)
    lacking, more = (wanted - found).total(), (found - wanted).total()
    if not lacking and more <= count_refused(file):
        return True
    if ids is None and then.content_ids:
        return False
    raise UserError(
        f"{run}: {key} names other rows than the run began with ({lacking} of {len(before)} are not there, {more} "
        f"are new); name the old ones, allow it with resume.allow=[{key}], or take another `output`"
    )


def without_keys(values: Mapping[str, object], keys: Collection[str]) -> dict[str, object]:
    """Leave keys out."""
    return {key: value for key, value in values.items() if key not in keys}


def _by_name(row: TrainRow) -> str:
    # The name of its source may be a path.
    told = [f.name for f in dataclasses.fields(row) if f.name not in ("path", "source", "controls")]
    return repr([(name, getattr(row, name)) for name in told] + [name for name, _ in row.controls])


def _by_content(row: TrainRow, ids: Mapping[Path, str]) -> str:
    return repr((ids.get(row.path, row.row_id), row.caption, row.start_s, row.end_s, row.weight))


def _instead(key: str) -> str:
    if key.startswith("lora."):
        return "take another `output`, with lora.init to begin from an adapter"
    return "take another `output`"
