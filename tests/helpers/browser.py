"""Report pages in a headless Chromium that is watched, and made-up outputs to write such pages of."""

import dataclasses
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from runs import rows_of

from cli.common import TABLES
from configs import CONFIGS
from curation.analysis.previews import preview_path
from curation.output.folder import apply_rules, write_recipe
from curation.output.table import write_table
from curation.recipe import Recipe, load_recipe
from curation.schema import BY_NAME, blank_row, table_schema

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
DESKTOP = {"width": 1400, "height": 900}
PHONE = {"width": 390, "height": 844}
WITHIN = ("file:", "data:", "blob:")
"""what a page may ask for: nothing that leaves the machine"""

# -- the browser


@contextmanager
def chromium() -> Iterator["Browser"]:
    """Yield a headless Chromium; without one the test is skipped."""
    program = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if program is None:
        pytest.skip(f"no Chromium (looked for {', '.join(CHROMIUMS)}): apt-get install chromium")
    api = pytest.importorskip(
        "playwright.sync_api", reason="no playwright: pip install playwright (a browser of its own is not needed)"
    )
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def watched(
    browser: "Browser",
    may_lack_files: bool = False,
    address: str = "file:",
    quiet: tuple[str, ...] = (),
    **context: Any,
) -> Iterator["Page"]:
    """Yield an empty page; whatever it complains of, or asks of another machine, fails the test.

    Args:
        browser: from `chromium`.
        may_lack_files: the page's folder is not there, which the browser itself tells of on the console.
        address: of a server that it may ask, too.
        quiet: with which warnings begin that are none of ours.
        context: settings of Playwright's `new_context`.
    """
    troubles: list[str] = []

    def listen(message: "ConsoleMessage") -> None:
        is_lack = may_lack_files and "ERR_FILE_NOT_FOUND" in message.text
        if message.type in {"error", "warning"} and not is_lack and not message.text.startswith(quiet):
            troubles.append(f"console: {message.text} {message.location}")

    def see(request: "Request") -> None:
        if not request.url.startswith((*WITHIN, address)):
            troubles.append(f"asked for {request.url}")

    inside = browser.new_context(viewport=context.pop("viewport", DESKTOP), **context)
    try:
        page = inside.new_page()
        page.set_default_timeout(15_000)
        page.on("console", listen)
        page.on("pageerror", lambda error: troubles.append(f"page: {error}"))
        inside.on("request", see)
        inside.on("page", lambda other: troubles.append(f"opened {other.url}"))
        yield page
        settle(page)
        assert not troubles, "\n".join(troubles)
    finally:
        inside.close()


@contextmanager
def opened(browser: "Browser", report: Path, may_lack_files: bool = False, **context: Any) -> Iterator["Page"]:
    """Yield a page that shows a report, watched as `watched` does."""
    with watched(browser, may_lack_files, **context) as page:
        page.goto(report.as_uri())
        wait(page, "looked")
        assert page.get_attribute("html", "data-ready") == "yes", page.inner_text("#trouble")
        yield page


def wait(page: "Page", what: str) -> None:
    """Wait until the page says that it is `ready` (its numbers are shown) or has `looked` for its folder."""
    page.wait_for_selector(f'html[data-{what}], html[data-ready="no"]', state="attached", timeout=20_000)


def settle(page: "Page") -> None:
    """Wait until what was started has been drawn."""
    page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(() => drawn())))")


# -- what a person does and sees


def type_bound(page: "Page", column: str, side: str, text: str) -> None:
    """Type a threshold into its field."""
    field = page.locator(f'figure[data-column="{column}"] .{side} input')
    field.scroll_into_view_if_needed()
    settle(page)
    field.fill(text)
    field.press("Enter")
    settle(page)


def handle_of(page: "Page", column: str, side: str) -> Any:
    """Return the handle of a threshold, with its histogram in sight."""
    page.locator(f'figure[data-column="{column}"]').scroll_into_view_if_needed()
    return page.locator(f'.handle[data-column="{column}"][data-side="{side}"]')


