"""HDR: brought to SDR alike for scores, previews and clips, or kept."""

from pathlib import Path

import av
import numpy as np
import pytest
from drawn_colours import LIMITED, decoded, frame_of, hdr_of, patches, write_frames

from curation.types import ClipInput, Frames
from demo.landscapes import scene
from media.decode import read_frames
from media.probe import probe_video
from media.settings import CutSettings
from media.stretch import Excerpt, Stretch
from media.tone_map import KNEE, REFERENCE_WHITE_NITS, compressed, nits_to_pq, pq_to_nits, to_sdr
from media.types import Span
from media.write import transcode
from operators.brightness import Brightness
from operators.sharpness import Sharpness
from operators.visual_quality import VisualQuality

TRANSFERS = {"pq": 16, "hlg": 18}
LIGHT = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(40000000,50):max-cll=600,200"
THREE = Span(0.0, 0.12, 0, 3)


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return np.ascontiguousarray(scene(1, 900, 360)[:360, :640])


def write_hdr(path: Path, sdr: np.ndarray, transfer: str, light: str = "", **options) -> Path:
    """Write three frames of an SDR picture put into HDR as BT.2408 says, as 10-bit HEVC."""
    frames = [frame_of(hdr_of(sdr, transfer), "yuv420p10le", 9, LIMITED) for _ in range(3)]
    settings = {"crf": "4", "preset": "ultrafast", "x265-params": f"log-level=none:{light}".rstrip(":")}
    return write_frames(path, frames, "libx265", options=settings, tags=(9, TRANSFERS[transfer], 9), **options)


def scores(path: Path) -> dict[str, float]:
    facts, _ = probe_video(path)
    frame = next(iter(read_frames(Stretch(path, facts))))
    found = {"coarse": float(frame.coarse().luma.mean()) / 255}
    for operator in (Brightness(), Sharpness(), VisualQuality()):
        wants = operator.sampling
        pixels = frame.gray(wants.short_side_px) if wants.color == "gray" else frame.rgb(wants.short_side_px)
        frames = Frames(pixels[None], np.zeros(1))
        found |= operator.load()([ClipInput(facts, Span(0.0, 1.0, 0, 1), frames)])[0]
    return found


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_scores_of_hdr_and_sdr_versions_of_one_scene_agree(tmp_path: Path, drawn: np.ndarray, transfer: str) -> None:
    hdr = scores(write_hdr(tmp_path / "hdr.mp4", drawn, transfer))
    frames = [frame_of(drawn / 255, "yuv420p", 1, LIMITED) for _ in range(3)]
    sdr = scores(write_frames(tmp_path / "sdr.mkv", frames, tags=(1, 1, 1)))
    assert hdr["brightness"] == pytest.approx(sdr["brightness"], rel=0.01)
    assert hdr["coarse"] == pytest.approx(sdr["coarse"], rel=0.01)
    assert hdr["sharpness"] == pytest.approx(sdr["sharpness"], rel=0.15)
    assert hdr["visual_quality"] == pytest.approx(sdr["visual_quality"], abs=0.02)
    assert hdr["colors"] == sdr["colors"]


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_clips_of_hdr_are_sdr_and_look_as_they_are_scored(tmp_path: Path, drawn: np.ndarray, transfer: str) -> None:
    path = write_hdr(tmp_path / "a.mp4", drawn, transfer)
    facts, _ = probe_video(path)
    assert (facts.transfer, facts.bit_depth) == (transfer, 10)
    for cut, box in [(CutSettings(crf=4), None), (CutSettings(crf=4, short_side_px=180), (0.1, 0.1, 0.9, 0.9))]:
        transcode(Excerpt(path, facts, THREE), cut, box, tmp_path / "clip.mp4")
        clip, frame = decoded(tmp_path / "clip.mp4")
        assert (frame.colorspace, frame.color_primaries, frame.color_trc) == (1, 1, 1)
        assert frame.format.name == "yuv420p" and frame.color_range == LIMITED
        if box is None:
            assert np.abs(clip - drawn).mean() < 2.5
            assert np.abs(clip - next(iter(read_frames(Stretch(path, facts)))).rgb(None)).mean() < 2.5


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_flat_colours_come_back_from_hdr(tmp_path: Path, transfer: str) -> None:
    path = write_hdr(tmp_path / "a.mp4", patches(), transfer)
    seen = next(iter(read_frames(Stretch(path, probe_video(path)[0])))).rgb(None)
    middles = np.arange(6) * 32 + 16
    wanted = patches()[24, middles]
    assert np.abs(seen[24, middles].astype(int) - wanted).max() <= 8
    assert np.abs(seen[24, middles].astype(int) - wanted).mean() <= 2.5


