"""`weights list`, `fetch` and `verify`: what is on this machine, and how an offline cluster is made ready."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from models.errors import ModelError
from models.weights.find import download, file_name, human_size, on_disk, sha256_of, weights_folder, weights_of
from models.weights.repositories import fetch_repository
from models.weights.table import WEIGHTS

HEAD = ("name", "size", "licence", "here", "from")
ABSENT, WRONG, RIGHT = "-", "wrong", "ok"


def list_weights(folder: str | Path | None = None) -> str:
    """Return the table of all weights; `here` says where on this machine a file is, without looking into it."""
    found = {name: on_disk(name, folder) for name in WEIGHTS}
    return render_table({name: place[0] if place else ABSENT for name, place in found.items()})


def verify_weights(names: Sequence[str] = (), folder: str | Path | None = None) -> tuple[str, bool]:
    """Hash what is on this machine.

    Args:
        names: of the table; none: all.
        folder: the weights folder; None: the one of `SELECTS_WEIGHTS`, if any.

    Returns:
        The table, with `ok`, `wrong` or `-` for what is not here; and whether nothing is wrong and, where names
        were given, nothing absent.
    """
    states = {}
    for name in names or WEIGHTS:
        weights, found = weights_of(name), on_disk(name, folder)
        states[name] = ABSENT if found is None else RIGHT if sha256_of(found[1]) == weights.sha256 else WRONG
    refused = {WRONG, ABSENT} if names else {WRONG}
    return render_table(states), not refused & set(states.values())


def fetch_weights(names: Sequence[str], folder: str | Path | None = None, say: Callable[[str], None] = print) -> None:
    """Bring weights to this machine; what is here already, and whole, is left as it is.

    Args:
        names: of the table, or `owner/name` of a whole model on the hub; none: the whole table.
        folder: where to put them, made if need be; None: the folder of `SELECTS_WEIGHTS`, else the hub's cache.
        say: reported for each, one line.

    Raises:
        ModelError: an unknown name, not to be had, or another content than the published one.
    """
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    place = weights_folder(folder)
    for name in names or WEIGHTS:
        path = fetch_repository(name, into=place) if "/" in name else _fetch_file(name, place)
        say(f"{name}  {path}")


def _fetch_file(name: str, place: Path | None) -> Path:
    weights = weights_of(name)
    target = place / file_name(name) if place else None
    if target is not None and target.is_file() and sha256_of(target) == weights.sha256:
        return target
    found = on_disk(name) if place is None else None
    path = found[1] if found else download(name)
    if sha256_of(path) != weights.sha256:
        path = download(name, again=True)
    if sha256_of(path) != weights.sha256:
        raise ModelError(
            f"{name}: {weights.repository} now gives another {weights.file} than the published one "
            f"(sha256 {sha256_of(path)[:12]}…, not {weights.sha256[:12]}…); get the file of that checksum elsewhere "
            f"and put it into a weights folder as {file_name(name)}"
        )
    if target is None:
        return path
    from core.files import atomic_path

    with atomic_path(target) as temporary:
        try:
            os.link(path.resolve(), temporary)
        except OSError:  # another disk, or a file system without links
            shutil.copyfile(path, temporary)
    return target


def render_table(states: dict[str, str]) -> str:
    """Lay out the named weights with their states, at most 100 columns wide."""
    rows = [HEAD]
    for name, state in states.items():
        weights = WEIGHTS[name]
        rows.append((name, human_size(weights.size_bytes), weights.licence, state, weights.repository))
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = []
    for row in rows:
        size = row[1].rjust(widths[1])
        cells = [row[0].ljust(widths[0]), size, *(row[i].ljust(widths[i]) for i in (2, 3, 4))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
