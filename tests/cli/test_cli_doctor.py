"""What `doctor` says of a machine and of what recipes lack; JSON results and schemas of the command line."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import run_pipeline
from cli import checkup
from cli.schemas import recipe_schema, training_schema
from configs import CONFIGS
from core import machine
from core.settings_file import read_yaml
from demo.drawing import write_video
from models.weights.table import WEIGHTS

FILES = sorted(CONFIGS.glob("*.yaml"))


def printed(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 0) -> dict:
    capsys.readouterr()
    assert run_pipeline.main([str(word) for word in words]) == code
    values: dict = json.loads(capsys.readouterr().out)
    return values


def test_the_doctor_knows_what_a_recipe_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "on_disk", lambda name, folder: None)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("operators: {aesthetic: true, motion: true}\n")
    lacks = {lack.what: lack.fix for lack in checkup.what_lacks(recipe)}
    assert lacks["weights clip-vit-l-14"] == "run_pipeline.py weights fetch clip-vit-l-14"
    assert {what.removeprefix("weights ") for what in lacks} <= WEIGHTS.keys()
    recipe.write_text("operators: {motion: true}\n")
    assert checkup.what_lacks(recipe) == []


def test_the_doctor_prints_the_same_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    values = printed(capsys, "doctor", "--json")
    assert values["recipes"]["default.yaml"] == [] and values["codecs"]["missing_encoders"] == []
    assert {path.name for path in FILES} == values["recipes"].keys()
    assert run_pipeline.main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "default.yaml" in text and str(values["machine"]["cpus"]) in text
    lacking = [name for name, lacks in values["recipes"].items() if lacks]
    assert all(f"lacks {values['recipes'][name][0]['what']}" in text for name in lacking)


def test_gpus_are_read_from_the_drivers_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    (gpu,) = machine.read_gpus()
    assert gpu.name == "NVIDIA H200" and 150 < gpu.memory_gb < 151
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert machine.read_gpus() == ()


def test_results_are_printed_as_json_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from footage import pan

    write_video(tmp_path / "a.mp4", list(pan(30)), 10)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("shots: {min_s: 1.0}\noperators: {brightness: true}\ncut: {preset: ultrafast}\n")
    out = tmp_path / "out"
    words = ("curate", tmp_path / "a.mp4", "--output", out, "--config", recipe, "--runner", "inline", "--json")
    done = printed(capsys, *words)
    assert (done["summary"]["accepted"], done["sources_done"], done["is_complete"]) == (1, 1, True)
    judged = printed(capsys, "select", out, "rules.brightness.min=0.99", "--json")
    assert judged["summary"]["rejected"] == 1 and judged["rules_changed"] == ["rules.brightness"]
    report = printed(capsys, "report", out, "--json")
    assert report["scores"]["brightness"]["min"] == 0.99
    assert 0 < report["scores"]["brightness"]["median"] < 0.99
    assert printed(capsys, "select", out, "rules.brightness.min=0", "--json")["summary"]["accepted"] == 1
    assert printed(capsys, "export", out, "--format", "webvid", "--json")["rows"] == 1


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_what_comes_with_the_command_fits_its_schema(file: Path) -> None:
    values = json.loads(json.dumps(read_yaml(file, "recipe")))
    schema = training_schema() if "method" in values else recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(values, schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    "values",
    [
        {"operators": {"motoin": True}},
        {"rules": {"motion": {"least": 1}}},
        {"shots": {"detector": "fusde"}},
        {"shots": {"detector": "adaptive", "settings": {"treshold": 3.0}}},
        {"cut": {"mode": "copie"}},
        {"caption": {"captioner": "endpoint", "settings": {"ulr": "http://a"}}},
    ],
)
def test_mistakes_in_a_recipe_do_not_fit_its_schema(values: dict) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, recipe_schema(), jsonschema.Draft202012Validator)


def test_ranges_and_choices_of_training_configs_are_in_their_schema() -> None:
    for wrong in ({"train": {"steps": -1}}, {"method": "poetry"}, {"train": {"unknown": 1}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"method": "vae", **wrong}, training_schema(), jsonschema.Draft202012Validator)


def test_a_reader_that_has_seen_enough_ends_the_command_quietly() -> None:
    code = "import sys; from cli.main import run_and_exit; sys.argv = ['x', 'recipe', '--schema']; run_and_exit()"
    done = subprocess.run(
        ["/bin/bash", "-c", f'{sys.executable} -c "{code}" | head -c 10'], capture_output=True, text=True, check=True
    )
    assert done.stdout == '{\n "$schem' and done.stderr == ""
