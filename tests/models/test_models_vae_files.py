"""Published folders of VAEs of slices load as they are, and go out with the same weights by the same names."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from vaes import signed, stirred

from models.errors import ModelError
from models.vae.table import empty_vae, kind_of, load_vae
from models.vae.video_vae import encode_moments

torch.set_num_threads(1)
SLICED = ("tiny-magvit4", "tiny-slice", "tiny-cached-slice")
WEIGHTS = "diffusion_pytorch_model.safetensors"


def published(folder: Path, vae: Any, file: str, nested: bool = False) -> Path:
    """Write a folder as V2 to V4 were published: with what the training left, and fields of their own classes."""
    folder.mkdir()
    config = {k: v for k, v in json.loads(vae.to_json_string()).items() if k != "spatial_group_norm"}
    (folder / "config.json").write_text(json.dumps({**config, "use_tiling": True, "monitor": None}))
    state = {**vae.state_dict(), "loss.discriminator.weight": torch.ones(2), "loss.logvar": torch.zeros(())}
    if file.endswith(".safetensors"):
        save_file(state, folder / file)
    else:
        torch.save({"state_dict": state, "global_step": 5} if nested else state, folder / file)
    return folder


@pytest.mark.parametrize("preset", SLICED)
@pytest.mark.parametrize(("file", "nested"), [(WEIGHTS, False), ("vae.pth", False), ("last.ckpt", True)])
def test_published_folders_load_and_come_back(
    tmp_path: Path, preset: str, file: str, nested: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    vae = stirred(preset, torch.float32)
    folder = published(tmp_path / f"{preset}-{file}", vae, file, nested)
    ours = load_vae(folder)
    assert capsys.readouterr().err.count("unknown fields are ignored: 'monitor'") == 1
    assert kind_of(ours) is kind_of(vae)
    assert not ours.training
    ours.save_pretrained(tmp_path / "ours")
    saved = load_file(tmp_path / "ours" / WEIGHTS)
    assert saved.keys() == vae.state_dict().keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in vae.state_dict().items())
    again = load_vae(tmp_path / "ours", torch.bfloat16)
    assert kind_of(again) is kind_of(vae)
    assert again.dtype == torch.bfloat16
    frames = signed(1, 3, kind_of(vae).grid(vae.config).frames_per_slice, 16, 16, dtype=torch.float32)
    torch.testing.assert_close(encode_moments(ours, frames), encode_moments(vae, frames))
    empty = empty_vae(tmp_path / "ours")
    assert empty.device.type == "meta"
    assert empty.state_dict().keys() == saved.keys()


def test_files_that_are_no_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    def refused(folder: Path, said: str) -> None:
        with pytest.raises(ModelError, match=said) as caught:
            load_vae(folder)
        assert "\n" not in str(caught.value)

    vae = stirred("tiny-slice", torch.float32)
    folder = published(tmp_path / "vae", vae, "vae.pth")
    state = vae.state_dict()
    torch.save({name: tensor for name, tensor in state.items() if "attentions" not in name}, folder / "vae.pth")
    refused(folder, "20 weights do not fit config.json \\(decoder.mid_block.attentions.0")
    torch.save({**state, "quant_conv.weight": torch.zeros(1)}, folder / "vae.pth")
    refused(folder, "1 weights do not fit config.json \\(quant_conv.weight\\)")
    torch.save({"state_dict": {"loss.logvar": torch.zeros(1)}}, folder / "vae.pth")
    refused(folder, "holds no state dict")
    torch.save([1, 2], folder / "vae.pth")
    refused(folder, "holds no state dict")
    torch.save({0: torch.ones(1)}, folder / "vae.pth")
    refused(folder, "holds no state dict")
    torch.save({"a": Path("x")}, folder / "vae.pth")  # would run code
    refused(folder, "give weights as safetensors")
    (folder / "vae.pth").write_bytes(b"no zip")
    refused(folder, "give weights as safetensors")
    torch.save(state, folder / "other.pth")
    refused(folder, "2 files with weights \\(other.pth, …\\)")
    (folder / "other.pth").unlink()
    (folder / "vae.pth").unlink()
    refused(folder, "no .safetensors beside config.json")
