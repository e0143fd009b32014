"""What lies in folders and is no source is counted by name; what is footage by its content is taken; outputs never."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from runs import assert_same_output, curate, rows_of

from core.errors import UserError
from curation.inputs.outputs import HEADER, is_output
from curation.inputs.sources import find_sources, look_for_sources
from curation.report.summary import funnel, summarise
from demo.drawing import write_video
from media.content import HEAD_BYTES, kind_of

PROGRAM = Path(__file__).resolve().parents[2] / "run_pipeline.py"


def bars(path: Path, shade: int = 60, count: int = 80) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = []
    for number in range(count):
        picture = np.full((48, 64, 3), shade, np.uint8)
        picture[:, number % 56 : number % 56 + 6] = 220
        pictures.append(picture)
    write_video(path, pictures, 20, options={"preset": "ultrafast"})
    return path


def encoded(path: Path, format: str, codec: str = "mpeg2video", pixels: str = "yuv420p", rate: int = 25) -> Path:
    size = (720, 576) if codec == "dvvideo" else (176, 144)
    with av.open(str(path), "w", format=format) as output:
        stream = output.add_stream(codec, rate=Fraction(rate), width=size[0], height=size[1], pix_fmt=pixels)
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 40 * number, np.uint8)).reformat(
                format=pixels
            )
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


CONTAINERS = {
    "mpegts": ("mpegts", "mpeg2video"), "mpeg": ("mpeg", "mpeg2video"), "mov": ("mov", "libx264"),
    "mp4": ("mp4", "libx264"), "mkv": ("matroska", "libx264"), "webm": ("webm", "libvpx"), "avi": ("avi", "mpeg4"),
    "flv": ("flv", "flv"), "asf": ("asf", "mpeg4"), "h264": ("h264", "libx264"), "m2v": ("mpeg2video", "mpeg2video"),
    "mxf": ("mxf", "mpeg2video"), "y4m": ("yuv4mpegpipe", "wrapped_avframe"), "ivf": ("ivf", "libvpx"),
    "ogg": ("ogg", "libtheora"), "dv": ("dv", "dvvideo"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("suffix", ["", ".part", ".footage"])
def test_footage_under_any_name_is_taken(tmp_path, kind, suffix):
    format, codec = CONTAINERS[kind]
    if codec not in av.codecs_available and codec != "wrapped_avframe":
        pytest.skip(f"this FFmpeg cannot write {codec}")
    file = encoded(tmp_path / f"clip{suffix}", format, codec)
    assert kind_of(file.read_bytes()[:HEAD_BYTES]) == "video"
    found = look_for_sources([str(tmp_path)])
    assert [s.path for s in found.sources] == [f"clip{suffix}"] and not found.passed_over.by_suffix


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_pictures_under_any_name_are_taken(tmp_path, kind):
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "picture", kind)
    assert [s.path for s in find_sources([str(tmp_path)])] == ["picture"]


def test_what_is_no_footage_is_counted_by_suffix(tmp_path):
    bars(tmp_path / "a.mp4")
    for name in (
        "n.txt",
        "m.txt",
        "deep/o.TXT",
        "x.part",
        "none",
        "y.json",
        "song.mp3",
        "raw.nef",
        ".hidden",
        ".h/a.mp4",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"nothing to see in it" * 40)
    Image.new("RGB", (8, 8)).save(tmp_path / "raw.nef", "TIFF")  # such pictures hold a thumbnail
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.mp4")
    for inputs in ([str(tmp_path)], [str(tmp_path), str(tmp_path)], [str(tmp_path), f"{tmp_path}/*"]):
        found = look_for_sources(inputs)
        assert [s.path for s in found.sources] == ["a.mp4"]
        passed = found.passed_over
        counts = {".txt": 3, ".part": 1, "none": 2, ".json": 1, ".mp3": 1, ".nef": 1, ".mp4": 1}
        assert dict(passed.by_suffix) == counts and passed.hidden == 2 and passed.outputs == ()
    words = str(passed)
    assert words.startswith("10 files (.txt 3, none 2, ") and words.endswith("2 hidden")


def test_the_summary_tells_what_was_passed_over(tmp_path, capsys):
    bars(tmp_path / "in/a.mp4")
    (tmp_path / "in/b.part").write_bytes(b"not yet")
    (tmp_path / "in/notes.md").write_text("x")
    curate(tmp_path / "in", "operators.text_area=false", "rules={}", out=tmp_path / "in/out")
    assert "passed over: 2 files (.md 1, .part 1)\n" in capsys.readouterr().out
    curate(tmp_path / "in", "--retry-failed", out=tmp_path / "in/out")
    shown = capsys.readouterr().out
    assert f"passed over: 2 files (.md 1, .part 1), 1 output of this program ({tmp_path}/in/out)" in shown
    (tmp_path / "in/c.m2t").write_bytes(encoded(tmp_path / "c", "mpegts").read_bytes())
    curate(tmp_path / "in", out=tmp_path / "in/out")
    passed = json.loads((tmp_path / "in/out/run.json").read_text())["summary"]["passed_over"]
    assert passed == {"by_suffix": {".md": 1, ".part": 1}, "hidden": 0, "outputs": [f"{tmp_path}/in/out"]}


def test_looking_into_many_small_files_stays_quick(tmp_path):
    """100,000 of them within 20 s, on a machine that does other things as well; names that tell are not opened."""
    for number in range(50):
        (tmp_path / str(number)).mkdir()
    for number in range(5_000):
        (tmp_path / f"{number % 50}/{number}.mp4").touch()
        (tmp_path / f"{number % 50}/{number}.json").touch()
        (tmp_path / f"{number % 50}/{number}.side").write_bytes(b"x")
    begin = time.process_time()
    found = look_for_sources([str(tmp_path)])
    assert len(found.sources) == 5_000 and found.passed_over.by_suffix == {".json": 5_000, ".side": 5_000}
    assert (time.process_time() - begin) / 15_000 < 200e-6


# -- outputs


def output(folder: Path, *contents: str, header: str = HEADER) -> Path:
    """Write what makes a folder an output, with a clip of it."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(f"{header}; change its rules with: run_pipeline.py select\nrules: {{}}\n")
    for name in contents:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    return folder


