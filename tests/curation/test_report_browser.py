"""The report page in a real browser: what people do to it, and that its counts are those of `select`."""

import math
import random
import re
import shlex
import shutil
import time
from collections import Counter
from pathlib import Path
from statistics import median

import pyarrow.compute as pc
import pytest
import yaml
from browser import (
    PHONE,
    a_row,
    chromium,
    copied,
    counts_of,
    default_recipe,
    handle_of,
    make_up,
    opened,
    put_pictures,
    settle,
    shown_counts,
    type_bound,
    wait,
    watched,
    with_recipe,
    write_rows,
)
from runs import curate, rows_of

import run_pipeline
from cli.common import TABLES
from curation.judge import rules_of
from curation.recipe import Rule, load_recipe
from curation.report.gather import gather, is_judgeable
from curation.report.write import Budget, write_report

pytestmark = pytest.mark.browser

TRIALS = 10
CLIPBOARD = ["clipboard-read", "clipboard-write"]


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def curated(browser, demo_footage, tmp_path_factory) -> Path:
    """Most of the demo's footage, curated: videos, an image, transitions, a file that cannot be read."""
    out = tmp_path_factory.mktemp("curated") / "out"
    large = {"reef_60fps.mp4", "downtown_720p.mp4", "flyover.mp4"}
    curate(*(path for path in sorted(demo_footage.iterdir()) if path.name not in large), out=out)
    write_report(out, recipe_of(out), Budget())
    return out


@pytest.fixture(scope="module")
def many(browser, tmp_path_factory) -> Path:
    """Ten thousand clips with pictures for all of the budget."""
    out = make_up(tmp_path_factory.mktemp("many") / "out", default_recipe(), 10_000)
    put_pictures(out)
    page = write_report(out, recipe_of(out), Budget())
    assert 24e6 < page.stat().st_size < 30e6, "pictures fill the budget"
    return out


def recipe_of(out: Path):
    return load_recipe(out / "recipe.yaml", [], TABLES)[0]


def table_rows(out: Path) -> list[dict]:
    """Return the table's rows in its order, by which the page counts them."""
    return list(rows_of(out).values())


def selected(page, out: Path, to: Path) -> Path:
    """Run the command that the page shows, on a copy of its output."""
    words = shlex.split(page.locator("#command").text_content())
    assert words[:3] == ["python", "run_pipeline.py", "select"] and words[3] == str(out)
    assert run_pipeline.main(["select", str(copied(out, to)), *words[4:]]) == 0
    return to


# -- the page's counts are those of `select`


def as_curated(curated: Path, to: Path) -> Path:
    return shutil.copytree(curated, to)


def with_scores_set_aside(curated: Path, to: Path) -> Path:
    """Most clips are rejected early, so that the text on them was measured once and is set aside now."""
    shutil.copytree(curated, to)
    assert run_pipeline.main(["select", str(to), "rules.motion.min=6", "rules.sharpness=false"]) == 0
    table = rows_of(to).values()
    assert sum(row["text_area"] is None for row in table) > sum(row["text_area"] is None for row in table_rows(curated))
    return to


def made_up(_: Path, to: Path) -> Path:
    """Scores are missing, no number, or never measured; checks of captions reject; there are images and failures."""
    out = make_up(to, default_recipe("rules.duration_s.max=9.5", "rules.camera_zoom.max=0.2"), 600, seed=1)
    assert {"caption:repeats", "shot:transition", "text_area:missing"} <= counts_of(out)["lost"].keys()
    return out


def made_up_and_measured_whole(_: Path, to: Path) -> Path:
    """With `score_rejected` later scores stand beside earlier reasons."""
    return make_up(to, with_recipe(default_recipe(), score_rejected=True), 600, seed=2)


@pytest.mark.parametrize("make", [as_curated, with_scores_set_aside, made_up, made_up_and_measured_whole])
def test_thresholds_in_the_page_give_exactly_the_counts_of_the_command_it_shows(
    browser, curated, tmp_path, monkeypatch, make
):
    out = make(curated, tmp_path / "out")
    report = write_report(out, recipe_of(out), Budget())
    monkeypatch.setattr("curation.pipeline.write_packed", lambda *_: None)  # of the copies
    seen = gather(out, recipe_of(out))
    ruled = list(seen.rules)
    free = [c.name for c in seen.numbers if is_judgeable(c) and c.name not in {*ruled, "start_s", "end_s"}]
    rng = random.Random(make.__name__)
    moved = set()
    with opened(browser, report, may_lack_files=True, permissions=CLIPBOARD) as page:
        assert shown_counts(page) == counts_of(out), "as it was written"
        for trial in range(TRIALS):
            if page.locator("#change").is_visible():
                page.click("#reset")
            for column in dict.fromkeys([ruled[trial % len(ruled)], *rng.sample(ruled + free, rng.randrange(4))]):
                for side in rng.sample(["min", "max"], rng.choice([1, 1, 2])):
                    type_bound(page, column, side, a_bound(rng, pc.drop_null(seen.table[column]).to_pylist()))
                    moved.add(column)
            told = page.locator("#command").text_content()
            copy = selected(page, out, tmp_path / f"trial-{trial}")
            assert shown_counts(page) == counts_of(copy), told
            rules = {name: said_of(rule) for name, rule in rules_of(recipe_of(copy)).items()}
            assert copied_rules(page) == rules, told
            rows = table_rows(copy)
            for row, word, reasons in shown_cards(page):
                assert (word, reasons) == (rows[row]["status"], ", ".join(rows[row]["reasons"] or [])), told
    assert moved > {*ruled}, "every rule, and some that were not there"


