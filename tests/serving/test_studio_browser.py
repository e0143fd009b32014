"""The studio in a headless Chromium over tiny pipelines: what people do on the page, and what comes of it."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from browser import PHONE, chromium
from clips import CLIPS, write_clips
from PIL import Image
from pipelines import moving, picture, write_pipeline
from runs import rows_of
from served import Served, studio
from studio_page import PATIENCE_MS, ask, asked_for, choose_model, fill, go, newest, opened, visit

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytest.importorskip("gradio", reason="no gradio: pip install 'selects-video[studio]'")
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("studio")


@pytest.fixture(scope="module")
def server(folder: Path):
    tiny, inpaint = write_pipeline(folder / "tiny"), write_pipeline(folder / "inpaint", in_channels=33)
    started = studio([str(tiny), str(inpaint)], folder / "data", "--data", str(folder))
    yield started
    assert started.stop() == 0
    assert "Traceback" not in (folder / "server.log").read_text()


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def file_of(server: Served, video_id: str) -> bytes:
    return server.client.get(f"/v1/videos/{video_id}/content").content


def tab(page: "Page", name: str) -> None:
    page.get_by_role("tab", name=name).click()


def test_a_text_becomes_a_video_and_history_brings_its_settings_back_to_the_byte(browser, server, folder) -> None:
    with opened(browser, server) as page:
        visit(page, server)
        ask(page, negative_prompt="blur", guidance_scale="3.25", fps="7.5", seed="9007199254740993")
        go(page, server)
        page.wait_for_selector("#video video")
        first = newest(server)
        assert first["settings"]["seed"] == 9007199254740993, "more digits than a browser's numbers have"
        content, asked = file_of(server, first["id"]), asked_for(folder, first["id"])
        ask(page, prompt="something else", guidance_scale="5", fps="", seed="1", negative_prompt="")
        go(page, server)
        tab(page, "History")
        page.locator("#gallery button.thumbnail-item").nth(1).click()
        page.wait_for_function("() => document.querySelector('#history-settings').innerText.includes('blur')")
        page.click("#to-form")
        page.wait_for_function("() => document.querySelector('#field-prompt textarea').value === 'a red disc'")
        assert page.input_value("#field-seed input") == "9007199254740993"
        server.client.delete(f"/v1/videos/{first['id']}")  # so that it is sampled again, not copied
        page.wait_for_selector("#go:visible")
        go(page, server)
        page.wait_for_function("() => document.querySelector('#status').innerText.includes('9007199254740993')")
        again = newest(server)
        assert again["id"] != first["id"] and asked_for(folder, again["id"]) == asked
        assert file_of(server, again["id"]) == content


def test_a_wrong_size_is_marked_at_its_control_before_anything_is_asked_for(browser, server) -> None:
    with opened(browser, server) as page:
        visit(page, server)
        before = len(server.client.get("/v1/videos?limit=100").json()["data"])
        ask(page, width="50")
        # Of the form as it is while it is being filled, another mistake may be marked first.
        page.wait_for_selector("#mark-size p[role=alert]:has-text('the nearest is 48x48')")
        page.click("#go")
        page.wait_for_selector("#mark-size p[role=alert]")
        fill(page, width="48")
        page.wait_for_selector("#mark-size p[role=alert]", state="detached")
        fill(page, prompt=" ")
        page.click("#go")
        page.wait_for_selector("#mark-prompt p[role=alert]")
        assert len(server.client.get("/v1/videos?limit=100").json()["data"]) == before


def test_a_job_is_cancelled_between_two_steps_with_previews_until_then(browser, server) -> None:
    with opened(browser, server) as page:
        visit(page, server)
        ask(page, num_inference_steps="900", seed="11")
        page.click("#go")
        page.wait_for_selector("#preview img.preview")
        page.click("#cancel")
        page.wait_for_selector("#status [data-status=cancelled]")
        job = newest(server)
        assert job["status"] == "cancelled" and job["progress"] < 90
        ask(page, seed="12")
        go(page, server)
        assert newest(server)["status"] == "completed", "the next job is not cancelled"


def test_a_mask_painted_with_the_mouse_reaches_the_model(browser, server, folder, tmp_path) -> None:
    moving(tmp_path / "clip.mp4", size=96)
    with opened(browser, server) as page:
        visit(page, server)
        choose_model(page, "inpaint")
        ask(page)
        page.get_by_text("From a video, with a mask").click()
        page.set_input_files("#field-video input[type=file]", tmp_path / "clip.mp4")
        page.wait_for_selector("#field-video .file-preview")
        page.click("#to-paint")
        canvas = page.locator("#painted canvas").first
        canvas.wait_for()
        page.wait_for_timeout(1500)  # the editor fits the picture into its place, and tells nobody when it has
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(middle[0] - 12, middle[1])
        page.mouse.down()
        page.mouse.move(middle[0] + 12, middle[1] + 4, steps=6)
        page.mouse.up()
        page.wait_for_timeout(500)
        go(page, server)
        job = newest(server)
        mask = np.asarray(Image.open(folder / "data" / "jobs" / job["id"] / asked_for(folder, job["id"])["mask"]))
        assert mask.shape == (96, 96) and 0 < (mask > 0).mean() < 0.9
        assert job["settings"]["mode"] == "video_to_video"


def test_an_image_becomes_the_first_frame_and_one_frame_a_picture(browser, server, folder, tmp_path) -> None:
    first = picture(tmp_path / "first.png")
    with opened(browser, server) as page:
        visit(page, server)
        ask(page)
        page.get_by_text("From an image").click()
        page.set_input_files("#field-image input[type=file]", first)
        page.wait_for_selector("#field-image img")
        go(page, server)
        job = newest(server)
        kept = folder / "data" / "jobs" / job["id"] / asked_for(folder, job["id"])["image"]
        assert kept.read_bytes() == first.read_bytes() and job["settings"]["mode"] == "image_to_video"
        visit(page, server)
        ask(page, num_frames="1")
        go(page, server)
        page.wait_for_selector("#picture img")


def test_the_page_fits_a_phone_in_the_dark_and_speaks_chinese(browser, server) -> None:
    context = {"viewport": PHONE, "color_scheme": "dark", "locale": "zh-CN"}
    with opened(browser, server, **context) as page:
        visit(page, server)
        assert "生成" in page.inner_text("#go")
        width = page.evaluate("() => document.documentElement.scrollWidth")
        assert width <= PHONE["width"], f"{width} px wide"
        dark = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", dark)[:3])) < 80, dark
        for box in page.locator("#tabs button:visible, #go, #cancel").all():
            place = box.bounding_box()
            assert place is None or place["x"] + place["width"] <= PHONE["width"] + 1


def test_a_folder_is_curated_with_its_lines_and_its_report(browser, server, folder) -> None:
    (folder / "films").mkdir(exist_ok=True)
    moving(folder / "films" / "a.mp4", num_frames=40, size=96)
    with opened(browser, server) as page:
        visit(page, server)
        tab(page, "Curate")
        page.fill("#curate-folder input", "/etc")
        page.keyboard.press("Enter")
        page.fill("#curate-name :is(input, textarea)", "films")
        page.click("#curate-go")
        page.wait_for_selector("#curate-told [role=alert]")
        page.fill("#curate-folder input", str(folder / "films"))
        page.keyboard.press("Enter")
        page.fill("#more-keys textarea", "rules={}\nshots.min_s=0.5")
        page.click("#curate-go")
        page.wait_for_selector("#curate-funnel .funnel[data-live=yes] .bar")
        page.wait_for_selector("#curate-told [data-code]")
        assert page.get_attribute("#curate-told [data-code]", "data-code") == "0", page.input_value(
            "#curate-lines textarea"
        )
        assert "accepted" in page.input_value("#curate-lines textarea")
        page.wait_for_selector("#curate-funnel .funnel[data-live=no]")
        rows = rows_of(folder / "data" / "curated" / "films").values()
        accepted = sum(row["status"] == "accepted" for row in rows)
        shown = page.get_attribute("#curate-funnel .bar[data-name=accepted]", "data-count")
        assert accepted and shown == str(accepted)
        report = page.frame_locator("#curate-report iframe")
        report.locator("#total-accepted").wait_for()
        assert report.locator("#total-accepted").inner_text() == str(accepted), "the report within the page"
        link = page.get_attribute("#curate-report a", "href")
        answer = server.client.get(f"/{link}")
        assert answer.status_code == 200 and "<html" in answer.text
        assert server.client.get("/reports/films/recipe.yaml").status_code == 404


def test_training_is_planned_started_and_stopped_with_its_loss_and_samples(browser, server, folder) -> None:
    clips = write_clips(folder / "clips", dict(list(CLIPS.items())[:2]), num_frames=9)
    with opened(browser, server) as page:
        visit(page, server)
        tab(page, "Train")
        page.click("#train-config input")
        page.get_by_role("option", name="train_tiny", exact=True).click()
        page.fill("#train-data input", str(clips))
        page.keyboard.press("Enter")
        page.fill("#train-model-vae :is(input, textarea)", str(folder / "tiny" / "vae"))
        page.fill("#train-train-steps :is(input, textarea)", "many")
        page.click("#train-plan")
        page.wait_for_selector("#train-told [data-code='2']")
        assert "train.steps" in page.input_value("#train-lines textarea"), "the wrong key is told"
        page.fill("#train-train-steps :is(input, textarea)", "100000")
        page.fill("#train-watch-sample_every :is(input, textarea)", "5")
        page.fill("#train-keys textarea", "watch.log_every=1\nwatch.sample_steps=2\nwatch.prompts=[a red disc]")
        page.click("#train-plan")
        page.wait_for_selector("#train-told [data-code='0']")
        plan = page.input_value("#train-lines textarea")
        assert "100,000" in plan or "100000" in plan
        assert not (folder / "data" / "runs").exists(), "a plan writes nothing"
        page.fill("#train-name :is(input, textarea)", "disc")
        page.click("#train-go")
        page.wait_for_selector("#train-samples img", timeout=4 * PATIENCE_MS)
        page.wait_for_function("() => /[0-9]/.test(document.querySelector('#train-loss svg')?.textContent)")
        assert page.locator("#train-told [data-code]").count() == 0, "all of it while it goes on"
        page.click("#train-stop")
        page.wait_for_selector("#train-told [data-code]")
        from serving.studio.train import losses_of  # needs gradio

        losses = losses_of(folder / "data" / "runs" / "disc" / "log.jsonl")
        assert len(losses) >= 5 and losses["loss"].notna().all()


def test_nothing_but_what_is_shown_is_sent(server, folder) -> None:
    for path in (folder / "tiny" / "model_index.json", folder / "data" / "jobs", Path("/etc/hostname")):
        assert server.client.get(f"/gradio_api/file={path}").status_code in (403, 404), path
    assert server.client.get("/monitoring").status_code in (403, 404)
    assert "frame-ancestors 'none'" in server.client.get("/").headers["content-security-policy"]
    refused = server.client.post("/gradio_api/queue/join", json={}, headers={"Sec-Fetch-Site": "cross-site"})
    assert refused.status_code == 403
