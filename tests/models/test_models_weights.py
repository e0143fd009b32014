"""Weights: found in order, hashed before use, fetched once, told of in one line when they cannot be had."""

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from huggingface_hub import constants

from models.errors import ModelError
from models.weights import deadline
from models.weights import fetch as weights_fetch
from models.weights import find as weights
from models.weights.fetch import fetch_weights, list_weights, verify_weights
from models.weights.find import file_name, find_weights, human_size, on_disk
from models.weights.repositories import find_repository
from models.weights.table import WEIGHTS, Weights

CONTENT = b"weights as published" * 1000
OTHER = b"something else"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
REVISION = "0123456789abcdef0123456789abcdef01234567"
DIRECT = Weights("github:someone/heads", REVISION, "sub/a+head.pth", SHA256, "MIT", len(CONTENT))
HUB = Weights("someone/tower", REVISION, "model.safetensors", SHA256, "MIT", len(CONTENT))


class Server:
    """Gives one content for every path, as the hub and GitHub do, slowly; counts how often it was asked."""

    def __init__(self, content: bytes = CONTENT, pause_s: float = 0.0):
        self.content, self.pause_s, self.paths = content, pause_s, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(outer.content)))
                self.send_header("ETag", f'"{hashlib.sha256(outer.content).hexdigest()}"')
                self.send_header("X-Repo-Commit", REVISION)
                self.end_headers()

            def do_GET(self):
                outer.paths.append(self.path)
                time.sleep(outer.pause_s)
                self.do_HEAD()
                self.wfile.write(outer.content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def server():
    made = Server()
    yield made
    made.server.shutdown()


@pytest.fixture(autouse=True)
def two_names(monkeypatch, tmp_path, server):
    """A head from GitHub and a tower from the hub; empty caches; a server instead of the network."""
    monkeypatch.setitem(WEIGHTS, "head", DIRECT)
    monkeypatch.setitem(WEIGHTS, "tower", HUB)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weights, "DIRECT_URL", server.address + "/{repository}/{revision}/{file}")
    monkeypatch.delenv("SELECTS_WEIGHTS", raising=False)


def in_hub_cache(tmp_path, content=CONTENT):
    """Lay a file into the hub's cache as the hub's library does."""
    blob = tmp_path / "hub" / "models--someone--tower" / "blobs" / hashlib.sha256(content).hexdigest()
    link = tmp_path / "hub" / "models--someone--tower" / "snapshots" / REVISION / HUB.file
    for path in (blob, link):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.symlink_to(os.path.relpath(blob, link.parent))
    return link


def test_every_entry_is_held_to_one_content_and_has_a_file_name_of_its_own():
    for name, entry in WEIGHTS.items():
        assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256), name
        assert re.fullmatch(r"[0-9a-f]{40}|main", entry.revision), name
        assert entry.file.endswith((".safetensors", ".pth", ".pt", ".onnx")), name  # none of them runs code
        assert entry.size_bytes > 1000, name
    assert len({file_name(name) for name in WEIGHTS}) == len(WEIGHTS)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("laion-mlp-l-14", "improved_sac+logos+ava1-l14-linearMSE.pth"),
        ("laion-v1-l-14", "laion_sa_0_4_vit_l_14_linear.pth"),
        ("laion-v1-b-16", "laion_sa_0_4_vit_b_16_linear.pth"),
        ("laion-v1-b-32", "laion_sa_0_4_vit_b_32_linear.pth"),
    ],
)
def test_the_real_heads_are_the_published_ones(shared, tmp_path, name, file):
    (tmp_path / file_name(name)).symlink_to(shared / "weights" / file)
    assert find_weights(name, tmp_path).resolve() == (shared / "weights" / file).resolve()
    assert WEIGHTS[name].size_bytes == (shared / "weights" / file).stat().st_size


def test_the_weights_folder_comes_before_the_cache_and_the_cache_before_the_network(tmp_path, monkeypatch, server):
    cached = in_hub_cache(tmp_path)
    assert find_weights("tower") == cached
    folder = tmp_path / "folder"
    folder.mkdir()
    assert find_weights("tower", folder) == cached
    (folder / "tower.safetensors").write_bytes(CONTENT)
    assert find_weights("tower", folder) == folder / "tower.safetensors"
    monkeypatch.setenv("SELECTS_WEIGHTS", str(folder))
    assert find_weights("tower") == folder / "tower.safetensors"
    assert server.paths == []


