"""The functions behind the studio's page: the form, marks, masks, paths, places and texts."""

import io
import json
import string
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pipelines import moving, picture, write_pipeline

from core.errors import UserError
from models.conditions.trajectory import read_trajectory
from sampling.files import write_sample
from sampling.media import first_frame
from sampling.model import open_model
from sampling.request import DEFAULTS, Request
from sampling.settings_file import settings_within
from serving.faults import ApiError
from serving.ledger import Job
from serving.offered import Offered
from serving.studio import texts
from serving.studio.form import PLAIN, blank, request_of_form, text_of, values_of_job, values_of_settings
from serving.studio.funnel import final_funnel, funnel_html, live_funnel
from serving.studio.marks import MARKED, marks_of, place_of
from serving.studio.painting import mask_of, trajectory_of, with_point
from serving.studio.places import meaning_in, named, overrides, readable
from serving.studio.reports import file_of
from serving.studio.runs import Runs
from serving.studio.showing import differences, preview_html, shareable
from serving.wire import VideoRequest, asked_of, request_of

ASKED = st.fixed_dictionaries(
    {"prompt": st.text(string.printable.strip() + "红", min_size=1)},
    optional={
        "seed": st.integers(0, (1 << 63) - 1),
        "size": st.sampled_from(["48x48", "64x32"]),
        "num_frames": st.integers(1, 10_000),
        "fps": st.floats(0.1, 240),
        "num_inference_steps": st.integers(1, 1000),
        "guidance_scale": st.floats(0, 100),
        "strength": st.floats(0, 1),
        "segments": st.integers(1, 1000),
        "loras": st.just({"red": 0.5}),
        "camera": st.sampled_from(["pan_left", "zoom_in"]),
    },
)

NO_GRADIO = "no gradio: pip install 'selects-video[studio]'"


def form_of(asked: dict) -> dict:
    """Return the form's values as the browser gives them back."""
    values = values_of_job(Job("video_a", "tiny", asked, "key"), Path("/jobs/video_a"))
    return values | {name: text_of(values[name]) for name in PLAIN}


@given(ASKED)
def test_a_job_put_into_the_form_asks_for_exactly_the_same(asked: dict) -> None:
    asked = asked_of(VideoRequest.model_validate(asked), {})
    again = asked_of(request_of_form(form_of(asked)), {})
    assert again | {"seed": again.get("seed", 0)} == asked | {
        "prompt": asked["prompt"].strip(),
        "seed": asked.get("seed", 0),
    }


def test_no_seed_asks_for_a_new_one_and_nothing_else_is_made_up() -> None:
    values = blank("tiny") | {"prompt": "a disc"}
    requests = [request_of_form(values) for _ in range(3)]
    assert len({request.seed for request in requests}) > 1
    assert asked_of(requests[0], {}) == {"prompt": "a disc", "seed": requests[0].seed}