def a_bound(rng: random.Random, values: list[float]) -> str:
    """Return a threshold as it may be typed: a score itself, a hair beside it, between, beyond all, or none."""
    some = [value for value in values if math.isfinite(value)] or [0.0]
    value = rng.choice(some)
    near = value + rng.choice([-1, 1]) * max(1.0, abs(value)) * rng.choice([9e-7, 1.1e-6, 1e-4])
    beyond = rng.choice([min(some) - 1, 2 * max(some) + 1])
    return rng.choice([repr(value), repr(value), repr(near), repr(rng.uniform(min(some), max(some))), repr(beyond), ""])


def said_of(rule: Rule) -> dict[str, float]:
    return {side: bound for side, bound in (("min", rule.min), ("max", rule.max)) if bound is not None}


def copied_rules(page) -> dict[str, dict[str, float]]:
    page.evaluate("() => navigator.clipboard.writeText('')")
    page.evaluate("() => document.getElementById('copy-yaml').click()")
    rules: dict[str, dict[str, float]] = yaml.safe_load(from_clipboard(page))["rules"]
    return rules


def from_clipboard(page) -> str:
    for _ in range(100):
        text: str = page.evaluate("() => navigator.clipboard.readText()")
        if text:
            return text
        page.wait_for_timeout(20)
    raise AssertionError("nothing was copied")


def shown_cards(page) -> list[tuple[int, str, str]]:
    cards = page.evaluate("""() => [...document.querySelectorAll('#panes .card')].map((card) => [
        Number(card.dataset.row), card.querySelector('.status').textContent, card.querySelector('.reasons').textContent,
    ])""")
    return [tuple(card) for card in cards]


def test_nothing_accepted_is_shown_as_nothing_and_told_to_select_as_it_is(browser, curated, tmp_path):
    with opened(browser, curated / "report.html") as page:
        type_bound(page, "short_side_px", "min", "1e21")
        shown = shown_counts(page)
        assert shown["accepted"] == 0 and shown["lost"]["short_side_px:low"] > 0
        assert shown == counts_of(selected(page, curated, tmp_path / "none"))


def test_a_number_reaches_select_as_it_was_typed_however_it_is_spelt(browser, curated, tmp_path):
    with opened(browser, curated / "report.html") as page:
        for number, text in enumerate(["0", "1e-7", "2.5e-7", "0.1", "1e21", "-0.0"]):
            type_bound(page, "clipped", "max", text)
            copy = selected(page, curated, tmp_path / f"out-{number}")
            assert recipe_of(copy).rules["clipped"] == Rule(max=float(text))
            assert shown_counts(page) == counts_of(copy)


def test_a_threshold_typed_past_the_other_one_stops_there(browser, curated):
    """No rule lets nothing pass by contradicting itself: `select` would refuse it."""
    with opened(browser, curated / "report.html") as page:
        type_bound(page, "motion", "min", "1000")
        assert page.locator('figure[data-column="motion"] .min input').input_value() == "60"
        assert "rules.motion.min=60" in page.locator("#command").text_content()


def test_a_page_written_after_select_has_nothing_to_change(browser, curated, tmp_path):
    with opened(browser, curated / "report.html") as page:
        type_bound(page, "motion", "min", "8")
        type_bound(page, "camera_pan_x", "min", "-2")
        copy = selected(page, curated, tmp_path / "out")
        counts = shown_counts(page)
    with opened(browser, copy / "report.html", may_lack_files=True) as page:
        assert shown_counts(page) == counts
        assert not page.locator("#change").is_visible()
        handle_of(page, "camera_pan_x", "min").wait_for()
        assert page.locator('figure[data-column="camera_pan_x"] .min input').input_value() == "-2"


def test_the_funnel_adds_up_line_by_line(browser, tmp_path):
    out = make_up(tmp_path / "out", default_recipe(), 400, seed=3)
    report = write_report(out, recipe_of(out), Budget())
    with opened(browser, report, may_lack_files=True) as page:
        lines = page.evaluate("""() => [...document.querySelectorAll('#funnel-rows tr')].map((line) => [
            line.dataset.reason, Number(line.dataset.lost ?? 0), line.querySelector('.left').textContent,
        ])""")
    rows = table_rows(out)
    assert lines[0] == ["sources", 0, str(len({row["source_path"] for row in rows}))]
    left = len(rows)
    for name, lost, said in lines[1:]:
        left -= lost
        assert name == "failed" or int(said) == left, name
    assert lines[-1][0] == "accepted" and left == counts_of(out)["accepted"]


