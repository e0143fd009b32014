"""From footage in a bucket to an output in it, on stores that are not moto: the same as in local folders."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from footage import pan, write
from object_servers import SERVICES, Service
from runs import assert_same_output, curate

import run_pipeline
from core.storage.opening import open_store
from curation.output.bucket import pull
from curation.output.commits import leftovers

WHERE = frozenset(("source_root", "source_mtime_ns"))
RECIPE = "shots: {min_s: 1.0, max_s: 3.0}\noperators: {facts: , brightness: }\n"


def run(*words: object) -> int:
    return run_pipeline.main([str(word) for word in words])


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVICES)
def test_a_bucket_is_curated_into_itself_and_its_output_used(
    name: str,
    service_of: Callable[[str], Service],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    service = service_of(name)
    service.point_at(monkeypatch, tmp_path)
    monkeypatch.setenv("SELECTS_STAGE", str(tmp_path / "stage"))
    bucket, local, recipe = service.bucket_url(), tmp_path / "local", tmp_path / "quick.yaml"
    recipe.write_text(RECIPE)
    films = tmp_path / "films"
    films.mkdir()
    write(films / "a.mp4", list(pan(96)))
    write(films / "b dark.mp4", [frame // 8 for frame in pan(96, seed=5)])
    raw = open_store(f"{bucket}/raw")
    for film in films.iterdir():
        raw.put(film.name, film)
    url = f"{bucket}/out"
    store = open_store(url)
    curate(films, "--config", recipe, out=local)
    assert run("curate", f"{bucket}/raw", "--config", recipe, "--output", url, "--runner", "inline") == 0
    pull(store, tmp_path / "copy")
    assert_same_output(local, tmp_path / "copy", WHERE)
    assert leftovers(store) == []
    capsys.readouterr()
    summaries = []
    for place in (local, url):
        assert run("report", place, "--json") == 0
        summaries.append(json.loads(capsys.readouterr().out))
        assert run("select", place, "rules.brightness.min=0.2") == 0
        assert run("export", place, "--format", "webvid") == 0
        capsys.readouterr()
    assert summaries[0]["summary"] == summaries[1]["summary"]
    assert summaries[0]["scores"] == summaries[1]["scores"]
    pull(store, tmp_path / "copy")
    assert_same_output(local, tmp_path / "copy", WHERE)
    assert list((local / "_retired").glob("*.mp4")), "something was rejected"
    assert store.read("webvid.csv") == (local / "webvid.csv").read_bytes()
    shown = [entry.key for entry in store.list("train/") if entry.key.endswith(".mp4")]
    assert {key.removeprefix("train/") for key in shown} == {path.name for path in (local / "train").glob("*.mp4")}
    assert run("curate", f"{bucket}/raw", "--output", url, "--runner", "inline") == 0
    assert "up to date" in capsys.readouterr().out
