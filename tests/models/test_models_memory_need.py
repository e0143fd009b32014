"""Predicted memory against what is counted."""

from pathlib import Path

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from models.geometry import Bucket
from models.memory.live_memory import peak_bytes
from models.memory.modes import place
from models.memory.sampling_need import Need, PartNeed, SampledParts, sampling_need
from models.text.qwen2_vl import Qwen2VLText, build_tiny, empty_text_encoder
from models.text.table import IMAGE_ENCODERS
from models.transformers.conditioning import Conditioning
from models.transformers.easyanimate_v5 import EasyAnimate
from models.vae.table import empty_vae
from models.vae.video_vae import PRESETS, build_vae, decode_frames, encode_moments

torch.set_num_threads(1)
FAMILY = EasyAnimate()
SMALL_VAE = PRESETS["tiny"] | {"block_out_channels": (8, 8, 16, 16)}


def network(heads: int = 8, layers: int = 2, device: str = "meta") -> torch.nn.Module:
    config = {"num_attention_heads": heads, "num_layers": layers, "mmdit_layers": layers, "attention_head_dim": 64}
    with torch.device(device):
        return FAMILY.build(FAMILY.presets["tiny"] | config).eval()


def need(transformer: torch.nn.Module, vae=None, encoder=None, frames: int = 9, side: int = 128, **kwargs) -> Need:
    if vae is None:
        with torch.device("meta"):
            vae = build_vae(SMALL_VAE)
    values = {"text_tokens": 64, "half": False, **kwargs}
    return sampling_need(
        SampledParts(FAMILY.shape(transformer), transformer, vae, encoder), Bucket(frames, side, side), **values
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "layers", "side", "text"), [(4, 2, 128, 16), (4, 3, 128, 192)])
def test_the_transformers_activations_are_those_counted(
    heads: int, layers: int, side: int, text: int, dtype: torch.dtype
) -> None:
    model = network(heads, layers, "cpu").to(dtype)
    latents = torch.zeros(2, 16, 3, side // 8, side // 8, dtype=dtype)
    seen = Conditioning(torch.zeros(2, text, 64, dtype=dtype))
    with torch.no_grad():
        counted = peak_bytes(lambda: FAMILY.predict(model, latents, torch.zeros(2, dtype=dtype), seen))
    predicted = need(model, side=side, text_tokens=text, half=dtype == torch.bfloat16).parts["transformer"].working
    assert counted == pytest.approx(predicted, rel=0.2)


@pytest.mark.parametrize("half", [False, True])
def test_weights_are_those_there_are_also_in_8_bits(half: bool) -> None:
    model = network(4, device="cpu")
    if half:
        model = model.to(torch.bfloat16)
    predicted = need(model, half=half).parts["transformer"]
    assert predicted.weights == sum(p.numel() * p.element_size() for p in model.parameters())
    largest = model.transformer_blocks[0].ff.net[0].proj
    assert predicted.largest_layer == sum(p.numel() * p.element_size() for p in largest.parameters())
    place({"transformer": model}, "model_cpu_offload_and_qfloat8", torch.device("cpu"))
    assert predicted.weights_8_bits == sum(p.numel() * p.element_size() for p in model.parameters())
    assert predicted.weights_8_bits < (0.65 if half else 0.45) * predicted.weights


@pytest.mark.parametrize(("frames", "encodes"), [(1, False), (9, True), (29, False), (29, True)])
def test_the_vaes_activations_are_those_of_the_whole_video(frames: int, encodes: bool) -> None:
    with torch.device("meta"):
        vae = build_vae(SMALL_VAE).eval()
        latents = torch.zeros(1, 16, (frames - 1) // 4 + 1, 24, 24)
        video = torch.zeros(1, 3, frames, 192, 192)
    with torch.no_grad():
        counted = peak_bytes(lambda: decode_frames(vae, latents))
        if encodes:
            counted = max(counted, peak_bytes(lambda: encode_moments(vae, video)) + video.numel() * 4)
    predicted = need(network(), vae, frames=frames, side=192, encodes=encodes).parts["vae"].working
    pixels = frames * 3 * 192 * 192 * 12  # on the way to 8 bits
    assert predicted == pytest.approx(max(counted, pixels), rel=0.1)
    assert vae.use_tiling is False


def test_tiles_are_predicted_to_need_less_as_they_do() -> None:
    with torch.device("meta"):
        vae = build_vae(SMALL_VAE | {"block_out_channels": (32, 32, 32, 32)}).eval()
        vae.enable_tiling(128, 128, None, 96, 96)
        latents = torch.zeros(1, 16, 2, 48, 48)
    with torch.no_grad():
        counted = peak_bytes(lambda: decode_frames(vae, latents))
    found = need(network(), vae, frames=5, side=384).parts["vae"]
    assert found.working_tiled < found.working / 3
    assert counted == pytest.approx(found.working_tiled, rel=0.25)


def test_the_text_encoders_states_are_about_those_counted(tmp_path: Path) -> None:
    build_tiny(tmp_path)
    encoder = Qwen2VLText.load(tmp_path, positions=128)
    counted = peak_bytes(lambda: encoder.encode(["a red disc rolls"]))
    empty = empty_text_encoder(tmp_path)
    assert all(parameter.is_meta for parameter in empty.parameters())
    found = need(network(), encoder=empty, text_tokens=128).parts["text_encoder"]
    assert found.weights == sum(p.numel() * p.element_size() for p in encoder.model.parameters())
    assert counted / 2 < found.working < counted * 2


def test_a_folders_vae_is_built_without_memory_for_weights(tmp_path: Path) -> None:
    build_vae(SMALL_VAE).save_pretrained(tmp_path)
    assert all(parameter.is_meta for parameter in empty_vae(tmp_path).parameters())


def test_what_does_not_lie_together_is_not_added() -> None:
    parts = {
        "text_encoder": PartNeed(1000, 1000, 100, 10, 10),
        "transformer": PartNeed(400, 150, 20, 200, 200),
        "vae": PartNeed(50, 50, 5, 900, 90),
    }
    dropped, kept = Need(parts), Need(parts, encoder_stays=True)
    assert dropped.peak("none", vae_tiling=False) == 450 + 900
    assert dropped.peak("none", vae_tiling=True) == 1000 + 10  # the text encoder, alone before the others come
    assert kept.peak("none", vae_tiling=True) == 1450 + 200
    assert kept.peak("model_cpu_offload", vae_tiling=True) == 1000 + 10
    assert kept.peak("sequential_cpu_offload", vae_tiling=True) == 2 * 20 + 200
    assert kept.peak("sequential_cpu_offload", vae_tiling=False) == 50 + 900  # the VAE stays whole
    only = Need({"transformer": parts["transformer"]})
    assert only.peak("model_cpu_offload_and_qfloat8", vae_tiling=False) == 150 + 20 + 200


@pytest.mark.parametrize("kind", IMAGE_ENCODERS)
def test_an_image_encoders_weights_are_those_of_vit_l_14_and_its_states_about_those_counted(
    tmp_path: Path, kind: str
) -> None:
    config = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, projection_dim=768, num_hidden_layers=24, num_attention_heads=16,
        image_size=224, patch_size=14,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    found = IMAGE_ENCODERS[kind].need(tmp_path, 2)
    assert found.weights == 2 * 303_966_208 and found.total == found.weights + found.working
    with torch.device("meta"), torch.no_grad():
        model = CLIPVisionModelWithProjection(config)
        counted = peak_bytes(lambda: model(torch.zeros(1, 3, 224, 224))) / 2
    assert counted <= found.working < 4 * counted


def test_an_image_encoder_comes_beside_the_parts_that_are_there_for_its_call_alone() -> None:
    parts = {"transformer": PartNeed(400, 150, 20, 200, 200), "vae": PartNeed(50, 50, 5, 900, 90)}
    seen = Need(parts, image_bytes=1000)
    assert seen.peak("none", vae_tiling=False) == 450 + 1000
    assert seen.peak("sequential_cpu_offload", vae_tiling=False) == 1000
    assert Need(parts, image_bytes=900).peak("none", vae_tiling=False) == Need(parts).peak("none", vae_tiling=False)