def test_every_rule_tells_how_many_it_rejects_first_or_not(browser, tmp_path):
    out = make_up(tmp_path / "out", default_recipe(), 400, seed=6)
    report = write_report(out, recipe_of(out), Budget())
    said = Counter(reason for row in table_rows(out) for reason in row["reasons"] or [])
    with opened(browser, report, may_lack_files=True) as page:
        for column in set(rules_of(recipe_of(out))) - {"text_area"}:  # which is measured of some clips only
            handle_of(page, column, "min").wait_for()
            parts = [f"{said[f'{column}:{word}']} {word}" for word in ("low", "high", "missing")]
            told = ", ".join(part for part in parts if not part.startswith("0 "))
            shown = page.locator(f'figure[data-column="{column}"] .rejects')
            assert shown.text_content() == f"rejects {told or 'none'}", column


# -- what a person does


def test_a_threshold_is_dragged_and_everything_follows(browser, curated, tmp_path):
    with opened(browser, curated / "report.html") as page:
        before = shown_counts(page)
        handle = handle_of(page, "motion", "min")
        was = float(handle.get_attribute("aria-valuenow"))
        drag(page, handle, 60)
        bound = float(page.locator('figure[data-column="motion"] .min input').input_value())
        assert bound > was and float(handle.get_attribute("aria-valuenow")) == pytest.approx(bound, rel=1e-3)
        after = shown_counts(page)
        assert after["lost"]["motion:low"] > before["lost"]["motion:low"] and after["accepted"] < before["accepted"]
        words = page.locator("#change-words").text_content()
        assert words.startswith(f"{before['accepted']} → {after['accepted']} accepted")
        assert page.locator("#total-accepted").text_content() == str(after["accepted"])
        copy = selected(page, curated, tmp_path / "out")
        assert recipe_of(copy).rules["motion"] == Rule(bound, 60) and counts_of(copy) == after
        rows = table_rows(copy)
        low = sum(row["motion"] is not None and row["motion"] < bound for row in rows)
        assert f"rejects {low} low" in page.locator('figure[data-column="motion"] .rejects').text_content()
        assert page.locator("#view").input_value() == "border:motion"
        inside, outside = (motions(page, rows, f"just {where} min") for where in ("inside", "outside"))
        assert inside and outside and min(inside) >= bound > max(outside)
        moved_to = handle.bounding_box()["x"]
        page.click("#reset")
        settle(page)
        assert shown_counts(page) == before and not page.locator("#change").is_visible()
        assert float(handle.get_attribute("aria-valuenow")) == was and handle.bounding_box()["x"] < moved_to


def drag(page, handle, to_right_px: float) -> None:
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + to_right_px, y, steps=5)
    page.mouse.up()
    settle(page)


def motions(page, rows, title: str) -> list[float]:
    pane = page.locator(".pane", has=page.get_by_role("heading", name=title))
    return [rows[int(card.get_attribute("data-row"))]["motion"] for card in pane.locator(".card").all()]


def test_a_threshold_dragged_to_the_end_of_the_axis_is_off(browser, curated, tmp_path):
    with opened(browser, curated / "report.html") as page:
        drag(page, handle_of(page, "sharpness", "min"), -600)
        assert "rules.sharpness=false" in page.locator("#command").text_content()
        assert handle_of(page, "sharpness", "min").get_attribute("aria-valuetext") == "off"
        drag(page, handle_of(page, "motion", "max"), 600)
        assert "rules.motion.max=null" in page.locator("#command").text_content()
        copy = selected(page, curated, tmp_path / "out")
        assert shown_counts(page) == counts_of(copy)
        assert "sharpness" not in recipe_of(copy).rules and recipe_of(copy).rules["motion"].max is None


def test_next_to_a_threshold_come_first_the_clips_it_decides_the_nearest_before_others(browser, tmp_path):
    out = make_up(tmp_path / "out", default_recipe("rules.brightness={min: 0.3}"), 150, seed=5)
    rows = table_rows(out)
    inside, outside = [], []
    for number, row in enumerate(rows):
        if row["brightness"] is not None and row["brightness"] == row["brightness"]:
            away = row["brightness"] - 0.3
            early = [reason for reason in row["reasons"] or [] if not reason.startswith("text_area")]
            is_decided = row["status"] == "accepted" if away >= 0 else early == ["brightness:low"]
            (inside if away >= 0 else outside).append((not is_decided, abs(away), number))
    decided = sum(not is_other for is_other, *_ in outside)
    assert 0 < decided < 12 < len(outside), "some of those shown are rejected anyway"
    with opened(browser, write_report(out, recipe_of(out), Budget()), may_lack_files=True) as page:
        page.select_option("#view", "border:brightness")
        shown = [row for row, *_ in shown_cards(page)]
    assert shown[:12] == [number for *_, number in sorted(inside)[:12]]
    assert shown[12:] == [number for *_, number in sorted(outside)[:12]]


def test_what_is_being_typed_stays_though_the_page_draws_meanwhile(browser, curated):
    """As when a phone makes room for its keyboard."""
    with opened(browser, curated / "report.html") as page:
        handle_of(page, "motion", "min")
        field = page.locator('figure[data-column="motion"] .min input')
        field.fill("7.5")
        page.evaluate("() => scrollTo(0, document.body.scrollHeight)")
        settle(page)
        field.evaluate("(field) => field.scrollIntoView({ block: 'center' })")
        page.wait_for_timeout(100)
        assert field.input_value() == "7.5"
        field.press("Enter")
        settle(page)
        assert "rules.motion.min=7.5" in page.locator("#command").text_content()


