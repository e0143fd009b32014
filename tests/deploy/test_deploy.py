"""What `deploy/` promises: files that their programs take, with versions and names that this project has."""

import json
import os
import re
import stat
import subprocess
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

TEXT: dict[str, Any] = {"type": "string"}
QUANTITY = {"type": "string", "pattern": r"^\d+(m|Ki|Mi|Gi)?$"}
CONTAINER = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "image", "resources"],
    "properties": {
        "name": TEXT,
        "image": TEXT,
        "resources": {
            "type": "object",
            "required": ["requests", "limits"],
            "additionalProperties": {"type": "object", "additionalProperties": QUANTITY},
        },
        "envFrom": {"type": "array", "items": {"type": "object", "required": ["secretRef"]}},
        "env": {"type": "array", "items": {"type": "object", "properties": {"name": TEXT, "value": TEXT}}},
        "volumeMounts": {"type": "array", "items": {"type": "object", "required": ["name", "mountPath"]}},
    },
}
TEMPLATE = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["containers"],
            "properties": {
                "containers": {"type": "array", "minItems": 1, "items": CONTAINER},
                "volumes": {"type": "array", "items": {"type": "object", "required": ["name"], "maxProperties": 2}},
            },
        }
    },
}
PARAMS = {"type": "object", "additionalProperties": TEXT}  # numbers have to be written as text
COUNT = {"type": "integer", "minimum": 0}
RAYJOB = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["entrypoint", "rayClusterSpec"],
            "properties": {
                "entrypoint": TEXT,
                "backoffLimit": COUNT,
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": COUNT,
                "rayClusterSpec": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["headGroupSpec"],
                    "properties": {
                        "rayVersion": TEXT,
                        "enableInTreeAutoscaling": {"type": "boolean"},
                        "autoscalerOptions": {"type": "object", "properties": {"idleTimeoutSeconds": COUNT}},
                        "headGroupSpec": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["template"],
                            "properties": {"rayStartParams": PARAMS, "template": TEMPLATE},
                        },
                        "workerGroupSpecs": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "additionalProperties": False,
                                "required": ["groupName", "maxReplicas", "minReplicas", "template"],
                                "properties": {
                                    "groupName": TEXT,
                                    "replicas": COUNT,
                                    "minReplicas": COUNT,
                                    "maxReplicas": COUNT,
                                    "rayStartParams": PARAMS,
                                    "template": TEMPLATE,
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}
"""The fields of KubeRay's RayJob (v1) that the manifest may use, as its documentation has them."""


def manifest() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "rayjob.yaml").read_text())


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_the_manifest_has_the_fields_of_a_rayjob_and_no_others() -> None:
    jsonschema.validate(manifest(), RAYJOB)
    for path, value in ((("spec", "entrypont"), "x"), (("spec", "backoffLimit"), "two")):
        broken = manifest()
        broken[path[0]][path[1]] = value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, RAYJOB)


