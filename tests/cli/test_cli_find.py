"""`find` on drawn pictures and videos with known truth, and what `export` and `train` make of its selection."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from runs import curate, internal_json, rows_of

import run_pipeline
from curation.export.refresh import refresh_exports
from curation.reviews import Change, add_changes
from train_bridge.config import DataSettings
from train_bridge.data.metadata import read_metadata

pytest.importorskip("open_clip")
from tiny_clip import build_tiny_clip  # noqa: E402

from models.scorers.clip import load_tower  # noqa: E402

NAMES = ("disc", "bars", "waves", "squares")


def drawn(kind: str) -> np.ndarray:
    """Draw one of four pictures that differ in all but size, uint8 (96, 128, 3)."""
    y, x = np.mgrid[:96, :128]
    picture = {
        "disc": np.hypot(x - 50, y - 40) < 30,
        "bars": np.sin(x * x / 400 + y / 20) > 0,
        "waves": np.sin(x / 9 + y / 5) > 0.2,
        "squares": (x // 23 + y // 17) % 2 == 0,
    }[kind]
    light = np.linspace(60, 255, 128)[None, :] * np.linspace(1, 0.5, 96)[:, None]
    colour = np.array([[1, 0.3, 0.2], [0.3, 1, 0.3], [0.3, 0.4, 1], [1, 1, 0.5]][NAMES.index(kind)])
    return np.asarray((np.where(picture, 1, 0.25) * light)[..., None] * colour, np.float64).astype(np.uint8)


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, tower: Path) -> Path:
    """Curate the four pictures and a darker copy of each, with embeddings and hashes, all accepted."""
    folder = tmp_path_factory.mktemp("find")
    (folder / "pictures").mkdir()
    for name in NAMES:
        Image.fromarray(drawn(name)).save(folder / "pictures" / f"{name}.png")
        Image.fromarray(drawn(name) // 4 * 3).save(folder / "pictures" / f"{name}_darker.png")
    operators = {
        "facts": {},
        "temporal_hash": {},
        "embedding": {"clip": {"model": str(tower), "device": "cpu", "short_side_px": None}},
    }
    recipe = {"operators": operators, "rules": {}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    curate(folder / "pictures", "--config", folder / "recipe.yaml", out=folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def ids(out: Path) -> dict[str, str]:
    """Return clip ids by the picture's name."""
    return {Path(row["source_path"]).stem: clip_id for clip_id, row in rows_of(out).items()}


def find(capsys: pytest.CaptureFixture, out: Path, question: str | Path, *words: str | Path) -> dict:
    capsys.readouterr()
    assert run_pipeline.main(["find", str(out), str(question), "--json", *map(str, words)]) == 0
    return json.loads(capsys.readouterr().out)


def names(answer: dict) -> list[str]:
    return [Path(clip["source_path"]).stem for clip in answer["clips"]]


@pytest.mark.parametrize("by", ["embedding", "hash"])
@pytest.mark.parametrize("name", NAMES)
def test_a_picture_finds_itself_first_and_its_copy_next(capsys, out: Path, name: str, by: str) -> None:
    answer = find(capsys, out, out.parent / "pictures" / f"{name}.png", "--by", by)
    assert answer["by"] == by and answer["compared"] == answer["rows"] == 8
    if by == "hash":
        assert set(names(answer)[:2]) == {name, f"{name}_darker"}
    else:
        assert names(answer)[0] == name
        assert answer["clips"][0]["score"] == pytest.approx(1, abs=2e-3)


def test_a_clip_finds_what_is_like_it_but_not_itself(capsys, out: Path, ids: dict[str, str]) -> None:
    for name in NAMES:
        assert find(capsys, out, ids[name])["by"] == "embedding"
        answer = find(capsys, out, ids[name], "--by", "hash")
        assert len(answer["clips"]) == 7 and names(answer)[0] == f"{name}_darker"


def test_words_are_ranked_by_the_angle_to_each_clip(capsys, out: Path, tower: Path) -> None:
    answer = find(capsys, out, "a red disc")
    (text,) = load_tower(str(tower), device="cpu").encode_texts(["a red disc"])
    cosines = {clip_id: float(np.dot(row["embedding"], text)) for clip_id, row in rows_of(out).items()}
    assert answer["by"] == "embedding"
    assert [clip["clip_id"] for clip in answer["clips"]] == sorted(cosines, key=cosines.__getitem__, reverse=True)
    assert [clip["score"] for clip in answer["clips"]] == pytest.approx(
        sorted(cosines.values(), reverse=True), abs=2e-3
    )


def test_words_of_paths_and_of_captions_by_hand_are_found(capsys, out: Path, ids: dict[str, str]) -> None:
    assert set(names(find(capsys, out, "waves", "--by", "words"))) == {"waves", "waves_darker"}
    add_changes(out, [Change(ids["bars"], {"caption": "stripes of a zebra"}, "ann", "2026-01-31T12:00:00Z")])
    assert names(find(capsys, out, "zebra", "--by", "words")) == ["bars"], "before anything was judged anew"
    assert find(capsys, out, "no such word", "--by", "words", "--where", "height_px > 500")["clips"] == []


