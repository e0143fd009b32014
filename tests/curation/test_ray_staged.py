"""A run into a bucket on several nodes: it works where all of them see the folder, and is refused where they do not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import assert_same_output, curate

from core.storage.object_store import open_object_store
from curation.output.bucket import pull
from curation.output.commits import leftovers

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

CLUSTER = """
import os, sys

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray.cluster_utils import Cluster

import run_pipeline
from curation.engine import ray_runner

footage, recipe, url, kind = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
if kind == "apart":  # as if each node had a disk of its own

    def sees(file: str) -> bool:
        import ray

        return ray.get_runtime_context().get_node_id() == head

    head = cluster.head_node.node_id
    ray_runner._sees = sees
code = run_pipeline.main(["curate", footage, "--config", recipe, "--output", url, "--ray-address", cluster.address])
print("exit", code, flush=True)
cluster.shutdown()
os._exit(0)
"""


@pytest.mark.parametrize("kind", ["shared", "apart"])
def test_a_cluster_curates_into_a_bucket_where_all_nodes_see_the_folder(
    kind: str, bucket_url: str, tmp_path: Path
) -> None:
    from footage import pan, write

    footage, recipe = tmp_path / "films", tmp_path / "recipe.yaml"
    footage.mkdir()
    for number in range(4):
        write(footage / f"{number}.mp4", list(pan(96, seed=number)))
    recipe.write_text("shots: {min_s: 1.0, max_s: 3.0}\noperators: {facts: , brightness: }\n")
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "SELECTS_STAGE": str(tmp_path / "stage")}
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER, str(footage), str(recipe), f"{bucket_url}/out", kind],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
        check=False,
    )
    store = open_object_store(f"{bucket_url}/out")
    if kind == "apart":
        assert "exit 2" in done.stdout, done.stderr[-3000:]
        assert "1 of 2 nodes cannot write to" in done.stderr
        assert list(store.list()) == []
        return
    assert "exit 0" in done.stdout, done.stderr[-3000:]
    curate(footage, "--config", recipe, out=tmp_path / "local")
    pull(store, tmp_path / "copy")
    assert_same_output(tmp_path / "local", tmp_path / "copy")
    assert leftovers(store) == []
