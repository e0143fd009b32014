"""What cannot be sampled is told in one line, before any weights are loaded where it can be known."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pipelines import FAMILY, half_mask, moving, picture, write_pipeline

import run_pipeline
from core.errors import UserError
from models.lora.adapters import add_lora, export_lora
from models.lora.form import AdapterForm
from models.vae.video_vae import PRESETS, build_vae
from sampling.request import parse_seeds, read_prompts

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pipelines whose weights are taken away: whatever is refused here is refused without them."""
    folder = tmp_path_factory.mktemp("refusals")
    write_pipeline(folder / "plain")
    write_pipeline(folder / "inpaint", in_channels=33)
    for file in folder.glob("*/*/*.safetensors"):
        file.unlink()
    picture(folder / "first.png")
    picture(folder / "wide.png", 160, 48)
    moving(folder / "video.mp4", 24)
    moving(folder / "short.mp4", 6)
    half_mask(folder / "mask.png")
    half_mask(folder / "large.png", 64, 64)
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(folder / "black.png")
    (folder / "text.png").write_text("no picture")
    (folder / "prompts.txt").write_bytes(b"\xff\xfe\x00")
    return folder


def said(capsys: pytest.CaptureFixture[str], folder: Path, out: Path, model: str, *words: str) -> str:
    """Run a command that is refused; return its one line."""
    names = {path.name for path in folder.iterdir()}
    given = [str(folder / word) if word.split("/")[0] in names else word for word in words]
    prompt = [] if "--prompt" in words or "--prompts" in words else ["--prompt", "snow"]
    output = [] if "--output" in words else ["--output", str(out)]
    capsys.readouterr()
    assert run_pipeline.main(["sample", str(folder / model), *prompt, *given, *output]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ")
    assert "\n" not in line
    assert not out.exists()
    return line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--frames 8", "8 frames are not 4n+1; the nearest are 5 and 9"),
        ("--frames 0", "not 4n+1; the nearest are 1 and 5"),
        ("--size 500x300", "multiples of 16; the nearest is 496x304"),
        ("--size 0x0", "multiples of 16; the nearest is 16x16"),
        ("--steps 0", "--steps at least 1"),
        ("--fps 0", "--fps must be above 0"),
        ("--fps nan", "--fps must be above 0"),
        ("--guidance nan", "--guidance nan"),
        ("--seed -1", "--seed -1: must be 0 or more"),
        ("--seeds 9..1", "'9..1' is empty"),
        ("--seeds x", "neither a number nor a range"),
        ("--prompts prompts.txt", "cannot be read as text"),
        ("--image gone.png", "--image gone.png: no such file"),
        ("--image text.png", "cannot be read"),
        ("--image video.mp4", "is a video; give an image"),
        ("--image wide.png --size 48x48", "160x48 px is of another aspect than --size has (1.00:1); leave --size away"),
        ("--image first.png --frames 1", "one frame"),
        ("--image first.png --video video.mp4", "--video with --image"),
        ("--end-image first.png", "no condition channels"),
        ("--strength 0.5", "--strength without --video"),
        ("--strength 1.5 --video video.mp4", "between 0"),
        ("--strength 0.01 --steps 50 --video video.mp4", "leaves 0 of 50 steps, 1 are needed"),
        ("--mask mask.png", "--mask without --video"),
        ("--mask large.png --video video.mp4", "64x64 px for a video of 48x48; scale it"),
        ("--mask short.mp4 --video video.mp4", "lasts 0.75 s, the video 3.00 s"),
        ("--mask video.mp4 --video first.png", "is a video for an image"),
        ("--video short.mp4 --frames 9 --fps 8", "lasts 0.75 s, 9 frames at 8 fps last 1.12 s"),
        ("--video first.png --frames 9", "give it as --image"),
        ("--video video.mp4 --segments 2", "--video with --segments"),
        ("--segments 2 --length 30", "--segments with --length"),
        ("--segments 0", "--segments 0: must be at least 1"),
        ("--length 0", "--length 0: must be at least 1"),
        ("--overlap 5", "--overlap without --segments"),
        ("--segments 2 --overlap 4", "--overlap 4: must be 4n+1 and at most 5 of 9 frames; take 5"),
        ("--segments 2 --overlap 9", "take 5"),
        ("--segments 2 --frames 1", "more than one of --frames"),
        ("--lora gone.safetensors", "no such file"),
        ("--sampler ddim", "trained for flow"),
        ("--cache-threshold 0", "cache threshold 0.0: must be above 0"),
        ("--memory some", "memory mode 'some': there is none"),
        ("--frames 1 --output out.mp4", "a picture is made; name it out.png"),
        ("--output out.png", "a video is made; name it out.mp4"),
        ("--output first.png/out.mp4", "a file is in the way"),
        ("--output mask.png/deep/er", "a file is in the way"),
        ("--seeds 0..1 --output out.mp4", "one file for 2 samples"),
    ],
)
def test_what_cannot_be_is_said_before_weights_are_loaded(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, expected: str
) -> None:
    assert expected in said(capsys, folder, tmp_path / "out", "plain", *words.split())


