"""Outputs in buckets: readers see one whole state, whatever breaks, and commands read them as local ones."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from buckets import SECRET, make_bucket, point_at
from faulty_proxy import Fault, faulty_proxy
from footage import pan, write
from runs import curate

import run_pipeline
from configs import CONFIGS
from core.errors import UserError
from core.storage.local import LocalStore
from core.storage.object_store import Budget, open_object_store
from core.storage.opening import open_store
from core.storage.store import Store, StoreError
from curation.output.bucket import pull, push
from curation.output.commits import COMMITS, last_commit, leftovers, remove

RECIPE = "# The recipe of this output\nshots: {}\n"


@pytest.fixture(autouse=True)
def own_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELECTS_STAGE", str(tmp_path / "stage"))


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(tmp_path / "pushed")
    return open_store(request.getfixturevalue("bucket_url") + "/out")


def make_output(folder: Path, **files: str) -> Path:
    """Write files by path, with `__` for `/` and `_` before the suffix; each output has a recipe."""
    for name, text in {"recipe_yaml": RECIPE, **files}.items():
        stem, _, suffix = name.replace("__", "/").rpartition("_")
        path = folder / f"{stem}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def texts(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {p.relative_to(folder).as_posix(): p.read_text() for p in files}


def test_what_is_pushed_is_pulled_and_nothing_else(store: Store, tmp_path: Path) -> None:
    out = make_output(tmp_path / "out", clips__part_parquet="rows", train__a_mp4="film", _parts__x_parquet="midway")
    (out / ".lock").write_text("")
    commit = push(out, store)
    assert commit.number == 1
    assert set(commit.files) == {"recipe.yaml", "clips/part.parquet", "train/a.mp4"}
    assert {path: store.read(path).decode() for path in commit.files} == {
        "recipe.yaml": RECIPE, "clips/part.parquet": "rows", "train/a.mp4": "film",
    }  # fmt: skip
    pull(store, tmp_path / "copy")
    assert texts(tmp_path / "copy").keys() == set(commit.files)
    assert push(out, store).number == 1  # nothing has changed
    assert leftovers(store) == []


def test_a_changed_output_replaces_what_was_there(store: Store, tmp_path: Path) -> None:
    out = make_output(tmp_path / "out", clips__one_parquet="1", train__a_mp4="a", train__b_mp4="b")
    push(out, store)
    pull(store, tmp_path / "copy")
    (out / "train" / "b.mp4").unlink()
    make_output(out, clips__one_parquet="2", train__c_mp4="c")
    assert push(out, store).number == 2
    pull(store, tmp_path / "copy")
    assert texts(tmp_path / "copy") == texts(out)
    assert store.read("clips/one.parquet") == b"2"  # for those who know no commits
    assert {e.key for e in store.list("train/")} == {"train/a.mp4", "train/c.mp4"}
    left = {entry.key for entry in leftovers(store)}
    assert left == {f"{COMMITS}/00000001.json"}
    assert remove(store, leftovers(store)) == 1
    pull(store, tmp_path / "fresh")
    assert texts(tmp_path / "fresh") == texts(out)


def test_readers_of_the_commit_before_have_it_whole_until_the_next_one_is_there(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_object_store(bucket_url)
    out = make_output(tmp_path / "out", **{f"clips__p{n}_parquet": f"old {n}" for n in range(6)})
    push(out, store)
    old = texts(out)
    make_output(out, **{f"clips__p{n}_parquet": f"new {n}" for n in range(4)}, train__x_mp4="x")
    (out / "clips" / "p5.parquet").unlink()
    seen = []

    class Watched(type(store)):
        def put(self, key, content):
            return self._after(super().put(key, content))

        def copy(self, key, to):
            return self._after(super().copy(key, to))

        def _after(self, version):
            copy = tmp_path / f"copy-{len(seen)}"
            try:
                pull(store, copy)
                seen.append(texts(copy))
            except StoreError:
                seen.append({})
            return version

    push(out, Watched(store.place))
    assert len(seen) == 5 + 4  # to their objects, and then to their own names
    assert seen[:5] == [old] * 5
    assert all(each in ({}, texts(out)) for each in seen[5:])
    assert seen[-1] == texts(out)


@pytest.mark.parametrize("dies_at", range(6))
def test_a_push_that_dies_leaves_the_commit_before_and_the_next_one_completes(
    dies_at: int, bucket_url: str, tmp_path: Path
) -> None:
    store = open_object_store(bucket_url)
    out = make_output(tmp_path / "out", clips__p_parquet="old", train__a_mp4="a")
    push(out, store)
    old = texts(out)
    make_output(out, clips__p_parquet="new", train__b_mp4="b", train__c_mp4="c")
    count = 0

    class Dying(type(store)):
        def put(self, key, content):
            nonlocal count
            count += 1
            if count > dies_at:
                raise StoreError("the process died")
            return super().put(key, content)

        def copy(self, key, to):
            nonlocal count
            count += 1
            if count > dies_at:
                raise StoreError("the process died")
            return super().copy(key, to)

    if dies_at < 4:
        with pytest.raises(StoreError, match="died"):
            push(out, Dying(store.place))
    else:
        push(out, Dying(store.place))
    pull(store, tmp_path / "copy")
    assert texts(tmp_path / "copy") == (old if dies_at < 3 else texts(out))
    push(out, store)
    pull(store, tmp_path / "copy")
    assert texts(tmp_path / "copy") == texts(out)
    assert store.read("clips/p.parquet") == b"new"  # for those who know no commits
    remove(store, leftovers(store))
    pull(store, tmp_path / "fresh")
    assert texts(tmp_path / "fresh") == texts(out)


@pytest.mark.parametrize("fault", ["500", "reset", "truncate", "lost"])
def test_a_network_that_breaks_costs_time_alone(
    fault: Fault, s3_address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = make_output(tmp_path / "out", **{f"train__{n}_mp4": f"film {n}" * 100 for n in range(12)})
    with faulty_proxy(s3_address, lambda n, method, path: fault if n % 3 == 0 else "") as (address, traffic):
        point_at(address, monkeypatch, tmp_path)
        store = open_object_store(f"s3://{make_bucket(s3_address)}", Budget(8, 0.01))
        push(out, store)
        pull(store, tmp_path / "copy")
        assert texts(tmp_path / "copy") == texts(out)
        assert leftovers(store) == []
    assert traffic.faults[fault] >= 8


def test_what_was_changed_in_a_copy_and_never_pushed_is_put_right(store: Store, tmp_path: Path) -> None:
    out = make_output(tmp_path / "out", clips__p_parquet="rows", train__a_mp4="film")
    push(out, store)
    copy = tmp_path / "copy"
    pull(store, copy)
    (copy / "clips" / "p.parquet").write_text("half")
    (copy / "train" / "a.mp4").unlink()
    (copy / "page.html").write_text("of a command that was killed")
    pull(store, copy)
    assert texts(copy) == texts(out)


def test_a_damaged_object_and_a_damaged_commit_are_errors(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "pushed")
    with pytest.raises(UserError, match="no output of this program"):
        pull(store, tmp_path / "copy")
    commit = push(make_output(tmp_path / "out", clips__p_parquet="rows"), store)
    store.put(f"{COMMITS}/00000002.json", b"{}")
    with pytest.raises(StoreError, match="not a commit"):
        last_commit(store)
    store.delete(f"{COMMITS}/00000002.json")
    store.put("clips/p.parquet", b"sown")
    with pytest.raises(StoreError, match="changed"):
        pull(store, tmp_path / "copy")
    assert commit.files["clips/p.parquet"].size_bytes == 4


def test_another_output_is_not_replaced_by_mistake(bucket_url: str, tmp_path: Path) -> None:
    store = open_store(bucket_url)
    store.put("recipe.yaml", b"of somebody else")
    with pytest.raises(UserError, match="holds another output"):
        push(make_output(tmp_path / "out"), store)
    with pytest.raises(UserError, match="not an output of curate"):
        push(tmp_path, store)


def run(*words: object) -> int:
    return run_pipeline.main([str(word) for word in words])


@pytest.mark.slow
def test_commands_read_an_output_in_a_bucket_as_a_local_one(
    bucket_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "quick.yaml"
    recipe.write_text("shots: {min_s: 1.0, max_s: 3.0}\noperators: {facts: , brightness: }\n")
    write(tmp_path / "a.mp4", list(pan(96)))
    out, url = tmp_path / "out", f"{bucket_url}/sets/one"
    curate(tmp_path / "a.mp4", "--config", recipe, out=out)
    assert run("push", out, url) == 0
    for format, name in (("webvid", "metadata.csv"), ("diffusers", "metadata.jsonl")):
        assert run("export", out, "--format", format) == run("export", url, "--format", format) == 0
        made = [path for path in out.rglob("*") if path.suffix == Path(name).suffix and "clips" not in path.parts]
        for path in made:
            assert open_store(url).read(path.relative_to(out).as_posix()) == path.read_bytes()
    capsys.readouterr()
    assert run("report", out, "--json") == 0
    local = json.loads(capsys.readouterr().out)
    assert run("report", url, "--json") == 0
    remote = json.loads(capsys.readouterr().out)
    assert remote["summary"] == local["summary"]
    assert remote["scores"] == local["scores"]
    plans = []
    for data in (out, url):
        assert run("plan", CONFIGS / "train_vae_tiny.yaml", "--data", data, "--json") == 0
        planned = json.loads(capsys.readouterr().out)
        sizes = [{key: bucket[key] for key in ("num_frames", "height_px", "width_px")} for bucket in planned["buckets"]]
        plans.append((planned["rows"], sizes, planned["steps_per_epoch"]))
    assert plans[0] == plans[1]
    assert plans[0][0]["train"] > 0
    pull(open_store(url), tmp_path / "all")
    assert pq.read_table(tmp_path / "all" / "clips").equals(pq.read_table(out / "clips"))
    for path in (tmp_path / "all").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
    assert run("clean", url, "--remove") == 0
    capsys.readouterr()
    assert run("clean", url, "--json") == 0
    assert json.loads(capsys.readouterr().out)["leftovers"] == []
    assert run("report", f"{bucket_url}/none") == 2
    assert "no output of this program" in capsys.readouterr().err
    assert run("push", out, tmp_path / "x") == 2
    capsys.readouterr()
    assert run("push", out, "s3://") == 2
    assert "no bucket is named" in capsys.readouterr().err


@pytest.mark.slow
def test_a_vae_trains_on_an_output_in_a_bucket_as_on_a_local_one(bucket_url: str, tmp_path: Path) -> None:
    recipe = tmp_path / "quick.yaml"
    recipe.write_text("shots: {min_s: 1.0, max_s: 3.0}\noperators: {facts: , brightness: }\n")
    write(tmp_path / "a.mp4", list(pan(96)))
    out = tmp_path / "out"
    curate(tmp_path / "a.mp4", "--config", recipe, out=out)
    assert run("push", out, bucket_url) == 0
    losses = []
    for name, data in (("local", out), ("remote", bucket_url)):
        words = ("--data", data, "--output", tmp_path / name, "--runner", "inline", "train.steps=3")
        assert run("train", CONFIGS / "train_vae_tiny.yaml", *words) == 0
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        losses.append([value["vae"] for value in map(json.loads, lines) if value["what"] == "train"])
    assert losses[0]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    config = (tmp_path / "remote" / "config.yaml").read_text()
    assert f"metadata: {bucket_url}" in config
    assert str(tmp_path / "stage") not in config
