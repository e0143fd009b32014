"""Tables for an output whose plug-ins may be gone, and what plug-ins there are."""

import sys
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli.common import CAPTIONER_TABLE, OPERATOR_TABLE, shown
from controls import CONTROLS
from core.errors import UserError
from core.plugins import PluginTable, Survey
from core.sanitize import printable
from core.settings import truth_in
from core.settings_file import read_yaml
from curation.export import EXPORTERS
from curation.output.folder import recipe_file
from curation.plugins import remembered, stand_in
from curation.recipe import Tables
from curation.shots import DETECTORS

PLUGIN_TABLES: dict[str, PluginTable[Any]] = {
    "operator": OPERATOR_TABLE,
    "captioner": CAPTIONER_TABLE,
    "detector": DETECTORS,
    "exporter": EXPORTERS,
}


def surveyed() -> dict[str, Survey]:
    """Return what plug-ins there are, by kind; all of them are loaded."""
    return {kind: table.survey() for kind, table in PLUGIN_TABLES.items()}


def tables_of(out: Path) -> Tables:
    """Return the tables for an output that is judged or shown: plug-ins that its recipe names and that cannot be used
    here are stood in for, and each is reported in one line.

    The scores of such an operator stay in the table, with their meanings and their rules.
    """
    raw, facts = read_yaml(recipe_file(out), "recipe"), remembered(out)
    named = raw.get("operators")
    settings = named if isinstance(named, Mapping) else {}
    operators = _stood_in(out, "operator", {name: settings[name] for name in facts if name in settings}, facts)
    captioners = _stood_in(out, "captioner", _chosen(raw.get("caption"), "captioner"), {})
    detectors = _stood_in(out, "detector", _chosen(raw.get("shots"), "detector"), {})
    return Tables(
        ChainMap(operators, OPERATOR_TABLE),  # type: ignore[arg-type]
        ChainMap(captioners, CAPTIONER_TABLE),  # type: ignore[arg-type]
        ChainMap(detectors, DETECTORS),  # type: ignore[arg-type]
        CONTROLS,
    )


def _chosen(section: Any, key: str) -> dict[str, Any]:
    """Return what a section of a recipe names, with its settings."""
    if not isinstance(section, Mapping) or not isinstance(section.get(key), str):
        return {}
    return {str(section[key]): section.get("settings")}


def _stood_in(
    out: Path, kind: str, named: Mapping[str, Any], facts: Mapping[str, Mapping[str, Any]]
) -> dict[str, type]:
    """Return stand-ins for those of a kind that cannot be had here, by name; each is reported."""
    found = {}
    for name, settings in named.items():
        if truth_in(settings) is False:
            continue
        try:
            PLUGIN_TABLES[kind][name]
        except KeyError:
            package = facts.get(name, {}).get("package")
            why = f"{package} is not installed here" if package else "no installed package has it"
        except UserError as error:
            why = str(error)
        else:
            continue
        values = settings if isinstance(settings, Mapping) else {}
        kept = "; its scores are kept" if kind == "operator" else ""
        if (kind_of_it := stand_in(name, values, facts.get(name))) is not None:
            found[name] = kind_of_it
            print(printable(f"warning: {shown(out)}: {kind} '{name}': {why}{kept}", 1000), file=sys.stderr)
    return found
