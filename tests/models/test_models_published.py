"""Folders as others publish them: unknown fields, weights of a variant, shards; for each network that is loaded."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.errors import ModelError
from models.text.qwen2_vl import Qwen2VLText, build_tiny, empty_text_encoder
from models.transformers.easyanimate_v5 import EasyAnimate
from models.transformers.table import build_empty, build_transformer
from models.vae.table import empty_vae
from models.vae.video_vae import PRESETS, build_vae, load_vae
from models.weights.published_config import known_fields
from models.weights.weight_files import DIFFUSERS_STEM, find_weights
from train_bridge.loop.fill import folder_tensors

torch.set_num_threads(1)
FAMILY = EasyAnimate()


@dataclass(frozen=True)
class Place:
    """One of the places that load a network: where its files lie in `folder`, and what reads them."""

    home: str
    load: Callable[[Path], nn.Module]
    empty: Callable[[Path], nn.Module]


PLACES = {
    "transformer": Place(
        "transformer",
        lambda folder: build_transformer(str(folder / "transformer"))[1],
        lambda folder: build_empty(str(folder / "transformer"))[1],
    ),
    "vae": Place("vae", lambda folder: load_vae(folder / "vae"), lambda folder: empty_vae(folder / "vae")),
    "text_encoder": Place("text_encoder", lambda folder: Qwen2VLText.load(folder).model, empty_text_encoder),
}
each_place = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    small = FAMILY.presets["tiny"] | {"num_layers": 1, "mmdit_layers": 1}
    FAMILY.build(small).save_pretrained(tmp_path / "transformer")
    build_vae(PRESETS["tiny"]).save_pretrained(tmp_path / "vae")
    build_tiny(tmp_path)
    return tmp_path


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def saved_as(place: Place, folder: Path, **how: Any) -> dict[str, torch.Tensor]:
    """Save a network anew in another form; return its weights."""
    network: Any = place.load(folder)
    for file in (folder / place.home).glob("*.safetensors*"):
        file.unlink()
    network.save_pretrained(folder / place.home, **how)
    return dict(network.state_dict())


def warnings(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]


@each_place
def test_unknown_fields_are_named_in_one_line_and_ignored(
    place: Place, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = {name: (p.shape, p.dtype) for name, p in place.load(folder).named_parameters()}
    assert warnings(capsys) == []
    file = folder / place.home / "config.json"
    edit(file, enable_clip_in_inpaint=True, clip_channels=1024, _ours="x")
    for build in (place.empty, place.load, place.load):
        assert {name: (p.shape, p.dtype) for name, p in build(folder).named_parameters()} == plain
    (line,) = warnings(capsys)
    assert str(file) in line and "'clip_channels', 'enable_clip_in_inpaint'" in line and "_ours" not in line


@each_place
def test_values_that_do_not_fit_are_refused_in_one_line(place: Place, folder: Path) -> None:
    file = folder / place.home / "config.json"
    before = json.loads(file.read_text())
    wrong = {
        "transformer": {"num_layers": "two"}, "vae": {"block_out_channels": 3}, "text_encoder": {"text_config": 3},
    }[place.home]  # fmt: skip
    file.write_text(json.dumps(before | wrong))
    for build in (place.empty, place.load):
        with pytest.raises(ModelError) as caught:
            build(folder)
        assert "\n" not in str(caught.value) and str(folder / place.home) in str(caught.value)


@each_place
@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("shards", [False, True])
def test_variants_and_shards_load(place: Place, folder: Path, variant: str | None, shards: bool) -> None:
    how = {"variant": variant} | ({"max_shard_size": "200KB"} if shards else {})
    weights = saved_as(place, folder, **how)
    files = sorted((folder / place.home).glob("*.safetensors"))
    assert (len(files) > 1) == shards and all(("fp16" in file.name) == (variant is not None) for file in files)
    loaded = place.load(folder).state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())


def test_plain_weights_come_before_a_variants_and_are_not_mixed(folder: Path) -> None:
    home = folder / "transformer"
    saved_as(PLACES["transformer"], folder, max_shard_size="200KB")
    other = FAMILY.build(FAMILY.presets["tiny"] | {"num_layers": 1, "mmdit_layers": 1})
    other.half().save_pretrained(home, variant="fp16")
    loaded = build_transformer(str(home))[1].state_dict()
    read, names = folder_tensors(home)
    assert set(names) == set(loaded)
    for name, tensor in loaded.items():
        assert read(name).dtype == torch.float32
        assert torch.equal(read(name), tensor)


def test_half_precision_of_a_variant_is_trained_in_float32(folder: Path) -> None:
    network = build_transformer(str(folder / "transformer"))[1].half()
    for file in (folder / "transformer").glob("*.safetensors"):
        file.unlink()
    network.save_pretrained(folder / "transformer", variant="fp16")
    assert build_transformer(str(folder / "transformer"))[1].dtype == torch.float32


@pytest.mark.parametrize(
    ("files", "variant"),
    [
        (["diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bf16.safetensors"], "bf16"),
        (["diffusion_pytorch_model.non_ema.safetensors", "diffusion_pytorch_model.fp16.safetensors"], "fp16"),
        (["diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors"], None),
    ],
)
def test_one_of_several_variants_is_taken(tmp_path: Path, files: list[str], variant: str | None) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"")
    found = find_weights(tmp_path, DIFFUSERS_STEM)
    assert found.variant == variant
    infix = f".{variant}" if variant else ""
    assert [file.name for file in found.files] == [f"diffusion_pytorch_model{infix}.safetensors"]


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("{", "not an index of weights"),
        ("[]", "not an index of weights"),
        ('{"metadata": {}}', "no 'weight_map'"),
        ('{"weight_map": {"a": "x.safetensors"}}', "no 'metadata'"),
        ('{"metadata": {}, "weight_map": {"a": "../x.safetensors"}}', "no plain names"),
        ('{"metadata": {}, "weight_map": {"a": "x.safetensors"}}', "1 of its 1 files are missing .x.safetensors"),
    ],
)
@each_place
def test_a_bad_index_is_refused_in_one_line(place: Place, folder: Path, index: str, said: str) -> None:
    for file in (folder / place.home).glob("*.safetensors"):
        file.unlink()
    stem = "model" if place.home == "text_encoder" else DIFFUSERS_STEM
    (folder / place.home / f"{stem}.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match=said) as caught:
        place.load(folder)
    assert "\n" not in str(caught.value)


def test_other_names_are_said_to_be_wrong(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no .safetensors beside config.json"):
        find_weights(tmp_path, DIFFUSERS_STEM)
    (tmp_path / "transformer.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"1 files \(transformer.safetensors\).*diffusion_pytorch_model.fp16"):
        find_weights(tmp_path, DIFFUSERS_STEM)


@given(names=st.sets(st.text(min_size=1, max_size=80), max_size=9))
def test_unknown_names_stay_on_one_line_that_no_terminal_obeys(names: set[str]) -> None:
    import contextlib
    import io

    config = dict.fromkeys(names, 1) | {"width": 2}
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert known_fields(config, {"width"}, f"a file {sorted(names)}") == {"width": 2}
    unknown = {name for name in names if not name.startswith("_")} - {"width"}
    assert len(said.getvalue().splitlines()) <= 1
    assert said.getvalue().rstrip("\n").isprintable()
    assert unknown or not said.getvalue()
