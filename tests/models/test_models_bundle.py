"""Pipeline folders that diffusers loads, and those that diffusers saved, to the bit."""

import json
import os
from pathlib import Path

import diffusers
import pytest
import torch
from closeness import close
from transformers import Qwen2Tokenizer, Qwen2VLForConditionalGeneration

from core.errors import OutputError
from models import bundle as bundles
from models.bundle import COMPONENTS, place_component, read_bundle, write_model_index
from models.errors import ModelError
from models.text.qwen2_vl import Qwen2VLText, build_tiny
from models.transformers.easyanimate_v5 import EasyAnimateTransformer3DModel

torch.set_num_threads(1)

CLASSES = {
    "transformer": ("diffusers", "EasyAnimateTransformer3DModel"),
    "vae": ("diffusers", "AutoencoderKLMagvit"),
    "text_encoder": ("transformers", "Qwen2VLForConditionalGeneration"),
    "tokenizer": ("transformers", "Qwen2Tokenizer"),
    "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Components, each saved by its own library's means."""
    folder = tmp_path_factory.mktemp("parts")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        EasyAnimateTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, patch_size=2, num_layers=1,
            mmdit_layers=1, time_embed_dim=8, text_embed_dim=64,
        ).save_pretrained(folder / "transformer")  # fmt: skip
        diffusers.AutoencoderKLMagvit(
            block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
            spatial_group_norm=False,
        ).save_pretrained(folder / "vae")  # fmt: skip
    diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    build_tiny(folder)
    return folder


@pytest.fixture
def written(parts: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "pipeline"
    folder.mkdir()
    for name in COMPONENTS:
        place_component(parts / name, folder / name)
    write_model_index(folder, CLASSES)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x)


def test_diffusers_loads_what_is_written_and_gets_the_same_parts(parts: Path, written: Path) -> None:
    pipeline = diffusers.EasyAnimatePipeline.from_pretrained(written, local_files_only=True)
    assert type(pipeline.transformer) is diffusers.EasyAnimateTransformer3DModel
    assert same_weights(pipeline.transformer, EasyAnimateTransformer3DModel.from_pretrained(parts / "transformer"))
    assert same_weights(pipeline.vae, diffusers.AutoencoderKLMagvit.from_pretrained(parts / "vae"))
    encoder = Qwen2VLText.load(parts)
    assert same_weights(pipeline.text_encoder, encoder.model)
    assert pipeline.scheduler.config.shift == 3.0
    with torch.no_grad():
        text, _, _, _ = pipeline.encode_prompt("a red ball", do_classifier_free_guidance=False)
        assert close(text, encoder.encode(["a red ball"]))
        latents = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(1))
        frames = pipeline(
            prompt_embeds=text, prompt_attention_mask=torch.ones(1, 256), height=32, width=32, num_frames=5,
            num_inference_steps=2, guidance_scale=1.0, latents=latents, output_type="pt",
        ).frames  # fmt: skip
    assert frames.shape[0] == 1
    assert torch.isfinite(frames).all()


def test_what_diffusers_saved_is_read_and_written_back_to_the_bit(parts: Path, tmp_path: Path) -> None:
    pipeline = diffusers.EasyAnimatePipeline(
        transformer=diffusers.EasyAnimateTransformer3DModel.from_pretrained(parts / "transformer"),
        vae=diffusers.AutoencoderKLMagvit.from_pretrained(parts / "vae"),
        text_encoder=Qwen2VLForConditionalGeneration.from_pretrained(parts / "text_encoder"),
        tokenizer=Qwen2Tokenizer.from_pretrained(parts / "tokenizer"),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )
    pipeline.save_pretrained(tmp_path / "saved")
    found = read_bundle(tmp_path / "saved")
    assert dict(found.classes) == CLASSES
    assert found.text_encoder == tmp_path / "saved" / "text_encoder"
    back = tmp_path / "back"
    back.mkdir()
    for name in COMPONENTS:
        place_component(getattr(found, name), back / name)
    write_model_index(back, found.classes)
    assert contents(back) == contents(tmp_path / "saved")