def shown_counts(page: "Page") -> dict[str, Any]:
    """Return the counts that a page shows: of rows by status, and of rejected ones by their first reason."""
    shown: dict[str, Any] = page.evaluate("""() => {
        const lines = [...document.querySelectorAll('#funnel-rows tr[data-lost]')];
        const lost = Object.fromEntries(lines.map((line) => [line.dataset.reason, Number(line.dataset.lost)]));
        const tile = (name) => Number(document.getElementById(`total-${name}`).textContent.replaceAll(',', ''));
        const failed = lost.failed ?? 0;
        delete lost.failed;
        return {
            accepted: tile('accepted'), rejected: tile('rejected'), failed: tile('failed'), lost,
            also: [Number(document.documentElement.dataset.accepted), failed],
        };
    }""")
    assert shown.pop("also") == [shown["accepted"], shown["failed"]], "the page contradicts itself"
    return shown


def counts_of(out: Path) -> dict[str, Any]:
    """Return the same counts from an output's table."""
    rows = rows_of(out).values()
    status = Counter(row["status"] for row in rows)
    lost = Counter(row["reasons"][0] for row in rows if row["status"] == "rejected")
    return {name: status[name] for name in ("accepted", "rejected", "failed")} | {"lost": dict(lost)}


# -- made-up outputs


def default_recipe(*overrides: str) -> Recipe:
    """Return the default recipe, with some of its keys changed."""
    return load_recipe(CONFIGS / "default.yaml", overrides, TABLES)[0]


def an_id(number: int) -> str:
    """Return the clip id of a made-up row."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))


def a_row(recipe: Recipe, number: int, **values: Any) -> dict[str, Any]:
    """Return a row of which nothing was measured."""
    named = {"clip_id": an_id(number), "type": "video", "kind": "clip", "status": "rejected", "reasons": []}
    place = {"source_path": f"film-{number}.mp4", "source_root": "/films"}
    return blank_row(table_schema(recipe.operators)) | named | place | values


def write_rows(out: Path, recipe: Recipe, rows: Sequence[dict[str, Any]]) -> Path:
    """Write an output of these rows, judged by the recipe's rules."""
    out.mkdir(parents=True)
    write_recipe(out, recipe)
    write_table(out, pa.Table.from_pylist(list(rows), schema=table_schema(recipe.operators)), "")
    apply_rules(out, recipe)
    return out


def make_up(out: Path, recipe: Recipe, count: int, seed: int = 0) -> Path:
    """Write an output of videos, images, transitions and failures with random scores, some of them missing."""
    schema = table_schema(recipe.operators)
    table = pa.table(_columns(schema, count, np.random.default_rng(seed)), schema=schema)
    out.mkdir(parents=True)
    write_recipe(out, recipe)
    write_table(out, table, "")
    apply_rules(out, recipe)
    return out


