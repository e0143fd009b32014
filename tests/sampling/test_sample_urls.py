"""`sample` with a model, media and an output in buckets: the same files as with local ones, and never half."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from buckets import upload
from pipelines import FAMILY, picture, write_pipeline

import run_pipeline
from core.storage.copies import Wanted, copied
from core.storage.object_store import open_object_store
from core.storage.opening import open_store
from curation.output.remote import remote_output
from models.lora.adapters import add_lora, export_lora
from models.lora.form import AdapterForm
from sampling.settings_file import settings_within
from train_bridge.remote import TRAINED

torch.set_num_threads(1)
QUICK = ("--steps", "2", "--guidance", "1", "--memory", "none", "--frames", "5", "--prompt", "snow")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained an adapter, with what sampling does not read beside it, and a picture."""
    folder = tmp_path_factory.mktemp("sampling")
    run = folder / "run"
    write_pipeline(run / "model")
    network = FAMILY.load(run / "model" / "transformer")
    add_lora(network, AdapterForm(4, None), FAMILY.lora_targets)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    (run / "lora").mkdir()
    export_lora(network, "default", run / "lora")
    (run / "checkpoints" / "step-00000001").mkdir(parents=True)
    (run / "checkpoints" / "step-00000001" / "state.json").write_text("{}")
    (run / "config.yaml").write_text("train:\n")
    picture(folder / "first.png")
    return folder


@pytest.fixture(autouse=True)
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELECTS_STAGE", str(tmp_path / "stage"))
    return tmp_path / "stage"


def sample(model: str | Path, output: str | Path, *words: str | Path) -> int:
    return run_pipeline.main(["sample", *map(str, (model, "--output", output, *QUICK, *words))])


def commit_run(url: str, run: Path) -> None:
    with remote_output(open_object_store(url), TRAINED) as output:
        shutil.copytree(run, output.folder, dirs_exist_ok=True)
        output.finish(is_complete=True)


def test_a_run_a_picture_and_an_output_in_a_bucket_are_as_local_ones(
    bucket_url: str, folder: Path, stage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, image, made = f"{bucket_url}/runs/one", f"{bucket_url}/in/first.png", f"{bucket_url}/made"
    commit_run(run, folder / "run")
    open_store(bucket_url).put("in/first.png", folder / "first.png")
    assert sample(folder / "run", tmp_path / "out", "--image", folder / "first.png") == 0
    capsys.readouterr()
    assert sample(run, made, "--image", image) == 0
    shown = capsys.readouterr().out.split()
    store = open_store(made)
    names = {Path(entry.key).suffix: entry.key for entry in store.list()}
    assert set(names) == {".mp4", ".json", ".png"}
    assert shown == [f"{made}/{names['.mp4']}"]
    settings = json.loads(store.read(names[".json"]))
    assert (settings["model"], settings["image"]) == (run, image)
    assert [lora["path"] for lora in settings["loras"]] == [f"{run}/lora/pytorch_lora_weights.safetensors"]
    (local,) = (tmp_path / "out").glob("*.mp4")
    (tmp_path / "theirs.mp4").write_bytes(store.read(names[".mp4"]))
    assert settings_within(tmp_path / "theirs.mp4")["image"] == "first.png"
    assert np.array_equal(frames_of(local), frames_of(tmp_path / "theirs.mp4"))
    assert not list(stage.rglob("step-*")), "checkpoints are not fetched"
    assert not list((stage / "outgoing").iterdir())
    assert str(stage) not in json.dumps(settings)


def test_the_same_request_on_another_machine_replaces_its_files_and_another_is_refused(
    bucket_url: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    upload(folder / "run" / "model", f"{bucket_url}/model")
    film = f"{bucket_url}/made/film.mp4"
    for machine in ("one", "two"):
        monkeypatch.setenv("SELECTS_STAGE", str(tmp_path / machine))
        assert sample(f"{bucket_url}/model", film) == 0
        assert sample(f"{bucket_url}/model", f"{bucket_url}/many") == 0
    assert {entry.key for entry in open_store(f"{bucket_url}/made").list()} == {"film.mp4", "film.json", "film.png"}
    assert len(list(open_store(f"{bucket_url}/many").list())) == 3
    before = open_store(bucket_url).read("made/film.mp4")
    capsys.readouterr()
    assert sample(f"{bucket_url}/model", film, "--seed", "9") == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: --output {film}: film.mp4 is there already, of another request")
    assert open_store(bucket_url).read("made/film.mp4") == before


def test_an_adapter_is_taken_from_a_bucket_with_its_scale(bucket_url: str, folder: Path, tmp_path: Path) -> None:
    upload(folder / "run" / "lora", f"{bucket_url}/lora")
    model = folder / "run" / "model"
    file = "pytorch_lora_weights.safetensors"
    for name in (f"{bucket_url}/lora:0.5", f"{bucket_url}/lora/{file}:0.5", f"{folder}/run/lora/{file}:0.5"):
        assert sample(model, tmp_path / f"{len(list(tmp_path.glob('*.mp4')))}.mp4", "--lora", name) == 0
    films = [frames_of(path) for path in sorted(tmp_path.glob("*.mp4"))]
    assert len(films) == 3
    assert np.array_equal(films[0], films[1]) and np.array_equal(films[0], films[2])


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("/none", "no such object, and none below it"),
        ("/in", "no model_index.json here or in model/"),
        ("-x", "no such bucket"),
    ],
)
def test_what_is_no_model_is_told_by_its_url(
    bucket_url: str, stage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, words: str
) -> None:
    open_store(bucket_url).put("in/readme.txt", b"nothing")
    assert sample(f"{bucket_url}{model}", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {bucket_url}{model}") and words in told
    assert str(stage) not in told and told.count("\n") == 1


def test_each_state_of_a_folder_has_a_copy_of_its_own_which_goes_when_nobody_reads_it(
    bucket_url: str, stage: Path
) -> None:
    store = open_object_store(bucket_url)

    def files() -> dict[str, Wanted]:
        return {entry.key: Wanted(store, entry) for entry in store.list()}

    store.put("a.txt", b"one")
    store.put("deep/b.txt", b"one")
    with copied(bucket_url, bucket_url, files()) as first:
        store.put("a.txt", b"two")
        with copied(bucket_url, bucket_url, files()) as second:
            assert (first / "a.txt").read_bytes() == b"one"
            assert (second / "a.txt").read_bytes() == b"two"
            assert (first / "deep/b.txt").stat().st_mtime_ns == (second / "deep/b.txt").stat().st_mtime_ns
            assert (first / "a.txt").stat().st_mtime_ns != (second / "a.txt").stat().st_mtime_ns
    with copied(bucket_url, bucket_url, files()) as again:
        assert again == second
        assert not first.exists()


def frames_of(path: Path) -> np.ndarray:
    import av

    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