def test_a_threshold_follows_the_keys(browser, curated, tmp_path):
    with opened(browser, curated / "report.html") as page:
        handle = handle_of(page, "brightness", "max")
        handle.focus()
        values = [float(handle.get_attribute("aria-valuenow"))]
        for key in ("ArrowLeft", "PageDown", "PageDown", "ArrowUp", "PageUp"):
            page.keyboard.press(key)
            settle(page)
            values.append(float(handle.get_attribute("aria-valuenow")))
        steps = [b - a for a, b in zip(values, values[1:], strict=False)]
        assert [step > 0 for step in steps] == [False, False, False, True, True]
        assert abs(steps[1]) > 5 * abs(steps[0]), "a page is more than an arrow"
        assert shown_counts(page) == counts_of(selected(page, curated, tmp_path / "out"))
        page.keyboard.press("End")
        settle(page)
        assert "rules.brightness.max=null" in page.locator("#command").text_content()


def test_the_command_and_the_rules_are_copied_whole(browser, curated, tmp_path):
    with opened(browser, curated / "report.html", permissions=CLIPBOARD) as page:
        type_bound(page, "text_area", "max", "0.5")
        type_bound(page, "letterbox", "max", "")
        page.click("#copy-command")
        page.get_by_text("command copied").wait_for()
        assert from_clipboard(page) == page.locator("#command").text_content()
        rules = copied_rules(page)
        assert rules["text_area"] == {"max": 0.5} and "letterbox" not in rules and rules["duration_s"] == {"min": 3}
        page.get_by_text("YAML copied").wait_for()


def test_the_search_finds_captions_paths_and_errors(browser, curated):
    rows = table_rows(curated)
    said = next(row["caption"] for row in rows if row["caption"])
    words = said.split()[1:4]
    with opened(browser, curated / "report.html") as page:
        for question, wanted in (
            (" ".join(words), [r for r in rows if holds(r["caption"], words) or holds(r["source_path"], words)]),
            ("TRAVEL.mp4", [r for r in rows if r["source_path"] == "travel.mp4"]),
            ("not a readable", [r for r in rows if holds(r["error"], ["not", "a", "readable"])]),
            ("there is no such word", []),
        ):
            page.fill("#search", question)
            settle(page)
            assert page.locator("#found").text_content() == f"{len(wanted)} found"
            assert [row for row, *_ in shown_cards(page)] == [rows.index(row) for row in wanted][:24]
        page.fill("#search", "")
        settle(page)
        assert page.locator("#found").text_content() == "" and page.locator("#view").input_value() == "random:"


def holds(text: str | None, words: list[str]) -> bool:
    return all(word.lower() in (text or "").lower() for word in words)


def test_a_phrase_of_the_captions_is_searched_by_a_click(browser, tmp_path):
    out = make_up(tmp_path / "out", default_recipe(), 300, seed=4)
    with opened(browser, write_report(out, recipe_of(out), Budget()), may_lack_files=True) as page:
        item = page.locator("#caption-phrases li").first
        count, phrase = item.text_content().split(" ", 1)
        item.click()
        settle(page)
        assert page.locator("#search").input_value() == phrase
        found = int(page.locator("#found").text_content().split()[0])
        assert found >= int(count) > 1


def test_a_click_plays_the_clip_whose_file_lies_beside_the_page(browser, curated):
    rows = table_rows(curated)
    with opened(browser, curated / "report.html") as page:
        page.select_option("#view", "ends:motion")
        accepted = page.locator(".card.accepted").first
        row = rows[int(accepted.get_attribute("data-row"))]
        accepted.locator("button").click()
        dialog = page.locator("dialog#clip")
        assert dialog.is_visible() and row["source_path"] in dialog.locator("h2").text_content()
        assert dialog.locator(".caption").text_content() == row["caption"]
        assert dialog.locator(".id").text_content() == row["clip_id"]
        assert plays(page), "the clip does not play"
        assert not page.evaluate("() => document.querySelector('#clip video').muted"), "its sound cannot be heard"
        page.keyboard.press("Escape")
        assert not dialog.is_visible()
        assert page.evaluate("() => document.querySelector('#clip video').paused")
        page.locator(".card.rejected button").first.click()
        assert "only accepted clips have one" in dialog.locator(".note").text_content()
        assert dialog.locator("video").count() == 0 and dialog.locator("img").count() > 0


def plays(page) -> bool:
    for _ in range(150):
        ready, at_s = page.evaluate(
            "() => { const v = document.querySelector('#clip video'); return [v.readyState, v.currentTime]; }"
        )
        if ready >= 2 and at_s > 0.1:
            return True
        page.wait_for_timeout(100)
    return False


def test_a_page_sent_on_alone_shows_the_pictures_it_holds_and_says_what_it_lacks(browser, curated, tmp_path):
    alone = shutil.copy(curated / "report.html", tmp_path)
    rows = table_rows(curated)
    with opened(browser, Path(alone), may_lack_files=True) as page:
        pictured = sum(row["status"] != "failed" for row in rows)
        assert f"Pictures of {pictured} clips travel in this page" in page.locator("#pictures-note").text_content()
        assert widths_of_pictures(page, "data:")
        page.select_option("#view", "ends:motion")
        page.locator(".card.accepted button").first.click()
        page.get_by_text("Its file does not lie beside this page").wait_for()
        assert page.locator("#clip video").count() == 0 and page.locator("#clip .strip img").count() > 1


