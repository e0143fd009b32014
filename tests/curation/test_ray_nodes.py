"""Three nodes of a Ray cluster on one machine; one of them is killed in the middle of a run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import assert_same_output, curate

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

CLUSTER = """
import os, sys, threading, time
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray.cluster_utils import Cluster

import run_pipeline

footage, out = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
others = [cluster.add_node(num_cpus=1) for _ in range(2)]


def kill_one() -> None:
    while not list((Path(out) / "_parts").glob("[!.]*.parquet")):
        time.sleep(0.05)
    cluster.remove_node(others[0], allow_graceful=False)
    print("killed a node", flush=True)


threading.Thread(target=kill_one, daemon=True).start()
code = run_pipeline.main(["curate", footage, "--output", out, "--ray-address", cluster.address])
print("exit", code, "nodes left", len(cluster.list_all_nodes()), flush=True)
cluster.shutdown()
os._exit(0)  # Ray's own way out of a cluster that lost a node is exit 1
"""


def test_a_node_that_dies_costs_nothing_but_time(demo_footage: Path, tmp_path: Path) -> None:
    curate(demo_footage, out=tmp_path / "undisturbed")
    out = tmp_path / "out"
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER, str(demo_footage), str(out)],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
        check=False,
    )
    assert "killed a node" in done.stdout, "the run was over before"
    assert "exit 0 nodes left 2" in done.stdout, done.stderr[-3000:]
    assert_same_output(tmp_path / "undisturbed", out)
