"""The review page in Chromium: by keyboard, with undo, on a phone, and what it shows when the server is gone."""

import time
from pathlib import Path

import pytest
from browser import DESKTOP, PHONE, a_row, an_id, chromium, default_recipe, put_pictures, write_rows
from runs import rows_of
from served import Served, review

from curation.reviews import NAME, read_reviews

pytestmark = pytest.mark.browser
COUNT = 60


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    recipe = default_recipe(f'rules={{"motion": {{"min": {COUNT / 2}}}}}')
    told = {"caption": "a disc rolls", "caption_status": "ok", "duration_s": 5.0}
    rows = [a_row(recipe, n, motion=float(n), start_s=float(n), end_s=n + 5.0, **told) for n in range(COUNT)]
    out = write_rows(tmp_path_factory.mktemp("review") / "out", recipe, rows)
    put_pictures(out, 4)
    server = review(out)
    yield server, out
    server.stop()


@pytest.fixture
def page(browser, running):
    """Return the page of an output of which nobody has said anything; whatever it complains of fails the test."""
    server, out = running
    (out / NAME).unlink(missing_ok=True)
    troubles: list[str] = []
    context = browser.new_context(viewport=DESKTOP)
    opened = context.new_page()
    opened.on("console", lambda message: message.type in {"error", "warning"} and troubles.append(message.text))
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.goto(server.address)
    opened.locator("#list li").first.wait_for()
    opened.fill("#by", "ann")
    opened.locator("#by").blur()
    yield opened
    context.close()
    expected = ("favicon", "status of 400")  # the browser's own lines about requests
    assert not [text for text in troubles if not any(word in text for word in expected)]


def said(out: Path) -> dict[str, str | None]:
    return {clip_id: one.review for clip_id, one in read_reviews(out).clips.items()}


def until(page, what: str) -> None:
    """Wait until something holds in the page, whose policy lets no waiting code in."""
    ends_s = time.monotonic() + 60
    while not page.evaluate(what):
        assert time.monotonic() < ends_s, what
        page.wait_for_timeout(20)


def current(page) -> str:
    return page.locator("#id").inner_text()


def test_clips_are_kept_and_dropped_by_keyboard_and_taken_back(page, running: tuple[Served, Path]) -> None:
    _, out = running
    first = current(page)
    page.keyboard.press("y")
    second = current(page)
    assert second != first, "on to the next"
    page.keyboard.press("n")
    until(page, "document.getElementById('counts').textContent.includes('1 kept, 1 dropped')")
    assert said(out) == {first: "keep", second: "drop"}
    page.keyboard.press("k")
    page.keyboard.press("k")
    assert current(page) == first
    assert page.locator("#keep").get_attribute("aria-pressed") == "true"
    page.keyboard.press("z")
    until(page, "document.getElementById('counts').textContent.includes('1 kept, 0 dropped')")
    assert said(out) == {first: "keep"}, "the last word is taken back first"
    assert {one.by for one in read_reviews(out).clips.values()} == {"ann"}


def test_a_caption_is_edited_and_given_back_to_the_captioner(page, running: tuple[Served, Path]) -> None:
    _, out = running
    clip = current(page)
    page.keyboard.press("e")
    page.fill("#caption", "by hand <b>bold</b>")
    page.keyboard.press("Control+Enter")
    until(page, "document.getElementById('whose').textContent === 'by hand'")
    assert read_reviews(out).clips[clip].caption == "by hand <b>bold</b>"
    assert page.locator("#list b", has_text="bold").count() == 0, "no text becomes elements"
    page.click("#machine")
    until(page, "document.getElementById('whose').textContent === \"the captioner's\"")
    assert page.input_value("#caption") == "a disc rolls"
    page.keyboard.press("t")
    page.locator("#tags").fill("good, red")
    page.locator("#tags").blur()
    until(page, "review.clip.review_tags?.length === 2")
    assert read_reviews(out).clips[clip].tags == ("good", "red")


def test_filters_find_and_mistakes_are_told(page) -> None:
    page.select_option("#show", "accepted")
    until(page, f"document.getElementById('found').textContent === '{COUNT // 2} clips'")
    page.fill("#where", "motion > 57")
    page.press("#where", "Enter")
    until(page, "document.getElementById('found').textContent === '2 clips'")
    page.fill("#where", "moton > 57")
    page.press("#where", "Enter")
    page.locator("#trouble").wait_for(state="visible")
    assert "did you mean 'motion'" in page.locator("#trouble").inner_text()


def test_the_list_goes_on_as_one_scrolls_and_works_on_a_phone(browser, running: tuple[Served, Path]) -> None:
    server, _ = running
    context = browser.new_context(viewport=PHONE, color_scheme="dark")
    page = context.new_page()
    page.goto(server.address)
    page.locator("#list li").first.wait_for()
    page.evaluate("document.getElementById('list').scrollTop = 1e9")
    until(page, f"document.querySelectorAll('#list li').length === {COUNT}")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], "nothing is wider than the screen"
    context.close()


def test_two_people_see_each_others_words(browser, running: tuple[Served, Path], page) -> None:
    server, out = running
    clip = current(page)
    answer = server.client.post("/api/reviews", json={"clip_id": clip, "by": "bob", "review": "drop"})
    assert answer.status_code == 200
    page.keyboard.press("t")
    page.locator("#tags").fill("x")
    page.locator("#tags").blur()
    until(page, "document.getElementById('drop').getAttribute('aria-pressed') === 'true'")
    assert read_reviews(out).clips[clip].review == "drop", "a tag leaves another's verdict"
    assert an_id(0) in rows_of(out)


def test_the_search_box_shows_the_nearest_first_and_a_key_asks_for_clips_like_the_open_one(page) -> None:
    page.fill("#like", "film 7")
    page.locator("#like").press("Enter")
    until(page, "document.querySelector('#found').textContent.includes('the nearest first')")
    assert current(page) == an_id(7) and page.locator("#found").inner_text().startswith(f"{COUNT} clips by words")
    page.locator("#like").blur()
    page.keyboard.press("f")
    page.locator("#trouble").wait_for()
    assert page.locator("#like").input_value() == an_id(7)
    assert "neither an embedding nor a temporal hash" in page.locator("#trouble").inner_text()
    page.fill("#like", "")
    page.locator("#like").press("Enter")
    until(page, f"document.querySelector('#found').textContent === '{COUNT} clips'")
    assert not page.locator("#trouble").is_visible()
