"""The models and adapters that a server offers, by name: no client names a path."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.sanitize import printable
from sampling.checks import Job as Planned
from sampling.checks import check
from sampling.model import OpenModel
from sampling.model_facts import ModelFacts, read_model
from sampling.request import Lora, Options, Request

MOST_COMBINATIONS = 32
"""of models with adapters whose facts are kept"""


class Offered:
    """The models that a server offers, by name, and the adapters that requests may ask for.

    What is known without weights is read once for each combination of model and adapters, of which the last are kept:
    clients choose the strengths of adapters.
    """

    def __init__(self, folders: Mapping[str, Path], loras: Mapping[str, Path], options: Options):
        """Read what is known of each model.

        Raises:
            UserError: a folder that is no model.
            ModelError: likewise, told by the models.
        """
        self.names, self.lora_names = tuple(folders), tuple(loras)
        self._folders, self._loras, self._options = dict(folders), dict(loras), options
        self._facts: OrderedDict[tuple[str, tuple[Lora, ...]], ModelFacts] = OrderedDict()
        self._lock = threading.Lock()
        for name in folders:
            self.facts(name, ())

    def loras_of(self, asked: Mapping[str, float]) -> tuple[Lora, ...]:
        """Return adapters by name.

        Raises:
            UserError: one that is not offered.
        """
        for name in asked:
            if name not in self._loras:
                offered = ", ".join(self._loras) or "none"
                raise UserError(f"loras: '{printable(name, 80)}' is not offered here (offered: {offered})")
        return tuple(Lora(self._loras[name], scale) for name, scale in asked.items())

    @property
    def options(self) -> Options:
        """How models are opened."""
        return self._options

    def folder_of(self, name: str) -> Path:
        """Return a model's folder."""
        return self._folders[name]

    def lora_file_of(self, name: str) -> Path:
        """Return an adapter's file."""
        return self._loras[name]

    def name_of(self, folder: Path) -> str | None:
        """Return the name of the model in a folder, None where it is not offered."""
        return _name_of(folder, self._folders)

    def lora_name_of(self, file: Path) -> str | None:
        """Return the name of the adapter in a file, None where it is not offered."""
        return _name_of(file, self._loras)

    def named(self, name: str) -> str | None:
        """Return the model that a file's settings speak of, by folder or name; None where there is none."""
        return self.name_of(Path(name)) or _by_name(name, self._folders)

    def lora_named(self, name: str) -> str | None:
        """Return the adapter that a file's settings speak of, by file or name; None where there is none."""
        return self.lora_name_of(Path(name)) or _by_name(name, self._loras)

    def under_names(self, settings: Mapping[str, Any], model: str) -> dict[str, Any]:
        """Return a sample's settings with the names under which its model and its adapters are offered here."""
        loras = [
            {**lora, "path": self.lora_name_of(Path(lora["path"])) or lora["path"]}
            for lora in settings.get("loras", ())
        ]
        return {**settings, "model": model, "loras": loras}

    def facts(self, name: str, loras: tuple[Lora, ...]) -> ModelFacts:
        """Return what is known of a model with adapters, without weights.

        Raises:
            UserError: no such model, or adapters that do not fit it.
            ModelError: likewise, told by the models.
        """
        if name not in self._folders:
            raise UserError(f"model: '{printable(name, 80)}' is not served here (served: {', '.join(self._folders)})")
        with self._lock:
            known = self._facts.pop((name, loras), None)
            facts = known or read_model(self._folders[name], replace(self._options, loras=loras))
            self._facts[name, loras] = facts
            if len(self._facts) > len(self._folders) + MOST_COMBINATIONS:
                self._facts.popitem(last=False)
            return facts

    def open(self, name: str, loras: tuple[Lora, ...]) -> OpenModel:
        """Return a model that loads its weights when it samples."""
        return OpenModel(self._folders[name], replace(self._options, loras=loras), self.facts(name, loras))

    def plan(self, name: str, loras: tuple[Lora, ...], request: Request) -> Planned:
        """Return what a request comes to.

        Raises:
            UserError: something in it that cannot be.
            ModelError: a sampler that does not fit.
        """
        return check(request, self.facts(name, loras))


def _name_of(path: Path, places: Mapping[str, Path]) -> str | None:
    return next((name for name, place in places.items() if place.resolve() == path.resolve()), None)


def _by_name(text: str, places: Mapping[str, Path]) -> str | None:
    """Return what is offered under a name, or lies in the only file or folder of that name."""
    if text in places:
        return text
    found = [name for name, place in places.items() if place.resolve().name == text]
    return found[0] if len(found) == 1 else None
