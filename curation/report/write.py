"""The page: facts and packed columns of one output, put into the template together with its scripts."""

import base64
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from core.files import atomic_path, remove_leftovers
from core.sanitize import printable, printable_lines, without_secrets
from core.storage.place import called
from curation.output.place import name_of_output
from curation.output.table import clips_folder
from curation.recipe import Recipe, render_recipe
from curation.report.agreement import agreements
from curation.report.gather import HIDDEN, Gathered, gather, is_judgeable
from curation.report.pack import pack_codes, pack_ids, pack_numbers, pack_text_column, pack_texts
from curation.report.phrases import MOST_CAPTIONS, frequent_phrases
from curation.report.pictures import counts_of, embedded
from curation.report.run_facts import read_run

PAGE_NAME = "report.html"
PAGE = Path(__file__).parent / "page"
SCRIPTS = ("unpack", "verdicts", "charts", "cards", "galleries", "captions", "report")
MOST_FAILURES = 200
DICTIONARIES = ("type", "kind", "status", "caption_status", "review", "source_path")


@dataclass(frozen=True)
class Budget:
    """How much of what is not numbers goes into a page; the numbers are always whole."""

    pictures_mb: float = 25.0
    texts_mb: float = 50.0


@dataclass(frozen=True)
class Packed:
    """An output for a page: facts as plain values, and texts of base64 by element id."""

    facts: dict[str, Any]
    blobs: dict[str, str]


def write_report(out: Path, recipe: Recipe, budget: Budget = Budget(), path: Path | None = None) -> Path:  # noqa: B008 - frozen
    """Write `report.html` of an output; its table must be folded. No media is opened.

    Args:
        out: the output.
        recipe: its recipe.
        budget: for pictures and texts.
        path: the page; null: `report.html` in the output. Elsewhere it has no folder of pictures beside it.

    Returns:
        The page's path.
    """
    return write_packed(out, pack_output(gather(out, recipe), budget), path)


def write_packed(out: Path, packed: Packed, path: Path | None = None) -> Path:
    """Write `report.html` of an output that is packed already; see `write_report`."""
    path = path or out / PAGE_NAME
    write_page(path, "report.html.j2", SCRIPTS, {"output": packed}, title=name_of_output(out), facts=packed.facts)
    return path


def is_stale(out: Path) -> bool:
    """Return whether the table was written after its page, as when a run was killed between them."""
    try:
        return (out / PAGE_NAME).stat().st_mtime_ns < clips_folder(out).stat().st_mtime_ns
    except FileNotFoundError:
        return clips_folder(out).exists()


def pack_output(output: Gathered, budget: Budget = Budget(), first: Sequence[int] = ()) -> Packed:  # noqa: B008 - frozen
    """Turn an output into what its page reads; the pictures of the rows in `first` come before others."""
    table, run = output.table, read_run(output.out)
    counts = counts_of(output)
    pictures = embedded(output, counts, int(budget.pictures_mb * 1e6), first)
    captions = table["caption"]
    said = captions.take(pc.indices_nonzero(pc.is_valid(captions))[:MOST_CAPTIONS]).to_pylist()
    chosen = _caption_rows(captions, list(pictures), int(budget.texts_mb * 1e6))
    blobs = _packed_columns(output, counts, captions if chosen is None else captions.take(chosen))
    blobs |= {f"pictures-{row}": " ".join(jpegs) for row, jpegs in pictures.items()}
    facts = {
        "name": name_of_output(output.out),
        "out": called(output.out),
        "base": "",
        "rows": len(table),
        "columns": [
            {
                "name": c.name,
                "unit": c.unit,
                "meaning": c.meaning,
                "media": sorted(c.media),
                "is_judgeable": is_judgeable(c),
                "is_plotted": c.name not in HIDDEN,
                "is_whole": str(c.dtype) != "double",
            }
            for c in output.numbers
        ],
        "rules": [{"column": n, "min": r.min, "max": r.max} for n, r in output.rules.items()],
        "stages": output.stages,
        "score_rejected": output.recipe.score_rejected,
        "cuts_files": output.recipe.cut.mode != "none",
        "caption_rows": None if chosen is None else chosen.tolist(),
        "phrases": frequent_phrases(said),
        "phrases_of": len(said),
        "pictured": list(pictures),
        "duplicates": _duplicates(table),
        "agreement": [asdict(each) | {"precision": each.precision} for each in agreements(table, output.rules)],
        "failures": _failures(table),
        "written": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "recipe": without_secrets(render_recipe(output.recipe)),
        "run": asdict(run),
    }
    return Packed(facts, blobs)