def test_pods_mount_what_they_name_and_share_nothing_but_the_bucket() -> None:
    job = manifest()
    out = re.search(r"--output (\S+)", job["spec"]["entrypoint"])
    assert out is not None and out[1].startswith("s3://")
    for pod in pods(job):
        volumes = {volume["name"] for volume in pod["volumes"]}
        (container,) = pod["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts.keys() == volumes
        assert container["resources"]["requests"] == container["resources"]["limits"]
        staged = {variable["name"]: variable["value"] for variable in container.get("env", [])}
        assert staged["SELECTS_STAGE"] == mounts["stage"]
        assert all("emptyDir" in volume for volume in pod["volumes"])
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == PINS["ray"]
    assert cluster["enableInTreeAutoscaling"]
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_no_file_holds_a_secret_or_listens_to_everybody() -> None:
    for path in DEPLOY.iterdir():
        text = path.read_text()
        assert not re.search(r"(?i)(secret_access_key|password|token)\s*[:=]\s*[\"']?[A-Za-z0-9/+]{12,}", text), path
        assert "0.0.0.0" not in text, path


def test_the_launcher_file_fits_rays_schema() -> None:
    ray = find_spec("ray")
    assert ray is not None
    assert ray.origin is not None
    schema = json.loads((Path(ray.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    cluster = yaml.safe_load((DEPLOY / "cluster.yaml").read_text())
    jsonschema.validate(cluster, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(cluster | {"max_wrokers": 1}, schema)
    types = cluster["available_node_types"]
    assert cluster["head_node_type"] in types
    assert all(each["min_workers"] <= each["max_workers"] <= cluster["max_workers"] for each in types.values())


def steps(name: str) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (DEPLOY / name).read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_the_image_installs_this_checkout_with_the_tested_versions() -> None:
    given = steps("Dockerfile")
    known = {"FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "CMD"}
    assert {word for word, _ in given} <= known
    stages = [re.fullmatch(r"(\S+) AS (\w+)", rest) for word, rest in given if word == "FROM"]
    assert [stage[2] for stage in stages if stage] == ["base", "cpu", "cuda"]
    assert all(stage and stage[1] in ("base", "python:3.11-slim-bookworm") for stage in stages)
    installs = [rest for word, rest in given if word == "RUN" and "uv pip install" in rest]
    assert len(installs) == 2
    for install in installs:
        assert "--constraint constraints.txt" in install
        named = re.search(r"'\.\[([\w,]+)\]'", install)
        assert named is not None
        assert set(named[1].split(",")) <= EXTRAS.keys()
    order = [word for word, _ in given[given.index(("FROM", "base AS cuda")) :]]
    assert order.index("RUN") < order.index("USER") < order.index("CMD"), "nothing runs as root"
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not {"constraints.txt", "pyproject.toml", "configs", "README.md", "LICENSE"} & set(ignored)


def stand_in(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def slurm(tmp_path: Path, *words: str, code: int = 0) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the script where `srun` writes down what it is asked for; Ray stays up until the job ends."""
    commands = tmp_path / "bin"
    commands.mkdir()
    log = tmp_path / "log"
    log.touch()
    stand_in(commands, "scontrol", 'printf "n1\\nn2\\nn3\\n"')
    stand_in(commands, "ray", 'echo "ray $* token=${#RAY_AUTH_TOKEN}" >> "$LOG"')
    stand_in(
        commands, "srun",
        'echo "srun $*" >> "$LOG"\n'
        '[[ "$*" == *" selects "* ]] || exec sleep 600\n'
        # The run itself ends once every node was asked for: the script starts them beside it.
        'until [ "$(grep -c " ray start " "$LOG")" -eq 3 ]; do sleep 0.05; done\n'
        f"exit {code}",
    )  # fmt: skip
    environment = {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "LOG": str(log), "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_JOB_ID": "41234", "SLURM_CPUS_PER_TASK": "8",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", DEPLOY / "slurm.sh", *words], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done, log.read_text().splitlines()


def test_slurm_starts_a_node_each_and_runs_curate_on_the_head(tmp_path: Path) -> None:
    done, log = slurm(tmp_path, "s3://b/raw films", "--output", "/shared/out")
    assert done.returncode == 0, done.stderr
    started = [line for line in log if " ray start " in line]
    assert sorted(re.findall(r"--nodelist=(\w+)", " ".join(started))) == ["n1", "n2", "n3"]
    (head,) = [line for line in started if "--head" in line]
    assert "--nodelist=n1 " in head
    port = re.search(r"--port=(\d+)", head)
    assert port is not None
    assert 1024 < int(port[1]) < 65536
    assert all(f"--address=n1:{port[1]}" in line for line in started if line is not head)
    (run,) = [line for line in log if " selects " in line]
    assert run.endswith(f"selects curate s3://b/raw films --output /shared/out --ray-address n1:{port[1]}")
    assert any(line.startswith("ray status") and line.endswith("token=64") for line in log)


def test_slurm_gives_the_runs_exit_code_and_refuses_no_words(tmp_path: Path) -> None:
    done, _ = slurm(tmp_path, "x", "--output", "o", code=2)
    assert done.returncode == 2
    nothing = subprocess.run(["bash", DEPLOY / "slurm.sh"], capture_output=True, text=True, check=False, timeout=60)
    assert nothing.returncode == 2
    assert nothing.stderr.startswith("usage: ")