def test_pictures_that_the_page_does_not_hold_come_from_the_folder_beside_it(browser, curated, tmp_path):
    out = shutil.copytree(curated, tmp_path / "out")
    report = write_report(out, recipe_of(out), Budget(pictures_mb=0))
    with opened(browser, report) as page:
        assert page.locator("#pictures-note").text_content() == ""
        for view in ("random:", "ends:sharpness", "border:motion"):
            page.select_option("#view", view)
            assert widths_of_pictures(page, "previews/")


def widths_of_pictures(page, begins: str) -> list[int]:
    """Wait until every picture in sight is there; return their widths."""
    page.locator("#panes").scroll_into_view_if_needed()
    for card in page.locator("#panes .card").all()[:4]:
        card.scroll_into_view_if_needed()
        for picture in card.locator("img").all():
            assert picture.get_attribute("src").startswith(begins)
            for _ in range(100):
                if picture.evaluate("(picture) => picture.complete && picture.naturalWidth"):
                    break
                page.wait_for_timeout(50)
            assert picture.evaluate("(picture) => picture.naturalWidth") > 100
    return [1] * page.locator("#panes .card img").count()


def test_two_scores_are_set_against_each_other_and_a_point_opens_its_clip(browser, curated):
    with opened(browser, curated / "report.html") as page:
        page.locator("#scatter summary").click()
        page.select_option("#scatter-x", "brightness")
        page.select_option("#scatter-y", "sharpness")
        both = [r for r in table_rows(curated) if r["brightness"] is not None and r["sharpness"] is not None]
        assert page.locator("#scatter-note").text_content() == f"{len(both)} clips with both scores"
        plot = page.locator("#scatter-plot .u-over")
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        for step in range(400):
            page.mouse.click(
                box["x"] + box["width"] * (step % 20 + 0.5) / 20, box["y"] + box["height"] * (step // 20 + 0.5) / 20
            )
            if page.locator("#clip").is_visible():
                break
        assert page.locator("#clip .verdict").text_content()


# -- what outsiders may have put into the table

PAYLOADS = (
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    "--><!--<script>",
    "<img src=x onerror=window.pwned=1>",
    "\"><svg onload=window.pwned=1>' onmouseover='window.pwned=1",
    "{{ 7 * 7 }}{% include 'x' %}${window.pwned=1}",
    "a\x00b\x07c\x1b[31m\td\u2028e\u202ef\ufeffg\x7f",
    "&lt;b&gt;&amp;amp;",
    "x" * 3000,
    "日本語の字幕と絵文字 🎬👩‍👩‍👧",
)
LONG_ERROR = "decode: " + "</pre><script>window.pwned=1</script> 0123456789\n" * 250


def hostile_rows(recipe):
    measured = {"short_side_px": 720, "motion": 5.0, "frozen": 0.0, "brightness": 0.5, "sharpness": 99.0}
    measured |= {"visual_quality": 0.9, "letterbox": 0.0, "text_area": 0.0, "duration_s": 5.0, "start_s": 1.0}
    for number, text in enumerate(PAYLOADS):
        path = f"{text}/film.mp4"
        yield a_row(recipe, 3 * number, source_path=path, caption=text, caption_status="ok", clip_path="x", **measured)
        yield a_row(recipe, 3 * number + 1, source_path=path, caption=text, caption_status=text, **measured)
        yield a_row(recipe, 3 * number + 2, source_path=path, status="failed", error=LONG_ERROR + text)


def nothing_measured(recipe):
    return [a_row(recipe, number, type=("image" if number % 2 else "video")) for number in range(20)]


def no_number(recipe):
    """Scores that are infinite, not a number, enormous or minute."""
    values = (math.inf, -math.inf, math.nan, 1e308, -1e308, 5e-324, 0.0, -0.0)
    return [a_row(recipe, n, motion=v, sharpness=-v, duration_s=v, start_s=v) for n, v in enumerate(values)]


def none_accepted(recipe):
    return [a_row(recipe, number, motion=0.0, duration_s=1.0) for number in range(5)]


def one_clip(recipe):
    return [next(hostile_rows(recipe)) | {"source_path": "film.mp4"}]


def no_row(recipe):
    return []


def failures_alone(recipe):
    return [a_row(recipe, number, status="failed", error=None, kind=None) for number in range(3)]


LOOK_AT_ALL = """async () => {
    const drawn = () => new Promise((done) => requestAnimationFrame(done));
    for (const details of document.querySelectorAll('details')) details.open = true;
    dispatchEvent(new Event('beforeprint'));  // draws every histogram
    await drawn();
    const view = document.getElementById('view');
    for (const { value } of [...view.options]) {
        view.value = value;
        view.dispatchEvent(new Event('change'));
        for (const button of [...document.querySelectorAll('.card button')].slice(0, 3)) {
            button.click();
            document.getElementById('clip').close();
        }
        await drawn();
    }
}"""
HOSTILE = (hostile_rows, nothing_measured, no_number, none_accepted, one_clip, no_row, failures_alone)


@pytest.mark.parametrize("rows", HOSTILE)
def test_whatever_the_table_holds_every_view_of_it_renders_and_nothing_of_it_runs(browser, tmp_path, rows):
    recipe = default_recipe()
    out = write_rows(tmp_path / "out", recipe, list(rows(recipe)))
    report = write_report(out, recipe, Budget())
    for size in ({}, {"viewport": PHONE}):
        with opened(browser, report, may_lack_files=True, **size) as page:
            assert shown_counts(page) == counts_of(out)
            page.evaluate(LOOK_AT_ALL)
            page.fill("#search", "script")
            settle(page)
            assert page.evaluate("() => window.pwned") is None
            assert too_wide(page) == []


def test_text_from_outside_is_shown_as_it_is(browser, tmp_path):
    recipe = default_recipe()
    out = write_rows(tmp_path / "out", recipe, list(hostile_rows(recipe)))
    rows = table_rows(out)
    with opened(browser, write_report(out, recipe, Budget()), may_lack_files=True) as page:
        dialog = page.locator("#clip")
        for view in ("search:", "failed:"):
            page.select_option("#view", view)
            if view == "search:":
                page.fill("#search", "film.mp4")
            for row, *_ in shown_cards(page):
                page.locator(f'.card[data-row="{row}"] button').click()
                expected = rows[row]
                assert dialog.locator("h2").text_content().startswith(f"{expected['source_path']}  ")
                assert dialog.locator(".caption").text_content() == (expected["caption"] or "")
                assert dialog.locator(".error").text_content() == (expected["error"] or "")
                if expected["status"] == "rejected":
                    assert dialog.locator(".verdict").text_content() == f"rejected: {expected['reasons'][0]}"
                page.keyboard.press("Escape")
        for text in PAYLOADS:
            assert shown_counts(page)["lost"][f"caption:{text}"] == 1
        listed = page.locator(".failures pre").all_text_contents()
        assert len(listed) == len(PAYLOADS) and all(len(text) > 10_000 for text in listed)
        assert page.evaluate("() => window.pwned") is None


def test_a_folder_of_any_name_gives_a_command_that_a_shell_takes_for_one_word(browser, tmp_path):
    recipe = default_recipe()
    name = 'it\'s a "quoted" $(touch x) `y` & <script>window.pwned=1</script>\nand more; -x'
    out = write_rows(tmp_path / name.replace("/", "∕"), recipe, nothing_measured(recipe))
    with opened(browser, write_report(out, recipe, Budget()), may_lack_files=True) as page:
        type_bound(page, "motion", "min", "2")
        assert shlex.split(page.locator("#command").text_content())[3:] == [str(out), "rules.motion.min=2"]
        assert page.locator("h1").text_content() == out.name
        assert page.evaluate("() => window.pwned") is None


def test_a_damaged_page_says_so_instead_of_showing_half(browser, curated, tmp_path):
    text = (curated / "report.html").read_text(encoding="utf-8")
    at = text.index('id="output-column-motion">') + 40
    (tmp_path / "report.html").write_text(text[:at] + "AAAA" + text[at + 4 :], encoding="utf-8")
    troubles: list[str] = []
    page = browser.new_page()
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto((tmp_path / "report.html").as_uri())
    wait(page, "ready")
    assert page.get_attribute("html", "data-ready") == "no" and troubles
    assert "cannot show its data" in page.locator("#trouble").text_content()
    page.close()


# -- how fast


MEASURE = """async ([act, times]) => {
    const drawn = () => new Promise((done) => requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => done();
        port2.postMessage(0);
    }));
    const happens = (target, event) => target.dispatchEvent(event);
    const byId = (id) => document.getElementById(id);
    const motion = document.querySelector('figure[data-column="motion"]');
    const acts = {
        type(n) {
            motion.querySelector('.min input').value = String(0.5 + 0.37 * (n % 13));
            happens(motion.querySelector('.min input'), new Event('change'));
        },
        press(n) {
            const key = n % 8 ? 'ArrowRight' : 'Home';
            happens(motion.querySelector('.handle.min'), new KeyboardEvent('keydown', { key }));
        },
        reset: () => byId('reset').click(),
        search(n) {
            byId('search').value = ['boat', 'a wet street', 'film-00012', 'take 77', 'no frame'][n % 5];
            happens(byId('search'), new Event('input'));
        },
        view(n) {
            const { options } = byId('view');
            byId('view').value = options[(7 * n) % options.length].value;
            happens(byId('view'), new Event('change'));
        },
        open: (n) => (byId('clip').close(), document.querySelectorAll('.card button')[n % 8].click()),
        scatter(n) {
            byId('scatter').open = true;
            byId('scatter-x').selectedIndex = n % byId('scatter-x').length;
            happens(byId('scatter-x'), new Event('change'));
        },
    };
    const took = [];
    for (let n = 0; n < times; n++) {
        if (act === 'reset') acts.type(n);
        await drawn();
        const begin = performance.now();
        acts[act](n);
        await drawn();
        took.push(performance.now() - begin);
    }
    return took;
}"""
ACTS = {"type": "scores", "press": "scores", "reset": "scores", "search": "clips", "view": "clips", "scatter": "scores"}
"""what is done, and the section that is in sight meanwhile"""


def test_ten_thousand_clips_open_within_two_seconds(browser, many):
    took = []
    for _ in range(4):
        with watched(browser) as page:
            begin = time.monotonic()
            page.goto((many / "report.html").as_uri(), wait_until="commit")
            wait(page, "ready")
            took.append(time.monotonic() - begin)
            assert shown_counts(page)["accepted"] == counts_of(many)["accepted"]
    print(f"opened in {[f'{seconds:.2f}' for seconds in took]} s")
    assert min(took) < 2.0, took


def test_with_ten_thousand_clips_every_act_is_answered_within_a_tenth_of_a_second(browser, many):
    """The best of several medians: other programs on the machine slow some of them, never all."""
    best = {}
    with opened(browser, many / "report.html", may_lack_files=True) as page:
        for act, section in ACTS.items():
            place = page.locator('figure[data-column="motion"]' if section == "scores" else "#clips-title")
            place.evaluate("(place) => place.scrollIntoView({ block: 'start' })")
            page.wait_for_timeout(200)
            medians = []
            while len(medians) < 8 and min(medians, default=math.inf) >= 100:
                medians.append(median(page.evaluate(MEASURE, [act, 9])))
            best[act] = min(medians)
        medians = [median(page.evaluate(MEASURE, ["open", 9])) for _ in range(2)]
        best["open"] = min(medians)
    print({act: f"{ms:.0f} ms" for act, ms in best.items()})
    assert all(ms < 100 for ms in best.values()), best


# -- how it looks

LOOKS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": PHONE},
    "dark phone": {"viewport": PHONE, "color_scheme": "dark"},
    "small phone": {"viewport": {"width": 320, "height": 600}},
    "wide": {"viewport": {"width": 2560, "height": 1300}},
}


