"""Memory modes: the same result wherever the parts lie, and words that say what was done."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import QUERY, build, inputs, random_weights
from closeness import close_pixels
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.denoise.generate import Course, Denoiser, Prompted, generate_latents
from models.denoise.objectives import make_objective
from models.denoise.samplers import make_scheduler
from models.errors import ModelError
from models.lora.adapters import apply_lora
from models.memory import modes as memory
from models.memory.modes import (
    AUTO,
    EXACT_MODES,
    MARGIN,
    MODES,
    QFLOAT8_TOLERANCE,
    Choice,
    Placement,
    choose,
    decide,
    memory_advice,
    place,
)
from models.memory.sampling_need import Need, PartNeed
from models.text.qwen2_vl import Qwen2VLText, build_tiny
from models.transformers.conditioning import Conditioning
from models.transformers.easyanimate_v5 import EasyAnimate
from models.vae.video_vae import PRESETS, build_vae, decode_pixels

torch.set_num_threads(1)
CPU, GPU = torch.device("cpu"), torch.device("cuda")
FAMILY = EasyAnimate()


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    build_tiny(folder)
    return folder


def networks(encoder_folder: Path) -> tuple[Qwen2VLText, dict[str, Any]]:
    torch.manual_seed(0)
    transformer = FAMILY.build(FAMILY.presets["tiny"] | {"num_layers": 2, "mmdit_layers": 2}).eval()
    vae = build_vae(PRESETS["tiny"] | {"block_out_channels": (8, 8, 8, 8)}).eval()
    encoder = Qwen2VLText.load(encoder_folder, positions=24, dtype=torch.float32)
    return encoder, {"text_encoder": encoder.model, "transformer": transformer, "vae": vae}


def sample(encoder: Qwen2VLText, placement: Placement) -> np.ndarray:
    with placement.computing("text_encoder"):
        texts = encoder.encode(["", "a red disc"])
    scheduler = make_scheduler(make_objective("flow").scheduler_config(), 3)
    with placement.computing("transformer") as transformer:
        latents = generate_latents(
            Denoiser(FAMILY, transformer, scheduler),
            Prompted(Conditioning(texts[1:]), Conditioning(texts[:1]), 4.0),
            (16, 2, 4, 4),
            Course(3),
            torch.Generator().manual_seed(7),
        )
    with placement.computing("vae") as vae:
        return decode_pixels(vae, latents)


@torch.no_grad()
def output(model: nn.Module) -> torch.Tensor:
    latents, timesteps, text = inputs(torch.float32)
    return FAMILY.predict(model, latents, timesteps, Conditioning(text))


def test_the_same_seed_gives_the_same_frames_in_every_mode(encoder_folder: Path) -> None:
    found, notes = {}, {}
    for mode in MODES:
        encoder, parts = networks(encoder_folder)
        placement = place(parts, mode, CPU)
        found[mode] = sample(encoder, placement)
        assert close_pixels(found[mode], sample(encoder, placement)), f"{mode}: the second sample is another"
        notes[mode] = placement.notes
    for mode in EXACT_MODES:
        assert close_pixels(found["none"], found[mode]), mode
    difference = np.abs(found["model_cpu_offload_and_qfloat8"].astype(int) - found["none"])
    assert 0 < difference.mean() < 2  # of 255
    assert notes["none"] == ()
    assert all(len(notes[mode]) == 1 and "no GPU" in notes[mode][0] for mode in MODES[1:])


def test_one_prediction_with_weights_in_8_bits_is_within_the_stated_tolerance() -> None:
    exact, small = build(), build()
    place({"transformer": small}, "model_cpu_offload_and_qfloat8", CPU)
    assert small.transformer_blocks[0].ff.net[2].weight.dtype == torch.float8_e4m3fn
    assert small.proj_out.weight.dtype == small.transformer_blocks[0].norm1.linear.weight.dtype == torch.float32
    error = (output(small) - output(exact)).norm() / output(exact).norm()
    assert 0 < error < QFLOAT8_TOLERANCE


@pytest.mark.parametrize(
    ("mode", "by_layers"),
    [
        ("none", [False, False, False]),
        ("model_cpu_offload", [False, False, False]),
        ("model_cpu_offload_and_qfloat8", [True, False, False]),
        ("sequential_cpu_offload", [True, True, False]),
    ],
)
def test_layers_wait_on_the_cpu_where_the_mode_says_so(mode: str, by_layers: list[bool], encoder_folder: Path) -> None:
    _, parts = networks(encoder_folder)
    place(parts, mode, CPU)
    assert [memory.offloads_layers(parts[name]) for name in ("text_encoder", "transformer", "vae")] == by_layers


class Part(nn.Module):
    """Notes where it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def to(self, device: Any) -> "Part":
        self.sent.append(str(device))
        return self

    @property
    def where(self) -> str:
        return self.sent[-1] if self.sent else "cpu"


