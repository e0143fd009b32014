"""A checkpoint that is no longer what was written is set aside, and the run goes on from the one before it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from closeness import close
from regression import final, lines, make_job
from torch.distributed.checkpoint import state_dict_saver

from train_bridge.loop.checkpoint import checkpoints
from train_bridge.loop.damage import find_damage, last_whole
from train_bridge.loop.manifest import MANIFEST, against_manifest, write_manifest
from train_bridge.loop.nonfinite import StoppedError
from train_bridge.loop.parallel import Worker
from train_bridge.loop.trainer import Trainer

torch.set_num_threads(1)
WEIGHTS = "regression/diffusion_pytorch_model.safetensors"
MEAN = f"ema/{WEIGHTS}"
MOMENTS = "optimizer_regression.pt"
BEGUN = {"regression": 0}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + 100):  # longer than an archive's padding
        content[place % len(content)] ^= 1
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def stranger(file: Path) -> None:
    shutil.copy(file, file.with_name("another" + file.suffix))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 4 and 8."""
    folder = tmp_path_factory.mktemp("run")
    Trainer.start(make_job(folder, 8), Worker()).run()
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def goes_on_from_before(copy: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Check that it goes on from step 4, to where the undamaged run is; return the line that says so."""
    trainer = Trainer.start(make_job(copy, 8), Worker())
    assert trainer.step == 4
    told = [line for line in capsys.readouterr().out.splitlines() if ": damaged (" in line]
    assert len(told) == 1 and "step-00000008" in told[0] and "goes on from step-00000004" in told[0]
    trainer.run()
    one, other = final(run), final(copy)
    assert all(close(one[name], other[name]) for name in one)
    assert list(lines(copy, "train")) == list(range(1, 9))
    assert [path.name for path in checkpoints(copy)] == ["step-00000004", "step-00000008"]
    assert (copy / "checkpoints" / "damaged-step-00000008").is_dir()
    return told[0]


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        (WEIGHTS, cut, "bytes instead of"),
        (WEIGHTS, flip, "other content"),
        (WEIGHTS, stranger, "not among the files"),
        (MEAN, Path.unlink, f"{MEAN} is missing"),
        (MOMENTS, Path.unlink, f"{MOMENTS} is missing"),
        (MOMENTS, flip, "other content"),
        ("state.json", flip, "other content"),
        ("state.json", empty, "bytes instead of"),
        (MANIFEST, cut, f"{MANIFEST} cannot be read"),
        (MANIFEST, empty, f"{MANIFEST} cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_in_one_line(
    copy: Path,
    run: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    damage: Callable[[Path], None],
    expected: str,
) -> None:
    damage(checkpoints(copy)[-1] / name)
    assert expected in goes_on_from_before(copy, run, capsys)


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        (MOMENTS, Path.unlink, f"{MOMENTS} is missing"),
        (MOMENTS, cut, "not a whole archive"),
        (MOMENTS, flip, "not a whole archive"),
        (WEIGHTS, cut, "not a whole safetensors file"),
        (WEIGHTS, Path.unlink, "has no weights"),
        (MEAN, empty, "not a whole safetensors file"),
        ("state.json", empty, "state.json: cannot be read"),
    ],
)
def test_so_is_one_of_a_version_without_manifests(
    copy: Path,
    run: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    damage: Callable[[Path], None],
    expected: str,
) -> None:
    for checkpoint in checkpoints(copy):
        (checkpoint / MANIFEST).unlink()
    damage(checkpoints(copy)[-1] / name)
    assert expected in goes_on_from_before(copy, run, capsys)


def test_whole_ones_of_either_kind_are_gone_on_from(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Trainer.start(make_job(copy, 8), Worker()).step == 8
    for checkpoint in checkpoints(copy):
        (checkpoint / MANIFEST).unlink()
    assert Trainer.start(make_job(copy, 8), Worker()).step == 8
    assert ": damaged (" not in capsys.readouterr().out


def test_where_all_are_damaged_nothing_begins_anew_and_nothing_is_moved(copy: Path) -> None:
    for checkpoint in checkpoints(copy):
        cut(checkpoint / WEIGHTS)
    with pytest.raises(StoppedError, match="step-00000008: damaged .*no checkpoint before it is whole"):
        Trainer.start(make_job(copy, 8), Worker())
    assert len(checkpoints(copy)) == 2


def test_a_storage_that_fails_is_not_taken_for_damage(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from train_bridge.loop import manifest

    def broken(path: Path) -> str:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(manifest, "file_sha256", broken)
    with pytest.raises(StoppedError, match=r"cannot be read \(Input/output error\); see to the storage"):
        last_whole(copy, BEGUN, Worker())
    assert len(checkpoints(copy)) == 2


def test_an_optimizer_that_had_not_begun_is_not_missed(copy: Path) -> None:
    last = checkpoints(copy)[-1]
    (last / MANIFEST).unlink()
    shutil.copytree(last / "regression", last / "discriminator")
    assert find_damage(last, BEGUN | {"discriminator": 8}) is None
    assert find_damage(last, BEGUN | {"discriminator": 7}) == "optimizer_discriminator.pt is missing"


def test_a_manifest_names_every_file_with_its_size_and_hash(copy: Path) -> None:
    last = checkpoints(copy)[-1]
    rows = {row["file"]: row for row in json.loads((last / MANIFEST).read_text())["files"]}
    files = {path.relative_to(last).as_posix() for path in last.rglob("*") if path.is_file()}
    assert rows.keys() == files - {MANIFEST} and {WEIGHTS, MEAN, MOMENTS, "state.json"} <= rows.keys()
    assert all(row["size_bytes"] == (last / name).stat().st_size for name, row in rows.items())
    assert all(len(row["sha256"]) == 64 for row in rows.values())


def test_parts_of_divided_workers_are_looked_at_too(tmp_path: Path) -> None:
    state_dict_saver.save({"a": torch.arange(1000.0)}, checkpoint_id=tmp_path / "sharded", no_dist=True)
    (tmp_path / "state.json").write_text('{"step": 8, "data_id": "d"}')
    assert find_damage(tmp_path, BEGUN) is None  # of a version without manifests
    part = next((tmp_path / "sharded").glob("*.distcp"))
    write_manifest(tmp_path)
    assert against_manifest(tmp_path) is None
    whole = part.read_bytes()
    flip(part)
    assert find_damage(tmp_path, BEGUN) == f"sharded/{part.name} has other content than was written"
    (tmp_path / MANIFEST).unlink()
    part.write_bytes(whole[:2000])
    assert find_damage(tmp_path, BEGUN) == f"sharded/{part.name} ends early"
    part.unlink()
    assert find_damage(tmp_path, BEGUN) == f"sharded/{part.name} is missing"
    cut(tmp_path / "sharded" / ".metadata")
    assert find_damage(tmp_path, BEGUN) == "sharded/.metadata cannot be read"