@pytest.mark.parametrize(
    ("field", "text", "place"),
    [
        ("width", "48", "size"), ("num_frames", "nine", "num_frames"), ("seed", "-1", "seed"),
        ("num_inference_steps", "0", "num_inference_steps"), ("strength", "2", "strength"),
        ("camera", "../../etc/passwd", "camera"), ("control_start", "7", "control_scale"), ("fps", "nan", "fps"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_marked_at_its_control(field: str, text: str, place: str) -> None:
    with pytest.raises(ApiError) as refused:
        request_of_form(blank("tiny") | {"prompt": "a disc", field: text})
    marks = marks_of(refused.value.field, refused.value.message)
    assert {name for name, words in marks.items() if words} == {place}


def test_marks_hold_no_markup_of_messages_and_errors_of_no_field_have_a_place() -> None:
    assert "<script" not in marks_of("prompt", "--prompt <script>x")["prompt"]
    assert place_of("loras.red") == "loras" and place_of(None) == place_of("nonsense") == "general"
    assert set(marks_of(None, "x")) == set(MARKED)


@pytest.fixture(scope="module")
def offered(tmp_path_factory) -> Offered:
    folder = tmp_path_factory.mktemp("offered")
    return Offered({"tiny": write_pipeline(folder / "tiny")}, {}, DEFAULTS)


def test_a_files_settings_make_the_same_file_again(offered: Offered, tmp_path: Path) -> None:
    model = open_model(offered.folder_of("tiny"))
    asked = Request("a red disc", seed=5, num_frames=5, length=8, overlap=1, steps=2, guidance=3.5)
    write_sample(model.sample(asked), tmp_path / "one.mp4")
    values, left_out = values_of_settings(settings_within(tmp_path / "one.mp4"), offered, tmp_path)
    assert left_out == []
    again = request_of(asked_of(request_of_form(values), {}), offered.facts("tiny", ()), tmp_path)
    write_sample(model.sample(again), tmp_path / "two.mp4")
    assert (tmp_path / "two.mp4").read_bytes() == (tmp_path / "one.mp4").read_bytes()


def test_previews_change_nothing_of_the_sample(offered: Offered) -> None:
    model, seen, steps = open_model(offered.folder_of("tiny")), [], []
    asked = Request("a red disc", seed=5, num_frames=5, steps=3)
    plain = model.sample(asked)
    watched = model.sample(asked, lambda done, of: steps.append((done, of, len(seen))), seen.append)
    assert np.array_equal(plain.frames, watched.frames) and plain.settings == watched.settings
    assert steps == [(1, 3, 1), (2, 3, 2), (3, 3, 3)], "a picture comes with every step, before it is told"
    assert all(one.shape == (2, 6, 6, 3) and one.dtype == np.uint8 for one in seen)


def test_media_of_other_folders_are_not_taken(offered: Offered, tmp_path: Path) -> None:
    secret = picture(tmp_path / "secret.png")
    settings = {"prompt": "x", "model": "/nowhere", "image": str(secret), "loras": [{"path": "/l.safetensors"}]}
    values, left_out = values_of_settings(settings, offered, tmp_path / "jobs")
    assert values["image"] is None and values["model"] == "tiny"
    assert left_out == ["nowhere", "secret.png", "l.safetensors"]


def test_what_is_painted_is_white_and_nothing_painted_is_no_mask() -> None:
    background, layer = np.zeros((32, 48, 4), np.uint8), np.zeros((32, 48, 4), np.uint8)
    assert mask_of(None) is None and mask_of({"background": None, "layers": [layer]}) is None
    assert mask_of({"background": background, "layers": [layer]}) is None
    layer[4:8, 10:20, 3] = 90
    white = np.asarray(Image.open(io.BytesIO(mask_of({"background": background, "layers": [layer]}))))
    assert (
        white.shape == (32, 48)
        and np.array_equal(white == 255, layer[..., 3] > 0)
        and set(np.unique(white)) == {0, 255}
    )


def test_drawn_paths_are_read_as_they_were_drawn() -> None:
    paths = with_point(with_point(with_point([], (1, 2), begins=False), (30, 4), begins=False), (5, 6), begins=True)
    file = trajectory_of(paths, 48, 32)
    assert json.loads(file)["paths"] == [[[1, 2], [30, 4]], [[5, 6]]]
    read = read_trajectory(file.decode(), "drawn")
    assert [path.tolist() for path in read.paths] == [[[1, 2], [30, 4]], [[5, 6]]]
    assert trajectory_of([], 48, 32) is trajectory_of([[]], 48, 32) is None


def test_the_first_frame_is_as_large_as_the_video(tmp_path: Path) -> None:
    video = moving(tmp_path / "a.mp4", size=50)
    first = first_frame(video)
    assert first.shape == (50, 50, 3)
    assert first[12:20, 4:12].mean() > 200, "the square is where it begins"


def test_only_folders_within_the_roots_are_read(tmp_path: Path) -> None:
    inside = tmp_path / "data" / "films"
    inside.mkdir(parents=True)
    (tmp_path / "data" / "link").symlink_to("/etc")
    roots = (tmp_path / "data",)
    assert readable(str(inside), roots) == inside
    for text in (
        "/etc",
        str(tmp_path / "data" / "link"),
        str(inside / ".." / ".." / ".."),
        "",
        str(inside / "no"),
        "a\0",
    ):
        with pytest.raises(UserError):
            readable(text, roots)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp", "-rf", "a b", "x" * 81, "a\n"])
def test_names_of_outputs_stay_in_their_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        named(name, tmp_path)


def test_further_keys_cannot_be_options() -> None:
    pytest.importorskip("gradio", reason=NO_GRADIO)
    from serving.studio.curate import curate_words

    assert overrides("a.b=1\n\n  c=x y ") == ["a.b=1", "c=x y"]
    for text in ("--output=/etc", "-x", "a", "=1", "a.b =1\n--weights=/x"):
        with pytest.raises(UserError):
            overrides(text)
    words = curate_words(Path("/in"), Path("/out"), Path("/r.yaml"), {"rules.motion.min": " 2 ", "shots.min_s": ""}, "")
    assert words == [
        "curate",
        "/in",
        "--output",
        "/out",
        "--config",
        "/r.yaml",
        "--metrics-port",
        "0",
        "rules.motion.min=2",
    ]


def test_losses_are_told_apart_from_other_numbers_of_a_log(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason=NO_GRADIO)
    from serving.studio.train import losses_of

    lines = [
        {"step": 1, "what": "train", "transformer": 1.5, "gradient_norm": 1.2, "gradient_norm_discriminator": 2.0,
         "samples_per_s": 4.2, "step_s": 0.4, "data_wait_percent": 0.1, "memory_gb": 1.2, "mfu_percent": 3.1,
         "skipped_steps": 0.0, "learning_rate": 2e-05, "epoch": 1.0},
        {"step": 1, "what": "train", "vae": 0.5, "discriminator": 0.75},
        {"step": 2, "what": "validation", "noise_0.25": 0.7, "psnr_db": 21.0, "aesthetic": 5.0, "reward_loss": 0.2},
        {"step": 3, "what": "train", "transformer": None}, {"what": "train"},
    ]  # fmt: skip
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{torn")
    found = losses_of(tmp_path / "log.jsonl")
    assert found.values.tolist() == [
        [1, 1.5, "train transformer"], [1, 0.5, "train vae"], [1, 0.75, "train discriminator"],
        [2, 0.7, "validation noise_0.25"], [2, 0.2, "validation reward_loss"],
    ]  # fmt: skip
    empty = losses_of(tmp_path / "none")
    assert len(empty) == 0 and empty.dtypes.equals(found.dtypes), "a plot of nothing has the axes of the later one"


def test_the_funnel_is_read_from_a_runs_own_metrics() -> None:
    from core.metrics import Metrics, serving_metrics
    from core.progress import Done, Tally

    tally, metrics = Tally(), Metrics()
    tally.add(Done("analyse", rows=5, rejects={"motion:low": 2, 'odd"name\\': 1}))
    metrics.watch(tally)
    with serving_metrics(0, metrics) as port:
        found = live_funnel(f"loading\nmetrics at http://127.0.0.1:{port}/metrics\nmore")
        assert found is not None
        assert found.steps == {"analyse": 5} and found.rejects["motion:low"] == 2 and found.is_live
        assert live_funnel(f"see http://127.0.0.1:{port}/metrics") is None, "a line of its own alone"
    assert live_funnel(f"metrics at http://127.0.0.1:{port}/metrics") is None, "the run has ended"
    assert live_funnel("metrics at http://169.254.169.254:80/metrics") is None
    page = funnel_html(found, "en")
    assert 'data-live="yes"' in page and 'data-name="motion:low" data-count="2"' in page
    assert funnel_html(None, "en") == ""


def test_the_funnel_of_an_output_counts_its_table(tmp_path: Path) -> None:
    from browser import a_row, default_recipe, write_rows

    recipe = default_recipe()
    rows = [a_row(recipe, number, motion=motion) for number, motion in enumerate((None, 5.0))]
    out = write_rows(tmp_path / "out", recipe, rows)
    found = final_funnel(out)
    assert found is not None
    assert dict(found.steps) == {"rejected": 2} and sum(found.rejects.values()) == 2 and not found.is_live
    assert final_funnel(tmp_path / "none") is None


def test_keys_with_a_control_are_explained_by_the_schema() -> None:
    pytest.importorskip("gradio", reason=NO_GRADIO)
    from cli.schemas import recipe_schema, training_schema
    from serving.studio.curate import KEYS
    from serving.studio.train import KEYS as TRAIN_KEYS

    schema, training = recipe_schema(), training_schema()
    assert all(meaning_in(training, key) for key in TRAIN_KEYS)
    assert all(meaning_in(schema, key) for key in KEYS)
    assert meaning_in(schema, "rules.motion.min") != meaning_in(schema, "rules.sharpness.min")


def test_a_report_gives_its_own_files_alone(tmp_path: Path) -> None:
    out = tmp_path / "curated" / "films"
    for place in ("report.html", "recipe.yaml", "previews/a.jpg", "train/b.mp4", "clips/part-0.png"):
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        (out / place).write_text(place)
    (out / "previews" / "link.jpg").symlink_to("/etc/hostname")
    (tmp_path / "secret.jpg").write_text("no")
    outputs = tmp_path / "curated"
    assert [file_of(outputs, "films", place) is not None for place in ("report.html", "previews/a.jpg", "train/b.mp4")]
    for place in ("recipe.yaml", "clips/part-0.png", "previews/link.jpg", "previews/../../../secret.jpg", "/etc/a.jpg"):
        assert file_of(outputs, "films", place) is None, place
    assert file_of(outputs, "..", "secret.jpg") is None


def test_a_run_gives_its_lines_and_its_code_and_one_goes_on_at_a_time(tmp_path: Path) -> None:
    runs = Runs()
    run = runs.start("no such command", ["nonsense"], tmp_path)
    assert run is not None
    assert runs.start("another", ["doctor"], tmp_path) is None or run.code is not None
    seen, code = 0, None
    while code is None:
        seen, code = run.wait(seen, 60)
    assert code == 2 and "nonsense" in run.text() and not runs.is_busy


def test_every_text_has_both_languages_and_the_same_places() -> None:
    for key, text in texts.TEXTS.items():
        assert text.en and text.zh and text.en.count("{}") == text.zh.count("{}"), key
    assert texts.language_of("zh-CN,zh;q=0.9,en;q=0.8") == "zh" and texts.language_of(None) == "en"
    assert texts.say("step", "zh", 1, 2) != texts.say("step", "en", 1, 2)


def test_settings_that_differ_are_told_and_paths_are_not() -> None:
    job = Job("video_a", "tiny", {}, "k", settings={"seed": 1, "model": "/home/me/tiny", "image": "/x/y.png"})
    other = replace(job, settings=job.settings | {"seed": 2, "steps": 9})
    assert differences(job.settings, other.settings) == [("seed", "1", "2"), ("steps", "", "9")]
    assert "/home" not in json.dumps(shareable(job.settings)) and "/x" not in json.dumps(shareable(job.settings))
    assert preview_html(None) == "" and "image/webp" in preview_html(np.zeros((2, 4, 4, 3), np.uint8))
