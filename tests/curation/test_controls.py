"""Control maps of pictures drawn with known truth."""

import dataclasses
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controls import CONTROLS
from controls.blur import Blur
from controls.canny import Canny, relative_thresholds
from controls.gray import Gray
from controls.lines import Lines
from controls.networks import MapNetwork
from controls.soft_edges import SoftEdges
from controls.tile import Tile
from core.errors import UserError
from core.settings import build
from curation import schema
from curation.types import Control
from media import planes
from media.colour import luma_table
from media.frame import luma_of
from media.map_file import MapFile, _GrayFrame
from media.shape import TICKS

SIZE = (240, 320)


def maps_of(control: Control, pictures: list[np.ndarray], fps: float = 24.0) -> tuple[list[np.ndarray], float]:
    """Return the maps of RGB pictures, and the amount."""
    drawer = control.start()
    given = [luma_of(picture) if control.takes == "gray" else picture for picture in pictures]
    drawn = []
    for i, picture in enumerate(given):
        found = drawer.draw(picture, i / fps)
        drawn.append(None if found is None else found.copy())  # a drawer uses its memory again
    return [picture for picture in drawn if picture is not None], drawer.finish().amount


def near(mask: np.ndarray, reach_px: int) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * reach_px + 1,) * 2, np.uint8)) > 0


def f1(found: np.ndarray, truth: np.ndarray, reach_px: int = 2) -> float:
    """Return the F1 of two masks whose pixels may lie some apart."""
    precision = (found & near(truth, reach_px)).sum() / max(1, found.sum())
    recall = (truth & near(found, reach_px)).sum() / max(1, truth.sum())
    return 2 * precision * recall / max(1e-9, precision + recall)


