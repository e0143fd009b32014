"""The studio's modes in a headless Chromium over tiny pipelines: whatever is given or drawn reaches the model."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from browser import chromium
from pipelines import moving, picture, write_pipeline
from served import Served, studio
from studio_page import ask, asked_for, choose_model, fill, go, newest, opened, visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("gradio", reason="no gradio: pip install 'selects-video[studio]'")
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("modes")


@pytest.fixture(scope="module")
def server(folder: Path):
    models = {"inpaint": 33, "control": 48, "camera": 38}
    named = [str(write_pipeline(folder / name, in_channels=channels)) for name, channels in models.items()]
    started = studio(named, folder / "data")
    yield started
    assert started.stop() == 0
    assert "Traceback" not in (folder / "server.log").read_text()


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


def kept(folder: Path, job: dict, field: str) -> Path:
    """Return the file that a job was given."""
    return folder / "data" / "jobs" / job["id"] / asked_for(folder, job["id"])[field]


def made_with(folder: Path, job: dict) -> dict:
    """Return all that a job was made with, its places among it."""
    return json.loads((folder / "data" / "jobs" / job["id"] / "job.json").read_text())["settings"]


def upload(page: "Page", field: str, file: Path, shown: str) -> None:
    page.set_input_files(f"#field-{field} input[type=file]", file)
    page.wait_for_selector(f"#field-{field} {shown}")


def test_first_and_last_image_and_a_video_begin_what_is_made(
    browser: "Browser", server: Served, folder: Path, tmp_path
):
    first, last = picture(tmp_path / "first.png"), picture(tmp_path / "last.png", seed=5)
    clip = moving(tmp_path / "clip.mp4")
    with opened(browser, server) as page:
        visit(page, server)
        ask(page)
        page.get_by_text("From an image").click()
        upload(page, "image", first, "img")
        upload(page, "end_image", last, "img")
        job = go(page, server)
        assert job["settings"]["mode"] == "image_to_video"
        assert kept(folder, job, "image").read_bytes() == first.read_bytes()
        assert kept(folder, job, "end_image").read_bytes() == last.read_bytes()
        visit(page, server)
        ask(page, num_inference_steps="4")
        page.get_by_text("From a video, with a mask").click()
        upload(page, "video", clip, ".file-preview")
        fill(page, strength="0.5")
        job = go(page, server)
        assert (job["settings"]["mode"], job["settings"]["strength"]) == ("video_to_video", 0.5)
        assert kept(folder, job, "video").read_bytes() == clip.read_bytes()


def test_a_control_map_is_shown_and_steers(browser: "Browser", server: Served, folder: Path, tmp_path: Path) -> None:
    clip, look = moving(tmp_path / "clip.mp4", size=96), picture(tmp_path / "look.png", seed=3)
    with opened(browser, server) as page:
        visit(page, server)
        choose_model(page, "control")
        ask(page)
        page.get_by_text("Control, camera, trajectory, reference").click()
        upload(page, "control", clip, ".file-preview")
        page.click("#field-control_kind input")
        page.get_by_role("option", name="canny").click()
        page.click("#show-map")
        page.wait_for_selector("#map-shown img")
        shown = page.evaluate(PIXELS, "#map-shown img")
        assert shown["size"] == [96, 96] and set(shown["values"]) == {0, 255}, "edges are white on black"
        upload(page, "reference", look, ".file-preview")
        fill(page, control_scale="0.75", control_end="0.5")
        job = go(page, server)
        made = made_with(folder, job)
        assert (made["control_kind"], made["control_scale"], made["control_end"]) == ("canny", 0.75, 0.5)
        assert kept(folder, job, "control").read_bytes() == clip.read_bytes()
        assert kept(folder, job, "reference").read_bytes() == look.read_bytes()


PIXELS = """(which) => {
    const image = document.querySelector(which), canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
    return {size: [canvas.width, canvas.height], values: [...new Set(data.filter((_, place) => place % 4 == 0))]};
}"""
"""the size of a picture on the page, and which values its red has"""


def test_a_camera_preset_moves_the_camera(browser: "Browser", server: Served, folder: Path) -> None:
    with opened(browser, server) as page:
        visit(page, server)
        choose_model(page, "camera")
        ask(page)
        page.get_by_text("Control, camera, trajectory, reference").click()
        page.click("#field-camera input")
        page.get_by_role("option", name="pan_left").click()
        fill(page, camera_speed="1.5")
        panned = go(page, server)
        assert (made_with(folder, panned)["camera"], made_with(folder, panned)["camera_speed"]) == ("pan_left", 1.5)
        page.click("#field-camera input")
        page.get_by_role("option", name="zoom_in").click()
        zoomed = go(page, server)
        files = [server.client.get(f"/v1/videos/{job['id']}/content").content for job in (panned, zoomed)]
        assert files[0] != files[1], "the model sees which way it goes"


PLACE = """([across, down]) => {
    const image = document.querySelector('#drawn img'), box = image.getBoundingClientRect();
    const shown = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight, 1);
    const [width, height] = [shown * image.naturalWidth, shown * image.naturalHeight];
    return {x: (box.width - width) / 2 + across * width, y: (box.height - height) / 2 + down * height};
}"""
"""where shares of a picture's sides lie within its place, in which the picture is shown no larger than it is"""
LOADED = "document.querySelector('#drawn img')?.naturalWidth > 0"