def _packed_columns(output: Gathered, counts: np.ndarray, captions: pa.ChunkedArray) -> dict[str, str]:
    """Pack what the page has of every row, by element id; on all cores, as compressing lets go of the interpreter."""
    table = output.table
    jobs: dict[str, tuple[Callable[[Any], str], Any]] = {
        **{f"column-{c.name}": (pack_numbers, table[c.name]) for c in output.numbers},
        "captions": (pack_text_column, captions),
        "ids": (pack_ids, table["clip_id"]),
        "has_file": (pack_numbers, pc.is_valid(table["clip_path"]).cast("int8")),
        "pictures": (pack_numbers, pa.chunked_array([pa.array(counts)])),
    }
    for name in DICTIONARIES:
        words = table[name].combine_chunks().dictionary_encode()
        jobs[f"codes-{name}"] = (pack_codes, words)
        jobs[f"words-{name}"] = (pack_text_column, pa.chunked_array([words.dictionary]))
    failed = pc.indices_nonzero(pc.equal(table["status"], "failed").combine_chunks())
    errors = zip(failed.to_pylist(), table["error"].take(failed).to_pylist(), strict=True)
    jobs["errors"] = (pack_texts, [[row, error] for row, error in errors])
    with ThreadPoolExecutor(pa.cpu_count()) as threads:
        return dict(zip(jobs, threads.map(lambda job: job[0](job[1]), jobs.values()), strict=True))


def write_page(
    path: Path, template: str, scripts: tuple[str, ...], outputs: Mapping[str, Packed], **values: Any
) -> None:
    """Fill a template of `page/`; every script and style is named by its hash, so that nothing else may run."""
    style = [(PAGE / name).read_text(encoding="utf-8") for name in ("vendor/uPlot.min.css", "style.css")]
    script = [(PAGE / name).read_text(encoding="utf-8") for name in ("vendor/uPlot.iife.min.js",)]
    script += [(PAGE / f"{name}.js").read_text(encoding="utf-8") for name in scripts]
    policy = "; ".join((
        "default-src 'none'",
        f"script-src {' '.join(map(_hash, script))}",
        f"style-src {' '.join(map(_hash, style))}",
        "img-src data: 'self'",
        "media-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
    ))
    pieces = (
        _templates()
        .get_template(template)
        .generate(
            policy=policy,
            styles=[Markup(text) for text in style],  # noqa: S704 - our own files
            scripts=[Markup(text) for text in script],  # noqa: S704
            outputs={
                name: {
                    "facts": in_script(packed.facts),
                    "blobs": {key: Markup(text) for key, text in packed.blobs.items()},  # noqa: S704 - base64
                }
                for name, packed in outputs.items()
            },
            **values,
        )
    )
    if path.parent.is_dir():
        remove_leftovers(path.parent)  # the page may lie where no other command cleans up
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.writelines(piece.encode() for piece in pieces)


def in_script(values: Any) -> Markup:
    """Return plain values as JSON that cannot end the script element it stands in."""
    text = json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(PAGE)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)


def _caption_rows(captions: pa.ChunkedArray, first: list[int], budget_bytes: int) -> np.ndarray | None:
    """Return the rows whose captions fit, the pictured ones first; None: all of them."""
    bytes_each = pc.fill_null(pc.binary_length(captions), 0).to_numpy().astype(np.int64)
    if bytes_each.sum() <= budget_bytes:
        return None
    rest = np.arange(0, len(bytes_each), max(1, round(bytes_each.sum() / max(1, budget_bytes))))
    order = np.concatenate([np.array(first, np.int64), rest[~np.isin(rest, first)]])
    fit = np.searchsorted(np.cumsum(bytes_each[order]), budget_bytes, side="right")
    return np.sort(order[:fit])


def _failures(table: Any) -> list[tuple[str, str]]:
    """Return path and error of failed rows, the first of them."""
    failed = table.filter(pc.equal(table["status"], "failed")).slice(0, MOST_FAILURES)
    return [
        (printable(path), printable_lines(error or ""))
        for path, error in zip(failed["source_path"].to_pylist(), failed["error"].to_pylist(), strict=True)
    ]


def _duplicates(table: Any) -> list[tuple[int, int]]:
    """Return (row, row that was kept instead of it) for clips rejected as `duplicate_of:<clip_id>`."""
    reasons = table["reasons"].combine_chunks()
    flat = reasons.flatten()
    marks = pc.fill_null(pc.starts_with(flat, "duplicate_of:"), False)
    if not pc.any(marks).as_py():
        return []
    parents = pc.list_parent_indices(reasons).filter(marks)
    kept = pc.index_in(
        pc.utf8_slice_codeunits(flat.filter(marks), len("duplicate_of:")), table["clip_id"].combine_chunks()
    )
    return [(row, other) for row, other in zip(parents.to_pylist(), kept.to_pylist(), strict=True) if other is not None]