CLIP = "train/9e1c.mp4"
STATES = {
    "just started": (".lock",),
    "killed while it looked": (".lock", "previews/9e/9e1c-0.jpg"),
    "killed while it cut": (".lock", "previews/9e/9e1c-0.jpg", CLIP),
    "with parts": ("_parts/1.parquet", "previews/9e/9e1c-0.jpg", CLIP),
    "folded": ("clips/part-00000.parquet", "_parts/.x", "previews/9e/9e1c-0.jpg", CLIP, "run.json", "report.html"),
    "copied without hidden files": ("previews/9e/9e1c-0.jpg", CLIP),
    "with clips set aside": (".lock", "clips/part-00000.parquet", "_retired/9e1c.mp4", "previews/9e/9e1c-0.jpg"),
}


@pytest.mark.parametrize("state", STATES)
def test_outputs_in_every_state_are_never_sources(tmp_path, state, monkeypatch):
    footage = tmp_path / "in"
    bars(footage / "a.mp4")
    for place in ("out", "deep/er/out"):
        output(footage / place, *STATES[state])
        assert is_output(str(footage / place))
    outs = (str(footage / "out"), str(footage / "deep/er/out"))
    (tmp_path / "l.txt").write_text(
        "\n".join(str(p) for p in sorted(footage.rglob("*")) if p.suffix in (".mp4", ".jpg")) + f"\n{footage}/out\n"
    )
    (tmp_path / "link").symlink_to(footage)
    monkeypatch.chdir(footage)
    whole = (
        [str(footage)],
        ["."],
        [str(tmp_path / "link")],
        [f"{footage}/**"],
        ["**/*"],
        ["*", "deep"],
        ["a.mp4", *outs],
    )
    for inputs in (*whole, [str(tmp_path / "l.txt")]):
        found = look_for_sources(list(inputs))
        assert [s.file.name for s in found.sources] == ["a.mp4"], inputs
        assert found.passed_over.outputs and set(map(os.path.realpath, found.passed_over.outputs)) <= set(outs)
    inside = [Path(outs[0], name).parent for name in STATES[state] if name.startswith(("train/", "previews/"))]
    for inputs in ([outs[0]], *([str(folder)] for folder in inside), *([f"{folder}/*"] for folder in inside)):
        with pytest.raises(UserError, match=r"no video or image in it .passed over: .*1 output of this program"):
            find_sources(inputs)


def test_a_file_that_is_itself_named_is_taken_wherever_it_lies(tmp_path):
    out = output(tmp_path / "out", *STATES["folded"])
    assert [s.path for s in find_sources([str(out / CLIP)])] == ["9e1c.mp4"]


def test_a_link_into_an_output_does_not_lead_its_clips_in(tmp_path):
    out = output(tmp_path / "elsewhere/out", *STATES["folded"])
    bars(tmp_path / "in/a.mp4")
    (tmp_path / "in/clips of last week").symlink_to(out / "train")
    (tmp_path / "in/all").symlink_to(out)
    found = look_for_sources([str(tmp_path / "in")])
    assert [s.path for s in found.sources] == ["a.mp4"] and found.passed_over.outputs == (str(out),)


