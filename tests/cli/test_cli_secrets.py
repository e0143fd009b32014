"""Secrets planted in every source of credentials are in no output: tables, pages, logs, configs, weights, messages."""

import json
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from buckets import make_bucket, point_at, upload
from footage import pan, write

import run_pipeline
from configs import CONFIGS
from core.storage.object_store import Budget, ObjectStore, open_object_store
from core.storage.opening import open_store
from curation.output.bucket import pull

RECIPE = "shots: {min_s: 1.0, max_s: 3.0}\noperators: {facts: , brightness: }\nrules: {}\n"
VARIABLES = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDKEYID0001",
    "AWS_SECRET_ACCESS_KEY": "planted/secret+0123456789abcdefghijklmn",
    "AWS_SESSION_TOKEN": "planted-session-token-0123456789",
    "AZURE_STORAGE_ACCOUNT_KEY": "cGxhbnRlZC1henVyZS1hY2NvdW50LWtleQ==",
    "AZURE_STORAGE_SAS_KEY": "sv=2024-01-01&sig=planted%2Fazure%2Fsas%3D",
}
PROFILE = {
    "aws_access_key_id": "AKIAPLANTEDPROFILE01",
    "aws_secret_access_key": "planted-profile-secret-0123456789abcdef",
    "aws_session_token": "planted-profile-token-0123456789",
}
WEB_IDENTITY = "planted-web-identity-token-0123456789"
GOOGLE = {
    "type": "service_account",
    "client_email": "planted@selects.invalid",
    "private_key_id": "planted-google-key-id-0123",
    "private_key": "-----BEGIN PRIVATE KEY-----\nplanted-google-private-key\n-----END PRIVATE KEY-----\n",
}
IN_URL = "planted-password-0123456789"


