"""Maps by networks through the pipeline and the sampler: made beside the clips, from files of weights."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs import curate, rows_of
from test_controls_pipeline import frames_of

from controls.depth import Depth
from controls.frames import draw_maps
from controls.hed import HedEdges
from core.errors import UserError
from curation.engine.booking import book_workers
from curation.engine.capacity import NodeCapacity
from curation.steps import CutStep
from demo.drawing import write_video
from tests.helpers.tiny_annotators import depth_folder, detector_onnx, hed_file, keypoints_onnx, mlsd_file


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip into which somebody comes halfway, and a picture with somebody."""
    folder = tmp_path_factory.mktemp("somebody")
    frames = np.full((40, 64, 96, 3), 60, np.uint8)
    for i in range(20, 40):
        frames[i, 16:40, max(0, 3 * i - 81) : 3 * i - 57] = (255, 255, 0)
    write_video(folder / "clip.mp4", list(frames), 10, options={"preset": "ultrafast", "crf": "4", "g": "10"})
    Image.fromarray(frames[-1]).save(folder / "still.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    hed_file(folder / "hed.pth")
    mlsd_file(folder / "mlsd.pth")
    depth_folder(folder / "depth")
    (folder / "people.onnx").write_bytes(detector_onnx())
    (folder / "points.onnx").write_bytes(keypoints_onnx({5: 0, 6: 1}))
    return folder


def recipe(folder: Path, weights: Path, names: str) -> Path:
    settings = {
        "pose": f"{{detector: {weights}/people.onnx, keypoints: {weights}/points.onnx, device: cpu}}",
        "hed": f"{{weights: {weights}/hed.pth, short_side_px: 64, device: cpu}}",
        "mlsd": f"{{weights: {weights}/mlsd.pth, short_side_px: 64, device: cpu}}",
        "depth": f"{{model: {weights}/depth, side_px: 56, device: cpu}}",
    }
    controls = ", ".join(f"{name}: {settings[name]}" for name in names.split())
    file = folder / "recipe.yaml"
    file.write_text(
        f"operators: {{}}\ncut: {{preset: ultrafast}}\nlimits: {{silence_s: 120}}\ncontrols: {{{controls}}}\n"
    )
    return file


def test_a_pose_map_is_frame_for_frame_and_says_in_how_many_frames_somebody_is(
    footage: Path, weights: Path, tmp_path: Path
) -> None:
    curate(footage, "--config", recipe(tmp_path, weights, "pose"), out=tmp_path / "out")
    for row in rows_of(tmp_path / "out").values():
        drawn = tmp_path / "out" / row["control_pose_path"]
        if row["type"] == "image":
            assert row["control_pose_amount"] == 1 and np.asarray(Image.open(drawn)).max() > 100
            continue
        frames = frames_of(drawn)
        assert len(frames) == row["clip_num_frames"] == 40 and frames[0].shape == (64, 96, 3)
        is_there = [bool((frame > 100).any()) for frame in frames]
        assert row["control_pose_amount"] == sum(is_there) / 40
        assert not any(is_there[:20]) and all(is_there[23:])


@pytest.mark.slow
def test_maps_by_all_networks_are_made_in_one_run(footage: Path, weights: Path, tmp_path: Path) -> None:
    curate(footage, "--config", recipe(tmp_path, weights, "pose hed mlsd depth"), out=tmp_path / "out")
    for row in rows_of(tmp_path / "out").values():
        assert row["status"] == "accepted", row["error"]
        for name in ("pose", "hed", "mlsd", "depth"):
            assert 0 <= row[f"control_{name}_amount"] <= 1
            drawn = tmp_path / "out" / row[f"control_{name}_path"]
            assert drawn.suffix == (".jpg" if row["type"] == "image" else ".mp4")
            if row["type"] == "video":
                assert len(frames_of(drawn)) == 40


def test_the_sampler_makes_a_map_by_a_network_of_frames_at_hand(weights: Path) -> None:
    frames = np.full((3, 64, 96, 3), 40, np.uint8)
    frames[:, 20:40, 30:60] = 220
    made, text, amount = draw_maps(
        HedEdges(weights=str(weights / "hed.pth"), short_side_px=64, device="cpu"), frames, 8
    )
    assert made is not None and made.shape == frames.shape and text is None and 0 < amount < 1
    assert (made[:, 20, 35:55] > 127).all() and made[:, 5, 5].max() < 30


def test_a_run_without_the_weights_says_so_before_it_begins(
    footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import run_pipeline

    words = ["curate", str(footage), "--output", str(tmp_path / "out"), "controls.hed.weights=gone.pth"]
    assert run_pipeline.main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "controls.hed: 'gone.pth' is neither published weights" in line and not (tmp_path / "out" / "clips").exists()


def test_a_network_that_cannot_be_loaded_in_a_worker_fails_its_clip_in_words() -> None:
    from core.errors import MediaError
    from curation.control_maps import ClipMaps

    with pytest.raises(MediaError, match="control depth: .*neither one of depth-v2-small nor a folder"):
        ClipMaps(Path(), "clip", {"depth": Depth(model="gone")})


# -- booking


def cut_step(text: str) -> CutStep:
    from types import SimpleNamespace

    import yaml

    from cli.common import TABLES
    from curation.recipe import resolve

    recipe, captioner = resolve(yaml.safe_load(text), TABLES)
    return CutStep(SimpleNamespace(recipe=recipe), captioner)  # type: ignore[arg-type]


def test_cutting_books_a_share_of_a_gpu_for_networks_that_draw() -> None:
    assert cut_step("controls: {canny: true}").spec.gpus == 0
    assert not cut_step("controls: {depth: {device: cpu}}").spec.holds_models
    step = cut_step("controls: {depth: true, pose: true}")
    assert step.spec.holds_models and step.spec.gpus == pytest.approx(0.2)
    booked = book_workers(step.plan, [step], [NodeCapacity("one", cpus=16, gpus=1)])["cut"]
    assert booked.workers == 5 and booked.gpus == pytest.approx(0.2)
    without = book_workers(step.plan, [step], [NodeCapacity("one", cpus=16)])["cut"]
    assert without.gpus == 0 and without.workers == 8


def test_a_decoder_that_draws_on_a_gpu_may_allocate_more() -> None:
    from curation.analysis.media_calls import GPU_MEMORY_GB, sandbox_of

    plain, drawing = (sandbox_of(cut_step(text).plan).limits for text in ("{}", "controls: {hed: true}"))
    assert drawing.memory_gb == plain.memory_gb + GPU_MEMORY_GB


def test_settings_are_checked() -> None:
    from core.settings import build

    with pytest.raises(UserError, match="controls.depth.steady"):
        build(Depth, {"steady": 1.0}, "controls.depth")
