"""A node with file systems and surroundings of its own: what it lacks is said in a table, and nothing is written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from buckets import upload

from core.storage.object_store import open_object_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CLUSTER = """
import os, subprocess, sys

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray.cluster_utils import Cluster

import run_pipeline

films, results, recipe, url = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
hidden = 'mount -t tmpfs none "$1" && mount -t tmpfs none "$2" && shift 2 && exec "$@"'
ray = [sys.executable, "-m", "ray.scripts.scripts"]
start = [*ray, "start", "--address", cluster.address, "--num-cpus", "1", "--block"]
other = subprocess.Popen(
    ["unshare", "-m", "sh", "-c", hidden, "sh", films, results, *start],
    env=os.environ | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "SELECTS_STAGE": "/dev/null/stage"},
    stdout=subprocess.PIPE,
    text=True,
)
while "Ray runtime started" not in (line := other.stdout.readline()):
    assert line, "the other node did not start"
usual = ["--config", recipe, "--ray-address", cluster.address]
print("exit", run_pipeline.main(["curate", films, "--output", f"{results}/out", *usual]), flush=True)
print("=== the bucket", file=sys.stderr, flush=True)
print("exit", run_pipeline.main(["curate", f"{url}/films", "--output", f"{url}/out", *usual]), flush=True)
other.kill()
os._exit(0)
"""


def test_a_node_that_shares_nothing_is_told_apart_before_anything_is_written(bucket_url: str, tmp_path: Path) -> None:
    from footage import pan, write

    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system gives no mount namespaces")
    films, results, recipe = tmp_path / "films", tmp_path / "results", tmp_path / "recipe.yaml"
    films.mkdir()
    results.mkdir()
    for number in range(3):
        write(films / f"{number}.mp4", list(pan(24, seed=number)))
    upload(films, f"{bucket_url}/films")
    recipe.write_text("shots: {min_s: 1.0, max_s: 3.0}\noperators: {facts: , brightness: }\n")
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER, str(films), str(results), str(recipe), bucket_url],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"RAY_AUTH_MODE": "disabled", "SELECTS_STAGE": str(tmp_path / "stage")},
        check=False,
    )
    assert done.stdout.count("exit 2") == 2, done.stderr[-3000:]
    local, _, remote = done.stderr.partition("=== the bucket")
    assert f"cannot read 3 of 3 files tried in {films}, such as {films}/0.mp4 (No such file" in local
    assert f"does not see the output folder {results}/out: it would write to a folder of its own" in local
    assert "cannot do this run: cannot read 3 of 3" in local and "and 1 more (see the table)" in local
    assert f"{bucket_url}/films/0.mp4: the storage cannot be reached" in remote
    assert "cannot make copies of sources in /dev/null/stage" in remote
    assert list(results.iterdir()) == []
    assert {entry.key.split("/")[0] for entry in open_object_store(bucket_url).list()} == {"films"}
    for each in ("planted-secret", "Traceback"):
        assert each not in done.stdout + done.stderr
