"""The nodes of a Ray cluster: what each has, and whether each can do a run, asked before anything is written."""

import contextlib
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray  # noqa: E402 - Ray takes its settings from the environment
from ray.exceptions import RayError, RayTaskError  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

from core.errors import UserError  # noqa: E402
from curation.engine.capacity import NodeCapacity  # noqa: E402
from curation.engine.node_checks import Fault, NodeFacts, findings_of, refusal_text, table_text  # noqa: E402
from curation.engine.node_look import Question, RunNeeds, done, in_use, look, readable_here  # noqa: E402

LOOK_S = 180.0
"""for which a node may look at itself; the first thing it does is to fetch our code"""

_gpu_memory_gb: dict[str, float] = {}  # of the smallest GPU of each node, by the node's id, as last looked at


@dataclass(frozen=True)
class _Node:
    """A node that does work.

    Attributes:
        id: Ray's.
        name: what people call it.
        gpus: that Ray counts.
    """

    id: str
    name: str
    gpus: float


def capacities() -> list[NodeCapacity]:
    """Return what each node that does work has; the memory of GPUs where nodes have been looked at."""
    return [
        NodeCapacity(
            node["NodeID"],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
            _gpu_memory_gb.get(node["NodeID"]),
            named(node),
        )
        for node in _working()
    ]


def _working() -> list[dict[str, Any]]:
    """Return the nodes that have CPUs, on which alone steps run; all of them where none has."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    return [node for node in alive if node["Resources"].get("CPU", 0.0)] or alive


def named(node: dict[str, Any]) -> str:
    """Return what people call a node: its address, and its name where that is another."""
    address, host = node["NodeManagerAddress"], node["NodeManagerHostname"]
    return address if host in (address, "") else f"{address} ({host})"


def expect_fit_nodes(out: Path, needs: RunNeeds, patience_s: float = LOOK_S) -> None:
    """Ask every node of a cluster whether it can do a run; what is wrong where is shown as one table.

    Args:
        out: the output folder, as the driver names it.
        needs: of the run.
        patience_s: after which a node is taken not to answer.

    Raises:
        UserError: some node cannot.
    """
    nodes = _told_apart([_Node(n["NodeID"], named(n), n["Resources"].get("GPU", 0.0)) for n in _working()])
    has_gpus = any(node.gpus for node in nodes)
    needs = replace(needs, samples=readable_here(needs.samples))
    with _marked(out) as mark:
        question = Question(replace(needs, lacks=None), mark)
        looks = {node: _ask(node, partial(look, question)) for node in nodes}
        lacks = {}
        if (tell := needs.lacks) is not None:
            for node in nodes:  # by the worker that has looked, once it has
                may_compute = bool(node.gpus) or not has_gpus
                lacks[node] = _ask(node, partial(tell, runs_gpu_steps=may_compute), looks[node])
        driver = look(Question(replace(needs, samples=(), largest_remote_bytes=0, lacks=None)))
        waited = [*looks.values(), *lacks.values()]
        _, late = ray.wait(waited, num_returns=len(waited), timeout=patience_s)
    answers: dict[str, NodeFacts | Fault] = {}
    for node, reference in looks.items():
        found = _answer(reference, late, patience_s)
        if isinstance(found, NodeFacts):
            found = replace(found, gpus=in_use(found.gpus, node.gpus))
            _remember_gpus(node, found)
            told = _answer(lacks[node], late, patience_s) if node in lacks else []
            is_bare = any(found.versions.get(name) is None for name, ours in driver.versions.items() if ours)
            if not (isinstance(told, Fault) and is_bare):  # of packages that are missing the table tells already
                found = replace(found, faults=(*found.faults, *([told] if isinstance(told, Fault) else told)))
        answers[node.name] = found
    findings = findings_of(driver, answers, needs.models if has_gpus else ())
    if findings:
        print(table_text(findings, len(nodes)), file=sys.stderr)
    if text := refusal_text(findings, len(nodes)):
        raise UserError(text)


def _told_apart(nodes: list[_Node]) -> list[_Node]:
    """Return nodes with names that differ, as several on one machine have them only by Ray's id."""
    names = [node.name for node in nodes]
    return [replace(n, name=f"{n.name} {n.id[:8]}") if names.count(n.name) > 1 else n for n in nodes]


def _ask(node: _Node, work: Callable[[], Any], after: "ray.ObjectRef | None" = None) -> "ray.ObjectRef":
    where = NodeAffinitySchedulingStrategy(node.id, soft=False)
    return ray.remote(done).options(num_cpus=0, max_retries=0, scheduling_strategy=where).remote(work, after)


def _answer(reference: "ray.ObjectRef", late: Sequence["ray.ObjectRef"], patience_s: float) -> Any:
    """Return what a node says, or why it does not."""
    if reference in late:
        with contextlib.suppress(RayError):
            ray.cancel(reference, force=True)
        fix = "see whether it is alive, and whether a file system there hangs"
        return Fault(f"does not answer within {patience_s:.0f} s", fix)
    try:
        return ray.get(reference)
    except RayTaskError as error:
        words = f"{type(error.cause).__name__}: {' '.join(str(error.cause).split())}"
        return Fault(f"cannot look at itself: {words}", "give it the driver's environment")
    except RayError as error:
        words = " ".join(str(error).split())[:160]
        return Fault(f"starts no worker: {type(error).__name__}: {words}", "see Ray's logs there, or take it out")


def _remember_gpus(node: _Node, facts: NodeFacts) -> None:
    if facts.gpus:
        _gpu_memory_gb[node.id] = min(gpu.memory_gb for gpu in facts.gpus)


@contextlib.contextmanager
def _marked(out: Path) -> Iterator[str | None]:
    """Have a file in the output folder while the block runs; null where none can be made.

    Folders that were made for it go with it.
    """
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    mark = out / f".seen-{uuid.uuid4().hex}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:  # the run itself will say so
        yield None
        return
    try:
        yield str(mark)
    finally:
        mark.unlink(missing_ok=True)
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