@pytest.fixture
def planted(s3_address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Return the secrets that are in the environment and in the files which it names."""
    home = tmp_path / "home"
    home.mkdir()
    point_at(s3_address, monkeypatch, home)
    monkeypatch.setenv("SELECTS_STAGE", str(tmp_path / "stage"))
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    lines = "".join(f"{name} = {value}\n" for name, value in PROFILE.items())
    (home / "no-credentials").write_text(f"[team]\n{lines}")
    monkeypatch.setenv("AWS_PROFILE", "team")
    (home / "identity").write_text(WEB_IDENTITY)
    (home / "google.json").write_text(json.dumps(GOOGLE))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(home / "google.json"))
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "planted")
    google = [GOOGLE["private_key_id"], "planted-google-private-key"]
    return [*VARIABLES.values(), "planted%2Fazure%2Fsas", *PROFILE.values(), WEB_IDENTITY, *google, IN_URL]


def by_web_identity(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Leave a token file as the only source of credentials of AWS."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(home / "identity"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/planted")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")


def by_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the profile as the only source of credentials of AWS."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)


def run(*words: object) -> int:
    return run_pipeline.main([str(word) for word in words])


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield everything in the files of a folder, tables and their metadata as text."""
    for path in (p for p in folder.rglob("*") if p.is_file()):
        yield path.name, path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            yield path.name, repr((table.to_pylist(), table.schema.metadata, pq.read_metadata(path).metadata)).encode()


def assert_without(secrets: list[str], found: Mapping[str, bytes] | list[tuple[str, bytes]]) -> None:
    items = list(found.items() if isinstance(found, Mapping) else found)
    for secret in secrets:
        for form in {secret, urllib.parse.quote(secret, safe=""), repr(secret)[1:-1]}:
            assert not [name for name, content in items if form.encode() in content], f"{secret} is shown"


@pytest.mark.slow
@pytest.mark.parametrize("source", ["environment", "profile"])
def test_outputs_of_all_commands_hold_no_secret(
    source: str,
    planted: list[str],
    s3_address: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if source == "profile":
        by_profile(monkeypatch)
    bucket = f"s3://{make_bucket(s3_address)}"
    (tmp_path / "films").mkdir()
    write(tmp_path / "films" / "a.mp4", list(pan(48)))
    (tmp_path / "films" / "broken.mp4").write_bytes(b"no film" * 99)
    upload(tmp_path / "films", f"{bucket}/raw")
    (tmp_path / "quick.yaml").write_text(RECIPE)
    curating = ("curate", f"{bucket}/raw", "--config", tmp_path / "quick.yaml", "--runner", "inline")
    assert run(*curating, "--output", f"{bucket}/set") == 0
    assert run(*curating, "--output", tmp_path / "out") == 0
    assert run("report", f"{bucket}/set") == run("export", f"{bucket}/set", "--format", "diffusers") == 0
    assert run("select", f"{bucket}/set", "rules.brightness.min=0.01") == 0
    training = ("--runner", "inline", "buckets.sizes_px=[32]", "buckets.frames=[5]", "train.steps=2")
    data = ("--data", f"{bucket}/set")
    assert run("train", CONFIGS / "train_vae_tiny.yaml", *data, "--output", f"{bucket}/run", *training) == 0
    assert run("train", CONFIGS / "train_vae_tiny.yaml", *data, "--output", tmp_path / "run", *training) == 0
    assert run("find", f"{bucket}/set", "film", "--by", "words", "--write", f"{bucket}/chosen.txt") in (0, 2)
    for place in ("set", "run"):
        pull(open_store(f"{bucket}/{place}"), tmp_path / "pulled" / place)
    store = open_store(bucket)
    objects = {entry.key: store.read(entry.key) for entry in store.list()}
    assert {"set/report.html", "set/run.json", "set/recipe.yaml", "run/config.yaml", "run/log.jsonl"} <= set(objects)
    assert any(name.startswith("run/checkpoints/") for name in objects)
    files = [each for name in ("out", "run", "pulled", "stage") for each in contents(tmp_path / name)]
    assert len(files) > 20
    written = "".join(capfd.readouterr())
    assert written
    assert_without(planted, objects | {"printed": written.encode()})
    assert_without(planted, files)


@pytest.mark.parametrize("url", ["s3://none-such/x", "gs://films/x", "az://films/x", "https://127.0.0.1:1/x.mp4"])
def test_what_is_refused_shows_no_secret(
    url: str, planted: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    impatient(monkeypatch)
    assert run("curate", url, "--output", tmp_path / "out", "--runner", "inline") == 2
    written = capfd.readouterr()
    assert written.err.startswith("error: ") and written.err.count("\n") == 1
    assert_without(planted, [("err", written.err.encode()), ("out", written.out.encode()), *contents(tmp_path / "out")])


def test_a_token_file_that_gives_no_access_is_not_shown(
    planted: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    impatient(monkeypatch)
    by_web_identity(monkeypatch, tmp_path / "home")
    assert run("report", "s3://films/x") == 2
    err = capfd.readouterr().err
    assert err.startswith("error: s3://films") and err.count("\n") == 1
    assert_without(planted, {"err": err.encode()})


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what does not answer be asked once."""
    for function in (ObjectStore.__init__, open_object_store):
        monkeypatch.setattr(function, "__defaults__", (Budget(tries=1, pause_s=0.01, most_s=1.0),))


USERINFO = f"s3://AKIAPLANTEDINURL0001:{IN_URL}@films/x"


@pytest.mark.parametrize(
    "words",
    [
        ("curate", USERINFO, "--output", "OUT", "--runner", "inline"),
        ("curate", "IN", "--output", USERINFO, "--runner", "inline"),
        *(("select", USERINFO), ("export", USERINFO), ("report", USERINFO), ("find", USERINFO, "film")),
        *(("review", USERINFO), ("clean", USERINFO), ("push", "OUT", USERINFO)),
        ("plan", str(CONFIGS / "train_vae_tiny.yaml"), "--data", USERINFO),
        ("train", str(CONFIGS / "train_vae_tiny.yaml"), "--data", "IN", "--output", USERINFO),
        ("train", str(CONFIGS / "train_vae_tiny.yaml"), "--data", "IN", "--output", "OUT", f"model.vae={USERINFO}"),
        ("sample", USERINFO, "--output", "OUT", "--prompt", "x"),
        ("sample", "IN", "--output", USERINFO, "--prompt", "x"),
        ("sample", "IN", "--output", "OUT", "--prompt", "x", "--image", USERINFO),
        ("sample", "IN", "--output", "OUT", "--prompt", "x", "--lora", f"{USERINFO}:0.5"),
        ("evaluate", USERINFO, "--runner", "inline"),
        ("evaluate", "IN", "--output", USERINFO, "--runner", "inline"),
        *(("serve", f"m={USERINFO}", "--output", "OUT"), ("studio", USERINFO, "--output", "OUT")),
    ],
    ids=" ".join,
)
def test_credentials_in_a_url_are_refused_and_not_shown(
    words: tuple[str, ...], planted: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    places = {"OUT": str(tmp_path / "out"), "IN": str(tmp_path)}
    assert run(*(places.get(word, word) for word in words)) == 2
    err = capfd.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert_without([*planted, "AKIAPLANTEDINURL0001"], [("err", err.encode()), *contents(tmp_path / "stage")])
