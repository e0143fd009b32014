"""What is wrong with the nodes of a cluster for a run: their facts beside those of the driver, and one table of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.machine import Gpu
from core.sanitize import printable, without_secrets

DECISIVE = frozenset((
    *("ray", "av", "numpy", "pyarrow", "opencv-python-headless", "onnxruntime", "scenedetect-headless", "rapidocr"),
    *("torch", "open_clip_torch", "transformers", "vllm"),
))
"""packages whose minor versions decide what is measured and written, or whether processes understand each other"""
SHOWN_NODES = 4
SHOWN_CHARACTERS = 400


@dataclass(frozen=True)
class Fault:
    """Something that a node found wrong with itself.

    Attributes:
        what: is wrong.
        fix: what to do about it.
    """

    what: str
    fix: str


@dataclass(frozen=True)
class NodeFacts:
    """What a machine says of itself.

    Attributes:
        python: version.
        versions: of packages that the run uses; null where not installed.
        ffmpeg: version of the library that decodes and encodes; empty where there is none.
        lacks_codecs: decoders and encoders that it has not.
        code: packages of ours and hashes of their code.
        gpus: as its driver lists them.
        faults: what cannot be read or written there, and what the run's models lack there.
    """

    python: str
    versions: Mapping[str, str | None]
    ffmpeg: str
    lacks_codecs: tuple[str, ...]
    code: Mapping[str, str]
    gpus: tuple[Gpu, ...] = ()
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class ModelNeed:
    """What one worker of a step takes of each GPU on which it computes."""

    step: str
    memory_gb: float


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong on one node.

    Attributes:
        node: address and name.
        what: is wrong.
        fix: what to do about it.
        refuses: whether the run cannot be done so; else it is a difference that is shown and let pass.
    """

    node: str
    what: str
    fix: str
    refuses: bool = True


def findings_of(
    driver: NodeFacts, nodes: Mapping[str, NodeFacts | Fault], needs: Sequence[ModelNeed] = ()
) -> list[Finding]:
    """Compare the nodes with the driver, and their GPUs with what the models need.

    Args:
        driver: facts of the machine that starts the run.
        nodes: by name: facts of each, or why it gave none.
        needs: of the steps that compute on GPUs in a cluster that has some.
    """
    found: list[Finding] = []
    for node, facts in nodes.items():
        if isinstance(facts, Fault):
            found.append(Finding(node, facts.what, facts.fix))
            continue
        found += _of_versions(node, driver, facts)
        found += _of_media(node, driver, facts)
        found += _of_code(node, driver, facts)
        found += [Finding(node, fault.what, fault.fix) for fault in facts.faults]
        found += _of_gpus(node, facts.gpus, needs)
    return found


def _of_versions(node: str, driver: NodeFacts, facts: NodeFacts) -> list[Finding]:
    found = []
    if facts.python != driver.python:
        what = f"has Python {facts.python}, and the driver {driver.python}"
        is_other = _minor(facts.python) != _minor(driver.python)
        found.append(Finding(node, what, "give it the driver's environment or image", is_other))
    for package, ours in driver.versions.items():
        theirs = facts.versions.get(package)
        if ours is None or theirs == ours:
            continue
        fix = f"there: pip install {package}=={ours}"
        if theirs is None:
            found.append(Finding(node, f"has no package {package}", fix))
            continue
        is_other = package in DECISIVE and _minor(theirs) != _minor(ours)
        found.append(Finding(node, f"has {package} {theirs}, and the driver {ours}", fix, is_other))
    return found


def _of_media(node: str, driver: NodeFacts, facts: NodeFacts) -> list[Finding]:
    if not facts.ffmpeg:
        return []  # a package that is missing, which is said already
    fix = "install the driver's version of the package av there, as its wheel"
    found = []
    lacking = [name for name in facts.lacks_codecs if name not in driver.lacks_codecs]
    if lacking:
        found.append(Finding(node, f"its FFmpeg lacks {', '.join(lacking)}", fix))
    if facts.ffmpeg != driver.ffmpeg:
        is_other = _minor(facts.ffmpeg) != _minor(driver.ffmpeg)
        found.append(Finding(node, f"has FFmpeg's {facts.ffmpeg}, and the driver {driver.ffmpeg}", fix, is_other))
    return found


