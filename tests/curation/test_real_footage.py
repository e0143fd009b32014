"""`curate` on real footage: every file accounted for, facts true, files what they claim to be."""

import json
from collections import defaultdict
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from runs import curate, internal_json, rows_of

from media.decode import Clock, read_frames
from media.probe import probe_video
from media.stretch import Stretch
from media.types import SourceFacts

pytestmark = pytest.mark.slow

# The manifest's own notes, and codecs whose facts it could not read.
NO_FACTS = {"decord__corrupted.mp4", "torchcodec__nasa_13013.mp4", "androidx-media__sample_vvc.mp4"}


@pytest.fixture(scope="module")
def out(shared_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "out"
    curate(shared_videos, "cut.preset=ultrafast", out=folder)
    return folder


def by_source(out: Path) -> dict[str, list[dict]]:
    grouped = defaultdict(list)
    for row in rows_of(out).values():
        grouped[row["source_path"]].append(row)
    return grouped


def test_every_file_has_a_row_and_every_row_an_end(out: Path, shared_videos: Path) -> None:
    rows = by_source(out)
    media = {p.name for p in shared_videos.iterdir() if p.suffix in (".mp4", ".webm", ".mkv", ".mov", ".avi")}
    images = {f"images/{p.name}" for p in (shared_videos / "images").iterdir()}
    assert rows.keys() == media | images
    for path, clips in rows.items():
        assert {c["source_clips"] for c in clips} == {len(clips)}, path
        for clip in clips:
            assert clip["status"] in ("accepted", "rejected", "failed")
            assert bool(clip["reasons"]) == (clip["status"] == "rejected")
            assert (clip["error"] is not None) == (clip["status"] == "failed")


def test_counts_add_up(out: Path) -> None:
    rows = rows_of(out).values()
    summary = json.loads((out / "run.json").read_text())["summary"]
    assert summary["rows"] == len(rows) == summary["accepted"] + summary["rejected"] + summary["failed"]
    assert sum(summary["dropped_by"].values()) == summary["rejected"]
    assert summary["sources"] == len({r["source_path"] for r in rows})


def test_facts_equal_the_manifest(out: Path, shared_videos: Path) -> None:
    rows = by_source(out)
    for entry in json.loads((shared_videos / "MANIFEST.json").read_text())["videos"]:
        probe, name = entry["probe"], entry["file"]
        if name in NO_FACTS or not entry["decoded_frames"]:
            continue
        clip = rows[name][0]
        assert clip["source_num_frames"] == entry["decoded_frames"], name
        assert (clip["width_px"], clip["height_px"]) == displayed(probe), name
        frame_s = float(probe["duration"]) / entry["decoded_frames"]
        stated = [float(d) for d in (probe["v_duration"], probe["duration"]) if d]
        # a container without a length of its own for the stream states that of the sound
        assert min(abs(clip["source_duration_s"] - d) for d in stated) <= max(1.5 * frame_s, 0.03), name


def displayed(probe: dict) -> tuple[int, int]:
    width, height = probe["w"], probe["h"]
    num, den = map(int, (probe.get("sar") or "1:1").split(":"))
    width = int(width * num / den + 0.5)
    return (height, width) if (probe.get("rotation") or 0) % 180 else (width, height)


def test_clips_tile_their_source(out: Path) -> None:
    for path, clips in by_source(out).items():
        spans = sorted((c for c in clips if c["start_frame"] is not None), key=lambda c: c["start_frame"])
        frame = 0
        for clip in spans:
            assert clip["start_frame"] == frame, path
            frame += clip["num_frames"]
        if spans:
            assert frame == spans[0]["source_num_frames"], path


def test_files_hold_the_frames_of_their_span(out: Path, shared_videos: Path) -> None:
    accepted = [r for r in rows_of(out).values() if r["status"] == "accepted"]
    assert len(accepted) >= 20
    facts: dict[str, SourceFacts] = {}
    for row in accepted:
        file, source = out / row["clip_path"], shared_videos / row["source_path"]
        if row["type"] == "image":
            with Image.open(file) as image:
                assert image.size == (row["clip_width_px"], row["clip_height_px"])
            continue
        with av.open(str(file)) as container:
            written = [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
        assert len(written) == row["clip_num_frames"] == row["num_frames"]
        assert written[0][1].shape[:2] == (row["clip_height_px"], row["clip_width_px"])
        assert abs(written[0][0]) < 1e-6
        if source.name not in facts:
            facts[source.name] = probe_video(source)[0]
        clock = Clock.of(facts[source.name])
        read = read_frames(Stretch(source, facts[source.name], clock.pts(row["start_s"]), clock.pts(row["end_s"])))
        frames = [(f.time_s, f if i in (0, row["num_frames"] - 1) else None) for i, f in enumerate(read)]
        assert len(frames) == row["num_frames"]
        times = np.array([t for t, _ in frames]) - row["start_s"]
        assert np.allclose(times, [t for t, _ in written], atol=1e-3)
        for index in (0, -1):
            assert psnr(frames[index][1].rgb(None), written[index][1]) > 28, (row["source_path"], row["start_s"], index)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    height, width = min(a.shape[0], b.shape[0]), min(a.shape[1], b.shape[1])
    error = (a[:height, :width].astype(float) - b[:height, :width]) ** 2
    return float(10 * np.log10(255**2 / max(error.mean(), 1e-9)))


def test_the_json_states_the_files(out: Path) -> None:
    rows = rows_of(out)
    items = internal_json(out)
    assert {i["clip_id"] for i in items} == {k for k, r in rows.items() if r["status"] == "accepted"}
    for item in items:
        row = rows[item["clip_id"]]
        assert (out / item["file_path"]).is_file()
        assert item["text"] == row["caption"] and item["type"] == row["type"]
        assert (item["width"], item["height"]) == (row["clip_width_px"], row["clip_height_px"])
        assert item["num_frames"] == row["clip_num_frames"]


def test_damage_is_told_with_its_time(out: Path) -> None:
    clips = by_source(out)["decord__corrupted.mp4"]
    failed = [c for c in clips if c["status"] == "failed"]
    assert len(failed) == 1 and "from 2.90 to 5.00 s" in failed[0]["error"]
    assert [c["num_frames"] for c in clips if c["status"] != "failed"] == [29]