def test_a_run_folder_stands_for_the_pipeline_in_it(written: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    written.rename(run / "model")
    found = read_bundle(run)
    assert found == read_bundle(run / "model")
    assert found.folder == run / "model"
    assert found.vae == run / "model" / "vae"


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_missing_component_is_named(written: Path, name: str) -> None:
    first = written / name / COMPONENTS[name]
    content = first.read_bytes()
    first.unlink()
    with pytest.raises(ModelError, match=f"component '{name}' has no {COMPONENTS[name]}"):
        read_bundle(written)
    first.write_bytes(content)
    for entries in (
        {k: v for k, v in CLASSES.items() if k != name},
        {**CLASSES, name: (None, None)},  # as diffusers saves a pipeline without that part
    ):
        write_model_index(written, entries)
        with pytest.raises(ModelError, match=f"component '{name}' is missing"):
            read_bundle(written)


@pytest.mark.parametrize("content", ["{", "[]", '"text"'])
def test_a_broken_index_is_refused(written: Path, content: str) -> None:
    (written / "model_index.json").write_text(content)
    with pytest.raises(ModelError, match=r"model_index\.json"):
        read_bundle(written)


def test_a_folder_without_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model_index\.json here or in model/; give a pipeline folder"):
        read_bundle(tmp_path)


def component(folder: Path, weights: bytes) -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"a": 1}))
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "deep" / "more.safetensors").write_bytes(weights[::-1])
    (folder / ".left.tmp-1-00000000").write_bytes(b"half")
    return folder


def test_large_files_are_linked_small_ones_copied_and_temporaries_left(tmp_path: Path) -> None:
    source = component(tmp_path / "source", os.urandom(bundles.LINKED_FROM_BYTES))
    target = tmp_path / "target"
    place_component(source, target)
    assert contents(target) == {k: v for k, v in contents(source).items() if not k.startswith(".")}
    for name in ("model.safetensors", "deep/more.safetensors"):
        assert (target / name).samefile(source / name)
    (target / "config.json").write_text("{}")
    assert json.loads((source / "config.json").read_text()) == {"a": 1}


def test_where_links_are_not_to_be_had_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    source = component(tmp_path / "source", os.urandom(bundles.LINKED_FROM_BYTES))
    place_component(source, tmp_path / "target")
    assert not (tmp_path / "target" / "model.safetensors").samefile(source / "model.safetensors")
    assert (tmp_path / "target" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


def test_symbolic_links_of_a_hub_cache_become_files(tmp_path: Path) -> None:
    blobs = component(tmp_path / "blobs", os.urandom(bundles.LINKED_FROM_BYTES))
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).symlink_to(blobs / name)
    place_component(snapshot, tmp_path / "target")
    for name in ("config.json", "model.safetensors"):
        assert not (tmp_path / "target" / name).is_symlink()
        assert (tmp_path / "target" / name).read_bytes() == (blobs / name).read_bytes()


def test_an_older_component_is_replaced_whole_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = component(tmp_path / "source", b"new")
    target = tmp_path / "target"
    target.mkdir()
    (target / "old.txt").write_text("old")
    with monkeypatch.context() as broken:
        broken.setattr(bundles, "_link_or_copy", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            place_component(source, target)
    assert contents(target) == {"old.txt": b"old"}

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "rename", refuse)
        with pytest.raises(OutputError, match="No space"):
            place_component(source, target)
    assert contents(target) == {"old.txt": b"old"}
    place_component(source, target)
    assert (target / "model.safetensors").read_bytes() == b"new"
    assert not (target / "old.txt").exists()
    place_component(target, target)
    assert (target / "model.safetensors").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_a_source_that_is_no_component_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(ModelError, match="no component folder"):
            place_component(source, tmp_path / "target")
    assert not (tmp_path / "target").exists()