def test_a_trajectory_clicked_on_the_first_frame_reaches_the_model(
    browser: "Browser", server: Served, folder: Path, tmp_path: Path
) -> None:
    first = picture(tmp_path / "first.png", 160, 160)
    with opened(browser, server) as page:
        visit(page, server)
        choose_model(page, "control")
        ask(page)
        page.get_by_text("From an image").click()
        upload(page, "image", first, "img")
        page.get_by_text("Control, camera, trajectory, reference").click()
        page.click("#to-draw")
        page.wait_for_selector("#drawn img")
        clicked = [(0.25, 0.5), (0.5, 0.25), (0.75, 0.5)]
        for place, (across, down) in enumerate(clicked):
            if place == 2:
                page.click("#new-path")
                page.wait_for_selector("#new-path[disabled]")
            before = page.get_attribute("#drawn img", "src")
            page.wait_for_function(LOADED)
            # Waits until nothing lies over the picture: Gradio covers it while the click before is answered.
            page.locator("#drawn img").click(position=page.evaluate(PLACE, [across, down]))
            page.wait_for_function("before => document.querySelector('#drawn img')?.src !== before", arg=before)
        job = go(page, server)
        drawn = json.loads(kept(folder, job, "trajectory").read_text())
        assert (drawn["width"], drawn["height"]) == (160, 160)
        assert [len(path) for path in drawn["paths"]] == [2, 1]
        points = np.array([point for path in drawn["paths"] for point in path]) / 160
        assert np.abs(points - clicked).max() < 0.02, "where the mouse was"
        assert "trajectory" in made_with(folder, job)


def test_each_stretch_of_a_long_video_has_its_prompt(browser: "Browser", server: Served, folder: Path) -> None:
    with opened(browser, server) as page:
        visit(page, server)
        page.get_by_text("Long video").click()
        ask(page, overlap="1", prompts="9 | a red disc\n2 | rain\n8 | a blue square")
        page.wait_for_selector("#mark-prompts p[role=alert]:has-text('number 2')")
        fill(page, prompts="9 | a red disc\n8 | a blue square")
        page.wait_for_selector("#comes-to:has-text('17 frames')")
        job = go(page, server)
        assert job["settings"]["segments"] == 2
        assert [one["prompt"] for one in job["settings"]["prompts"]] == ["a red disc", "a blue square"]
        fill(page, prompts="")
        page.get_by_role("tab", name="History").click()
        page.locator("#gallery button.thumbnail-item").first.click()
        page.wait_for_function("() => document.querySelector('#history-settings').innerText.includes('blue square')")
        page.click("#to-form")
        restored = (
            "() => document.querySelector('#field-prompts textarea').value === '9 | a red disc\\n8 | a blue square'"
        )
        page.wait_for_function(restored)


def test_no_step_is_counted_after_a_cancel(browser: "Browser", server: Served) -> None:
    with opened(browser, server) as page:
        visit(page, server)
        ask(page, num_inference_steps="100", width="192", height="192", seed="11")
        page.click("#go")
        page.wait_for_selector("#status [data-status=in_progress]:not([data-step='0'])")
        page.click("#cancel")
        page.wait_for_selector("#preview .status, #status [data-status=cancelled]")
        steps = newest(server)["progress"]  # of a hundred, so that percent are steps
        page.wait_for_selector("#status [data-status=cancelled]")
        job = newest(server)
        assert (job["status"], job["progress"]) == ("cancelled", steps)
        assert 0 < steps < 90


def test_a_file_dropped_into_another_studio_brings_its_settings_without_places(
    browser: "Browser", server: Served, folder: Path, tmp_path: Path
) -> None:
    first = picture(tmp_path / "first.png", seed=8)
    with opened(browser, server) as page:
        visit(page, server)
        ask(page, seed="21", guidance_scale="2.5")
        page.get_by_text("From an image").click()
        upload(page, "image", first, "img")
        job = go(page, server)
        content = server.client.get(f"/v1/videos/{job['id']}/content").content
        assert str(folder).encode() not in content, "no path of this machine"
        file = tmp_path / "mine.mp4"
        file.write_bytes(content)
        # The upload lies with another job, too, as after this one is gone.
        other = server.client.post("/v1/videos", data={"prompt": "x", "num_inference_steps": 2, "size": "48x48"},
                                   files={"image": first.read_bytes()}).json()  # fmt: skip
        assert server.ended(other["id"])["status"] == "completed"
        server.client.delete(f"/v1/videos/{job['id']}")
        visit(page, server)
        page.get_by_role("tab", name="History").click()
        page.set_input_files("#dropped input[type=file]", file)
        page.wait_for_function("() => document.querySelector('#field-seed input').value === '21'")
        page.wait_for_selector("#go:visible")
        again = go(page, server)
        assert server.client.get(f"/v1/videos/{again['id']}/content").content == content, "to the byte"


def test_gradios_own_client_generates(server: Served, tmp_path: Path) -> None:
    gradio_client = pytest.importorskip("gradio_client")
    client = gradio_client.Client(server.address, verbose=False, download_files=str(tmp_path / "got"))
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/generate"], "the only public one"
    quick = {"size": "48x48", "num_frames": 9, "num_inference_steps": 2, "seed": 7}
    file, settings = client.predict("a red disc", quick, api_name="/generate")
    job = newest(server)
    assert Path(file).read_bytes() == server.client.get(f"/v1/videos/{job['id']}/content").content
    assert (settings["seed"], settings["mode"], settings["model"]) == (7, "text_to_video", "inpaint")
    first = gradio_client.handle_file(picture(tmp_path / "first.png"))
    file, settings = client.predict(prompt="a disc", settings=quick, image=first, api_name="/generate")
    assert settings["mode"] == "image_to_video" and Path(file).suffix == ".mp4"
    for wrong, words in (({"size": "50x48"}, "multiples of 16"), ({"sise": "48x48"}, "did you mean 'size'")):
        with pytest.raises(gradio_client.exceptions.AppError, match=words):
            client.predict("a disc", quick | wrong, api_name="/generate")
