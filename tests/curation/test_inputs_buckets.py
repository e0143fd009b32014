"""Sources in buckets: which are found, when they count as new, and that the same table comes of them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import KEY_ID, SECRET, make_bucket, point_at, upload
from faulty_proxy import faulty_proxy
from footage import pan, write
from runs import assert_same_output, curate, rows_of

from core.errors import UserError
from core.storage.opening import open_store
from curation.inputs.sources import find_sources

WHERE = frozenset(("source_root", "source_mtime_ns"))
RECIPE = """shots: {min_s: 1.0, max_s: 3.0}
operators: {facts: , brightness: , sharpness: }
rules: {brightness: {min: 0.02}}
"""


@pytest.fixture(autouse=True)
def own_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELECTS_STAGE", str(tmp_path / "stage"))
    return tmp_path / "stage"


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    (folder / "day one").mkdir(parents=True)
    (tmp_path / "quick.yaml").write_text(RECIPE)
    write(folder / "a.mp4", list(pan(96)))
    write(folder / "day one" / "b.mp4", list(pan(80, seed=3)))
    (folder / "broken.mp4").write_bytes(b"no film at all" * 100)
    (folder / "notes.txt").write_text("nothing\n")
    return folder


def put_all(url: str, *keys: str) -> None:
    store = open_store(url)
    for key in keys:
        store.put(key, key.encode())


def found(*inputs: str) -> list[tuple[str, str]]:
    return [(source.root, source.path) for source in find_sources(inputs)]


def test_prefixes_objects_globs_and_lists_name_sources(bucket_url: str, tmp_path: Path) -> None:
    put_all(bucket_url, "raw/a.mp4", "raw/deep/b.MOV", "raw/deep/c.txt", "rawer/d.mp4", "e.png", "raw/.hidden.mp4")
    raw = f"{bucket_url}/raw"
    assert found(raw) == found(f"{raw}/") == [(raw, "a.mp4"), (raw, "deep/b.MOV")]
    assert found(bucket_url) == [(bucket_url, p) for p in ("e.png", "raw/a.mp4", "raw/deep/b.MOV", "rawer/d.mp4")]
    assert found(f"{raw}/a.mp4") == [(raw, "a.mp4")]
    assert found(f"{bucket_url}/raw*/*.mp4") == [(bucket_url, "raw/a.mp4"), (bucket_url, "rawer/d.mp4")]
    assert found(f"{raw}/**/*.M[A-O]V") == [(raw, "deep/b.MOV")]
    assert found(f"{raw}/**") == [(raw, "a.mp4"), (raw, "deep/b.MOV")]
    local = tmp_path / "here.mp4"
    local.write_bytes(b"x")
    names = tmp_path / "list.txt"
    names.write_text(f"{raw}/a.mp4\nhere.mp4\n{bucket_url}/rawer\n{raw}/gone.mp4\n")
    assert found(str(names)) == [
        (str(tmp_path), "here.mp4"), (raw, "a.mp4"), (f"{bucket_url}/rawer", "d.mp4"), (raw, "gone.mp4"),
    ]  # fmt: skip
    open_store(bucket_url).put("lists/all.csv", f"id,video\n1,../raw/a.mp4\n2,{bucket_url}/e.png\n".encode())
    assert [source.url for source in find_sources([f"{bucket_url}/lists/all.csv"])] == [
        f"{raw}/a.mp4", f"{bucket_url}/e.png",
    ]  # fmt: skip


def test_local_and_remote_files_of_one_path_are_told_apart(bucket_url: str, s3_address: str, tmp_path: Path) -> None:
    other = f"s3://{make_bucket(s3_address)}"
    put_all(bucket_url, "x/a.mp4", "a.mp4")
    put_all(other, "a.mp4")
    (tmp_path / "a.mp4").write_bytes(b"x")
    sources = find_sources([str(tmp_path), bucket_url, f"{bucket_url}/x", other])
    assert len({source.path for source in sources}) == 4
    assert {source.url for source in sources} == {
        str(tmp_path / "a.mp4"), f"{bucket_url}/x/a.mp4", f"{bucket_url}/a.mp4", f"{other}/a.mp4",
    }  # fmt: skip
    assert find_sources([str(tmp_path), bucket_url, f"{bucket_url}/x", other], sources) == sources


def test_a_changed_object_is_another_source_and_a_copied_one_is_not(bucket_url: str) -> None:
    store = open_store(bucket_url)
    store.put("a.mp4", b"first")
    (first,) = find_sources([bucket_url])
    store.put("a.mp4", b"first")
    assert find_sources([bucket_url]) == [first]
    store.put("a.mp4", b"other")
    (other,) = find_sources([bucket_url])
    assert (other.path, other.size_bytes) == (first.path, first.size_bytes)
    assert other.mtime_ns != first.mtime_ns


@pytest.mark.parametrize(
    ("end", "words"), [("/none", "no video or image"), ("/none/*.mp4", "matches no video"), ("-x", "no such bucket")]
)
def test_what_names_nothing_is_an_error_in_one_line(bucket_url: str, end: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as told:
        find_sources([f"{bucket_url}{end}"])
    assert "\n" not in str(told.value)
    assert SECRET not in str(told.value)


def test_clips_of_an_output_in_a_bucket_are_no_footage(bucket_url: str, films: Path, tmp_path: Path) -> None:
    curate(films / "a.mp4", "--config", films.parent / "quick.yaml", out=tmp_path / "out")
    upload(tmp_path / "out", f"{bucket_url}/sets/out")
    put_all(bucket_url, "sets/film.mp4")
    assert found(bucket_url) == [(bucket_url, "sets/film.mp4")]
    with pytest.raises(UserError, match="output"):
        find_sources([f"{bucket_url}/sets/out"])


def same_but_for_places(one: Path, other: Path) -> None:
    assert_same_output(one, other, WHERE)


def texts_of(out: Path) -> Iterator[bytes]:
    yield from (p.read_bytes() for p in out.rglob("*") if p.is_file())


def test_a_bucket_gives_the_table_of_local_files_and_no_secret(
    bucket_url: str, films: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    upload(films, f"{bucket_url}/films")
    curate(films, "--config", films.parent / "quick.yaml", out=tmp_path / "local")
    curate(f"{bucket_url}/films", "--config", films.parent / "quick.yaml", out=tmp_path / "remote")
    same_but_for_places(tmp_path / "local", tmp_path / "remote")
    rows = rows_of(tmp_path / "remote").values()
    assert {row["source_root"] for row in rows} == {f"{bucket_url}/films"}
    assert {row["status"] for row in rows} >= {"failed"}
    run = json.loads((tmp_path / "remote" / "run.json").read_text())
    size = sum(p.stat().st_size for p in films.rglob("*.mp4"))
    assert run["storage"].pop("waited_s") > 0
    assert run["storage"] == {"fetched_bytes": size, "fetched_share": 1.0}
    assert "storage" not in json.loads((tmp_path / "local" / "run.json").read_text())
    for content in (*texts_of(tmp_path / "remote"), "".join(capfd.readouterr()).encode()):
        assert SECRET.encode() not in content
        assert KEY_ID.encode() not in content
    before = rows_of(tmp_path / "remote")
    curate(
        f"{bucket_url}/films", "--config", films.parent / "quick.yaml", out=tmp_path / "remote"
    )  # nothing is missing
    assert "up to date" in capfd.readouterr().out
    write(films / "a.mp4", list(pan(90, seed=9)))
    upload(films, f"{bucket_url}/films")
    curate(f"{bucket_url}/films", "--config", films.parent / "quick.yaml", out=tmp_path / "remote")
    changed = {row["source_path"] for key, row in rows_of(tmp_path / "remote").items() if key not in before}
    assert changed == {"a.mp4"}


@pytest.mark.slow
def test_a_network_that_breaks_changes_nothing(
    s3_address: str, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(s3_address, monkeypatch, tmp_path)
    url = f"s3://{make_bucket(s3_address)}"
    upload(films, url)
    curate(films, "--config", films.parent / "quick.yaml", out=tmp_path / "local")
    faults = ("500", "", "503", "", "truncate", "", "reset", "")
    with faulty_proxy(s3_address, lambda n, method, path: faults[n % len(faults)]) as (address, traffic):
        point_at(address, monkeypatch, tmp_path)
        curate(url, "--config", films.parent / "quick.yaml", out=tmp_path / "remote")
    assert traffic.faults.total() >= 4
    same_but_for_places(tmp_path / "local", tmp_path / "remote")


def test_a_web_server_gives_files_named_one_by_one(
    s3_address: str, bucket_url: str, films: Path, tmp_path: Path
) -> None:
    web = f"{s3_address}/{bucket_url.removeprefix('s3://')}"
    boto3 = pytest.importorskip("boto3")
    upload(films, bucket_url)
    s3 = boto3.client("s3", endpoint_url=s3_address)
    for name in ("a.mp4", "day one/b.mp4"):
        s3.put_object_acl(Bucket=bucket_url.removeprefix("s3://"), Key=name, ACL="public-read")
    put_all(bucket_url, "private.mp4")
    names = tmp_path / "names.txt"
    names.write_text(f"{web}/a.mp4\n{web}/day%20one/b.mp4\n{web}/private.mp4\n")
    curate(names, "--config", films.parent / "quick.yaml", out=tmp_path / "out")
    rows = rows_of(tmp_path / "out").values()
    assert {row["source_path"] for row in rows if row["status"] != "failed"} == {"a.mp4", "b.mp4"}
    (failed,) = [row["error"] for row in rows if row["status"] == "failed"]
    assert failed.startswith(f"probe: {web}/private.mp4: access is denied; ")
    with pytest.raises(UserError, match="access is denied"):
        find_sources([f"{web}/private.mp4"])


def test_copies_go_when_there_is_no_room_but_not_while_they_are_read(
    bucket_url: str, own_stage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.storage.staging import staged

    store = open_store(bucket_url)
    for name in "abc":
        store.put(f"{name}.mp4", name.encode() * 1000)
    sources = {source.path: source for source in find_sources([bucket_url])}
    monkeypatch.setenv("SELECTS_STAGE_GB", str(2500 / 1e9))
    read: list[int] = []
    a, b, c = (sources[f"{name}.mp4"] for name in "abc")
    with staged(a.url, a.mtime_ns, read.append) as first:
        with staged(b.url, b.mtime_ns, read.append), staged(a.url, a.mtime_ns, read.append):
            pass
        with staged(c.url, c.mtime_ns, read.append):
            assert first.read_bytes() == b"a" * 1000
            assert c.file.read_bytes() == b"c" * 1000
            assert not b.file.exists()
    assert read == [1000] * 3
    assert not list(own_stage.glob(".*"))


def test_an_object_that_changed_since_it_was_planned_fails(bucket_url: str, films: Path, tmp_path: Path) -> None:
    from curation.analysis.media_calls import MediaCalls, SourceFailed

    del films
    store = open_store(bucket_url)
    store.put("a.mp4", b"first")
    (source,) = find_sources([bucket_url])
    store.put("a.mp4", b"other")
    from cli.common import TABLES
    from configs import CONFIGS
    from curation.recipe import load_recipe
    from curation.work import Plan

    recipe, _ = load_recipe(CONFIGS / "default.yaml", [], TABLES)
    calls = MediaCalls(Plan(recipe, str(tmp_path), "run"), "probe", lambda done: None)
    with pytest.raises(SourceFailed) as failed:
        list(calls.run("probe", source))
    assert "has changed since it was planned" in str(failed.value.error)


@pytest.mark.slow
def test_ray_workers_fetch_as_the_plain_loop_does(bucket_url: str, films: Path, tmp_path: Path) -> None:
    upload(films, bucket_url)
    recipe = str(films.parent / "quick.yaml")
    curate(films, "--config", recipe, out=tmp_path / "local")
    command = ["run_pipeline.py", "curate", bucket_url, "--config", recipe, "--output", str(tmp_path / "remote")]
    root = Path(__file__).resolve().parents[2]
    subprocess.run(
        [sys.executable, *command], cwd=root, check=True
    )  # with a Ray of its own, that has these credentials
    same_but_for_places(tmp_path / "local", tmp_path / "remote")


@pytest.mark.slow
def test_a_large_film_that_cannot_be_read_fails_before_it_is_fetched(
    bucket_url: str, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation.analysis.look.LEAST_BYTES", 1 << 20)
    size = 4 << 20
    good, bad = films / "a.mp4", films / "bad.mp4"
    good.write_bytes(good.read_bytes() + size.to_bytes(4, "big") + b"free" + bytes(size - 8))
    bad.write_bytes(good.read_bytes()[:32] + bytes(size))
    words = ("--config", tmp_path / "quick.yaml")
    curate(films, *words, out=tmp_path / "local")
    upload(films, f"{bucket_url}/films")
    curate(f"{bucket_url}/films", *words, out=tmp_path / "remote")
    assert_same_output(tmp_path / "local", tmp_path / "remote", WHERE)
    storage = json.loads((tmp_path / "remote" / "run.json").read_text())["storage"]
    sizes = sum(path.stat().st_size for path in films.rglob("*.mp4") if path != bad)
    assert storage["fetched_bytes"] == sizes
    assert 0 < storage["looked_bytes"] < 0.05 * 2 * size
    assert 0 < storage["looked_share"] < 0.05
