# ruff: noqa: F811 - a fixture is imported
"""What a run keeps where: the base in 8 bits or in main memory, passes by what fits, and all networks counted."""

import json
from pathlib import Path

import pytest
import torch
from training_commands import said

import run_pipeline
from models.geometry import Bucket
from models.lora.adapters import add_lora
from models.lora.form import AdapterForm
from models.memory.cost import RowsAtOnce
from models.memory.training_need import BASE_MODES, card_rows, frozen_need
from models.memory.vae_need import VaeNeed
from models.text.image_encoder import build_tiny_clip, load_clip
from models.transformers.table import build_empty
from models.vae.slice_vae import SLICE
from models.vae.video_vae import PRESETS, build_vae
from train_bridge.cache.build import plan_latents
from train_bridge.cache.wanted import CacheItem
from train_bridge.config import load_config
from train_bridge.loop.beside import image_need, pass_bytes, rows_per_pass
from train_bridge.parts import find_parts
from train_bridge.run import check_config, make_predictor
from train_bridge.types import TrainRow

torch.set_num_threads(1)
CONFIGS = Path(run_pipeline.__file__).parent / "configs"
GB = 1e9
STEP = "buckets.micro_batches_per_step=2"


def lora_run(parts: Path, out: Path, cache: Path, *words: str) -> list[float]:
    """Train an adapter for three steps; return the losses."""
    command = [
        "train", CONFIGS / "train_lora_tiny.yaml", "--data", parts / "clips" / "metadata.json", "--output", out,
        "--runner", "inline", f"model.base={parts / 'pipeline'}", "train.steps=3", "watch.log_every=1",
        "train.gradient_checkpointing=true", f"train.cache={cache}", *words,
    ]  # fmt: skip
    assert run_pipeline.main([str(word) for word in command]) == 0
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line["transformer"] for line in lines if line["what"] == "train"]