def _of_code(node: str, driver: NodeFacts, facts: NodeFacts) -> list[Finding]:
    others = [name for name, digest in driver.code.items() if facts.code.get(name) != digest]
    if not others:
        return []
    named = ", ".join(others) if len(others) <= SHOWN_NODES else f"{len(others)} packages, such as {others[0]}"
    fix = "let nothing shadow what was sent there: PYTHONPATH, an editable install"
    return [Finding(node, f"runs other code than the driver: {named}", fix)]


def _of_gpus(node: str, gpus: Sequence[Gpu], needs: Sequence[ModelNeed]) -> list[Finding]:
    found = []
    for number, gpu in enumerate(gpus):
        fit = [need for need in needs if need.memory_gb <= gpu.memory_gb]
        large = [need for need in needs if need not in fit]
        if large:
            what = f"GPU {number} ({gpu.name}, {gpu.memory_gb:g} GB) is too small for {_told(large)}"
            found.append(Finding(node, what, "nothing: those workers go to other nodes", refuses=False))
        crowded = [need for need in fit if gpu.free_gb is not None and need.memory_gb > gpu.free_gb]
        if crowded:
            what = f"GPU {number} ({gpu.name}) has {gpu.free_gb:g} GB free of {gpu.memory_gb:g}: not enough for"
            fix = "end what uses it, or start Ray there without this GPU (CUDA_VISIBLE_DEVICES)"
            found.append(Finding(node, f"{what} {_told(crowded)}", fix))
    return found


def _told(needs: Sequence[ModelNeed]) -> str:
    return ", ".join(f"{need.step} ({need.memory_gb:.1f} GB)" for need in needs)


def _minor(version: str) -> str:
    """Return a version up to its minor number, such as `3.11` or `libavcodec 62.11`."""
    return ".".join(version.split(".")[:2])


def table_text(findings: Sequence[Finding], nodes: int) -> str:
    """Return findings as a table for a terminal: where, what and the fix, once however many nodes have it; no secrets.

    Args:
        findings: any number, at least one.
        nodes: how many were looked at.
    """
    grouped: dict[tuple[bool, str, str], list[str]] = {}
    for each in sorted(findings, key=lambda each: not each.refuses):
        names = grouped.setdefault((each.refuses, each.what, each.fix), [])
        if each.node not in names:
            names.append(each.node)
    rows = [
        (_shown_nodes(names, nodes), what if refuses else f"(let pass) {what}", f"fix: {fix}")
        for (refuses, what, fix), names in grouped.items()
    ]
    shown = [tuple(printable(without_secrets(cell), SHOWN_CHARACTERS) for cell in row) for row in rows]
    width = max(len(names) for names, _, _ in shown)
    return "\n".join(f"  {names:<{width}}  {what}\n  {'':<{width}}  {fix}" for names, what, fix in shown)


def _shown_nodes(names: Sequence[str], nodes: int) -> str:
    if len(names) == nodes > 1:
        return f"all {nodes} nodes"
    more = f" and {len(names) - SHOWN_NODES} more" if len(names) > SHOWN_NODES else ""
    return ", ".join(names[:SHOWN_NODES]) + more


def refusal_text(findings: Sequence[Finding], nodes: int) -> str | None:
    """Return the line by which a run is refused; None where everything found may pass.

    Args:
        findings: any number.
        nodes: how many were looked at.
    """
    faulty = list(dict.fromkeys(each.node for each in findings if each.refuses))
    if not faulty:
        return None
    few = f"node {faulty[0]} cannot" if len(faulty) == 1 else f"{len(faulty)} of {nodes} nodes cannot"
    first = next(each for each in findings if each.refuses)
    more = len({(each.what, each.fix) for each in findings if each.refuses}) - 1
    words = printable(without_secrets(f"{few} do this run: {first.what}"), SHOWN_CHARACTERS)
    return f"{words}{f', and {more} more' if more else ''} (see the table); fix them, or take them out of the cluster"
