"""Divided networks whose files hold buffers beside parameters, or not the network's weights under its names."""

from pathlib import Path

import pytest
import torch
from pixart import V1, build, trained
from safetensors.torch import load_file, save_file
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from core.errors import UserError
from models.conditions.spec import ENCODED_INPAINT
from models.transformers.table import build_empty
from train_bridge.loop.fill import fill_transformer, has_meta
from train_bridge.loop.parallel import Worker
from train_bridge.parts import Parts

torch.set_num_threads(1)


@pytest.fixture
def alone(tmp_path: Path) -> Worker:
    """One worker that believes to have others, so that its network is divided."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield Worker(0, 1)
    dist.destroy_process_group()


def divided(folder: Path, widen: bool = False) -> torch.nn.Module:
    network = build_empty(str(folder))[1]
    if widen:
        V1.widen(network)
    for block in network.transformer_blocks:
        fully_shard(block, mesh=init_device_mesh("cpu", (1,)))
    return fully_shard(network, mesh=init_device_mesh("cpu", (1,)))


def test_the_numbers_of_frames_are_filled_with_the_weights(alone: Worker, tmp_path: Path) -> None:
    model = trained(build("tiny-v1"))
    model.save_pretrained(tmp_path / "base")
    network = divided(tmp_path / "base")
    assert has_meta(network)
    fill_transformer(Parts("vae", str(tmp_path / "base")), 0, network, alone)
    assert not has_meta(network)
    filled = network.state_dict()
    assert sum(name.endswith(".pe") for name in filled) == 8
    for name, tensor in model.state_dict().items():
        got = filled[name].full_tensor() if hasattr(filled[name], "full_tensor") else filled[name]
        assert torch.equal(got, tensor), name


def test_a_base_without_them_is_refused(alone: Worker, tmp_path: Path) -> None:
    build("tiny-v1").save_pretrained(tmp_path / "base")
    (file,) = (tmp_path / "base").glob("*.safetensors")
    save_file({name: tensor for name, tensor in load_file(file).items() if not name.endswith(".pe")}, file)
    with pytest.raises(UserError, match=r"8 weights do not fit config.json .*\.pe is missing"):
        fill_transformer(Parts("vae", str(tmp_path / "base")), 0, divided(tmp_path / "base"), alone)


def test_pytorchs_files_and_added_layers_are_filled_too(alone: Worker, tmp_path: Path) -> None:
    model = trained(build("tiny-v1"))
    model.save_pretrained(tmp_path / "base")
    (file,) = (tmp_path / "base").glob("*.safetensors")
    torch.save(model.state_dict(), file.with_suffix(".pth"))
    file.unlink()
    network = divided(tmp_path / "base", widen=True)
    fill_transformer(Parts("vae", str(tmp_path / "base"), widen=ENCODED_INPAINT), 0, network, alone)
    filled = {name: t.full_tensor() if hasattr(t, "full_tensor") else t for name, t in network.state_dict().items()}
    old = model.state_dict()
    assert filled.keys() > old.keys()
    assert all(torch.equal(filled[name], tensor) for name, tensor in old.items() if name != "pos_embed.proj.weight")
    wide = filled["pos_embed.proj.weight"]
    assert torch.equal(wide[:, :4], old["pos_embed.proj.weight"]) and not wide[:, 4:].any()
    assert not filled["clip_projection.linear_2.weight"].any() and filled["clip_projection.linear_1.weight"].any()