def too_wide(page) -> list[str]:
    """Name what makes a page wider than its window."""
    found: list[str] = page.evaluate("""() => {
        if (document.scrollingElement.scrollWidth <= innerWidth) return [];
        const isOut = (one) => one.getBoundingClientRect().right > innerWidth && !one.closest('.wide');
        const name = (one) => `${one.tagName}.${one.className}#${one.id}`;
        return [...document.body.querySelectorAll('*')].filter(isOut).map(name);
    }""")
    return found


@pytest.mark.parametrize("look", LOOKS)
def test_nothing_is_wider_than_the_window_and_text_stands_out_from_its_ground(browser, curated, look):
    with opened(browser, curated / "report.html", **LOOKS[look]) as page:
        type_bound(page, "motion", "min", "3")
        for details in page.locator("details > summary").all():
            details.click()
        settle(page)
        assert too_wide(page) == []
        faint = {name: ratio for name, ratio in contrasts(page).items() if ratio < 4.5}
        assert not faint, faint
        page.locator(".card button").first.click()
        dialog = page.locator("#clip")
        assert dialog.evaluate("(dialog) => dialog.scrollWidth <= dialog.clientWidth")
        assert dialog.bounding_box()["width"] <= page.viewport_size["width"]


def contrasts(page) -> dict[str, float]:
    """Return the least contrast (WCAG's ratio) of each kind of text with what lies behind it."""
    ratios: dict[str, float] = page.evaluate(r"""() => {
        const parts = (color) => color.match(/[\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
            .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const ground = (element) => {
            for (let at = element; at; at = at.parentElement) {
                const color = parts(getComputedStyle(at).backgroundColor);
                if (color.length === 3 || color[3] === 1) return color;
            }
            return [255, 255, 255];
        };
        const least = {};
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            const element = walker.currentNode.parentElement;
            if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
            const [a, b] = [light(parts(getComputedStyle(element).color)), light(ground(element))];
            const name = `${element.tagName.toLowerCase()}.${element.className}`;
            least[name] = Math.min(least[name] ?? 99, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
        }
        return least;
    }""")
    return ratios