def shapes(shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture (H, W, 3) of shapes on a plain ground, and where their edges were drawn: bool (H, W)."""
    picture = np.full((*SIZE, 3), (60, 90, 70), np.uint8)
    truth = np.zeros(SIZE, np.uint8)
    box = ((30 + shift, 40), (120 + shift, 150))
    corners = np.array([[180 + shift, 180], [290, 200], [230, 90 + shift]])
    cv2.rectangle(picture, *box, (220, 210, 200), -1)
    cv2.rectangle(truth, *box, 255)
    cv2.fillPoly(picture, [corners], (250, 190, 240))
    cv2.polylines(truth, [corners], True, 255)
    cv2.circle(picture, (240, 50), 30, (10, 0, 20), -1)
    cv2.circle(truth, (240, 50), 30, 255)
    return picture, truth > 0


WEIGHT_FREE = sorted(name for name, kind in CONTROLS.items() if not isinstance(kind(), MapNetwork))


@pytest.fixture(params=WEIGHT_FREE)
def named(request: pytest.FixtureRequest) -> tuple[str, Control]:
    return request.param, CONTROLS[request.param]()


def test_every_control_keeps_its_promises(named: tuple[str, Control]) -> None:
    name, control = named
    assert isinstance(control, Control) and dataclasses.is_dataclass(control)
    media = {n: media for n, _, media in schema.CONTROLS}
    assert control.media == media[name]
    assert all(field.metadata.get("meaning") for field in dataclasses.fields(control))
    with pytest.raises(dataclasses.FrozenInstanceError):
        control.suffix = "avi"  # type: ignore[misc]
    for pictures in ([shapes(i)[0] for i in range(4)], [np.zeros((*SIZE, 3), np.uint8)] * 3):
        before = [picture.copy() for picture in pictures]
        drawn, amount = maps_of(control, pictures)
        assert 0 <= amount <= 1 and np.isfinite(amount)
        assert all(np.array_equal(*pair) for pair in zip(before, pictures, strict=True))
        if control.suffix == "mp4":
            assert len(drawn) == len(pictures)
            assert all(m.shape[:2] == SIZE and m.dtype == np.uint8 for m in drawn)


def test_a_blank_clip_has_nothing_in_its_map(named: tuple[str, Control]) -> None:
    _, amount = maps_of(named[1], [np.full((*SIZE, 3), 90, np.uint8)] * 3)
    assert amount == pytest.approx(0, abs=0.01)


def test_the_table_has_columns_for_every_control() -> None:
    assert set(CONTROLS) <= {name for name, _, _ in schema.CONTROLS}
    for name in CONTROLS:
        assert {f"control_{name}_path", f"control_{name}_amount"} <= set(schema.BY_NAME)


# -- canny


@pytest.mark.parametrize("control", [Canny(), Canny(color=True), Canny(flat_share=0.9)])
def test_cannys_edges_lie_where_they_were_drawn(control: Canny) -> None:
    drawn = [shapes(i) for i in range(0, 9, 3)]
    maps, amount = maps_of(control, [picture for picture, _ in drawn])
    for found, (_, truth) in zip(maps, drawn, strict=True):
        assert set(np.unique(found)) <= {0, 255}
        assert f1(found > 0, truth, 1) >= 0.95
    assert amount == pytest.approx(np.mean([(m > 0).mean() for m in maps]))


def test_with_published_thresholds_canny_is_opencvs() -> None:
    picture = np.random.default_rng(1).integers(0, 255, (*SIZE, 3), np.uint8)
    (found,), _ = maps_of(Canny(color=True), [picture])
    assert np.array_equal(found, cv2.Canny(picture, 100, 200))


@settings(deadline=None, max_examples=25)
@given(st.floats(0.15, 1.0))
def test_relative_thresholds_follow_the_light(light: float) -> None:
    picture, truth = shapes()
    (found,), _ = maps_of(Canny(flat_share=0.9), [(picture * light).astype(np.uint8)])
    assert f1(found > 0, truth, 1) >= 0.95


def test_only_colours_tell_things_of_like_lightness_apart() -> None:
    picture = np.full((*SIZE, 3), (200, 90, 60), np.uint8)
    truth = np.zeros(SIZE, np.uint8)
    cv2.rectangle(picture, (60, 60), (200, 180), (60, 132, 60), -1)
    cv2.rectangle(truth, (60, 60), (200, 180), 255)
    (seen,), _ = maps_of(Canny(color=True), [picture])
    (missed,), amount = maps_of(Canny(), [picture])
    assert f1(seen > 0, truth > 0, 1) >= 0.95 and not missed.any() and amount == 0


def test_so_many_pixels_are_flat() -> None:
    luma = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 255, SIZE, np.uint8), (0, 0), 3)
    low, high = relative_thresholds(luma, 0.8)
    size = np.abs(cv2.Sobel(luma, cv2.CV_16S, 1, 0)) + np.abs(cv2.Sobel(luma, cv2.CV_16S, 0, 1))
    assert (size < high).mean() <= 0.8 <= (size <= high).mean() and low == pytest.approx(0.4 * high)


def test_canny_refuses_thresholds_in_the_wrong_order() -> None:
    with pytest.raises(UserError, match="low .300. must be at most high .200."):
        build(Canny, {"low": 300}, "controls.canny")


# -- gray


def test_a_gray_map_is_luma() -> None:
    picture, _ = shapes()
    (found,), amount = maps_of(Gray(), [picture])
    assert np.array_equal(found, luma_of(picture))
    assert amount == pytest.approx(found.std() / 127.5)


# -- lines, soft edges


def polygons(shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture of straight sides, and where they were drawn."""
    picture, truth = np.full((*SIZE, 3), 40, np.uint8), np.zeros(SIZE, np.uint8)
    for corners in ([(30, 30), (140, 50), (120, 150)], [(180, 40), (290, 70), (270, 200), (170, 190)]):
        places = np.array(corners) + (shift, 0)
        cv2.fillPoly(picture, [places], (210, 200, 220))
        cv2.polylines(truth, [places], True, 255)
    return picture, truth > 0


def test_lines_lie_where_they_were_drawn_and_curves_have_next_to_none() -> None:
    drawn = [polygons(i) for i in range(0, 9, 3)]
    maps, amount = maps_of(Lines(), [picture for picture, _ in drawn])
    assert all(f1(found > 0, truth) >= 0.95 for found, (_, truth) in zip(maps, drawn, strict=True))
    assert amount == pytest.approx(np.mean([(m > 0).mean() for m in maps]))
    waves = np.full((*SIZE, 3), 40, np.uint8)
    for x in range(20, 320, 30):
        cv2.circle(waves, (x, 120), 8, (220, 220, 220), -1, cv2.LINE_AA)
    (few,), _ = maps_of(Lines(min_length=0.1), [waves])
    assert (few > 0).mean() < 0.1 * (maps[0] > 0).mean()


def test_lines_of_a_large_picture_lie_at_its_own_size() -> None:
    picture, truth = polygons()
    large = cv2.resize(picture, None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
    (found,), _ = maps_of(Lines(short_side_px=240), [large])
    wanted = cv2.resize(truth.astype(np.uint8), None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST) > 0
    assert found.shape == wanted.shape and f1(found > 0, wanted, 3) >= 0.95


@pytest.mark.parametrize(("control", "reach_px"), [(SoftEdges(), 2), (SoftEdges(scribble=True), 8)])
def test_soft_edges_and_strokes_lie_where_they_were_drawn(control: SoftEdges, reach_px: int) -> None:
    drawn = [shapes(i) for i in range(0, 9, 3)]
    maps, amount = maps_of(control, [picture for picture, _ in drawn])
    assert all(f1(found > 127, truth, reach_px) >= 0.95 for found, (_, truth) in zip(maps, drawn, strict=True))
    assert amount == pytest.approx(np.mean([m.mean() / 255 for m in maps]), abs=1e-6)


def test_soft_edges_are_soft_and_strokes_are_hard_and_thin() -> None:
    picture, truth = shapes()
    (soft,), _ = maps_of(SoftEdges(), [picture])
    (hard,), _ = maps_of(SoftEdges(scribble=True), [picture])
    assert len(np.unique(soft)) > 50 and set(np.unique(hard)) == {0, 255}
    assert (hard > 0).mean() < 16 * truth.mean()


def test_a_stronger_edge_is_drawn_stronger() -> None:
    picture = np.full((*SIZE, 3), 60, np.uint8)
    picture[:, 100:], picture[:, 200:] = 80, 200
    (soft,), _ = maps_of(SoftEdges(), [picture])
    assert soft[:, 97:103].max() < soft[:, 197:203].max() and soft[:, 140:160].max() < 20


# -- blur, tile


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 255), st.sampled_from([Blur(), Tile()]))
def test_a_plain_picture_stays_as_it_is(level: int, control: Control) -> None:
    picture = np.full((48, 64, 3), level, np.uint8)
    (drawn,), amount = maps_of(control, [picture])
    assert np.abs(drawn.astype(int) - picture).max() <= 1 and amount < 0.01