def test_footage_beside_an_outputs_own_folders_is_taken(tmp_path):
    """`curate . --output .`, and a folder of it afterwards."""
    out = output(tmp_path / "in", *STATES["folded"])
    bars(out / "a.mp4")
    bars(out / "reel/b.mp4")
    assert [s.path for s in find_sources([str(out)])] == ["a.mp4", "reel/b.mp4"]
    assert [s.path for s in find_sources([str(out / "reel")])] == ["b.mp4"]
    (tmp_path / "l.txt").write_text("in/a.mp4\nin/reel/b.mp4\nin/train/9e1c.mp4\n")
    assert [s.path for s in find_sources([str(tmp_path / "l.txt")])] == ["in/a.mp4", "in/reel/b.mp4"]


def test_footage_with_a_recipe_beside_it_is_no_output(tmp_path):
    """Somebody keeps the recipe with the footage that it is for; folders of footage may be called anything."""
    bars(tmp_path / "in/reel/previews/a.mp4")
    (tmp_path / "in/reel/recipe.yaml").write_text("rules: {}\n")
    bars(tmp_path / "in/other/b.mp4")
    (tmp_path / "in/other/recipe.yaml").write_text(f"{HEADER}; change its rules with: run_pipeline.py select\n")
    assert [s.path for s in find_sources([str(tmp_path / "in")])] == ["other/b.mp4", "reel/previews/a.mp4"]


def test_samples_of_a_training_run_are_no_footage(tmp_path):
    bars(tmp_path / "in/a.mp4")
    for name in ("config.yaml", "log.jsonl", "run.json", "samples/step-00000100.png"):
        (tmp_path / "in/run 1" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in/run 1" / name).write_text("x")
    found = look_for_sources([str(tmp_path / "in")])
    assert [s.path for s in found.sources] == ["a.mp4"]
    assert found.passed_over.outputs == (f"{tmp_path}/in/run 1",)
    with pytest.raises(UserError, match="1 output of this program"):
        find_sources([str(tmp_path / "in/run 1/samples")])


def test_an_output_is_known_by_what_every_version_wrote(tmp_path):
    bars(tmp_path / "in/a.mp4")
    curate(tmp_path / "in", "operators.text_area=false", "rules={}", out=tmp_path / "out")
    assert (tmp_path / "out/recipe.yaml").read_text().startswith("# The recipe of this output; ")
    assert is_output(str(tmp_path / "out")) and not is_output(str(tmp_path / "in"))


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    for number in range(2):
        bars(folder / f"{number}.mp4", 60 + 20 * number)
    return folder


@pytest.mark.parametrize(
    "sign",
    ["previews/*/*.jpg", *(pytest.param(s, marks=pytest.mark.slow) for s in ("train/*.mp4", "_parts/*.parquet"))],
)
def test_a_run_killed_inside_its_input_ends_as_if_undisturbed(tmp_path, footage, sign):
    """The first sign of previews, of clips, of parts: each is a moment at which other things are there already."""
    words = ["operators.text_area=false", "rules={}", "--runner", "inline"]
    shutil.copytree(footage, tmp_path / "in")
    shutil.copytree(footage, tmp_path / "undisturbed/in")
    command = [sys.executable, str(PROGRAM), "curate", "in", *words, "--output", "in/out"]
    for place in (tmp_path / "in", tmp_path / "undisturbed/in"):  # equal times of change, as a copy keeps them
        for file in place.glob("*.mp4"):
            os.utime(file, ns=(0, 10**18))
    subprocess.run(command, cwd=tmp_path / "undisturbed", check=True, capture_output=True)
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    out = tmp_path / "in/out"
    while run.poll() is None and not next(out.glob(sign), None):
        time.sleep(0.002)
    run.send_signal(signal.SIGKILL)
    run.wait()
    again = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "1 output of this program" in again.stdout
    assert {row["source_path"] for row in rows_of(out).values()} == {"0.mp4", "1.mp4"}
    for row in rows_of(out).values():
        assert row["source_root"] == str(tmp_path / "in")
    for table in (tmp_path / "undisturbed/in/out/clips").glob(
        "part-*.parquet"
    ):  # the same footage lies elsewhere there
        _with_root(table, str(tmp_path / "in"))
    assert_same_output(out, tmp_path / "undisturbed/in/out")


def _with_root(file: Path, root: str) -> None:
    """Let a table say that its footage lies elsewhere."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    place = table.schema.get_field_index("source_root")
    pq.write_table(table.set_column(place, "source_root", pa.array([root] * len(table), pa.string())), file)


def test_the_funnel_of_an_output_by_itself_names_nothing_passed_over(tmp_path, footage):
    curate(footage, "operators.text_area=false", "rules={}", out=tmp_path / "out")
    assert "passed over" not in funnel(summarise(tmp_path / "out", ()))
