"""Evaluating samples by the command line: measured whole, set beside the training clips, neighbours named."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from clips import FPS
from PIL import Image
from runs import curate, rows_of
from tiny_clip import build_tiny_clip

import run_pipeline
from cli.common import TABLES
from configs import CONFIGS
from core.errors import UserError
from curation.engine.runners import InlineRunner
from curation.recipe import Recipe, load_recipe, resolve
from evaluation.measure import measure
from evaluation.prompts import Prompts, prompt_of
from evaluation.recipe import judging_recipe, same_scores
from evaluation.request import Asked, plan_evaluation
from evaluation.samples import find_samples
from sampling.pictures import contact_sheet, write_image, write_mp4

torch.set_num_threads(1)
NAMES = ("rain", "dune", "harbour", "field")
CHEAP = ["operators.text_area=false", "shots.min_s=1", "rules={}", "cut.preset=ultrafast"]


def landscape(seed: int, frames: int = 25) -> np.ndarray:
    """Return a slow pan over a drawn landscape, uint8 (T, 64, 96, 3)."""
    rng = np.random.default_rng(seed)
    wide = rng.random((8, 20, 3)).repeat(8, 0).repeat(8, 1)
    wide = np.cumsum(np.cumsum(wide - wide.mean((0, 1)), 0), 1)
    wide = 255 * (wide - wide.min()) / np.ptp(wide)
    return np.stack([wide[:, (t := round(i * 40 / frames)) : t + 96] for i in range(frames)]).astype(np.uint8)


def noise(seed: int, frames: int = 25) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 64, 96, 3), np.uint8)


def write_samples(folder: Path, videos: dict[str, np.ndarray]) -> Path:
    """Write videos as the sampler does: each with its contact sheet and its settings."""
    folder.mkdir(parents=True, exist_ok=True)
    for prompt, frames in videos.items():
        write_mp4(frames, FPS, folder / f"{prompt}.mp4")
        write_image(contact_sheet([frames], [prompt]), folder / f"{prompt}.png")
        (folder / f"{prompt}.json").write_text(
            json.dumps({"prompt": prompt, "num_frames": len(frames)}), encoding="utf-8"
        )
    return folder


def evaluate(*words: str | Path) -> int:
    return run_pipeline.main(["evaluate", *map(str, words), "--runner", "inline"])


def found_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluate.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A curated output of ten landscapes and two pictures; one landscape was rejected."""
    folder = tmp_path_factory.mktemp("reference")
    (folder / "films").mkdir()
    for seed in range(10):
        write_mp4(landscape(seed), FPS, folder / "films" / f"{seed}.mp4")
    for seed in (20, 21):
        Image.fromarray(landscape(seed)[0]).save(folder / "films" / f"{seed}.png")
    curate(folder / "films", *CHEAP, out=folder / "out")
    brightest = sorted((r for r in rows_of(folder / "out").values()), key=lambda r: r["brightness"])[-1]
    bound = brightest["brightness"] - 1e-4
    assert run_pipeline.main(["select", str(folder / "out"), f"rules.brightness.max={bound}"]) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four new landscapes, one of which is a part of a training clip, and a file that is no video."""
    folder = tmp_path_factory.mktemp("made") / "samples"
    write_samples(folder, {name: landscape(100 + i) for i, name in enumerate(NAMES[1:])})
    write_samples(folder, {NAMES[0]: landscape(3)[4:20]})
    (folder / "dune.json").unlink()
    (folder / "broken.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def evaluation(samples: Path, reference: Path) -> dict[str, Any]:
    assert evaluate(samples, "--reference", reference) == 0
    return found_in(samples / "evaluation")


def test_every_sample_is_counted_and_contact_sheets_are_no_samples(evaluation, samples, reference):
    assert evaluation["samples"]["count"] == 5
    assert list(evaluation["samples"]["failed"]) == ["broken.mp4"]
    assert evaluation["samples"]["without_prompt"] == 1
    assert sorted(Path(f).name for f in evaluation["samples"]["files"]) == sorted(
        f"{n}.mp4" for n in (*NAMES, "broken")
    )
    accepted = [r for r in rows_of(reference).values() if r["status"] == "accepted" and r["type"] == "video"]
    assert evaluation["reference"]["clips"] == len(accepted) < 12, "accepted ones, and no pictures beside videos"


def test_each_score_has_both_distributions_and_their_distances(evaluation, samples, reference):
    scores = evaluation["scores"]
    assert {"motion", "camera_zoom", "sharpness", "brightness", "frozen", "letterbox", "visual_quality"} <= {*scores}
    rows = rows_of(samples / "evaluation" / "samples").values()
    for name, score in scores.items():
        values = [row[name] for row in rows if row[name] is not None]
        assert score["samples"]["count"] == 5 and score["samples"]["missing"] == 5 - len(values) >= 1
        assert score["samples"]["quantiles"]["0.5"] == pytest.approx(np.median(values))
        training = [
            row[name] for row in rows_of(reference).values() if row["status"] == "accepted" and row["type"] == "video"
        ]
        assert score["reference"]["mean"] == pytest.approx(np.mean(training))
        assert score["wasserstein"] >= 0 and 0 <= score["kolmogorov_smirnov"] <= 1 and score["by_chance"] >= 0
        assert score["farness"] >= 0.2, "one of five could not be read"
    assert 0 < evaluation["overall"]["by_chance"] <= evaluation["overall"]["by_chance_95"] < 1


def test_the_copy_of_a_part_of_a_training_clip_is_told_and_what_is_new_is_not(evaluation, reference):
    first, *others = evaluation["nearest"]
    assert (first["prompt"], first["is_likely_copy"]) == ("rain", True)
    assert first["by_pictures"]["source_path"] == "3.mp4"
    assert (reference / first["by_pictures"]["clip_path"]).is_file()
    assert rows_of(reference)[first["by_pictures"]["clip_id"]]["source_path"] == "3.mp4"
    assert len(others) == 3 and not any(one["is_likely_copy"] for one in others)
    assert evaluation["likely_copies"] == 1
    assert evaluation["nearest_of"] == evaluation["reference"]["clips"]


def test_samples_and_their_neighbours_are_drawn_side_by_side(evaluation, samples):
    with Image.open(samples / "evaluation" / "samples" / "nearest.jpg") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(float)
    height, width = len(pixels) // 4, pixels.shape[1] // 2
    left, right = pixels[:height, :width], pixels[:height, width:]
    assert left[60].std() > 5 and right[60].std() > 5, "pictures, not paper"
    with Image.open(
        next((samples / "evaluation" / "samples" / "previews").rglob(f"{evaluation['nearest'][0]['sample_id']}-0.jpg"))
    ) as preview:
        mean = np.asarray(preview.convert("RGB")).mean((0, 1))
    assert left[30:100, 10:130].mean((0, 1)) == pytest.approx(mean, abs=12)


def test_prompts_become_captions_and_whoever_has_none_is_measured_all_the_same(evaluation, samples):
    rows = {row["source_path"]: row for row in rows_of(samples / "evaluation" / "samples").values()}
    assert {rows[f"{name}.mp4"]["caption"] for name in NAMES} == {"rain", "harbour", "field", None}
    assert rows["dune.mp4"]["reasons"] == ["caption:missing"] and rows["dune.mp4"]["motion"] is not None
    assert rows["broken.mp4"]["status"] == "failed"


def test_the_page_sets_both_outputs_side_by_side_and_the_commands_of_outputs_know_the_samples(
    evaluation, samples, reference, capsys
):
    out = samples / "evaluation"
    assert "Selects comparison" in (out / "compare.html").read_text(encoding="utf-8")
    assert run_pipeline.main(["report", str(reference), str(out / "samples"), "--page", str(out / "again.html")]) == 0
    assert "motion" in capsys.readouterr().out


def test_samples_of_the_kind_are_nearer_than_noise(evaluation, reference, tmp_path, capsys):
    write_samples(tmp_path / "noise", {name: noise(i) for i, name in enumerate(NAMES)})
    assert evaluate(tmp_path / "noise", "--reference", reference, "--output", tmp_path / "out") == 0
    told = capsys.readouterr().out
    far = found_in(tmp_path / "out")
    assert far["overall"]["distance"] > 1.3 * evaluation["overall"]["distance"]
    assert far["overall"]["distance"] > far["overall"]["by_chance_95"]
    assert far["likely_copies"] == 0
    assert re.search(r"^sharpness +\S+ +\S+ +\S+", told, re.MULTILINE)
    assert f"{far['overall']['distance']:.3f} of 1" in told
    assert "0 of 4 samples are likely copies" in told
    assert max(map(len, told.splitlines())) <= 140


@pytest.mark.slow
def test_going_on_measures_nothing_twice_and_what_has_changed_is_measured_again(reference, tmp_path):
    folder = write_samples(tmp_path / "s", {"one": landscape(1), "two": landscape(40)})
    assert evaluate(folder, "--reference", reference) == 0
    before = found_in(folder / "evaluation")
    table = folder / "evaluation" / "samples" / "clips" / "part-00000.parquet"
    hashes = folder / "evaluation" / "reference" / "clips" / "part-00000.parquet"
    times = table.stat().st_mtime_ns, hashes.stat().st_mtime_ns
    assert evaluate(folder, "--reference", reference) == 0
    assert (table.stat().st_mtime_ns, hashes.stat().st_mtime_ns) == times
    again = found_in(folder / "evaluation")
    assert {**again, "written": 0} == {**before, "written": 0}

    (folder / "one.json").write_text(json.dumps({"prompt": "another", "num_frames": 25}))
    (folder / "two.mp4").unlink()
    assert evaluate(folder, "--reference", reference) == 0
    changed = found_in(folder / "evaluation")
    assert [one["prompt"] for one in changed["nearest"]] == ["another"]
    assert hashes.stat().st_mtime_ns == times[1]


def test_of_very_many_training_clips_a_draw_is_measured_again_and_the_numbers_say_so(reference, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.measure.MOST_AGAIN", 2)
    folder = write_samples(tmp_path / "s", {"one": landscape(40)})
    assert evaluate(folder, "--reference", reference) == 0
    found = found_in(folder / "evaluation")
    assert found["nearest_of"] == 2 < found["reference"]["clips"]
    drawn = {row["source_path"].partition(".")[0] for row in rows_of(folder / "evaluation" / "reference").values()}
    accepted = [i for i, r in rows_of(reference).items() if r["status"] == "accepted" and r["type"] == "video"]
    assert drawn == set(sorted(accepted)[:2])
    assert found["nearest"][0]["by_pictures"]["clip_id"] in drawn


@pytest.mark.slow
def test_hashes_in_the_reference_are_used_and_without_hashes_and_files_no_neighbours_are_told(samples, tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    for seed in (3, 4):
        write_mp4(landscape(seed), FPS, films / f"{seed}.mp4")
    curate(films, *CHEAP, "operators.temporal_hash={}", "cut.mode=none", out=tmp_path / "hashed")
    assert evaluate(samples, "--reference", tmp_path / "hashed", "--output", tmp_path / "a") == 0
    assert not (tmp_path / "a" / "reference").exists()
    found = found_in(tmp_path / "a")
    assert found["nearest"][0]["by_pictures"]["source_path"] == "3.mp4" and found["likely_copies"] == 1

    curate(films, *CHEAP, "cut.mode=none", out=tmp_path / "bare")
    assert evaluate(samples, "--reference", tmp_path / "bare", "--output", tmp_path / "b") == 0
    found = found_in(tmp_path / "b")
    assert "temporal_hash" in found["left_out"] and found["nearest_of"] == found["likely_copies"] == 0
    assert found["scores"]["motion"]["wasserstein"] is not None


def test_without_a_reference_samples_are_described(tmp_path, capsys):
    folder = write_samples(tmp_path / "s", {"one": landscape(1)})
    assert evaluate(folder, "operators.text_area=false", "--output", tmp_path / "out") == 0
    found = found_in(tmp_path / "out")
    assert found["reference"] is found["overall"] is found["scores"]["motion"]["wasserstein"] is None
    assert found["scores"]["motion"]["samples"]["mean"] > 0 and found["nearest"] == []
    assert "text_area" not in found["scores"]
    assert (tmp_path / "out" / "samples" / "report.html").is_file()
    assert "training" not in capsys.readouterr().out


@pytest.mark.slow
def test_pictures_are_set_beside_pictures(reference, tmp_path, capsys):
    made = tmp_path / "made"
    made.mkdir()
    for place in range(2):
        Image.fromarray(landscape(60 + place)[0]).save(made / f"{place}.png")
        (made / f"{place}.json").write_text(json.dumps({"prompt": "a still", "num_frames": 1}))
    assert evaluate(made, "--reference", reference) == 0
    found = found_in(made / "evaluation")
    assert found["samples"]["count"] == found["reference"]["clips"] == 2
    assert found["scores"]["sharpness"]["wasserstein"] is not None
    assert found["scores"]["motion"]["samples"]["count"] == 0 and found["scores"]["motion"]["farness"] is None

    films = tmp_path / "films"
    films.mkdir()
    write_mp4(landscape(1), FPS, films / "1.mp4")
    curate(films, *CHEAP, "operators.temporal_hash={}", out=tmp_path / "no_pictures")
    capsys.readouterr()
    assert evaluate(made, "--reference", tmp_path / "no_pictures", "--output", tmp_path / "e") == 2
    assert "no image of it is accepted" in capsys.readouterr().err


@pytest.mark.slow
def test_clip_judges_prompts_and_neighbours_where_the_recipe_has_it(tmp_path):
    clip = {"model": str(build_tiny_clip(tmp_path / "clip")), "device": "cpu"}
    operators = {"brightness": {}, "embedding": {"clip": clip}, "caption_alignment": {"clip": clip, "min_score": -1.0}}
    recipe = {"operators": operators, "shots": {"min_s": 1.0}, "cut": {"preset": "ultrafast"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    films = tmp_path / "films"
    films.mkdir()
    for seed in range(3):
        write_mp4(landscape(seed), FPS, films / f"{seed}.mp4")
    curate(films, "--config", tmp_path / "recipe.yaml", out=tmp_path / "out")
    folder = write_samples(tmp_path / "s", {"a long dune": landscape(2), "rain": landscape(2)})
    assert evaluate(folder, "--reference", tmp_path / "out") == 0
    found = found_in(folder / "evaluation")
    assert found["scores"]["caption_alignment"]["samples"]["missing"] == 0
    assert found["scores"]["caption_alignment"]["wasserstein"] is not None
    rows = rows_of(folder / "evaluation" / "samples").values()
    assert len({row["caption_alignment"] for row in rows}) == 2, "the same pictures, two prompts"
    for one in found["nearest"]:
        assert one["by_embedding"]["source_path"] == "2.mp4" and one["by_embedding"]["cosine"] > 0.99
        assert one["is_likely_copy"]


# -- what is chosen and refused before anything is measured


def test_a_sample_of_two_scenes_stays_one_clip_whatever_the_rules(tmp_path):
    asked, _ = load_recipe(CONFIGS / "default.yaml", ["rules={}"], TABLES)
    recipe, captioner = judging_recipe(asked, TABLES, lambda operator: None)
    dark = np.zeros((60, 64, 96, 3), np.uint8)
    write_mp4(np.concatenate([dark, noise(0, 60), landscape(0, 60)]), FPS, tmp_path / "cuts.mp4")
    write_mp4(dark[:1], FPS, tmp_path / "short.mp4")
    sources = find_samples([str(tmp_path)], [])
    table, problems = measure(sources, tmp_path / "out", recipe, captioner, InlineRunner())
    assert problems == [] and not recipe.rules and recipe.cut.mode == "none"
    assert table["source_path"].to_pylist() == ["cuts.mp4", "short.mp4"]
    assert table["num_frames"].to_pylist() == [180, 1]
    assert table["reasons"].to_pylist() == [["caption:missing"]] * 2


def learned(tmp_path: Path) -> Recipe:
    clip = {"model": str(build_tiny_clip(tmp_path / "clip"))}
    named = {"facts": {}, "motion": {"rate_fps": 4.0}, "embedding": {"clip": clip}, "duplicates": {}}
    return resolve({"operators": named}, TABLES)[0]


def test_operators_of_the_reference_run_with_its_settings_and_those_without_weights_are_left_out(tmp_path):
    asked = learned(tmp_path)
    recipe, captioner = judging_recipe(asked, TABLES, lambda operator: None)
    assert list(recipe.operators) == ["motion", "embedding", "temporal_hash"] and isinstance(captioner, Prompts)
    assert recipe.operators["motion"] == asked.operators["motion"] and recipe.score_rejected
    assert same_scores(recipe, asked) == ["motion", "embedding"]
    lacking, _ = judging_recipe(asked, TABLES, lambda op: "x" if hasattr(op, "clip") else None)
    assert list(lacking.operators) == ["motion", "temporal_hash"]


def test_scores_mean_the_same_where_only_the_device_differs(tmp_path):
    asked = learned(tmp_path)
    embedding = asked.operators["embedding"]
    moved = dataclasses.replace(embedding, clip=dataclasses.replace(embedding.clip, device="cpu", batch_frames=1))
    other = dataclasses.replace(embedding, frames=9)
    assert same_scores(asked, dataclasses.replace(asked, operators={"embedding": moved})) == ["embedding"]
    assert same_scores(asked, dataclasses.replace(asked, operators={"embedding": other})) == []


def test_what_the_reference_wants_and_lacks_is_left_out_and_what_a_recipe_wants_is_an_error(samples, tmp_path):
    def plan(config: Path | None) -> Any:
        asked = Asked([str(samples)], [], config, None, tmp_path)
        return plan_evaluation(
            asked, CONFIGS / "default.yaml", TABLES, lambda op: "no craft" if "text_area" in op.writes else None
        )

    request = plan(None)
    assert request.left_out == {"text_area": "no craft"} and "text_area" not in request.recipe.operators
    with pytest.raises(UserError, match="no craft"):
        plan(CONFIGS / "default.yaml")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["NONE"], "no such file or folder"),
        (["EMPTY"], "no video or image"),
        (["REFERENCE"], "an output of curate, no folder of samples"),
        (["SAMPLES", "--reference", "EMPTY"], "not an output of curate"),
        (["SAMPLES", "rules.motion.min=1"], "operators only"),
        (["SAMPLES", "operators.moton={}"], "did you mean 'motion'"),
        (["SAMPLES", "--config", "NONE"], "no such file"),
        (["SAMPLES", "--output", "HELD"], "holds something else than an evaluation"),
        (["operators.motion=false"], "needs samples"),
    ],
)
def test_a_request_that_cannot_be_is_told_in_one_line(words, says, samples, reference, tmp_path, capsys):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "HELD" / "samples").mkdir(parents=True)
    (tmp_path / "HELD" / "samples" / "mine.txt").write_text("mine")
    places = {"SAMPLES": str(samples), "REFERENCE": str(reference)}
    assert evaluate(*[places.get(w, str(tmp_path / w) if w.isupper() else w) for w in words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.startswith("error: ") and error.count("\n") == 1
    assert (tmp_path / "HELD" / "samples" / "mine.txt").read_text() == "mine"


def test_a_reference_of_which_nothing_is_accepted_is_refused(samples, reference, tmp_path, capsys):
    shutil.copytree(reference, tmp_path / "out")
    assert run_pipeline.main(["select", str(tmp_path / "out"), "rules.sharpness.min=1000000"]) == 0
    capsys.readouterr()
    assert evaluate(samples, "--reference", tmp_path / "out", "--output", tmp_path / "e") == 2
    assert "no video of it is accepted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ('{"prompt": "a dune"}', "a dune"),
        ('{"prompt": "half \\ud800"}', "half ?"),
        ('{"prompt": "  "}', None),
        ('{"prompt": 3}', None),
        ("[1]", None),
        ("{", None),
        ("[" * 100_000, None),
        ('{"prompt": "' + "x" * (1 << 20) + '"}', None),
        (None, None),
    ],
)
def test_a_prompt_is_text_under_its_name_and_anything_else_is_none(text, prompt, tmp_path):
    if text is not None:
        (tmp_path / "a.b.json").write_text(text)
    assert prompt_of(tmp_path / "a.b.mp4") == prompt


def test_pictures_are_samples_where_no_video_has_their_name(tmp_path):
    for name in ("a.mp4", "a.png", "b.png", "c.jpg", "gone.png", "evaluation/samples/previews/d.jpg", "more/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "gone.json").write_text(json.dumps({"num_frames": 9}))
    found = find_samples([str(tmp_path)], [tmp_path / "evaluation" / "samples"])
    assert [source.path for source in found] == ["a.mp4", "b.png", "c.jpg", "more/a.png"]