def test_light_and_dark_follow_the_system_even_while_the_page_is_open(browser, curated):
    with opened(browser, curated / "report.html", color_scheme="light") as page:
        ground = "() => getComputedStyle(document.body).backgroundColor"
        plot = "() => document.querySelector('figure[data-column=motion] canvas').toDataURL()"
        handle_of(page, "motion", "min")
        settle(page)
        was = page.evaluate(ground), page.evaluate(plot)
        page.emulate_media(color_scheme="dark")
        settle(page)
        now = page.evaluate(ground), page.evaluate(plot)
        assert was[0] != now[0] and was[1] != now[1]


def test_printing_gives_pages_with_every_histogram_and_picture(browser, curated):
    with opened(browser, curated / "report.html") as page:
        document = page.pdf(format="A4")
        assert document.startswith(b"%PDF") and document.rstrip().endswith(b"%%EOF")
        pages = len(re.findall(rb"/Type\s*/Page\b", document))
        assert 2 <= pages <= 20, pages
        plotted = page.locator("#score-list figure").count()
        assert page.locator("#score-list figure canvas").count() == plotted > 10
        pictures = len(re.findall(rb"/Subtype\s*/Image", document))
        assert pictures > plotted + 20, "histograms and previews are in it"


# -- who cannot see, or has no mouse