def test_with_model_offload_one_part_at_a_time_lies_on_the_device() -> None:
    parts = {name: Part() for name in ("text_encoder", "transformer", "vae")}
    placement = place(parts, "model_cpu_offload", GPU)
    assert {part.where for part in parts.values()} == {"cpu"}
    for name in (*parts, "transformer"):
        with placement.computing(name):
            assert {key: part.where for key, part in parts.items()} == {
                key: "cuda" if key == name else "cpu" for key in parts
            }
    moved = len(parts["transformer"].sent)
    together = place({name: Part() for name in parts}, "none", GPU)
    assert {part.where for part in together.parts.values()} == {"cuda"}
    with together.computing("vae"):
        assert {part.where for part in together.parts.values()} == {"cuda"}
    assert moved == len(parts["transformer"].sent)


@pytest.mark.parametrize("mode", ["model_cpu_offload_and_qfloat8", "sequential_cpu_offload"])
def test_adapters_keep_their_digits_and_their_effect(mode: str) -> None:
    exact, placed = build(), build()
    plain = output(exact)
    for model in (exact, placed):
        apply_lora(model, random_weights(model, 1, 3, 5.0), "a", 0.7)
    place({"transformer": placed}, mode, CPU)
    adapter = placed.get_submodule(QUERY).lora_A["a"].weight
    assert torch.equal(adapter, exact.get_submodule(QUERY).lora_A["a"].weight)
    moved, error = output(exact) - plain, output(placed) - output(exact)
    if mode == "sequential_cpu_offload":
        assert error.abs().max() < 1e-4 * moved.abs().max()
    else:
        assert 0 < error.norm() / output(exact).norm() < QFLOAT8_TOLERANCE
    assert error.norm() < 0.5 * moved.norm()


@pytest.mark.parametrize("mode", ["model_cpu_offload_and_qfloat8", "sequential_cpu_offload"])
def test_dora_is_fused_where_its_base_would_be_away_and_the_user_is_told(mode: str) -> None:
    exact, placed = build(), build()
    for model in (exact, placed):
        apply_lora(model, random_weights(model, 1, 3, 5.0, dora=True), "a", 0.7)
    notes = place({"transformer": placed}, mode, CPU).notes
    assert any("fused" in note for note in notes)
    tolerance = 1e-5 if mode == "sequential_cpu_offload" else QFLOAT8_TOLERANCE
    assert (output(placed) - output(exact)).norm() / output(exact).norm() < tolerance


def test_weights_too_large_for_8_bits_stay_and_the_user_is_told() -> None:
    model = build()
    with torch.no_grad():
        model.get_submodule(QUERY).weight[0, 0] = 500.0
    expected = output(model)
    notes = place({"transformer": model}, "model_cpu_offload_and_qfloat8", CPU).notes
    assert model.get_submodule(QUERY).weight.dtype == torch.float32
    assert any("1 layers keep their weights" in note for note in notes)
    assert output(model).isfinite().all()
    assert (output(model) - expected).norm() / expected.norm() < QFLOAT8_TOLERANCE


def test_tiling_is_switched_on_when_asked_for(encoder_folder: Path) -> None:
    for tiling in (False, True):
        _, parts = networks(encoder_folder)
        assert place(parts, "none", CPU, vae_tiling=tiling).parts["vae"].use_tiling is tiling