def test_a_file_of_github_is_fetched_from_its_commit_and_kept(server):
    path = find_weights("head")
    assert path.read_bytes() == CONTENT
    assert find_weights("head") == path
    assert server.paths == [f"/someone/heads/{REVISION}/sub/a%2Bhead.pth"]


def test_another_content_is_refused_and_fetching_again_mends_it(tmp_path, server):
    path = find_weights("head")
    path.write_bytes(OTHER)
    with pytest.raises(ModelError, match=r"not the published head \(sha256 .*weights fetch head$"):
        find_weights("head")
    assert verify_weights(["head"])[1] is False
    fetch_weights(["head"], say=lambda line: None)
    assert find_weights("head").read_bytes() == CONTENT
    assert verify_weights(["head"])[1] is True
    (tmp_path / "head.pth").write_bytes(OTHER)
    with pytest.raises(ModelError, match=f"weights fetch head --weights {re.escape(str(tmp_path))}$"):
        find_weights("head", tmp_path)


def test_a_source_that_gives_something_else_is_refused(server):
    server.content = OTHER
    with pytest.raises(ModelError, match="not the published head"):
        find_weights("head")
    with pytest.raises(ModelError, match="now gives another sub/a.head.pth"):
        fetch_weights(["head"])


@pytest.mark.parametrize("name", ["head", "tower"])
def test_offline_one_line_names_the_file_its_size_and_the_command(monkeypatch, name, server):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError) as told:
        find_weights(name)
    text = str(told.value)
    assert "\n" not in text
    assert WEIGHTS[name].file in text and "20 kB" in text and WEIGHTS[name].repository in text
    assert f"run_pipeline.py weights fetch {name} --weights DIR" in text
    assert server.paths == []


def test_no_answer_from_the_network_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(weights, "_download_direct", lambda name, *, again: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(ModelError, match=r"cannot be fetched \(no route\)"):
        find_weights("head")


def test_an_unknown_name_and_a_missing_folder_are_told(tmp_path):
    with pytest.raises(ModelError, match="'tover': no such weights; known: clip-vit-l-14"):
        find_weights("tover")
    with pytest.raises(ModelError, match="no such folder"):
        find_weights("head", tmp_path / "absent")


FETCH = """
import sys
from models.weights import find as weights
from models.weights.table import WEIGHTS, Weights
weights.DIRECT_URL = sys.argv[1] + "/{repository}/{revision}/{file}"
WEIGHTS["head"] = Weights("github:someone/heads", sys.argv[2], "head.pth", sys.argv[3], "MIT", 1)
WEIGHTS["tower"] = Weights("someone/tower", sys.argv[2], "model.safetensors", sys.argv[3], "MIT", 1)
print(weights.find_weights(sys.argv[4]))
"""


@pytest.mark.parametrize("name", ["head", "tower"])
def test_workers_of_one_machine_that_start_together_fetch_once(tmp_path, server, name):
    server.pause_s = 3.0  # the second asks while the first still waits
    environment = os.environ | {
        "HF_ENDPOINT": server.address,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    words = [sys.executable, "-c", FETCH, server.address, REVISION, SHA256, name]
    workers = [
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], told
    assert told[0][0] == told[1][0]
    assert Path(told[0][0].strip()).read_bytes() == CONTENT
    assert len(server.paths) == 1


def test_fetching_into_a_folder_makes_a_machine_without_network_ready(tmp_path, monkeypatch, server):
    in_hub_cache(tmp_path)
    folder, lines = tmp_path / "new" / "folder", []
    fetch_weights(["head", "tower"], folder, lines.append)
    assert [line.split()[0] for line in lines] == ["head", "tower"]
    fetch_weights(["head"], folder, lines.append)
    assert len(server.paths) == 1, "only the head was not here yet, and only once"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "nothing"))
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "nothing"))
    assert find_weights("head", folder).read_bytes() == find_weights("tower", folder).read_bytes() == CONTENT
    assert sorted(path.name for path in folder.iterdir()) == ["head.pth", "tower.safetensors"]


def test_the_table_fits_100_columns_and_says_what_is_here(tmp_path):
    in_hub_cache(tmp_path)
    (tmp_path / "head.pth").write_bytes(OTHER)
    table = list_weights(tmp_path)
    rows = {line.split()[0]: line.split() for line in table.splitlines()}
    assert max(map(len, table.splitlines())) <= 100
    assert set(rows) == {"name", *WEIGHTS}
    assert (rows["head"][-2], rows["tower"][-2], rows["craft"][-2]) == ("folder", "cache", "-")
    checked, is_right = verify_weights(folder=tmp_path)
    states = {line.split()[0]: line.split()[-2] for line in checked.splitlines()[1:]}
    assert (states["head"], states["tower"], states["craft"], is_right) == ("wrong", "ok", "-", False)
    assert verify_weights(["tower"], tmp_path)[1]
    assert not verify_weights(["craft"], tmp_path)[1], "what was asked for by name and is absent is not right"


