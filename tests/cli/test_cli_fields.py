"""Errors name what was asked for by the request's fields; the command line says it in its options."""

import argparse
import ast
import pickle
import re
from pathlib import Path

import pytest

import run_pipeline
from cli.fields import COMMON, OPTIONS, in_options
from cli.main import COMMANDS
from core.errors import UserError
from models.errors import ModelError
from train_bridge.config import DataSettings

ROOT = Path(__file__).resolve().parents[2]


def options_of(command: str) -> set[str]:
    parser = argparse.ArgumentParser()
    COMMANDS[command].add_arguments(parser)
    return {option for action in parser._actions for option in action.option_strings}


def test_every_option_of_the_table_is_one_of_its_command() -> None:
    every = set().union(*map(options_of, COMMANDS))
    assert set(COMMON.values()) <= every
    for command, names in OPTIONS.items():
        for spelt in names.values():
            assert set(re.findall(r"--[a-z-]+", spelt)) <= options_of(command), (command, spelt)


def test_every_field_of_the_table_is_there() -> None:
    from sampling.request import Options, Request

    asked = {
        *Request.__dataclass_fields__,
        *Options.__dataclass_fields__,
        "prompts",
        "prompts_file",
        "seeds",
        "size",
        "lora",
    }
    assert set(OPTIONS["sample"]) <= asked
    assert {name.partition(".")[2] for name in OPTIONS["train"]} <= set(DataSettings.__dataclass_fields__)


def test_every_field_that_sampling_names_has_an_option() -> None:
    known = {**COMMON, **OPTIONS["sample"]}
    for file in sorted((ROOT / "sampling").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) in ("UserError", "ModelError")):
                continue
            fields = [word.value for word in node.keywords if word.arg == "field"]
            named = [field.value for field in fields if isinstance(field, ast.Constant)]
            texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            named += [name for text in texts if isinstance(text, str) for name in re.findall(r"`([a-z_]+)`", text)]
            assert set(named) <= set(known), file


@pytest.mark.parametrize(
    ("error", "command", "line"),
    [
        (UserError("no such thing"), "sample", "no such thing"),
        (UserError("empty", field="prompt", fix="say what"), "sample", "--prompt: empty; say what"),
        (UserError("empty", field="prompt", fix="say what"), "curate", "prompt: empty; say what"),
        (UserError("x", field="num_frames", value=8, fix="ask for `size`"), "sample", "--frames 8: x; ask for --size"),
        (UserError("x", field="mask", value="without `video`"), "sample", "--mask without --video: x"),
        (UserError("x", field="data.where"), "train", "data.where (--where): x"),
        (UserError("x", field="rules.motion", fix="add `y`"), "curate", "rules.motion: x; add `y`"),
        (UserError("exists", field="output", value=Path("o")), "curate", "--output o: exists"),
        (ModelError("out of memory; next, try `vae_tiling`"), "sample", "out of memory; next, try --vae-tiling"),
    ],
)
def test_the_command_line_says_it_in_its_own_words(error: Exception, command: str, line: str) -> None:
    assert in_options(error, command) == line


def test_an_error_keeps_its_parts_between_processes() -> None:
    error = UserError("must be above 0", field="fps", value=-1.0, fix="take 24")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.field, again.problem, again.fix) == (
        "fps -1.0: must be above 0; take 24",
        "fps",
        "must be above 0",
        "take 24",
    )


def test_a_recipe_key_is_the_field_of_its_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cli.common import TABLES
    from curation.recipe import load_recipe

    with pytest.raises(UserError) as caught:
        load_recipe(None, ["shots.detector=nothing_like_it"], TABLES)
    assert caught.value.field == "shots.detector" and caught.value.problem.startswith("unknown")
    with pytest.raises(UserError) as caught:
        load_recipe(None, ["workers.score=many"], TABLES)
    assert caught.value.field == "recipe.workers.score"
    assert run_pipeline.main(["recipe", "workers.score=many"]) == 2
    assert capsys.readouterr().err.strip() == f"error: {caught.value}"