def test_everything_to_be_used_has_a_name_for_those_who_cannot_see_it(browser, curated):
    with opened(browser, curated / "report.html") as page:
        page.locator("#scatter summary").click()
        type_bound(page, "motion", "min", "3")
        tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    used = {"slider", "spinbutton", "searchbox", "textbox", "combobox", "button", "link", "checkbox"}
    named = [(node["role"]["value"], node.get("name", {}).get("value")) for node in tree if not node["ignored"]]
    roles = [role for role, _ in named if role in used]
    assert {"slider", "spinbutton", "searchbox", "combobox", "button", "link"} <= set(roles)
    assert [role for role, name in named if role in used and not (name or "").strip()] == []
    sliders = [name for role, name in named if role == "slider"]
    assert len(sliders) == len(set(sliders)) > 4 and {"min of motion", "max of motion"} <= set(sliders)


def test_every_threshold_is_a_slider_that_says_where_it_stands(browser, curated):
    with opened(browser, curated / "report.html", viewport={"width": 1400, "height": 4000}) as page:
        page.locator("#score-list figure .handle").last.wait_for()
        sliders = page.locator('[role="slider"]').all()
        judgeable = [c for c in gather(curated, recipe_of(curated)).numbers if is_judgeable(c)]
        assert len(sliders) == 2 * len([c for c in judgeable if c.name not in {"start_s", "end_s"}])
        for slider in sliders:
            name = slider.get_attribute("aria-label")
            least, now, most = (float(slider.get_attribute(f"aria-value{word}")) for word in ("min", "now", "max"))
            assert least <= now <= most and least < most, name
            assert slider.get_attribute("tabindex") == "0", name
            slider.focus()
            page.keyboard.press("PageUp" if name.startswith("min") else "PageDown")
            settle(page)
            assert slider.get_attribute("aria-valuetext") != "off", name
            assert float(slider.get_attribute("aria-valuenow")) != now or now in {least, most}, name


def test_the_page_can_be_walked_by_keyboard_alone(browser, curated):
    with opened(browser, curated / "report.html") as page:
        reached = set()
        for _ in range(120):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate("""() => {
                    const { id, role, tagName } = document.activeElement;
                    return id || role || tagName;
                }""")
            )
        assert {"A", "slider", "INPUT", "BUTTON", "view", "search"} <= reached
        page.locator("#caption-phrases li").first.focus()
        page.keyboard.press("Space")
        settle(page)
        assert page.locator("#search").input_value(), "what says it is a button answers to both keys of one"
        page.locator(".card button").first.focus()
        page.keyboard.press("Enter")
        assert page.locator("#clip").is_visible()
        page.keyboard.press("Escape")
        assert page.evaluate("() => document.activeElement.closest('.card') !== null"), "back where one was"


# -- two outputs


def test_two_outputs_side_by_side_have_their_own_counts_and_the_clips_that_changed(browser, curated, tmp_path):
    other = shutil.copytree(curated, tmp_path / "other")
    assert run_pipeline.main(["select", str(other), "rules.motion.min=8", "rules.letterbox=false"]) == 0
    page_file = tmp_path / "compare.html"
    assert run_pipeline.main(["report", str(curated), str(other), "--page", str(page_file)]) == 0
    a, b = rows_of(curated), rows_of(other)
    with watched(browser) as page:
        page.goto(page_file.as_uri())
        wait(page, "ready")
        for side, out in (("a", curated), ("b", other)):
            counts = counts_of(out)
            assert page.locator(f"#accepted-{side}").text_content() == str(counts["accepted"])
            shown = {
                line.get_attribute("data-reason"): int(line.locator(f".{side}").text_content())
                for line in page.locator("#funnel-rows tr").all()
            }
            whole = counts["lost"] | {"failed": counts["failed"], "accepted": counts["accepted"]}
            assert {name: count for name, count in shown.items() if count} == whole
        changed = [clip_id for clip_id, row in a.items() if row["status"] != b[clip_id]["status"]]
        assert page.locator("#changed").text_content() == str(len(changed)) != "0"
        assert len(page.locator("#panes .card").all()) == len(changed)


def test_two_hostile_outputs_side_by_side_run_nothing_either(browser, tmp_path):
    recipe = default_recipe()
    outs = [
        write_rows(tmp_path / "a", recipe, list(hostile_rows(recipe))),
        write_rows(tmp_path / "b</script>", with_recipe(recipe, rules={}), list(hostile_rows(recipe))[:4]),
        write_rows(tmp_path / "empty", recipe, []),
    ]
    for one, other in ((outs[0], outs[1]), (outs[2], outs[0]), (outs[2], outs[2])):
        page_file = tmp_path / "compare.html"
        assert run_pipeline.main(["report", str(one), str(other), "--page", str(page_file)]) == 0
        with watched(browser, may_lack_files=True, viewport=PHONE) as page:
            page.goto(page_file.as_uri())
            wait(page, "ready")
            assert page.get_attribute("html", "data-ready") == "yes", page.locator("#trouble").text_content()
            assert page.evaluate("() => window.pwned") is None
            assert too_wide(page) == []