def test_limits_and_conditions_hold_for_every_way(capsys, out: Path, ids: dict[str, str]) -> None:
    answer = find(capsys, out, ids["disc"], "--limit", "2", "--where", "source_path != 'disc_darker.png'")
    assert len(answer["clips"]) == 2 and "disc_darker" not in names(answer) and answer["rows"] == 7
    answer = find(capsys, out, ids["disc"], "--where", "source_path == 'waves.png'")
    assert names(answer) == ["waves"], "the clip that is asked about need not be among them"
    assert find(capsys, out, ids["disc"], "--by", "hash", "--least", "2")["clips"] == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["...", "--by", "words"], "no word to look for"),
        (["x", "--limit", "0"], "at least 1"),
        (["x", "--where", "moton > 1"], "no column 'moton'"),
        (["", "--by", "words"], "nothing is asked"),
        (["x", "--by", "words", "--write", "no/such/folder"], "cannot be written"),
    ],
)
def test_mistakes_are_one_line(capsys, out: Path, words: list[str], line: str) -> None:
    assert run_pipeline.main(["find", str(out), *words]) == 2
    error = capsys.readouterr().err
    assert line in error and len(error.splitlines()) == 1


def test_files_that_are_no_pictures_are_refused(capsys, out: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "a.png").write_bytes(b"x")
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    assert run_pipeline.main(["find", str(out), str(tmp_path / "a.mp4")]) == 2
    assert "is no picture" in capsys.readouterr().err
    assert run_pipeline.main(["find", str(out), str(tmp_path / "a.png")]) == 2
    assert "give another picture" in capsys.readouterr().err
    assert run_pipeline.main(["find", str(out), str(tmp_path / "black.png"), "--by", "hash"]) == 2
    assert "shows next to nothing" in capsys.readouterr().err


def test_without_the_models_weights_words_are_compared_and_it_is_said(capsys, out: Path, tower: Path) -> None:
    gone = tower.with_name("gone")
    tower.rename(gone)
    try:
        code = run_pipeline.main(["find", str(out), "waves", "--by", "embedding"])
    finally:
        gone.rename(tower)
    error = capsys.readouterr().err
    assert (code, len(error.splitlines())) in {(0, 0), (2, 1)}, "a tower that is loaded stays; else one line says why"


def test_a_selection_is_what_is_exported_and_trained_on(capsys, out: Path, ids: dict[str, str], tmp_path: Path) -> None:
    picked = tmp_path / "picked.txt"
    find(capsys, out, "waves", "--by", "words", "--write", picked)
    wanted = {ids["waves"], ids["waves_darker"]}
    whole = {record["clip_id"] for record in internal_json(out)}
    assert whole == set(ids.values())
    assert run_pipeline.main(["export", str(out), "--clips", str(picked)]) == 0
    assert {record["clip_id"] for record in internal_json(out)} == wanted
    condition = "source_path == 'waves.png' or source_path == 'disc.png'"
    assert run_pipeline.main(["export", str(out), "--clips", str(picked), "--where", condition]) == 0
    assert {record["clip_id"] for record in internal_json(out)} == {ids["waves"]}
    assert refresh_exports(out) == ()
    assert {record["clip_id"] for record in internal_json(out)} == {ids["waves"]}, "a later run writes the same rows"
    rows = read_metadata(DataSettings(metadata=str(out), clips=str(picked)))
    assert ({row.row_id for row in rows.rows}, rows.left_out) == (wanted, 6)
    both = DataSettings(metadata=str(out), clips=str(picked), where="source_path == 'waves.png'")
    assert {row.row_id for row in read_metadata(both).rows} == {ids["waves"]}
    picked.unlink()
    (line,) = refresh_exports(out)
    assert "json_of_internal_datasets.json is out of date" in line and "--clips" in line and "--where" in line
    assert run_pipeline.main(["export", str(out)]) == 0
    assert {record["clip_id"] for record in internal_json(out)} == whole
    assert refresh_exports(out) == ()


@pytest.mark.parametrize("format", ["webvid", "diffusers", "webdataset"])
def test_every_format_takes_a_selection(capsys, out: Path, ids: dict[str, str], tmp_path: Path, format: str) -> None:
    picked = tmp_path / "picked.txt"
    picked.write_text(f"{ids['disc']}\nunknown\n")
    capsys.readouterr()
    words = ["export", str(out), "--format", format, "--clips", str(picked), "--json"]
    assert run_pipeline.main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["rows"] + result["not_videos"] == 1
    assert refresh_exports(out) == ()
    picked.write_text("unknown\n")
    assert run_pipeline.main(words) == 2
    assert "none of its 1 ids" in capsys.readouterr().err
    assert len(refresh_exports(out)) == 1, "what it was written of fits no more"
    assert run_pipeline.main(["export", str(out), "--format", format]) == 0
    assert refresh_exports(out) == ()


def test_a_frame_of_a_video_finds_the_clip_by_its_hash(tmp_path: Path, capsys) -> None:
    from footage import pan, write

    (tmp_path / "films").mkdir()
    for seed in range(3):
        write(tmp_path / "films" / f"{seed}.mp4", list(pan(96, seed=seed)))
    recipe = {"operators": {"facts": {}, "temporal_hash": {}}, "rules": {}, "cut": {"mode": "none"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    curate(tmp_path / "films", "--config", tmp_path / "recipe.yaml", out=tmp_path / "out")
    frame = list(pan(96, seed=1))[54]
    cv2.imwrite(str(tmp_path / "frame.jpg"), frame[..., ::-1])
    answer = find(capsys, tmp_path / "out", tmp_path / "frame.jpg")
    assert answer["by"] == "hash" and names(answer)[0] == "1"
    assert answer["clips"][0]["score"] > answer["clips"][1]["score"]
