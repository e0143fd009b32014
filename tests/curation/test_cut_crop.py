"""Clips cut to what is free of overlays and bars: the written pictures, the sizes told, the rule that rejects."""

from pathlib import Path

import av
import numpy as np
import pytest

pytest.importorskip("PIL.Image")

from overlay_footage import Footage, Laid, text_patch
from runs import curate, rows_of

from cli.common import TABLES
from core.errors import MediaError, UserError
from curation.analysis.analyse import probe_source
from curation.cut import cut_clip
from curation.judge import rules_of, verdict
from curation.recipe import Recipe, Rule, load_recipe, resolve, what_differs
from curation.types import Row, Sampling, Source
from curation.work import Plan
from demo.drawing import write_video
from media.settings import CutSettings
from media.shape import even_box, pixel_box

SIZE, FPS = (640, 360), 12


def silent(_: float) -> None:
    """Take a heartbeat."""


def footage(top: int = 320) -> Footage:
    """A pan with a subtitle that stands at some height for most of the clip."""
    patch = text_patch("running past the market houses", 22)
    return Footage(3, SIZE, 60.0, overlays=[Laid(patch, (SIZE[0] - patch.shape[1]) // 2, top, 0.4, 9.0)])


@pytest.fixture(scope="module")
def subtitled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("footage") / "subtitled.mp4"
    write_video(path, footage().pictures(2.0, FPS), FPS)
    return path


def cut(path: Path, out: Path, settings: str, frames: Sampling | None = None, **columns: object) -> tuple[Row, bytes]:
    """Cut a whole file as an accepted clip with these columns."""
    words = ["operators.overlay=true", "operators.letterbox=true", *(f"cut.{word}" for word in settings.split(","))]
    recipe, _ = load_recipe(None, words, TABLES)
    plan, status = Plan(recipe, str(out)), path.stat()
    task = probe_source(plan, Source(str(path.parent), path.name, status.st_size, status.st_mtime_ns), silent)[0]
    row = {"clip_id": "a", "type": "video", "start_s": 0.0, "end_s": 2.0, "start_frame": 0, "num_frames": 24, **columns}
    done = cut_clip(plan, row, task, frames, silent)
    return done.columns, done.samples or b""


def decoded(path: Path) -> np.ndarray:
    """Return all pictures of a file, uint8 (T, H, W, 3)."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_a_safe_crop_holds_just_the_pictures_inside_the_box(subtitled: Path, tmp_path: Path) -> None:
    top = footage().overlays[0].top
    box = [0.0, 0.0, 1.0, (top - 1) / SIZE[1]]  # an odd line, rounded up to an even one
    columns, _ = cut(subtitled, tmp_path, "crop=safe,crf=10", safe_box=box, safe_share=box[3])
    pictures = decoded(tmp_path / columns["clip_path"])
    assert (columns["clip_width_px"], columns["clip_height_px"]) == (640, top - 2) == pictures.shape[2:0:-1]
    assert columns["clip_num_frames"] == len(pictures) == 24
    whole = decoded(subtitled)
    error = np.abs(pictures.astype(int) - whole[:, : top - 2]).mean(axis=(1, 2, 3))
    assert error.max() < 2.0
    assert pictures[-1].max() < 255 or whole[-1, top:].max() == 255  # the subtitle's white is not in it


def test_a_crop_at_the_left_and_top_is_in_its_place(subtitled: Path, tmp_path: Path) -> None:
    box = [101 / 640, 33 / 360, 599.5 / 640, 301 / 360]
    columns, _ = cut(subtitled, tmp_path, "crop=safe,crf=10", safe_box=box, safe_share=0.6)
    pictures = decoded(tmp_path / columns["clip_path"])
    assert pictures.shape[1:3] == (300 - 34, 598 - 102)
    assert np.abs(pictures.astype(int) - decoded(subtitled)[:, 34:300, 102:598]).mean() < 2.0


def test_a_crop_is_shrunk_but_never_enlarged(subtitled: Path, tmp_path: Path) -> None:
    for short_side_px, size in ((720, (640, 300)), (150, (320, 150))):
        settings = f"crop=safe,short_side_px={short_side_px}"
        columns, _ = cut(subtitled, tmp_path, settings, safe_box=[0.0, 0.0, 1.0, 300 / 360], safe_share=0.8)
        assert (columns["clip_width_px"], columns["clip_height_px"]) == size


def test_a_clip_without_overlays_is_written_whole(subtitled: Path, tmp_path: Path) -> None:
    columns, _ = cut(subtitled, tmp_path, "crop=safe", safe_box=[0.0, 0.0, 1.0, 1.0], safe_share=1.0)
    assert (columns["clip_width_px"], columns["clip_height_px"]) == SIZE


def test_the_captioner_sees_what_is_written(subtitled: Path, tmp_path: Path) -> None:
    from curation.analysis.samples import decode_samples

    box, wanted = [0.0, 0.0, 1.0, 0.5], Sampling(2.0, 2)
    for settings, height in (("crop=safe", 180), ("crop=none", 360), ("crop=safe,mode=none", 360)):
        _, samples = cut(subtitled, tmp_path, settings, wanted, safe_box=box, safe_share=0.5)
        frames = decode_samples(samples, "caption")
        assert frames is not None and frames.pixels.shape[1:3] == (height, 640)


def test_bars_are_cut_by_either_key(subtitled: Path, tmp_path: Path) -> None:
    bars = {"letterbox": 0.2, "content_box": [0.0, 0.1, 1.0, 0.9]}
    heights = {}
    for settings in ("crop=bars", "crop_bars=true", "crop=none"):
        heights[settings] = cut(subtitled, tmp_path, settings, **bars)[0]["clip_height_px"]
    assert heights == {"crop=bars": 288, "crop_bars=true": 288, "crop=none": 360}


def test_an_accepted_clip_without_a_box_is_refused(subtitled: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="free of overlays"):
        cut(subtitled, tmp_path, "crop=safe", safe_box=None, safe_share=0.0)


def test_even_boxes_lie_within_and_are_whole_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        width, height = (int(v) for v in rng.integers(64, 2000, 2))
        (left, right), (top, bottom) = np.sort(rng.random((2, 2)) * [1, 1])
        if right - left < 0.1 or bottom - top < 0.1:
            continue
        pixels = pixel_box(even_box((left, top, right, bottom), width, height), width, height)
        assert all(side % 2 == 0 for side in pixels)
        assert pixels[0] >= left * width - 1e-5 and pixels[2] <= right * width + 1e-5
        assert pixels[1] >= top * height - 1e-5 and pixels[3] <= bottom * height + 1e-5
        assert pixels[2] - pixels[0] > (right - left) * width - 4


def safe_recipe(**values: object) -> Recipe:
    """A recipe that cuts to the safe box."""
    return resolve({"operators": {"overlay": None}, "cut": {"crop": "safe"}} | values, TABLES)[0]


def test_too_small_a_share_rejects_with_a_reason() -> None:
    rules = rules_of(safe_recipe())
    assert rules["safe_share"] == Rule(min=0.6) and next(iter(rules)) == "duration_s"
    row = {"type": "video", "duration_s": 5.0}
    for share, reasons in ((0.61, []), (0.6, []), (0.59, ["safe_share:low"]), (None, ["safe_share:missing"])):
        assert verdict(row | {"safe_share": share}, rules) == reasons
    lower = rules_of(safe_recipe(cut={"crop": "safe", "min_safe_share": 0.4}))
    assert lower["safe_share"] == Rule(min=0.4)
    assert rules_of(safe_recipe(rules={"safe_share": {"min": 0.8}}))["safe_share"] == Rule(min=0.8)
    assert "safe_share" not in rules_of(Recipe())


def test_what_cannot_be_cropped_is_refused() -> None:
    with pytest.raises(UserError, match=r"operators\.overlay"):
        load_recipe(None, ["cut.crop=safe"], TABLES)
    with pytest.raises(UserError, match="cannot be cropped"):
        load_recipe(None, ["operators.overlay=true", "cut.crop=safe", "cut.mode=copy"], TABLES)


def test_the_older_key_keeps_its_meaning() -> None:
    assert [CutSettings(crop_bars=old).crops for old in (False, True)] == ["none", "bars"]
    assert CutSettings(crop="safe", crop_bars=True).crops == "safe"
    earlier = load_recipe(None, ["cut={crop_bars: true}"], TABLES)[0]
    assert what_differs(earlier, load_recipe(None, ["cut={crop_bars: true, crop: none}"], TABLES)[0]) == []


@pytest.mark.slow
def test_from_footage_to_files(tmp_path: Path) -> None:
    pytest.importorskip("rapidocr")
    films, out = tmp_path / "films", tmp_path / "out"
    films.mkdir()
    for name, one in {"subtitled": footage(), "across": footage(170), "plain": Footage(3, SIZE, 60.0)}.items():
        write_video(films / f"{name}.mp4", one.pictures(4.0, FPS), FPS)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("operators: {overlay: }\ncut: {crop: safe, crf: 12}\nshots: {detector: stride}\n")
    curate(films, "--config", recipe, out=out)
    by_name = {Path(row["source_path"]).stem: row for row in rows_of(out).values()}
    assert by_name["across"]["reasons"] == ["safe_share:low"] and by_name["across"]["clip_path"] is None
    assert by_name["plain"]["status"] == by_name["subtitled"]["status"] == "accepted"
    assert by_name["plain"]["clip_height_px"] == 360
    row, top = by_name["subtitled"], footage().overlays[0].top
    assert row["safe_share"] >= 0.8 and 0.98 * top - 2 <= row["clip_height_px"] <= top
    pictures = decoded(out / row["clip_path"])
    assert pictures.shape[1:3] == (row["clip_height_px"], row["clip_width_px"])
    bare = np.stack(list(Footage(3, SIZE, 60.0).pictures(4.0, FPS)))[:, : row["clip_height_px"]]
    assert np.abs(pictures.astype(int) - bare).mean(axis=(1, 2, 3)).max() < 6.0  # no subtitle in any picture