def _columns(schema: pa.Schema, count: int, rng: np.random.Generator) -> dict[str, pa.Array]:
    kinds = rng.choice(["clip", "transition", "image", "failed"], count, p=[0.82, 0.05, 0.10, 0.03])
    is_film, is_failed = (kinds != "image"), (kinds == "failed")
    columns = {field.name: pa.nulls(count, field.type) for field in schema}

    def put(name: str, values: Any, missing: Any = False) -> None:
        none = np.broadcast_to(missing, count) | is_failed
        if name != "type" and BY_NAME[name].media == {"video"}:
            none = none | ~is_film
        columns[name] = pa.array(np.asarray(values), schema.field(name).type, mask=none)

    ids = [an_id(number) for number in range(count)]
    start_s = np.arange(count) % 40 * 12.0
    duration_s = np.round(rng.uniform(0.5, 10.0, count) * 24) / 24
    put("start_s", start_s)
    put("end_s", start_s + duration_s)
    put("duration_s", duration_s)
    put("num_frames", np.round(duration_s * 24))
    put("fps", rng.choice([23.976, 24.0, 25.0, 59.94], count))
    short_side = rng.choice([144, 240, 480, 720, 1080], count)
    put("short_side_px", short_side)
    put("height_px", short_side)
    put("width_px", short_side * 16 // 9)
    put("kind", np.where(kinds == "transition", "transition", "clip"))
    scores = {
        "motion": rng.lognormal(1.5, 1.2, count),
        "sharpness": rng.lognormal(4.5, 1.2, count),
        "brightness": rng.beta(3, 3, count),
        "clipped": rng.beta(1, 12, count),
        "frozen": np.where(rng.random(count) < 0.8, 0.0, rng.random(count)),
        "letterbox": np.where(rng.random(count) < 0.9, 0.0, rng.uniform(0, 0.3, count)),
        "visual_quality": rng.beta(6, 4, count),
        "text_area": np.where(rng.random(count) < 0.7, 0.0, rng.exponential(0.03, count)),
        "camera_pan_x": rng.normal(0, 4, count),
        "camera_pan_y": rng.normal(0, 2, count),
        "camera_zoom": rng.normal(0, 0.1, count),
        "aspect_ratio": np.full(count, 16 / 9),
        "bit_depth": rng.choice([8, 10], count),
        "bit_rate_bps": rng.integers(10**5, 10**8, count),
    }
    for name, values in scores.items():
        if values.dtype.kind == "f":
            values[rng.random(count) < 0.005] = np.nan
        put(name, values, rng.random(count) < 0.03)
    nouns, places = ("boat", "train", "bird", "crowd", "car"), ("a harbour", "the hills", "a wet street", "the reef")
    said = [f"A {nouns[a]} moves through {places[b]}, filmed from above, take {n}." for n, (a, b) in enumerate(
        zip(rng.integers(len(nouns), size=count), rng.integers(len(places), size=count), strict=True)
    )]  # fmt: skip
    put("caption", said)
    put("caption_status", rng.choice(["ok", "too_short", "repeats"], count, p=[0.9, 0.06, 0.04]))
    put("clip_path", [f"train/{clip_id}.mp4" for clip_id in ids])
    whole = {
        "clip_id": ids,
        "type": np.where(is_film, "video", "image"),
        "source_path": [f"day {n // 40 % 7}/film-{n // 40:05d}.mp4" for n in range(count)],
        "source_root": ["/films"] * count,
        "status": np.where(is_failed, "failed", "accepted"),
        "error": [f"decode: no frame {n} in it" if failed else None for n, failed in enumerate(is_failed)],
        "reasons": [[]] * count,
    }
    return columns | {name: pa.array(values, schema.field(name).type) for name, values in whole.items()}


def put_pictures(out: Path, different: int = 24) -> None:
    """Lay four random pictures of every row beside an output, about as large as real ones."""
    rng = np.random.default_rng(0)
    drawn = []
    for number in range(different):
        coarse = rng.integers(0, 255, (18, 32, 3)).astype(np.uint8)
        fine = cv2.resize(coarse, (256, 144), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        pixels = np.clip(fine + rng.integers(-8, 9, fine.shape), 0, 255).astype(np.uint8)
        drawn.append(out / f"drawn-{number}.jpg")
        drawn[-1].write_bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())
    for number, clip_id in enumerate(sorted(rows_of(out))):
        for place in range(4):
            path = preview_path(out, clip_id, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(drawn[(4 * number + place) % different], path)


def copied(out: Path, to: Path) -> Path:
    """Copy what `select` needs of an output: all but its pictures."""
    return Path(shutil.copytree(out, to, ignore=shutil.ignore_patterns("previews", "report.html", "drawn-*")))


def with_recipe(recipe: Recipe, **values: Any) -> Recipe:
    """Return a recipe with other values."""
    return dataclasses.replace(recipe, **values)
