"""Outputs of ours, whose clips and pictures must never come in as footage again."""

import os
from dataclasses import dataclass, field

from core.files import read_head
from curation.folders import CLIPS, CONTROLS, PARTS, PREVIEWS, RETIRED, SHARDS, TABLE

RECIPE = "recipe.yaml"
HEADER = "# The recipe of this output"
"""How the recipe of an output begins. A run writes it before anything else; every version has written it."""
_TABLE = (TABLE, PARTS)
_OTHERS = (PREVIEWS, CLIPS, RETIRED, "run.json", ".lock")
_OF_TRAINING = ("config.yaml", "log.jsonl", "run.json")
OWN_FOLDERS = frozenset((TABLE, PARTS, RETIRED, PREVIEWS, CLIPS, SHARDS, "samples", CONTROLS))
"""What in an output is ours; footage may lie in one, too, as with `--output .`"""


def is_output(folder: str) -> bool:
    """Return whether a folder is an output of `curate`, finished or not.

    It is by its recipe and something else of a run. Footage with a copy of such a recipe beside it is none.
    """
    try:
        is_ours = read_head(os.path.join(folder, RECIPE), len(HEADER)).decode("utf-8", "replace") == HEADER
    except (OSError, ValueError):
        return False
    return any(os.path.exists(os.path.join(folder, name)) for name in (*_TABLE, *(_OTHERS if is_ours else ())))


def is_training(folder: str) -> bool:
    """Return whether a folder is a run of `train`, whose samples are no footage either."""
    return all(os.path.isfile(os.path.join(folder, name)) for name in _OF_TRAINING)


@dataclass
class Outputs:
    """Answers where outputs are; each folder is looked at once."""

    _outputs: dict[str, bool] = field(default_factory=dict)
    _holders: dict[str, str | None] = field(default_factory=dict)

    def is_one(self, folder: str) -> bool:
        """Return whether a folder is an output, be it of `curate` or of `train`."""
        if folder not in self._outputs:
            self._outputs[folder] = is_output(folder) or is_training(folder)
        return self._outputs[folder]

    def holding(self, folder: str) -> str | None:
        """Return the output that a folder is, or of whose own folders it is one or lies in; else null."""
        if folder not in self._holders:
            real = os.path.realpath(folder)
            self._holders[folder] = real if self.is_one(real) else self._above(real)
        return self._holders[folder]

    def owning(self, folder: str) -> str | None:
        """Return the output whose own folder this is, or lies in; an output itself has footage of others, too."""
        return self._above(os.path.realpath(folder))

    def _above(self, real: str) -> str | None:
        above, name = os.path.split(real)
        while name:
            if (name in OWN_FOLDERS or name.startswith(".")) and self.is_one(above):
                return above
            above, name = os.path.split(above)
        return None