def test_end_images_of_another_aspect_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--image", "first.png", "--end-image", "wide.png"]
    assert "of another aspect than --image has" in said(capsys, folder, tmp_path / "out", "inpaint", *words)


def test_empty_prompts_are_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--prompt: empty" in said(capsys, folder, tmp_path / "out", "plain", "--prompt", " ")


def test_a_lora_of_another_model_is_refused_by_its_keys(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = FAMILY.build(dict(FAMILY.presets["tiny"]) | {"num_layers": 3, "mmdit_layers": 3})
    add_lora(other, AdapterForm(4, None), FAMILY.lora_targets)
    file = export_lora(other, "default", tmp_path)[0]
    line = said(capsys, folder, tmp_path / "out", "plain", "--lora", f"{file}:0.5")
    assert "transformer_blocks.2" in line and "trained on it" in line


@pytest.mark.parametrize("part", ["vae", "text_encoder", "transformer"])
def test_parts_of_different_models_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    shutil.copytree(folder / "plain", tmp_path / "mixed")
    if part == "vae":
        build_vae(dict(PRESETS["tiny"]) | {"latent_channels": 4}).save_config(tmp_path / "mixed" / "vae")
        expected = "gives 4 latent channels, the transformer wants 16"
    elif part == "text_encoder":
        file = tmp_path / "mixed" / "text_encoder" / "config.json"
        config = json.loads(file.read_text())
        config["text_config"]["hidden_size"] = config["hidden_size"] = 128
        file.write_text(json.dumps(config))
        expected = "gives 128 channels, the transformer reads 64"
    else:
        file = tmp_path / "mixed" / "transformer" / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"in_channels": 40}))
        expected = "40 input channels"
    shutil.copy(folder / "first.png", tmp_path)
    assert expected in said(capsys, tmp_path, tmp_path / "out", "mixed")


def test_a_black_mask_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--video", "video.mp4", "--mask", "black.png"]
    assert "is all black" in said(capsys, folder, tmp_path / "out", "plain", *words)


def test_one_bad_request_among_many_stops_all_before_the_first(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--prompt", "snow", "--prompt", " "]
    assert "--prompt: empty" in said(capsys, folder, tmp_path / "out", "plain", *words)


def test_seeds_are_read_as_numbers_and_ranges() -> None:
    assert parse_seeds("0..3") == (0, 1, 2, 3)
    assert parse_seeds("7") == (7,)
    assert parse_seeds("1, 5,4..6") == (1, 5, 4, 6)
    for text in ("", "1..", "-1", "1..2..3", "0..999999999", "1.5"):
        with pytest.raises(UserError, match="^seeds "):
            parse_seeds(text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_prompts_are_read_a_line_each_whatever_wrote_the_file(tmp_path: Path, encoding: str, end: str) -> None:
    """Separators that are no line ends, such as U+2028 from a web page or a form feed, stay within a prompt."""
    prompts = ("a cat\u2028that sleeps", "雪\x85and\x0bfog", "rain\x0cand\u2029hail", "snow")
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    text = mark + end.join((f"  {prompts[0]} ", "", *prompts[1:3], f"\ufeff{prompts[3]}", ""))
    (tmp_path / "prompts.txt").write_bytes(text.encode(encoding))
    assert read_prompts(tmp_path / "prompts.txt") == prompts


def test_prompts_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes(b"a cat\n\xff\xfe\xfa")
    with pytest.raises(UserError, match="cannot be read as text"):
        read_prompts(tmp_path / "prompts.txt")
