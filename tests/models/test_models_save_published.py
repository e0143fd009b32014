"""What was published comes back as it was: the same names and bytes for every family, of transformer and VAE."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from vaes import stirred

from models.transformers.easyanimate_v5_names import to_published
from models.transformers.published_folder import save_published
from models.transformers.table import build_transformer, find_architecture
from models.vae.video_vae import PRESETS, load_vae
from models.weights.safetensors_file import write_tensors

torch.set_num_threads(1)
FILE = "diffusion_pytorch_model.safetensors"
# Names that a published file of the family has and no other family's, as older systems' files name them.
TELLING = {
    "tiny-v1": "transformer_blocks.0.attn_temporal.temporal_transformer.transformer_blocks.0.attention_blocks.0."
    "pos_encoder.pe",
    "tiny-v2": "long_connect_fc.0.weight",
    "tiny-v3": "clip_projection.linear_2.weight",
    "tiny-v4": "time_extra_emb.extra_embedder.linear_1.weight",
    "tiny-v4-inpaint": "blocks.0.gate_clip.proj.weight",
    "tiny-v5": "transformer_blocks.0.attn2.to_q.weight",
    "tiny-inpaint": "transformer_blocks.0.attn2.norm_q.weight",
}


def publish(preset: str, folder: Path) -> dict[str, torch.Tensor]:
    """Write a folder as its authors would: every weight drawn, under the published names."""
    torch.manual_seed(0)
    family, config = find_architecture(preset)
    assert config is not None
    model = family.build(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    state = dict(model.state_dict())
    tensors = to_published(state) if family.class_name == "EasyAnimateTransformer3DModel" else state
    folder.mkdir()
    model.save_config(folder)  # type: ignore[operator]
    write_tensors(folder / FILE, tensors, {})
    return load_file(folder / FILE)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]) for name, tensor in one.items()
    )


@pytest.mark.parametrize("preset", TELLING)
def test_a_transformer_is_saved_under_the_names_and_with_the_bytes_it_was_loaded_with(
    preset: str, tmp_path: Path
) -> None:
    given = publish(preset, tmp_path / "published")
    assert TELLING[preset] in given
    family, model = build_transformer(str(tmp_path / "published"))
    save_published(family, model, tmp_path / "saved")
    assert same(load_file(tmp_path / "saved" / FILE), given)
    again = build_transformer(str(tmp_path / "saved"))[1]
    assert same(dict(again.state_dict()), dict(model.state_dict()))
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("published", "saved")]
    assert configs[0].keys() == configs[1].keys()


@pytest.mark.parametrize("preset", [name for name in PRESETS if name.startswith("tiny")])
def test_a_vae_is_saved_under_the_names_and_with_the_bytes_it_was_loaded_with(preset: str, tmp_path: Path) -> None:
    stirred(preset, torch.float32).save_pretrained(tmp_path / "published")
    given = load_file(tmp_path / "published" / FILE)
    load_vae(tmp_path / "published").save_pretrained(tmp_path / "saved")
    assert same(load_file(tmp_path / "saved" / FILE), given)
