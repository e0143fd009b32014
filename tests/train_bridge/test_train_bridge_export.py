"""Exporting adapters: the base's files stay as they are, and the base itself is not loaded."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.lora.adapters import add_lora
from models.lora.files import read_lora
from models.lora.form import AdapterForm
from models.transformers.easyanimate_v5 import EasyAnimate
from models.transformers.table import build_empty
from train_bridge.config import LoraSettings, TrainConfig
from train_bridge.loop import finish
from train_bridge.loop.finish import _export_adapter

torch.set_num_threads(1)


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_on_a_bf16_base_is_exported_from_shapes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dora: bool
) -> None:
    """The base is on the `meta` device, where it has neither values nor memory."""
    family = EasyAnimate()
    family.build(family.presets["tiny"]).to(torch.bfloat16).save_pretrained(tmp_path / "base")
    monkeypatch.setattr(finish, "load_transformer", lambda *_: pytest.fail("the base was loaded"))
    network = family.load(tmp_path / "base", torch.bfloat16)
    add_lora(network, AdapterForm(4, 2.0, dora=dora), family.lora_targets)
    weights = {name: torch.randn_like(p) for name, p in network.named_parameters() if p.requires_grad}
    _, empty = build_empty(str(tmp_path / "base"))
    config = TrainConfig(lora=LoraSettings(rank=4, alpha=2.0, dora=dora))
    _export_adapter(config, tmp_path, family, empty, weights)
    found = read_lora(tmp_path / "lora")
    for name, factors in found.layers.items():
        assert torch.equal(factors.down, weights[f"{name}.lora_A.default.weight"])
        assert torch.equal(factors.up, weights[f"{name}.lora_B.default.weight"])
    assert len(found.layers) * (3 if dora else 2) == len(weights)
    assert all(
        tensor.dtype == torch.bfloat16 for tensor in load_file(next((tmp_path / "base").glob("*.safetensors"))).values()
    )
    assert all(p.is_meta for name, p in empty.named_parameters() if "lora" not in name)