def test_blur_and_tile_keep_the_mean_and_take_the_detail() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    for control in (Blur(), Tile()):
        (drawn,), amount = maps_of(control, [picture])
        assert np.abs(drawn.mean((0, 1)) - picture.mean((0, 1))).max() < 1.5
        assert amount == pytest.approx(luma_of(drawn).std() / 127.5, abs=1e-6) and amount < 0.2


def test_a_tile_of_factor_1_is_the_picture_and_a_larger_one_has_its_means() -> None:
    picture, _ = shapes()
    (same,), _ = maps_of(Tile(factor=1), [picture])
    assert np.array_equal(same, picture)
    (drawn,), _ = maps_of(Tile(factor=8), [picture])
    means = [cv2.resize(p, (40, 30), interpolation=cv2.INTER_AREA).astype(int) for p in (picture, drawn)]
    assert np.abs(means[0] - means[1]).mean() < 4


def test_blurring_twice_is_blurring_by_the_root_of_the_squares() -> None:
    picture, _ = shapes()
    (once,), _ = maps_of(Blur(width=0.03), [picture])
    (twice,), _ = maps_of(Blur(width=0.04), [once])
    (both,), _ = maps_of(Blur(width=0.05), [picture])
    assert np.abs(twice.astype(int) - both).max() <= 4


# -- files


def test_a_map_of_lines_comes_back_pixel_for_pixel(tmp_path: Path) -> None:
    drawn = [np.where(shapes(i)[1], 255, 0).astype(np.uint8) for i in range(6)]
    write_map(tmp_path / "map.mp4", drawn)
    for before, after in zip(drawn, read_map(tmp_path / "map.mp4"), strict=True):
        assert np.array_equal(before > 0, after[..., 0] > 127) and np.array_equal(before > 0, after[..., 2] > 127)


@pytest.mark.parametrize("shape", [SIZE, (*SIZE, 3)])
def test_a_map_keeps_its_values_and_colours(tmp_path: Path, shape: tuple[int, ...]) -> None:
    smooth = [cv2.GaussianBlur(np.random.default_rng(i).integers(0, 255, shape, np.uint8), (0, 0), 9) for i in range(3)]
    smooth = [cv2.convertScaleAbs(s, alpha=6, beta=-640) for s in smooth]
    write_map(tmp_path / "map.mp4", smooth)
    for before, after in zip(smooth, read_map(tmp_path / "map.mp4"), strict=True):
        whole = before if before.ndim == 3 else np.repeat(before[..., None], 3, axis=2)
        assert np.abs(whole.astype(int) - after).mean() < 4


def write_map(path: Path, pictures: list[np.ndarray]) -> None:
    file = MapFile(path, 24.0)
    for i, picture in enumerate(pictures):
        file.add(picture, round(i / 24 / TICKS))
    file.close(round(len(pictures) / 24 / TICKS))


def read_map(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


# -- the quick ways


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 70), st.floats(0.3, 3.0))
def test_canny_of_luma_is_opencvs_to_the_pixel(seed: int, height: int, width: int, blur: float) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    picture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), blur), None, 0, 255, cv2.NORM_MINMAX)
    drawer = Canny().start()
    for _ in range(2):  # again in the same memory
        assert np.array_equal(drawer.draw(picture, 0.0), cv2.Canny(picture, 100, 200))


@pytest.mark.parametrize("color_range", [1, 2])
def test_levels_are_those_of_the_tables(color_range: int) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    frame = av.VideoFrame.from_ndarray(
        np.concatenate([levels.ravel(), np.full(128, 128, np.uint8)]).reshape(24, 16), format="yuv420p"
    )
    frame.color_range = color_range
    luma = np.empty((16, 16), np.uint8)
    planes.gray_into(frame, luma)
    assert np.array_equal(luma, luma_table(8, full_range=color_range == 2)[levels])
    coded = _GrayFrame(16, 16).of(levels).to_ndarray(format="yuv420p")[:16]
    assert np.array_equal(coded, np.round(16 + np.arange(256) * 219 / 255).reshape(16, 16))
