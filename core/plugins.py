"""Entry points by which other installed packages add to our tables: read when asked for, loaded when named.

A table answers for its own names without looking at what else is installed. A plug-in that cannot be used therefore
costs no run that does not name it: whoever names it gets one line that says why, and who lists everything is warned.
"""

import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

from core.errors import UserError
from core.sanitize import printable

T = TypeVar("T")
OPERATORS, CAPTIONERS = "selects.operators", "selects.captioners"
DETECTORS, EXPORTERS = "selects.detectors", "selects.exporters"
GROUPS = (OPERATORS, CAPTIONERS, DETECTORS, EXPORTERS)
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""what a recipe can name"""
LONGEST_REASON = 300
"""characters of what a package says when it cannot be imported"""

Fault = Callable[[str, Any], str | None]
"""Says what is wrong with an object under a name, None for nothing."""


@dataclass(frozen=True)
class Survey:
    """What plug-ins there are for a table.

    Attributes:
        packages: distribution and version, by name, of those that can be used.
        broken: one line for each of the others.
    """

    packages: dict[str, str]
    broken: tuple[str, ...]


class PluginTable(Mapping[str, T], Generic[T]):
    """A table of ours, and behind it what installed packages add under an entry-point group.

    Iterating yields names without loading anything; looking up a name of ours loads nothing either.
    """

    def __init__(self, own: Mapping[str, T], group: str, fault: Fault, taken: Collection[str] = ()):
        """Keep what to look into.

        Args:
            own: the table of ours; its names cannot be replaced.
            group: the entry-point group, such as `selects.operators`.
            fault: checks what was loaded.
            taken: further names that are not to be had.
        """
        self.own, self.group = own, group
        self._fault, self._taken = fault, frozenset({*own, *taken})
        self._loaded: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        """Return what has this name; a plug-in is loaded and checked.

        Raises:
            KeyError: nothing has.
            UserError: a plug-in has, and cannot be used.
        """
        if name in self.own:
            return self.own[name]
        if name not in self._loaded:
            if name in self._taken or name not in _entries(self.group):
                raise KeyError(name)
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        """Return whether something has this name, usable or not."""
        return name in self.own or (name not in self._taken and name in _entries(self.group))

    def __iter__(self) -> Iterator[str]:
        """Yield all names, ours first."""
        yield from self.own
        yield from (name for name in _entries(self.group) if name not in self._taken)

    def __len__(self) -> int:
        """Return the number of names."""
        return sum(1 for _ in self)

    def package_of(self, name: str) -> str | None:
        """Return the distribution and version that a plug-in comes from; None for a name of ours or of nobody."""
        entries = () if name in self._taken else _entries(self.group).get(name, ())
        return package_of(entries[0]) if entries else None

    def survey(self) -> Survey:
        """Load every plug-in and say which can be used."""
        packages, broken = {}, []
        for name, entries in _entries(self.group).items():
            try:
                if name in self._taken:
                    raise UserError(_line(self.group, name, entries, f"'{name}' is a name of ours", "rename it"))
                self[name]
                packages[name] = package_of(entries[0])
            except UserError as error:
                broken.append(str(error))
        return Survey(packages, tuple(broken))

    def usable(self) -> dict[str, T]:
        """Return everything that can be used, ours first; warn of the rest, once in a process."""
        found = self.survey()
        for line in found.broken:
            _warn(line)
        return {**self.own, **{name: self[name] for name in found.packages}}

    def _load(self, name: str) -> T:
        entries = _entries(self.group)[name]
        packages = sorted({package_of(entry) for entry in entries})
        if len(packages) > 1 or len({entry.value for entry in entries}) > 1:
            several = "several objects have this name" if len(packages) == 1 else "several packages add this name"
            raise UserError(_line(self.group, name, entries, several, "uninstall all but one"))
        if not NAME.fullmatch(name):
            raise UserError(
                _line(self.group, name, entries, "a name has small letters, digits and _", "ask its maker to rename it")
            )
        try:
            value = entries[0].load()
        except Exception as error:  # importing a stranger's package runs its code, which may raise anything
            words = f"cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())[:LONGEST_REASON]}"
            raise UserError(_line(self.group, name, entries, words, "fix or uninstall it")) from error
        wrong = self._fault(name, value)
        if wrong is not None:
            raise UserError(_line(self.group, name, entries, wrong, "fix or uninstall it"))
        return value  # type: ignore[no-any-return]


def package_of(entry: EntryPoint) -> str:
    """Return the distribution and version that an entry point comes from."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an unknown package"


def package_named(group: str, name: str) -> str | None:
    """Return the distribution and version that adds a name to a group; None where nobody does."""
    entries = _entries(group).get(name, ())
    return package_of(entries[0]) if entries else None


def lacking(value: Any, names: Iterable[str]) -> str | None:
    """Return what an object lacks of the attributes that a contract asks for, in words; None for nothing."""
    missing = [name for name in names if not hasattr(value, name)]
    return f"it has no {' and no '.join(missing)}" if missing else None


def folders_to_ship(modules: Iterable[str]) -> list[str]:
    """Return folders that another machine needs to find the plug-ins which these modules belong to.

    Args:
        modules: full names of modules in use, ours among them, which belong to no plug-in.

    Returns:
        The top folder of each such package, and the folder of its metadata, by which its entry points are found. A
        package that is a single file has none, and its dependencies are not among them.
    """
    tops = {name.partition(".")[0] for name in modules}
    folders: dict[str, None] = {}
    for entry in (e for group in GROUPS for entries in _entries(group).values() for e in entries):
        top = entry.module.partition(".")[0]
        if top not in tops:
            continue
        spec = find_spec(top)
        metadata = [file for file in (entry.dist.files or ()) if file.name == "entry_points.txt"] if entry.dist else []
        places = [*(spec.submodule_search_locations or ())][:1] if spec else []
        folders |= dict.fromkeys([*places, *(str(Path(str(file.locate())).parent) for file in metadata)])
    return list(folders)


@cache
def _entries(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """Return the entry points of a group by name, in order of names; nothing is imported."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in sorted(entry_points(group=group), key=lambda e: (e.name, package_of(e), e.value)):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def _line(group: str, name: str, entries: Iterable[EntryPoint], wrong: str, fix: str) -> str:
    packages = " and ".join(dict.fromkeys(package_of(entry) for entry in entries))
    return printable(f"plug-in '{name}' ({group}) of {packages}: {wrong}; {fix}", 2 * LONGEST_REASON)


@cache
def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)
