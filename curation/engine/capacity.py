"""Whether the pools of a run fit the nodes of a cluster: GPUs by memory, and every worker on one node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from core.errors import UserError
from curation.step_spec import StepSpec

MODEL_CPUS = 0.1
"""What a model worker books of a CPU: it computes while the others wait, and the system shares fairly."""
NODE_LABEL = "ray.io/node-id"
MOST_ON_A_GPU = 8
"""workers of a pool, however large it is: more of them do not make it faster, and each takes memory of the machine"""
ROUNDING = 1e-6
SHOWN = 4


@dataclass(frozen=True)
class NodeCapacity:
    """What a node has.

    Attributes:
        id: Ray's.
        cpus: that Ray counts.
        gpus: that Ray counts.
        gpu_memory_gb: of its smallest GPU, since Ray chooses among a node's; null: not known.
        name: what people call it.
    """

    id: str
    cpus: float
    gpus: float = 0.0
    gpu_memory_gb: float | None = None
    name: str = "this machine"


@dataclass(frozen=True)
class Pool:
    """A step that has workers of its own, in a cluster.

    Attributes:
        spec: the step.
        gpus: that each worker books; 0 where the cluster has none, or the step does not compute on them.
        avoids: ids of nodes whose GPUs are too small for it.
    """

    spec: StepSpec
    gpus: float = 0.0
    avoids: tuple[str, ...] = ()


def pool_of(spec: StepSpec, nodes: Sequence[NodeCapacity]) -> Pool:
    """Return what workers of a step book: by the memory of the smallest GPU that holds one, where that is known.

    Raises:
        UserError: no GPU holds one.
    """
    equipped = [node for node in nodes if node.gpus]
    if not equipped or not spec.gpus:
        return Pool(spec)
    sizes = [node.gpu_memory_gb for node in equipped if node.gpu_memory_gb is not None]
    if not spec.gpu_memory_gb or len(sizes) < len(equipped):
        return Pool(spec, spec.gpus)
    fit = [size for size in sizes if size >= spec.gpu_memory_gb]
    if not fit:
        largest = max(equipped, key=lambda node: node.gpu_memory_gb or 0.0)
        raise UserError(
            f"{spec.name} takes {spec.gpu_memory_gb:.1f} GB of a GPU, and the largest has {max(sizes):g} GB "
            f"({largest.name}): take a smaller model, more GPUs for each worker (tensor_parallel), or device=cpu"
        )
    avoids = tuple(node.id for node in equipped if (node.gpu_memory_gb or 0.0) < spec.gpu_memory_gb)
    if spec.fills_gpus:
        return Pool(spec, spec.gpus, avoids)
    least = min(1 / MOST_ON_A_GPU, spec.gpus)
    return Pool(spec, max(least, ceil(1000 * spec.gpu_memory_gb / min(fit)) / 1000), avoids)


def away_from(avoids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the options by which Ray puts a worker on no node of these; on those that join later it may."""
    return {"label_selector": {NODE_LABEL: f"!in({','.join(avoids)})"}} if avoids else {}


def misfit(pools: Sequence[Pool], counts: Mapping[str, int], nodes: Sequence[NodeCapacity]) -> str | None:
    """Say why workers that compute on GPUs find no place node by node; None where all of them do.

    Args:
        pools: all of them.
        counts: workers of each, by name.
        nodes: where they go.
    """
    rooms = [_Room(node) for node in nodes]
    for pool in sorted(pools, key=lambda pool: -pool.gpus):  # the largest first, while there is room
        for _ in range(counts[pool.spec.name] if pool.gpus else 0):
            open_to = [room for room in rooms if room.node.id not in pool.avoids and room.holds(pool.gpus)]
            if not open_to:
                return _told(pools, counts, nodes, pool)
            min(open_to, key=lambda room: room.rest(pool.gpus)).take(pool.gpus)
    return None


class _Room:
    """What is left of a node while workers are put there."""

    def __init__(self, node: NodeCapacity):
        self.node = node
        self._cpus = node.cpus
        whole = int(node.gpus + ROUNDING)
        part = node.gpus - whole
        self._gpus = [1.0] * whole + ([part] if part > ROUNDING else [])

    def holds(self, share: float) -> bool:
        return self._cpus + ROUNDING >= MODEL_CPUS and bool(self._places(share))

    def rest(self, share: float) -> float:
        """Return how much is left of what it would take from: the less, the better."""
        if share > 1:
            return float(sum(left > 1 - ROUNDING for left in self._gpus))
        return min(self._gpus[place] for place in self._places(share))

    def take(self, share: float) -> None:
        self._cpus -= MODEL_CPUS
        places = self._places(share)
        if share > 1:
            for place in places[: ceil(share - ROUNDING)]:
                self._gpus[place] = 0.0
            return
        self._gpus[min(places, key=lambda place: self._gpus[place])] -= share

    def _places(self, share: float) -> list[int]:
        """Return the GPUs that hold a worker, alone or together; of several GPUs Ray gives whole ones only."""
        if share <= 1:
            return [place for place, left in enumerate(self._gpus) if left + ROUNDING >= share]
        whole = [place for place, left in enumerate(self._gpus) if left > 1 - ROUNDING]
        return whole if len(whole) >= share - ROUNDING else []


def _told(pools: Sequence[Pool], counts: Mapping[str, int], nodes: Sequence[NodeCapacity], first: Pool) -> str:
    equipped = [node for node in nodes if node.gpus]
    most = max((node.gpus for node in equipped if node.id not in first.avoids), default=0.0)
    if first.gpus > most:
        return (
            f"a worker of {first.spec.name} books {first.gpus:g} GPUs of one node, and none has more than {most:g}: "
            "set tensor_parallel lower, or take a smaller model"
        )
    shares = ", ".join(f"{counts[p.spec.name]} × {p.gpus:g} for {p.spec.name}" for p in pools if p.gpus)
    told = ", ".join(f"{node.name}: {node.gpus:g} and {node.cpus:g} CPUs" for node in equipped[:SHOWN])
    more = f" and {len(equipped) - SHOWN} nodes more" if len(equipped) > SHOWN else ""
    return (
        f"the models book {shares} GPUs, and node by node there is no place for the last of {first.spec.name} "
        f"({told}{more}): set workers.score, workers.caption or tensor_parallel lower, device=cpu where that will do, "
        "or caption through a server (captioner endpoint)"
    )
