"""JSON Schemas of recipes and training configs, with every operator, detector and captioner that can be used."""

from collections.abc import Mapping
from typing import Any

from cli.common import CAPTIONER_TABLE, OPERATOR_TABLE
from controls import CONTROLS
from core.json_schema import schema_of, settings_schema
from curation.recipe import Recipe, Rule, ShotSettings
from curation.schema import COLUMNS
from curation.shots import DETECTORS
from curation.types import DeclaresColumns
from train_bridge.config import TrainConfig


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema of recipes."""
    kinds: dict[str, Any] = OPERATOR_TABLE.usable()
    detectors, captioners = DETECTORS.usable(), CAPTIONER_TABLE.usable()
    operators = {
        name: {"anyOf": [settings_schema(kind), {"type": ["boolean", "null"]}]} for name, kind in kinds.items()
    }
    controls = {
        name: {"anyOf": [settings_schema(kind), {"type": ["boolean", "null"]}]} for name, kind in CONTROLS.items()
    }
    rule = {"anyOf": [settings_schema(Rule), {"const": False}]}
    declaring = [kind for kind in kinds.values() if isinstance(kind, DeclaresColumns)]
    columns = [*COLUMNS, *(column for kind in declaring for column in kind.columns)]
    rules = {column.name: rule | {"description": column.meaning} for column in columns}
    shots, caption = settings_schema(ShotSettings), settings_schema(Recipe)["properties"]["caption"]
    shots |= {"properties": shots["properties"] | {"detector": {"enum": sorted(detectors)}}}
    caption |= {"properties": caption["properties"] | {"captioner": {"enum": sorted(captioners)}}}
    replaced = {
        "operators": _named(operators, "scores to measure, with their settings; false leaves one out"),
        "controls": _named(controls, "control maps to make of accepted clips, with their settings; false leaves out"),
        "rules": _named(rules, "bounds on columns; a clip outside any of them is rejected with the reason"),
        "shots": _choosing(shots, "detector", detectors),
        "caption": _choosing(caption, "captioner", captioners),
    }
    return schema_of(Recipe, "Recipe of Selects", replaced)


def training_schema() -> dict[str, Any]:
    """Return the JSON Schema of training configs."""
    return schema_of(TrainConfig, "Training config of Selects")


def _named(properties: Mapping[str, Any], description: str) -> dict[str, Any]:
    return {
        "description": description, "type": ["object", "null"],
        "properties": dict(properties), "additionalProperties": False,
    }  # fmt: skip


def _choosing(schema: dict[str, Any], key: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    """Let the settings be those of the kind that `key` names."""
    cases = [
        {
            "if": {"properties": {key: {"const": name}}, "required": [key]},
            "then": {"properties": {"settings": settings_schema(kind)}},
        }
        for name, kind in kinds.items()
    ]
    return schema | {"allOf": cases}
