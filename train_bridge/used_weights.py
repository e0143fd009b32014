"""Which weights a run uses, by content: kept in the run's folder, and compared when it goes on."""

import json
from collections.abc import Mapping
from pathlib import Path

from core.digest import digest
from core.errors import UserError
from core.files import atomic_write, read_bounded
from models.text.table import TEXT_ENCODERS
from train_bridge.cache.fingerprint import weights_id
from train_bridge.config import TrainConfig
from train_bridge.parts import Parts

WEIGHTS_FILE = "weights.json"
MOST_BYTES = 1 << 20
NAMED = (
    *("model.base", "model.transformer", "model.vae", "model.text_encoder", "model.image_encoder"),
    *("lora.init", "vae.start", "vae_loss.lpips_weights"),
)
"""keys of the config that name weights; what they name counts, and not where it lies"""


def used_weights(config: TrainConfig, parts: Parts) -> dict[str, str]:
    """Return ids of what a run reads, by the key that names it: of the content of folders, and names of presets.

    Large files are sampled (`fingerprint.weights_id`). `model.base` stands for the base's schedule of noise alone,
    since its other parts have keys of their own.

    Raises:
        UserError: something is not there or cannot be read.
    """
    named = {
        "model.vae": parts.vae,
        "model.transformer": parts.transformer,
        "model.text_encoder": parts.text_encoder,
        "model.image_encoder": parts.image_encoder,
        "lora.init": config.lora.init,
        "vae.start": parts.vae_start,
        "vae_loss.lpips_weights": config.vae_loss.lpips_weights,
    }
    found = {key: _content_id(key, name, parts.text_kind) for key, name in named.items() if name is not None}
    if parts.scheduler is not None:
        schedule = sorted((key, value) for key, value in parts.scheduler.items() if not key.startswith("_"))
        found["model.base"] = digest("schedule", schedule)
    return found


def read_used(run: Path) -> dict[str, str] | None:
    """Return the ids that a run was started with; None: a version before 0.9 has left none.

    Raises:
        UserError: the file is damaged.
    """
    file = run / WEIGHTS_FILE
    if not file.is_file():
        return None
    try:
        values = json.loads(read_bounded(file, MOST_BYTES))
        if isinstance(values, dict) and all(isinstance(value, str) for value in values.values()):
            return values
        why = "not ids by key"
    except (OSError, ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    raise UserError(f"{file}: cannot be read ({why}); delete it to go on without comparing the weights")


def write_used(run: Path, ids: Mapping[str, str]) -> None:
    """Keep the ids of the weights that a run uses."""
    atomic_write(run / WEIGHTS_FILE, json.dumps(ids, indent=2, sort_keys=True) + "\n")


def _content_id(key: str, name: str, text_kind: str) -> str:
    path = Path(name)
    if not path.exists():
        if not key.startswith("model."):
            raise UserError(f"{key} {name}: no such file")
        return f"preset {name}"
    try:
        if key != "model.text_encoder":
            return weights_id(path)
        # A pipeline's folder holds other parts, too.
        return digest("text", [weights_id(folder) for folder in TEXT_ENCODERS[text_kind].find(path).values()])
    except OSError as error:
        raise UserError(f"{key} {name}: cannot be read ({error.strerror or error})") from None