def test_hdr_is_kept_where_the_recipe_says_so(tmp_path: Path, drawn: np.ndarray) -> None:
    path = write_hdr(tmp_path / "a.mp4", drawn, "pq", LIGHT)
    facts, _ = probe_video(path)
    assert facts.peak_nits == 600
    transcode(
        Excerpt(path, facts, THREE), CutSettings(crf=8, hdr="keep", preset="ultrafast"), None, tmp_path / "clip.mp4"
    )
    kept, _ = probe_video(tmp_path / "clip.mp4")
    assert (kept.codec, kept.pixel_format, kept.transfer) == ("hevc", "yuv420p10le", "pq")
    assert (kept.mastering, kept.peak_nits) == (facts.mastering, 600) and kept.mastering == LIGHT
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"
        frame = next(container.decode(video=0))
        assert (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range) == (9, 16, 9, LIMITED)
    assert scores(tmp_path / "clip.mp4")["brightness"] == pytest.approx(scores(path)["brightness"], rel=0.01)


def test_sdr_is_h264_whatever_becomes_of_hdr(tmp_path: Path) -> None:
    frames = [frame_of(patches() / 255, "yuv420p10le", 1, LIMITED) for _ in range(3)]
    path = write_frames(tmp_path / "a.mkv", frames, tags=(1, 1, 1))
    transcode(Excerpt(path, probe_video(path)[0], THREE), CutSettings(hdr="keep"), None, tmp_path / "clip.mp4")
    written, _ = probe_video(tmp_path / "clip.mp4")
    assert (written.codec, written.pixel_format) == ("h264", "yuv420p")


def test_light_above_white_is_compressed_and_not_clipped() -> None:
    nits = np.linspace(0, 1000, 2001)
    shown = compressed(nits, 1000.0)
    below = nits <= KNEE * REFERENCE_WHITE_NITS
    assert np.allclose(shown[below], nits[below] / REFERENCE_WHITE_NITS)
    assert np.all(np.diff(shown) > 0) and shown[-1] == pytest.approx(1.0)
    assert np.all(np.diff(shown, 2) < 1e-9), "the slope falls, without a step at the knee"
    assert compressed(np.array(REFERENCE_WHITE_NITS), REFERENCE_WHITE_NITS) == pytest.approx(1.0)
    assert np.allclose(pq_to_nits(nits_to_pq(nits)), nits)


def test_hues_of_bright_light_stay() -> None:
    """A lamp of 800 cd/m2 in a warm colour: the ratios of its linear light are kept, and it does not turn yellow."""
    light = np.array([800.0, 400.0, 200.0])
    codes = np.rint(nits_to_pq(light) * (255 << 8)).astype(np.uint16)
    shown = to_sdr(np.tile(codes, (4, 4, 1)), 16, 1, None)[0, 0] / 255  # primaries of BT.709: nothing to convert
    linear = shown**2.4
    assert linear[1:] / linear[0] == pytest.approx([0.5, 0.25], rel=0.03)


def test_real_hdr_gives_a_clip_that_is_neither_dark_nor_burnt(shared_videos: Path, tmp_path: Path) -> None:
    path = shared_videos / "androidx-media__hdr10-av1.mp4"
    facts, _ = probe_video(path)
    assert facts.transfer == "pq"
    step = 1 / facts.fps
    transcode(
        Excerpt(path, facts, Span(0.0, 5 * step, 0, 5)), CutSettings(short_side_px=360), None, tmp_path / "clip.mp4"
    )
    clip, frame = decoded(tmp_path / "clip.mp4")
    seen = next(iter(read_frames(Stretch(path, facts))))
    assert 40 < clip.mean() < 200 and frame.color_trc == 1
    small = seen.rgb(360)[: clip.shape[0], : clip.shape[1]]
    assert np.abs(clip - small).mean() < 6
