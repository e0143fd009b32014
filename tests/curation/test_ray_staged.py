"""A run into a bucket on nodes that share nothing but it: one joins in the middle, one dies, requests fail."""

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from buckets import point_at, upload
from faulty_proxy import Fault, faulty_proxy
from runs import assert_same_output, curate

from core.storage.object_store import open_object_store
from curation.output.bucket import pull
from curation.output.commits import COMMITS, WORK, last_commit, leftovers

FAULTS: tuple[Fault, ...] = ("500", "503", "reset", "truncate", "lost")

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

CLUSTER = """
import os, subprocess, sys, threading, time
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray.cluster_utils import Cluster

import run_pipeline

footage, recipe, url = sys.argv[1:]
stage = Path(os.environ["SELECTS_STAGE"])
stage.mkdir()
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
SCRIPT = 'mount -t tmpfs none "$SELECTS_STAGE" && exec "$@"'
START = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus", "1", "--block", "--disable-usage-stats"]


def node():
    "Start a node that has a file system of its own where the others have theirs."
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", SCRIPT, "sh"]
    return subprocess.Popen(
        [*command, *START, "--address", cluster.address], start_new_session=True, stdout=2, stderr=2
    )


def inside(process):
    "Return the folder as that node sees it."
    return Path(f"/proc/{process.pid}/root{stage}")


def wait_for(holds, most_s=300):
    end = time.monotonic() + most_s
    while not holds():
        if time.monotonic() > end:
            os._exit(3)
        time.sleep(0.05)


def has_worked(process):
    return any(inside(process).glob("nodes/*"))


first = node()


def disturb():
    wait_for(lambda: has_worked(first))
    second = node()
    print("a node joins", flush=True)
    wait_for(lambda: has_worked(second))
    print("the new node works", flush=True)
    os.killpg(first.pid, 9)
    print("a node is gone", flush=True)
    others.append(second)
    (stage / "all-is-done").touch()


others = []
threading.Thread(target=disturb, daemon=True).start()
words = ["curate", footage, "--config", recipe, "--output", url, "--ray-address", cluster.address]
print("exit", run_pipeline.main(words), flush=True)
for each in others:
    os.killpg(each.pid, 9)
cluster.shutdown()
os._exit(0)
"""


def test_nodes_that_share_nothing_but_a_bucket_make_the_same_output(
    s3_address: str, bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from footage import pan, write

    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here: run as root")
    footage, recipe = tmp_path / "films", tmp_path / "recipe.yaml"
    footage.mkdir()
    for number in range(24):
        write(footage / f"{number}.mp4", list(pan(96, seed=number)))
    (footage / "zz-broken.mp4").write_bytes(b"no film at all" * 100)
    recipe.write_text("shots: {min_s: 1.0, max_s: 3.0}\noperators: {facts: , brightness: }\n")
    upload(footage, f"{bucket_url}/raw")
    curate(f"{bucket_url}/raw", "--config", recipe, out=tmp_path / "local")
    chance, disturbed = random.Random(22), tmp_path / "stage" / "all-is-done"

    def wait_until_disturbed(number: int, method: str, path: str) -> Fault:
        while method == "GET" and re.search(r"/raw/[12]\d\.mp4", path) and not disturbed.exists():
            time.sleep(0.05)
        return chance.choice(FAULTS) if chance.random() < 0.05 else ""

    with faulty_proxy(s3_address, wait_until_disturbed) as (address, _):
        point_at(address, monkeypatch, tmp_path)
        done = run_cluster(tmp_path, f"{bucket_url}/raw", str(recipe), f"{bucket_url}/out")
    point_at(s3_address, monkeypatch, tmp_path)
    assert "a node is gone" in done.stdout, done.stderr[-3000:]
    assert "exit 0" in done.stdout, done.stderr[-3000:]
    store = open_object_store(f"{bucket_url}/out")
    pull(store, tmp_path / "copy")
    assert_same_output(tmp_path / "local", tmp_path / "copy")
    assert leftovers(store) == []
    assert not list(store.list(f"{WORK}/"))
    keys = {entry.key for entry in store.list() if not entry.key.startswith(COMMITS)}
    assert keys == set(last_commit(store).files)
    print(json.loads((tmp_path / "copy" / "run.json").read_text())["storage"])
    local = {p.name for p in (tmp_path / "local" / "previews").rglob("*.jpg")}
    assert {p.name for p in (tmp_path / "copy" / "previews").rglob("*.jpg")} == local


def run_cluster(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {
        "RAY_AUTH_MODE": "disabled", "SELECTS_STAGE": str(folder / "stage"), "SELECTS_COMMIT_S": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", CLUSTER, *words],
        capture_output=True, text=True, timeout=600, env=environment, check=False,
    )  # fmt: skip
