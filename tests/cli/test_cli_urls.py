"""`find`, `export`, `review` and `evaluate` on outputs and samples in buckets."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from buckets import upload
from footage import pan, write
from runs import curate, rows_of
from starlette.testclient import TestClient

import run_pipeline
from core.storage.object_store import open_object_store
from core.storage.opening import open_store
from curation.output.bucket import pull, push
from curation.output.commits import LEASE, last_commit, leftovers
from curation.output.remote import place_for
from curation.reviews import NAME as JOURNAL
from sampling.pictures import contact_sheet, write_image, write_mp4

RECIPE = "shots: {min_s: 1.0, max_s: 3.0}\noperators: {facts: , brightness: , temporal_hash: }\nrules: {}\n"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of two short films."""
    folder = tmp_path_factory.mktemp("urls")
    (folder / "films").mkdir()
    (folder / "quick.yaml").write_text(RECIPE)
    for seed in (1, 2):
        write(folder / "films" / f"{seed}.mp4", list(pan(48, seed=seed)))
    curate(folder / "films", "--config", folder / "quick.yaml", out=folder / "out")
    return folder / "out"


@pytest.fixture
def url(out: Path, bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The output in a bucket."""
    monkeypatch.setenv("SELECTS_STAGE", str(tmp_path / "stage"))
    push(out, open_store(f"{bucket_url}/sets/one"))
    return f"{bucket_url}/sets/one"


def run(*words: object) -> int:
    return run_pipeline.main([str(word) for word in words])


def test_find_asks_an_output_in_a_bucket_by_a_picture_in_one_and_writes_there(
    url: str, out: Path, bucket_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (like, *others) = rows_of(out)
    picture = next((out / "previews").rglob(f"{like}-0.jpg"))
    open_store(bucket_url).put("asked.jpg", picture)
    assert run("find", out, picture, "--json") == 0
    local = json.loads(capsys.readouterr().out)
    selection = f"{bucket_url}/chosen/one"
    assert run("find", url, f"{bucket_url}/asked.jpg", "--limit", 1, "--write", selection, "--json") == 0
    remote = json.loads(capsys.readouterr().out)
    assert remote["clips"] == local["clips"][:1]
    chosen = remote["clips"][0]["clip_id"]
    assert chosen in open_store(bucket_url).read("chosen/one").decode()
    assert run("export", url, "--clips", selection, "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 1
    assert not list(tmp_path.rglob("outgoing/*"))
    for option in ("--page", "--sheets"):
        assert run("report", url, option, f"{bucket_url}/page.html") == 2
        assert f"{option} {bucket_url}/page.html: is written on this machine" in capsys.readouterr().err
    assert others


def served(monkeypatch: pytest.MonkeyPatch, visit: Callable[[TestClient], None]) -> None:
    """Let somebody visit the page of `review`, who ends it."""

    def listen(app: object, host: str, port: int, on_ready: Callable[[str], None]) -> None:
        on_ready("http://127.0.0.1")
        visit(TestClient(app, base_url="http://127.0.0.1"))
        raise KeyboardInterrupt

    monkeypatch.setattr("serving.review.serve.listen", listen)


def test_what_reviewers_say_of_an_output_in_a_bucket_is_committed_and_judged(
    url: str, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dropped, captioned = list(rows_of(out))[:2]
    film = (out / rows_of(out)[captioned]["clip_path"]).read_bytes()
    monkeypatch.setenv("SELECTS_COMMIT_S", "0.1")
    store = open_object_store(url)

    def visit(page: TestClient) -> None:
        assert "one</title>" in page.get("/").text
        assert page.get(f"/media/clip/{captioned}").content == film
        assert page.get(f"/media/picture/{captioned}/0").status_code == 200
        for saying in ({"clip_id": dropped, "review": "drop"}, {"clip_id": captioned, "caption": "by hand"}):
            assert page.post("/api/reviews", json=saying).status_code == 200
        assert any(entry.key == LEASE for entry in store.list())  # nobody else writes meanwhile
        assert run("select", url) == 2
        until = time.monotonic() + 60
        while JOURNAL not in last_commit(store).files:  # committed while the review goes on
            assert time.monotonic() < until
            time.sleep(0.05)

    served(monkeypatch, visit)
    assert run("review", url) == 0
    told = capsys.readouterr()
    assert f"error: {url} is in use by process" in told.err
    assert leftovers(store) == []
    assert not any(entry.key == LEASE for entry in store.list())
    pull(store, tmp_path / "copy")
    rows = rows_of(tmp_path / "copy")
    assert (rows[dropped]["status"], rows[dropped]["reasons"]) == ("rejected", ["review:drop"])
    assert "by hand" in (tmp_path / "copy" / JOURNAL).read_text()
    assert store.read(f"_retired/{dropped}.mp4")
    assert (tmp_path / "copy" / rows[captioned]["clip_path"]).read_bytes() == film
    assert not (place_for(url) / "out").exists()


def test_a_review_whose_output_was_taken_keeps_what_was_said(
    url: str, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip_id = next(iter(rows_of(out)))
    store = open_object_store(url)

    def visit(page: TestClient) -> None:
        assert page.post("/api/reviews", json={"clip_id": clip_id, "review": "keep"}).status_code == 200
        last = last_commit(store)
        store.put(f"_commits/{last.number + 1:08d}.json", store.read(f"_commits/{last.number:08d}.json"))

    served(monkeypatch, visit)
    assert run("review", url) == 1
    told = capsys.readouterr().err
    assert "another process has committed meanwhile" in told and told.count("\n") == 1
    (kept,) = place_for(url).glob("said-*.jsonl")
    assert clip_id in kept.read_text()


def landscape(seed: int) -> np.ndarray:
    return np.stack(list(pan(24, seed=seed))).astype(np.uint8)


def samples_at(folder: Path) -> Path:
    """Write two samples as `sample` does."""
    folder.mkdir()
    for seed, name in enumerate(("dune", "rain")):
        write_mp4(landscape(seed), 24.0, folder / f"{name}.mp4")
        write_image(contact_sheet([landscape(seed)], [name]), folder / f"{name}.png")
        (folder / f"{name}.json").write_text(json.dumps({"prompt": name, "num_frames": 24}))
    return folder


def test_samples_in_a_bucket_are_evaluated_beside_them(
    url: str, bucket_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = f"{bucket_url}/made"
    samples = samples_at(tmp_path / "samples")
    upload(samples, made)
    assert run("evaluate", samples, "--reference", url, "--runner", "inline") == 0
    capsys.readouterr()
    for again in (False, True):
        assert run("evaluate", made, "--reference", url, "--runner", "inline", "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert told["evaluation"] == f"{made}/evaluation/evaluate.json"
        assert told["page"] == f"{made}/evaluation/compare.html"
        values = json.loads(open_store(made).read("evaluation/evaluate.json"))
        local = json.loads((samples / "evaluation" / "evaluate.json").read_text())
        assert values["samples"]["files"] == [f"{made}/dune.mp4", f"{made}/rain.mp4"]
        assert values["samples"]["without_prompt"] == 0
        assert values["reference"]["path"] == url
        assert values["scores"] == local["scores"]
        if not again:
            shutil.rmtree(tmp_path / "stage")  # another machine
    assert last_commit(open_store(f"{made}/evaluation")).number >= 1
    assert run("evaluate", url, "--runner", "inline") == 2
    assert "an output of curate, no folder of samples" in capsys.readouterr().err
    assert run("evaluate", f"{made}/*.mp4", "--runner", "inline") == 2
    assert "leave the wildcards out" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "studio"])
def test_servers_take_models_from_buckets_and_keep_jobs_here(
    command: str, bucket_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = f"{bucket_url}/model"
    open_store(bucket_url).put("model/readme.txt", b"nothing")
    assert run(command, model, "--output", f"{bucket_url}/jobs") == 2
    assert f"--output {bucket_url}/jobs: is written on this machine; name a path here" in capsys.readouterr().err
