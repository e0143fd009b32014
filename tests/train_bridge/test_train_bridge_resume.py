"""Going on with a run: with the same data and weights wherever they lie, and with others only where that is allowed."""

import copy
import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import CLIPS, write_clips
from closeness import close
from diffusers import FlowMatchEulerDiscreteScheduler
from pipelines import write_index

import run_pipeline
from core.errors import UserError
from models.errors import ModelError
from models.geometry import Bucket
from models.lora.adapters import add_lora, lora_weights
from models.lora.files import read_lora
from models.lora.form import AdapterForm
from models.lora.init import begin_from
from models.text.qwen2_vl import build_tiny
from models.transformers.easyanimate_v5 import EasyAnimate
from models.vae.video_vae import PRESETS, build_vae
from train_bridge.data.rows_file import write_rows
from train_bridge.loop.checkpoint import optimizer_state, put_optimizer_state
from train_bridge.plan.buckets import Assignment
from train_bridge.plan.plan import Rows
from train_bridge.resume import check_rows
from train_bridge.types import TrainRow

torch.set_num_threads(1)
CONFIGS = Path(run_pipeline.__file__).parent / "configs"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, and a pipeline of untrained parts."""
    folder = tmp_path_factory.mktemp("parts")
    write_clips(folder / "clips", CLIPS)
    write_pipeline(folder / "pipeline", 0)
    write_pipeline(folder / "other", 1)
    return folder


def write_pipeline(pipeline: Path, seed: int) -> None:
    torch.manual_seed(seed)
    family = EasyAnimate()
    family.build(family.presets["tiny"]).save_pretrained(pipeline / "transformer")
    build_vae(PRESETS["tiny"]).save_pretrained(pipeline / "vae")
    build_tiny(pipeline, seed)
    write_index(pipeline)


class Run:
    """A run of two steps in a folder of its own, with its base and its data beside it."""

    def __init__(self, parts: Path, folder: Path) -> None:
        self.parts, self.folder, self.run = parts, folder, folder / "run"
        shutil.copytree(parts / "pipeline", folder / "base")
        shutil.copytree(parts / "clips", folder / "clips")
        self.base, self.data = folder / "base", folder / "clips" / "metadata.json"

    def words(self, *more: object) -> list[str]:
        words = [
            "train", CONFIGS / "train_lora_tiny.yaml", "--data", self.data, "--output", self.run, "--runner", "inline",
            f"model.base={self.base}", "train.steps=2", "watch.log_every=1", "watch.sample_every=0",
            "objective.kind=flow", *more,
        ]  # fmt: skip
        return [str(word) for word in words]

    def train(self, *more: object) -> int:
        return run_pipeline.main(self.words(*more))

    def steps(self) -> list[int]:
        return [json.loads(line)["step"] for line in (self.run / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def started(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(parts, tmp_path_factory.mktemp("started"))
    assert run.train() == 0
    return run


@pytest.fixture
def run(started: Run, tmp_path: Path) -> Run:
    """A copy of it, with the same weights in another folder."""
    shutil.rmtree(tmp_path)
    shutil.copytree(started.folder, tmp_path)
    run = copy.copy(started)
    run.folder, run.run, run.base = tmp_path, tmp_path / "run", tmp_path / "base"
    return run


def refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2 and line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("part", "key"),
    [("vae", "model.vae"), ("text_encoder", "model.text_encoder"), ("transformer", "model.transformer")],
)
def test_other_weights_under_the_same_path_are_refused(
    run: Run, capsys: pytest.CaptureFixture[str], part: str, key: str
) -> None:
    shutil.rmtree(run.base / part)
    shutil.copytree(run.parts / "other" / part, run.base / part)
    line = refused(capsys, run.train("train.steps=3"))
    assert f"{key} names other weights than the run was started with" in line
    assert run.steps() == [1, 2]


def test_another_schedule_of_noise_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    FlowMatchEulerDiscreteScheduler(shift=5.0).save_pretrained(run.base / "scheduler")
    line = refused(capsys, run.train("train.steps=3"))
    assert "shift" in line or "model.base names another schedule of noise" in line


def test_the_same_weights_in_another_folder_are_the_same(run: Run, started: Run) -> None:
    assert run.base != started.base
    assert run.train("train.steps=3") == 0
    assert run.steps() == [1, 2, 3]


def test_a_run_of_a_version_that_kept_no_ids_goes_on_by_its_names(
    run: Run, started: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.run / "weights.json").unlink()
    run.base = started.base
    assert run.train("train.steps=3") == 0
    assert (run.run / "weights.json").is_file()
    (run.run / "weights.json").unlink()
    run.base = run.folder / "base"
    assert "model.base=" in refused(capsys, run.train("train.steps=4"))


def test_damaged_ids_are_told_in_one_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (run.run / "weights.json").write_text("[1]")
    assert "weights.json: cannot be read" in refused(capsys, run.train("train.steps=3"))


def test_a_key_that_differs_is_named_with_the_way_to_allow_it(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, run.train("train.steps=3", "train.learning_rate=0.5"))
    assert "train.learning_rate=0.003" in line and "resume.allow=[train.learning_rate]" in line
    line = refused(capsys, run.train("train.steps=3", "train.learning_rate=0.5", "resume.allow=[train.betas]"))
    assert "resume.allow=[train.learning_rate]" in line
    assert "did you mean 'train.learning_rate'" in refused(capsys, run.train("resume.allow=[train.learningrate]"))
    line = refused(capsys, run.train("lora.rank=4", "resume.allow=[lora]"))
    assert "lora.rank=16" in line and "cannot differ" in line and "lora.init" in line
    assert "lora.rank cannot differ" in refused(capsys, run.train("lora.rank=4", "resume.allow=[lora.rank]"))


def test_what_is_allowed_may_differ_and_moved_data_are_found(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.data = run.folder / "clips" / "metadata.json"
    allowed = "resume.allow=[train.learning_rate,train.ema,train.betas,buckets.micro_batches_per_step]"
    changed = ["train.learning_rate=0.5", "train.ema=0.9", "train.betas=[0.5,0.6]", "buckets.micro_batches_per_step=2"]
    assert run.train("train.steps=3", *changed, allowed) == 0
    told = capsys.readouterr().out
    assert "train.learning_rate: 0.003 until now, 0.5 from here on" in told
    assert "data.metadata lies elsewhere now; its rows are those" in told
    assert run.steps() == [1, 2, 3]
    last = run.run / "checkpoints" / "step-00000003"
    assert (last / "ema" / "transformer").is_dir()
    groups = torch.load(last / "optimizer_transformer.pt", weights_only=True)["param_groups"]
    assert groups[0]["betas"] == (0.5, 0.6)


def test_other_data_are_refused_unless_allowed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.data = run.folder / "clips" / "fewer.json"
    items = json.loads((run.folder / "clips" / "metadata.json").read_text())
    run.data.write_text(json.dumps(items[1:]))
    line = refused(capsys, run.train("train.steps=3"))
    assert "data.metadata names other rows" in line and "resume.allow=[data.metadata]" in line
    assert f"1 of {len(items)} are not there, 0 are new" in line


def records(folder: Path, **changes: object) -> Rows:
    rows = tuple(
        TrainRow(str(folder / f"{i}.mp4"), folder / f"{i}.mp4", f"caption {i}", "video", 64, 48, 24, 2.0)
        for i in range(3)
    )
    buckets = Assignment((Bucket(5, 16, 16),), np.zeros((3, 1), np.int32), [], 0)
    none = dataclasses.replace(buckets, options=np.zeros((0, 1), np.int32))
    rows = tuple(dataclasses.replace(row, **changes) for row in rows)  # type: ignore[arg-type]
    return Rows(rows, buckets, (), none, (), 0)


def test_rows_that_are_named_by_their_paths_are_found_by_content(tmp_path: Path) -> None:
    before, now = records(Path("/before")), records(Path("/now"))
    ids = {row.path: f"id {i}" for i, row in enumerate(before.train)}
    write_rows(tmp_path / "rows.parquet", before, {str(path): name for path, name in ids.items()})
    there = {row.path: f"id {i}" for i, row in enumerate(now.train)}
    check = partial(check_rows, tmp_path, "data.metadata", tmp_path / "rows.parquet")
    assert check(before, None)
    assert not check(now, None)  # contents can tell more
    assert check(now, there)
    with pytest.raises(UserError, match="1 of 3 are not there, 1 are new"):
        check(now, there | {now.train[1].path: "other"})
    with pytest.raises(UserError, match="3 of 3 are not there"):
        check(records(Path("/now"), caption="other"), there)
    # Without ids, names are all that is known.
    write_rows(tmp_path / "rows.parquet", before, {})
    with pytest.raises(UserError, match="3 of 3 are not there"):
        check(now, None)


def test_moments_come_back_without_the_rates_of_their_time(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    old = torch.optim.AdamW(network.parameters(), lr=0.1, betas=(0.1, 0.2), weight_decay=0.5)
    network(torch.ones(1, 2)).sum().backward()
    old.step()
    old.zero_grad()
    torch.save(optimizer_state(network, old), tmp_path / "o.pt")
    new = torch.optim.AdamW(network.parameters(), lr=0.2, betas=(0.3, 0.4), weight_decay=0.0)
    put_optimizer_state(network, new, tmp_path / "o.pt")
    assert (new.param_groups[0]["lr"], new.param_groups[0]["betas"], new.param_groups[0]["weight_decay"]) == (
        0.2, (0.3, 0.4), 0.0,
    )  # fmt: skip
    for parameter in network.parameters():
        assert torch.equal(new.state[parameter]["exp_avg"], old.state[parameter]["exp_avg"])


def test_a_run_begins_from_an_adapter(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    first = read_lora(run.run / "lora")
    run.run = run.folder / "next"
    init = f"lora.init={run.folder / 'run'}"
    # Another adapter than the base's own beginning, which it stays at a rate that moves nothing.
    assert run.train(init, "train.steps=1", "train.learning_rate=1e-12") == 0
    second = read_lora(run.run / "lora")
    assert first.layers.keys() == second.layers.keys()
    for module, factors in first.layers.items():
        assert close(factors.up, second.layers[module].up) and close(factors.down, second.layers[module].down)
    assert any(float(factors.up.abs().max()) > 0 for factors in first.layers.values())
    run.run = run.folder / "another"
    assert "set lora.rank=16" in refused(capsys, run.train(init, "lora.rank=4"))
    assert "lora.init" in refused(capsys, run.train("lora.init=/gone"))


@pytest.mark.parametrize(
    ("made", "fix"),
    [
        ({"rank": 4}, "set lora.rank=4"),
        ({"alpha": 3.0}, "set lora.alpha=3"),
        ({"dora": True}, "set lora.dora=true"),
        ({"targets": ["to_q", "to_k"]}, "set lora.targets"),
    ],
)
def test_an_adapter_of_another_kind_is_refused_with_the_key(made: dict[str, object], fix: str) -> None:
    family = EasyAnimate()
    settings: dict[str, Any] = {"rank": 2, "alpha": None, "targets": ["to_q"], "dora": False}
    one, other = family.build(family.presets["tiny"]), family.build(family.presets["tiny"])
    for network, values in ((one, settings), (other, settings | made)):
        targets = values.pop("targets")
        add_lora(network, AdapterForm(**values), targets)
    with pytest.raises(ModelError, match=fix):
        begin_from(one, lora_weights(other))


def test_dora_begins_with_the_norms_of_the_one_before() -> None:
    family = EasyAnimate()
    one, other = family.build(family.presets["tiny"]), family.build(family.presets["tiny"])
    for model in (one, other):
        add_lora(model, AdapterForm(2, 4.0, dora=True), ["to_q"])
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn(parameter.shape))
    begin_from(one, lora_weights(other))
    for module, factors in lora_weights(other).layers.items():
        mine = lora_weights(one).layers[module]
        assert factors.magnitude is not None and mine.magnitude is not None
        assert torch.equal(mine.magnitude, factors.magnitude) and torch.equal(mine.up, factors.up)