def need(transformer: int, vae_working: int, tiled: int, layer: int = 10) -> Need:
    return Need({
        "text_encoder": PartNeed(300, 300, 30, 5, 5),
        "transformer": PartNeed(transformer, transformer // 2, layer, 100, 100),
        "vae": PartNeed(20, 20, 2, vae_working, min(tiled, vae_working)),
    })


needs = st.builds(need, st.integers(50, 5000), st.integers(1, 5000), st.integers(1, 500), st.integers(1, 50))


@given(needs, st.integers(0, 20000), st.integers(0, 20000))
@settings(deadline=None)
def test_what_is_chosen_fits_changes_no_result_and_is_no_slower_with_more_memory(
    predicted: Need, free: int, more: int
) -> None:
    choice, roomier = choose(free, predicted), choose(free + more, predicted)
    assert choice.mode in EXACT_MODES
    fits = predicted.peak(choice.mode, vae_tiling=choice.vae_tiling) * MARGIN <= free
    least = predicted.peak("sequential_cpu_offload", vae_tiling=True) * MARGIN
    assert fits == (least <= free)
    assert rank(roomier) <= rank(choice)
    assert choice.mode in choice.why
    assert "free" in choice.why
    if not fits:
        assert "would fit" in choice.why


def rank(choice: Choice) -> int:
    return (3 if choice.vae_tiling else 0) + EXACT_MODES.index(choice.mode)


def test_the_choice_says_why() -> None:
    gib = 2**30
    large = Need({"transformer": PartNeed(22 * gib, 12 * gib, gib // 16, 7 * gib, 7 * gib)})
    assert choose(40 * gib, large) == Choice("none", False, "none: needs 29.0 GiB of 40.0 GiB free")
    why = choose(10 * gib, large).why
    assert why == "sequential_cpu_offload: needs 7.1 GiB of 10.0 GiB free; model_cpu_offload would need 29.0 GiB"
    assert choose(8 * gib, large).mode == "sequential_cpu_offload"
    assert "needs least, but 7.1 GiB of 4.0 GiB free" in choose(4 * gib, large).why


def test_without_a_gpu_auto_stays_in_main_memory_and_tiles_where_that_is_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    roomy = decide(AUTO, CPU, need(100, 100, 50))
    assert (roomy.mode, roomy.vae_tiling) == ("none", False)
    assert "there is no GPU" in roomy.why
    short = decide(AUTO, CPU, need(100, 5000, 50))
    assert (short.mode, short.vae_tiling) == ("none", True)
    assert decide(AUTO, CPU, need(100, 100, 50), vae_tiling=True).vae_tiling
    monkeypatch.setattr(memory, "free_bytes", lambda device: 300)
    assert decide(AUTO, GPU, need(1000, 10, 10)).mode == "sequential_cpu_offload"
    for mode in MODES:  # what was asked for is not argued with
        assert decide(mode, GPU, need(1000, 10, 10)).mode == mode


@pytest.mark.parametrize("asked", [AUTO, "sequential_cpu_offload"])
def test_main_memory_too_small_for_what_waits_there_is_told(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    predicted, free = need(1000, 10, 10), {"cuda": 300, "cpu": 2000}
    monkeypatch.setattr(memory, "free_bytes", lambda device: free[device.type])
    assert "main memory" not in decide(asked, GPU, predicted).why
    free["cpu"] = 1019  # the transformer's 1000 and the VAE's 20 wait together
    assert "main memory" in decide(asked, GPU, predicted).why
    assert predicted.held("model_cpu_offload_and_qfloat8") == 520
    assert decide("none", GPU, predicted).why.count("main memory") == predicted.held("none") == 0


def test_an_unknown_mode_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match="'fast': there is none; known: auto, none, model_cpu_offload, "):
        decide("fast", CPU, need(1, 1, 1))


def advice(mode: str, part: str, device: torch.device, tiling: bool, error: Exception | None = None) -> str:
    with pytest.raises(ModelError) as refused, memory_advice(mode, part, device, vae_tiling=tiling):
        raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\n 20 GiB")
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_running_out_of_memory_names_what_to_try_next_until_nothing_is_left() -> None:
    mode, tried = "none", []
    while mode not in tried:
        tried.append(mode)
        words = advice(mode, "transformer", GPU, True)
        assert f"out of cuda's memory at the transformer, memory mode {mode}; next, try " in words
        fix = words.rsplit("next, try ", 1)[1]
        mode = next((known for known in MODES if fix.startswith(f"`memory` {known}")), mode)
    assert tried == list(EXACT_MODES)
    assert "smaller size or fewer frames" in fix
    assert advice("model_cpu_offload_and_qfloat8", "transformer", GPU, True).endswith("`memory` sequential_cpu_offload")
    for mode in MODES:
        assert "next, try `vae_tiling` (it helps above 512 px), or " in advice(mode, "vae", GPU, False)


def test_the_cpu_running_out_is_told_likewise_and_other_errors_stay_themselves() -> None:
    assert "out of main memory" in advice("none", "transformer", CPU, False, MemoryError())
    cublas = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    assert "`memory`" in advice("none", "text_encoder", GPU, False, cublas)
    with (
        pytest.raises(ModelError, match="out of main memory at the vae"),
        memory_advice("none", "vae", CPU, vae_tiling=True),
    ):
        torch.empty(2**50, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shapes cannot"), memory_advice("none", "vae", CPU, vae_tiling=True):
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_the_part_that_runs_out_is_named_by_the_placement(encoder_folder: Path) -> None:
    _, parts = networks(encoder_folder)
    placement = place(parts, "model_cpu_offload", CPU)
    words = "at the vae, memory mode model_cpu_offload; next, try `vae_tiling`"
    with pytest.raises(ModelError, match=words), placement.computing("vae"):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_every_mode_has_words_for_a_machine_without_gpu() -> None:
    tables: Mapping[str, Mapping[str, str]] = {"notes": memory._WITHOUT_GPU, "next": memory._NEXT}
    assert set(tables["notes"]) == set(MODES) - {"none"}
    assert set(tables["next"]) == set(memory._NEXT_WITHOUT_GPU) == set(MODES)
