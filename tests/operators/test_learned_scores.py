"""A recipe with every learned operator, on tiny networks: columns, copies across the table, captions that must fit."""

import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from runs import assert_same_output, internal_json, rows_of
from safetensors.torch import save_file
from tiny_clip import DIM, build_tiny_clip

import run_pipeline
from cli.common import TABLES
from curation.captions import UNFIT, CaptionWriter, caption_rows, load_writer
from curation.recipe import load_recipe
from curation.report.gather import gather
from curation.types import Caption, Frames, Row

torch.set_num_threads(1)
SOURCES = ("flyover.mp4", "rushes.mp4", "phone.mp4", "postcard.jpg")


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    head = {"layers.0.weight": torch.linspace(-1, 1, DIM)[None], "layers.0.bias": torch.full((1,), 5.0)}
    save_file(head, folder / "head.safetensors")
    clip = {"model": str(build_tiny_clip(folder / "clip")), "device": "cpu"}
    operators = dict.fromkeys((
        *("facts", "motion", "sharpness", "brightness", "frozen", "letterbox", "visual_quality"),
        *("temporal_hash", "text_area"),
    ))
    recipe = {
        "operators": operators
        | {
            "frame_consistency": {"clip": clip},
            "aesthetic": {"clip": clip, "head": str(folder / "head.safetensors")},
            "embedding": {"clip": clip},
            "duplicates": {"cosine": 0.999999},
            "caption_alignment": {"clip": clip, "min_score": -1.0},
        },
        "rules": {"motion": {"min": 0.5}, "aesthetic": {"min": 0}},
        "cut": {"preset": "ultrafast"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def footage(demo_footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copies")
    for name in SOURCES:
        shutil.copy2(demo_footage / name, folder / name)
    shutil.copy2(folder / "flyover.mp4", folder / "same.mp4")
    return folder


@pytest.fixture(scope="module")
def inline(footage: Path, recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return curated(footage, recipe_file, tmp_path_factory.mktemp("inline") / "out")


def smaller(source: Path, target: Path, short_side_px: int) -> None:
    """Encode a video anew, scaled down."""
    with av.open(str(source)) as before, av.open(str(target), "w") as after:
        seen = before.streams.video[0]
        made = after.add_stream("libx264", rate=seen.average_rate, options={"crf": "20"})
        made.height, made.width = short_side_px, round(seen.width * short_side_px / seen.height / 2) * 2
        made.pix_fmt = "yuv420p"
        for frame in before.decode(seen):
            after.mux(made.encode(frame.reformat(made.width, made.height)))
        after.mux(made.encode())


def curated(source: Path, recipe: Path, out: Path, runner: str = "inline") -> Path:
    words = ["curate", str(source), "--output", str(out), "--config", str(recipe), "--runner", runner]
    assert run_pipeline.main(words) == 0
    return out


@pytest.mark.slow
def test_the_table_holds_every_column(inline: Path) -> None:
    (file,) = (inline / "clips").glob("part-*.parquet")
    assert pq.read_schema(file).field("embedding").type == pa.list_(pa.float16(), DIM)
    for row in rows_of(inline).values():
        if row["status"] != "accepted":
            continue
        assert 0 < row["aesthetic"] < 10 and row["aesthetic"] == pytest.approx(np.mean(row["aesthetic_frames"]))
        assert np.linalg.norm(row["embedding"]) == pytest.approx(1, abs=2e-3)
        assert -1 <= row["caption_alignment"] <= 1
        assert row["temporal_hash"] is None or len(row["temporal_hash"]) == 12, "null: too plain to tell from others"
        assert (row["frame_consistency"] is None) == (row["type"] == "image")


@pytest.mark.slow
def test_one_of_two_copies_is_kept_and_the_other_names_it(inline: Path) -> None:
    by_path = {row["source_path"]: row for row in rows_of(inline).values() if row["source_path"] != "rushes.mp4"}
    pair = sorted((by_path["flyover.mp4"], by_path["same.mp4"]), key=lambda row: row["status"])
    kept, copy = pair
    assert (kept["status"], copy["status"]) == ("accepted", "rejected")
    assert copy["reasons"] == [f"duplicate_of:{kept['clip_id']}"] and copy["clip_path"] is copy["caption"] is None
    assert {item["clip_id"] for item in internal_json(inline)} == {
        row["clip_id"] for row in rows_of(inline).values() if row["status"] == "accepted"
    }


@pytest.mark.slow
def test_ray_gives_the_same_output(
    footage: Path, recipe_file: Path, inline: Path, tmp_path: Path, ray_here: None
) -> None:
    assert_same_output(inline, curated(footage, recipe_file, tmp_path / "out", "ray"))


@pytest.mark.slow
def test_a_better_member_changes_the_verdict_of_an_earlier_one(
    footage: Path, recipe_file: Path, tmp_path: Path
) -> None:
    sources = tmp_path / "in"
    sources.mkdir()
    smaller(footage / "flyover.mp4", sources / "small.mp4", short_side_px=270)
    out = curated(sources, recipe_file, tmp_path / "grown")
    (before,) = rows_of(out).values()
    assert before["status"] == "accepted" and (out / before["clip_path"]).exists()
    shutil.copy2(footage / "flyover.mp4", sources / "large.mp4")
    curated(sources, recipe_file, out)
    rows = {row["source_path"]: row for row in rows_of(out).values()}
    assert rows["large.mp4"]["status"] == "accepted"
    assert rows["small.mp4"]["reasons"] == [f"duplicate_of:{rows['large.mp4']['clip_id']}"]
    assert not (out / before["clip_path"]).exists()
    assert_same_output(out, curated(sources, recipe_file, tmp_path / "fresh"))
    # Rules that reject the larger one bring the smaller one back, with the file it had.
    assert run_pipeline.main(["select", str(out), "rules.short_side_px.max=300"]) == 0
    rows = {row["source_path"]: row for row in rows_of(out).values()}
    assert rows["small.mp4"] | {"duplicate_of": None} == before | {"duplicate_of": None}
    assert rows["large.mp4"]["reasons"][0] == "short_side_px:high"
    assert (out / before["clip_path"]).exists()


@pytest.mark.slow
def test_running_again_does_nothing(footage: Path, recipe_file: Path, inline: Path) -> None:
    before = (inline / "run.json").read_bytes()
    curated(footage, recipe_file, inline)
    assert (inline / "run.json").read_bytes() == before


@pytest.mark.slow
def test_the_report_knows_the_copies(inline: Path) -> None:
    recipe, _ = load_recipe(inline / "recipe.yaml", [], TABLES)
    names = {column.name for column in gather(inline, recipe).numbers}
    assert {"aesthetic", "frame_consistency", "caption_alignment"} <= names
    assert "duplicate_of" in (inline / "report.html").read_text(encoding="utf-8")


# -- captions


def waiting(count: int) -> list[Row]:
    return [{"clip_id": f"clip-{i}", "type": "video", "_samples": None} for i in range(count)]


def test_a_caption_that_does_not_fit_is_asked_for_once_more() -> None:
    tries: list[str] = []

    def write(clips: Sequence[tuple[Row, Frames | None]]) -> list[Caption]:
        tries.extend(row["clip_id"] for row, _ in clips)
        return [Caption(f"try {tries.count(row['clip_id'])} of {row['clip_id']}", "fake") for row, _ in clips]

    def align(pairs: Sequence[tuple[str | None, Frames | None]]) -> list[float | None]:
        scores = {"try 1 of clip-1": 0.1, "try 1 of clip-2": 0.1, "try 2 of clip-2": 0.1, "try 1 of clip-3": None}
        return [scores.get(text or "", 0.5) for text, _ in pairs]

    found = CaptionWriter(write, None, align, 0.3).captions(waiting(4))
    assert [(c.text, c.status, value) for c, value in found] == [
        ("try 1 of clip-0", "ok", 0.5),
        ("try 2 of clip-1", "ok", 0.5),
        ("try 2 of clip-2", UNFIT, 0.1),
        ("try 2 of clip-3", "ok", 0.5),
    ]
    assert tries == ["clip-0", "clip-1", "clip-2", "clip-3", "clip-1", "clip-2", "clip-3"]


def test_an_unfit_caption_rejects_its_clip(tmp_path: Path) -> None:
    row = dict.fromkeys(("caption", "caption_alignment", "_samples", "clip_path"))
    row |= {"clip_id": "a", "status": "accepted", "type": "video", "reasons": []}
    writer = CaptionWriter(lambda clips: [Caption("no", "fake") for _ in clips], None, lambda pairs: [0.0], 0.3)
    (finished,) = caption_rows([row], writer, tmp_path)
    assert (finished["status"], finished["reasons"]) == ("rejected", ["caption:unfit"])
    assert finished["caption_alignment"] == 0.0


def test_a_clip_that_nobody_would_caption_fails(tmp_path: Path) -> None:
    row = dict.fromkeys(("caption", "caption_model", "_samples", "clip_path", "error"))
    row |= {"clip_id": "a", "status": "accepted", "type": "video", "reasons": []}
    writer = CaptionWriter(lambda clips: [Caption(None, "fake", "failed", error="413: too large") for _ in clips])
    (finished,) = caption_rows([row], writer, tmp_path)
    assert (finished["status"], finished["error"]) == ("failed", "caption: 413: too large")


def test_a_caption_of_another_clip_is_a_bug_not_a_row() -> None:
    writer = CaptionWriter(lambda clips: [Caption("text", "fake", clip_id="another")])
    with pytest.raises(RuntimeError, match="clip clip-0 was asked about, the caption is for another"):
        writer.captions(waiting(1))


@dataclass(frozen=True)
class Slow:
    """Answers after a fixed time, as many at once as it has slots."""

    pool: ClassVar[str | None] = "caption"
    sampling: ClassVar[None] = None
    slots: int = 4

    def load(self):
        free = threading.Semaphore(self.slots)

        def write(clips: Sequence[tuple[Row, Frames | None]]) -> list[Caption]:
            ((row, _),) = clips
            assert free.acquire(blocking=False), "no more at once than there are slots"
            time.sleep(0.05)
            free.release()
            return [Caption(row["clip_id"], "slow", clip_id=row["clip_id"])]

        return write


def test_calls_fill_the_slots_and_every_clip_gets_its_own_caption() -> None:
    writer = load_writer(Slow(), None)
    begin = time.monotonic()
    with ThreadPoolExecutor(2) as batches:  # as an actor has two batches under way
        found = list(batches.map(writer.captions, [waiting(20), waiting(20)]))
    assert time.monotonic() - begin < 1.5 * 40 / 4 * 0.05 + 0.3
    assert all([c.text for c, _ in batch] == [row["clip_id"] for row in waiting(20)] for batch in found)


@dataclass(frozen=True)
class Choosy:
    """Refuses to caption what is large."""

    pool: ClassVar[str | None] = None
    slots: ClassVar[int] = 1
    sampling: ClassVar[None] = None
    most_px: int = 300

    def load(self):
        def write(clips: Sequence[tuple[Row, Frames | None]]) -> list[Caption]:
            return [
                Caption("a flight", "choosy", "ok" if row["short_side_px"] < self.most_px else "refusal")
                for row, _ in clips
            ]

        return write


@pytest.mark.slow
def test_where_the_best_copy_finds_no_caption_the_next_best_is_kept(
    footage: Path, recipe_file: Path, tmp_path: Path
) -> None:
    from curation.engine.runners import InlineRunner
    from curation.inputs.sources import find_sources
    from curation.pipeline import curate
    from curation.recipe import Tables, load_recipe
    from operators import OPERATORS

    sources = tmp_path / "in"
    sources.mkdir()
    shutil.copy2(footage / "flyover.mp4", sources / "large.mp4")
    smaller(footage / "flyover.mp4", sources / "small.mp4", short_side_px=270)
    overrides = ["caption.captioner=choosy", "operators.caption_alignment=false"]
    recipe, captioner = load_recipe(recipe_file, overrides, Tables(OPERATORS, {"choosy": Choosy}))
    curate(find_sources([str(sources)]), tmp_path / "out", recipe, captioner, InlineRunner())
    rows = {row["source_path"]: row for row in rows_of(tmp_path / "out").values()}
    assert rows["large.mp4"]["reasons"] == ["caption:refusal"]
    assert rows["small.mp4"]["status"] == "accepted" and (tmp_path / "out" / rows["small.mp4"]["clip_path"]).exists()