def test_looking_makes_nothing(tmp_path):
    assert on_disk("head") is None and on_disk("tower") is None
    assert list(tmp_path.iterdir()) == []


def test_sizes_read_well():
    assert [human_size(n) for n in (12, 3047, 83_152_330, 1_710_517_724)] == ["12 B", "3.0 kB", "83 MB", "1.7 GB"]


def test_a_whole_model_is_found_in_a_folder_and_else_told_of_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "someone--model").mkdir()
    assert find_repository("someone/model", folder=tmp_path) == tmp_path / "someone--model"
    assert find_repository(str(tmp_path)) == tmp_path
    with pytest.raises(ModelError, match="weights fetch someone/else --weights DIR") as told:
        find_repository("someone/else", folder=tmp_path)
    assert "\n" not in str(told.value)
    with pytest.raises(ModelError, match="neither a folder nor"):
        find_repository("no such thing", folder=tmp_path)


def test_names_with_a_slash_are_fetched_as_whole_models(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(weights_fetch, "fetch_repository", lambda name, into: asked.append((name, into)) or into)
    fetch_weights(["someone/model"], tmp_path, say=lambda line: None)
    assert asked == [("someone/model", tmp_path)]


@pytest.mark.parametrize("name", ["head", "tower"])
def test_a_download_that_drips_is_given_up_in_one_line(monkeypatch, tmp_path, name):
    """Every byte comes before the library's own patience ends, and the last one never."""
    ended = threading.Event()

    class Drips(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.send_header("ETag", f'"{SHA256}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            with contextlib.suppress(OSError):
                while not ended.wait(0.05):
                    self.wfile.write(b"w")

        def log_message(self, *_):
            pass

    dripping = ThreadingHTTPServer(("127.0.0.1", 0), Drips)
    threading.Thread(target=dripping.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{dripping.server_port}"
    monkeypatch.setattr(weights, "DIRECT_URL", address + "/{repository}/{revision}/{file}")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(deadline, "START_S", 1.0)
    try:
        with pytest.raises(ModelError, match=rf"{name}: .* cannot be fetched \(not whole after 1 s\)"):
            weights.download(name)
    finally:
        ended.set()
        dripping.shutdown()


def test_a_download_without_end_is_not_written_to_its_end(monkeypatch, tmp_path, server):
    server.content = bytes(5_000_000)
    with pytest.raises(ModelError, match="sends more than"):
        weights.download("head")
    assert not list((tmp_path / "assets").rglob("*head*.pth")), "neither the file nor a part of it is left"


class Endless(BaseHTTPRequestHandler):
    """Never ends what it sends, and does not say how long it is; a listing is spaces."""

    sent: ClassVar[list[int]] = []

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{SHA256}"')
        self.send_header("X-Repo-Commit", REVISION)
        if self.command == "HEAD":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        with contextlib.suppress(OSError):
            for _ in range(400):  # else a test that fails would fill the disk
                self.wfile.write(b" " * (1 << 20))
                self.sent.append(1 << 20)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("name", ["tower", "someone/model"])
def test_answers_of_the_hub_without_end_are_given_up(monkeypatch, tmp_path, name):
    endless = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=endless.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{endless.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    Endless.sent.clear()
    try:
        with pytest.raises(ModelError, match="sends more than"):
            fetch_weights([name])
    finally:
        endless.shutdown()
    assert sum(Endless.sent) < 100 << 20
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 8 << 20]


@pytest.mark.parametrize(
    "content",
    [b"<html>", b"[]", b"{}", b'{"siblings": 5}', b"[" * 100_000, b'{"sha": "\\ud83d", "siblings": []}'],
    ids=len,
)
def test_nonsense_of_the_hub_is_one_line(monkeypatch, server, content):
    server.content = content
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    with pytest.raises(ModelError, match="cannot be fetched") as error:
        fetch_weights(["someone/model"])
    assert "\n" not in str(error.value)


def test_what_a_killed_download_left_goes_with_the_next(tmp_path):
    place = weights._direct_path("head")
    place.parent.mkdir(parents=True)
    left = place.with_name(f".{place.stem}.tmp-1-00000000{place.suffix}")
    left.write_bytes(b"half")
    assert weights.download("head") == place
    assert not left.exists()