@pytest.mark.slow
def test_a_run_with_its_base_elsewhere_has_the_same_losses(parts: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    plain = lora_run(parts, tmp_path / "plain", cache)
    assert lora_run(parts, tmp_path / "away", cache, "memory.offload_blocks=true") == plain
    small = lora_run(parts, tmp_path / "small", cache, "memory.fp8_base=true", "memory.offload_blocks=true")
    assert small == pytest.approx(plain, rel=0.01) and small != plain
    for name in ("plain", "away", "small"):
        # The base's files are linked or copied as they are, however it was kept.
        one, other = (f / "transformer" for f in (parts / "pipeline", tmp_path / name / "model"))
        file = "diffusion_pytorch_model.safetensors"
        assert (one / file).read_bytes() == (other / file).read_bytes()
        assert (tmp_path / name / "lora" / "pytorch_lora_weights.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["memory.fp8_base=true", "lora.rank=0"], "memory.fp8_base"),
        (["memory.fp8_base=true", "lora.dora=true"], "memory.fp8_base"),
        (["memory.offload_blocks=true"], "train.gradient_checkpointing=true"),
        (["memory.offload_blocks=true", "launch.sharding=fsdp", "launch.workers=2", STEP], "launch.sharding=ddp"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(
    parts: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    key: str,
) -> None:
    data = parts / "clips" / "metadata.json"
    line = said(
        capsys, "plan", CONFIGS / "train_lora_tiny.yaml", "--data", data, f"model.base={parts / 'pipeline'}", *words
    )
    assert key in line


def published() -> tuple[torch.nn.Module, object]:
    family, network = build_empty("12b")
    shape = family.shape(network)
    with torch.device("meta"):
        add_lora(network, AdapterForm(64, None), family.lora_targets)
    return network, shape


def test_adapters_of_the_published_12b_are_predicted_below_24_gb() -> None:
    """On the meta device, with the published shapes; to be measured where there is a GPU."""
    network, shape = published()
    tokens = Bucket(49, 384, 672).tokens
    rows = {row.mode.name: row for row in card_rows(network, shape, RowsAtOnce(tokens, 256))}  # type: ignore[arg-type]
    assert [row.device_bytes for row in rows.values()] == sorted((r.device_bytes for r in rows.values()), reverse=True)
    assert rows["bf16"].device_bytes > 30 * GB and rows["bf16"].smallest_card_gb == 48
    assert rows["bf16, blocks offloaded"].smallest_card_gb in (16, 24)
    assert rows["fp8, blocks offloaded"].smallest_card_gb in (16, 24)
    image = {r.mode.name: r for r in card_rows(network, shape, RowsAtOnce(Bucket(17, 512, 512).tokens, 256))}  # type: ignore[arg-type]
    assert image["fp8"].smallest_card_gb == 24
    frozen = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    needs = {mode.name: frozen_need(network, 2, fp8=mode.fp8, offload=mode.offload) for mode in BASE_MODES}
    assert needs["bf16"].device == 2 * frozen
    assert needs["fp8"].device < 1.15 * frozen  # all but the norms' modulations in a byte
    assert needs["fp8, blocks offloaded"].device < 0.1 * frozen < needs["fp8, blocks offloaded"].host


def test_the_plan_names_the_cards_and_the_passes_of_the_cache(
    parts: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["plan", CONFIGS / "train_lora_tiny.yaml", "--data", parts / "clips" / "metadata.json"]
    assert run_pipeline.main([str(w) for w in [*words, f"model.base={parts / 'pipeline'}"]]) == 0
    out = capsys.readouterr().out
    assert "the text encoder is gone when training begins" in out
    for words_of_mode in ("on the device", "memory.fp8_base", "memory.fp8_base + memory.offload_blocks"):
        assert f"  {words_of_mode}  " in out
    assert out.count("a card of 16 GB") == 4


def test_passes_of_images_are_as_large_as_memory_allows() -> None:
    """15 images of 1024 x 1024 at once took 16 GB: more than bounding pixels alone can know."""
    with torch.device("meta"):
        vae = VaeNeed(build_vae(PRESETS["magvit"]), 2)
    bucket = Bucket(1, 1024, 1024)
    assert vae.encoding(1, 1024, 1024, rows=15) > 15 * GB
    most = pass_bytes(vae, int(16 * GB), on_gpu=True)
    rows = rows_per_pass(vae, most)
    assert 1 <= rows(bucket) < 15 and vae.encoding(1, 1024, 1024, rows(bucket)) <= most < 8 * GB
    assert rows(Bucket(49, 1536, 2688)) == 1  # never none
    items = {f"{i:032x}": CacheItem(TrainRow(f"{i}", Path(f"{i}.png"), "c", "image"), bucket) for i in range(20)}
    units = plan_latents(items, at_once=rows)
    assert max(len(unit.entries) for unit in units) == rows(bucket) < max(len(u.entries) for u in plan_latents(items))
    assert sum(len(unit.entries) for unit in units) == 20


def test_the_prediction_of_a_pass_is_what_encoding_takes() -> None:
    from models.memory.live_memory import peak_bytes
    from models.vae.video_vae import encode_moments, to_signed

    torch.manual_seed(0)
    vae = build_vae(PRESETS["tiny"])
    frames = torch.zeros(3, 17, 64, 96, 3, dtype=torch.uint8)
    with torch.no_grad():
        counted = peak_bytes(lambda: encode_moments(vae, to_signed(frames)))
    with torch.device("meta"):
        need = VaeNeed(build_vae(PRESETS["tiny"]), 4)
    assert need.encoding(17, 64, 96, rows=3) == pytest.approx(counted, rel=0.35)
    assert need.encoding(17, 64, 96, rows=3) >= 0.95 * counted


def test_the_encoder_of_start_images_lies_on_the_device_throughout(tmp_path: Path) -> None:
    build_vae(PRESETS["tiny-slice"]).save_pretrained(tmp_path / "vae")
    build_tiny_clip(tmp_path / "clip", hidden=32, projection=768)

    def peak(*words: str) -> int:
        config = load_config(CONFIGS / "train_v3_tiny.yaml", [f"model.vae={tmp_path / 'vae'}", *words])
        return make_predictor(config, check_config(config)).memory(Bucket(8, 32, 32, SLICE.grid({})), 2).total

    clip = image_need(find_parts(load_config(CONFIGS / "train_v3_tiny.yaml", [
        f"model.vae={tmp_path / 'vae'}", f"model.image_encoder={tmp_path / 'clip'}"
    ])), 4)  # fmt: skip
    assert clip.weights == 4 * sum(
        p.numel() for p in load_clip(tmp_path / "clip", None, "cpu", pooled=True).model.parameters()
    )
    assert peak(f"model.image_encoder={tmp_path / 'clip'}") - peak("model.image_encoder=null") == clip.weights


def test_everything_on_the_device_is_counted(parts: Path, tmp_path: Path) -> None:
    def peak(name: str, *words: str) -> int:
        config = load_config(CONFIGS / name, [f"model.vae={parts / 'vae'}", *words])
        return make_predictor(config, check_config(config)).memory(Bucket(17, 64, 64), 2).total

    base = f"model.text_encoder={parts / 'pipeline'}"
    cached = peak("train_tiny.yaml", base)
    weights = sum(p.numel() for p in build_vae(PRESETS["tiny"]).parameters())
    uncached = peak("train_tiny.yaml", base, "train.cache=none")
    assert cached > 4 * weights and uncached > cached  # the text encoder, and encoding while the transformer computes
    plain = peak("train_vae_tiny.yaml", "model.vae=tiny")
    critic = peak("train_vae_tiny.yaml", "model.vae=tiny", "vae_loss.gan=0.1")
    judged = peak("train_vae_tiny.yaml", "model.vae=tiny", "vae_loss.gan=0.1", "vae_loss.lpips=1.0")
    from models.losses.discriminator import PatchGAN3D
    from models.losses.perceptual import LPIPS

    assert critic - plain > 16 * sum(p.numel() for p in PatchGAN3D().parameters())
    assert judged - critic > 4 * sum(p.numel() for p in LPIPS().parameters())
