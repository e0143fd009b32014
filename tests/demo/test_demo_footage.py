"""The demo's footage is what its truth says, and drawing it again gives the same bytes."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from demo import footage as demo_footage
from demo.drawing import Layer, Take, crossfade, fade, pan, view, write_video
from demo.landscapes import scene


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    drawn = (
        demo_footage.travel,
        demo_footage.rushes,
        demo_footage.widescreen,
        demo_footage.phone,
        demo_footage.glimpse,
        demo_footage.postcard,
        demo_footage.broken,
    )
    return folder, {truth.file: truth for truth in (draw(folder) for draw in drawn)}


def lumas(path) -> np.ndarray:
    """Decode all frames: uint8 (T, 90, 160)."""
    with av.open(str(path)) as container:
        frames = [f.reformat(width=160, height=90, format="gray").to_ndarray() for f in container.decode(video=0)]
    return np.stack(frames)


def test_names_are_unique_and_there_is_a_source_of_every_kind():
    names = [draw.__name__ for draw in demo_footage.SOURCES]
    assert len(names) == len(set(names)) == 12


def test_sizes_rates_and_lengths(footage):
    folder, truths = footage
    for truth in truths.values():
        if not truth.shots:
            continue
        with av.open(str(folder / truth.file)) as container:
            frames = list(container.decode(video=0))
            stream = container.streams.video[0]
            assert stream.average_rate == Fraction(truth.fps)
        assert len(frames) == truth.num_frames
        size = (frames[0].width, frames[0].height)
        assert (size if truth.rotation_deg % 180 == 0 else size[::-1]) == (truth.width_px, truth.height_px)
        assert {-f.rotation % 360 for f in frames} == {truth.rotation_deg}


def test_hard_cuts_are_where_the_truth_says(footage):
    folder, truths = footage
    for name in ("travel.mp4", "rushes.mp4"):
        frames = lumas(folder / name).astype(np.int16)
        change = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2))
        cuts = truths[name].cut_frames
        assert sorted(np.argsort(change)[-len(cuts) :] + 1) == list(cuts)


def test_faulty_shots_have_their_faults(footage):
    folder, truths = footage
    frames = lumas(folder / "rushes.mp4").astype(np.float32)
    shots = {s.kind: frames[s.start_frame : s.end_frame] for s in truths["rushes.mp4"].shots}
    still = np.abs(np.diff(shots["frozen"], axis=0)).mean(axis=(1, 2)) < 0.5
    assert still.mean() > 0.95 and not (np.abs(np.diff(shots["good"], axis=0)).mean(axis=(1, 2)) < 0.5).any()
    assert shots["dark"].mean() < 0.08 * 255 < shots["good"].mean()
    detail = {kind: cv2.Laplacian(shot[10], cv2.CV_32F).var() for kind, shot in shots.items()}
    assert detail["blurred"] * 10 < detail["good"]


def test_bars_are_black(footage):
    folder, _ = footage
    bar = demo_footage.LETTERBOX_BAR_PX
    with av.open(str(folder / "widescreen.mp4")) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert frame[: bar - 2].max() < 12 and frame[-bar + 2 :].max() < 12
    assert frame[bar + 2 : -bar - 2].mean(axis=(1, 2)).min() > 40


def test_the_still_image_and_the_broken_file(footage):
    folder, truths = footage
    truth = truths["postcard.jpg"]
    assert Image.open(folder / "postcard.jpg").size == (truth.width_px, truth.height_px)
    with pytest.raises(av.FFmpegError), av.open(str(folder / "broken.mp4")) as container:
        next(container.decode(video=0))
    assert not [p.name for p in folder.iterdir() if p.name.startswith(".")]


def test_drawing_again_gives_the_same_bytes(footage, tmp_path):
    folder, truths = footage
    for draw in (demo_footage.glimpse, demo_footage.postcard, demo_footage.broken):
        truth = draw(tmp_path)
        assert truth == truths[truth.file]
        assert (tmp_path / truth.file).read_bytes() == (folder / truth.file).read_bytes()


def test_a_pan_has_exactly_its_speed():
    texture = scene(2, 1200, 420)
    first, last = (list(pan(texture, 10.0, 13, fps=24.0))[i] for i in (0, 12))
    shift = 0.10 * np.hypot(640, 360) * 12 / 24  # px
    expected = view((Layer(texture),), shift, 0.0, 1.0, (640, 360))
    assert np.array_equal(last, expected) and not np.array_equal(first, last)


def test_near_layers_move_more_than_far_ones():
    far, near = np.zeros((360, 900, 3), np.uint8), np.zeros((360, 900, 3), np.uint8)
    far[:100, 400], near[:, 400] = 255, 255
    opacity = np.zeros((360, 900), np.float32)
    opacity[200:] = 1
    take = Take((Layer(far, depth=0.5), Layer(near[200:], opacity[200:], 1.0, 200)), start=(100, 0))
    frame = take.frame(0)
    assert frame[50, :, 0].argmax() == 350 and frame[300, :, 0].argmax() == 300


def test_transitions():
    white, black = np.full((4, 4, 3), 200, np.uint8), np.zeros((4, 4, 3), np.uint8)
    assert [int(f[0, 0, 0]) for f in crossfade([white] * 3, [black] * 3, 3)] == [150, 100, 50]
    assert [int(f[0, 0, 0]) for f in fade([white] * 3, 3, out=True)] == [150, 100, 50]
    assert [int(f[0, 0, 0]) for f in fade([white] * 3, 3, out=False)] == [50, 100, 150]


def test_uneven_times_pixel_aspect_and_other_formats(tmp_path):
    frames = [np.full((48, 64, 3), 40 * i, np.uint8) for i in range(5)]
    times_s = [0.0, 0.04, 0.5, 0.51, 2.0]
    write_video(tmp_path / "a.mkv", frames, pts=times_s, sample_aspect=Fraction(4, 3))
    with av.open(str(tmp_path / "a.mkv")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
        assert [f.time for f in container.decode(video=0)] == pytest.approx(times_s, abs=0.001)
    odd = [np.zeros((33, 47, 3), np.uint8)]
    write_video(tmp_path / "b.mp4", odd, 30000 / 1001, pixel_format="yuv444p", rotation_deg=270)
    with av.open(str(tmp_path / "b.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height, frame.format.name) == (47, 33, "yuv444p")
        assert -frame.rotation % 360 == 270
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
