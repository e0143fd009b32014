"""vLLM's engine under Ray, on tiny networks: with every operator on real footage, and with its worker killed."""

import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from runs import assert_same_output, rows_of

import run_pipeline
from cli.common import TABLES
from curation.recipe import load_recipe
from curation.schema import table_schema

CAPTION = {
    "captioner": "vllm",
    "settings": {
        "device": "cpu",
        "dtype": "float32",
        "gpu_memory": 0.15,
        "max_model_len": 1024,
        "max_num_seqs": 8,
        "extra": {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 28},
        "asking": {
            "own_prompts": {"en": "Describe it.", "zh": "描述它。"},
            "languages": ["en", "zh"],
            "frames": 4,
            "short_side_px": 56,
            "max_tokens": 24,
            "unchecked": ["truncated", "refusal", "repetition", "boilerplate", "wrong_language", "prompt_leak"],
        },
    },
}


def recipe_in(folder: Path, operators: dict[str, Any], **sections: Any) -> Path:
    from tiny_vlm import save_tiny_vlm

    caption = {**CAPTION, "settings": CAPTION["settings"] | {"model": str(save_tiny_vlm(folder / "vlm"))}}
    recipe = {
        "operators": operators,
        "caption": caption,
        "cut": {"preset": "ultrafast", "short_side_px": 128},
    } | sections
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder / "recipe.yaml"


def curated(source: Path, recipe: Path, out: Path) -> Path:
    assert run_pipeline.main(["curate", str(source), "--output", str(out), "--config", str(recipe)]) == 0
    return out


ELSEWHERE = frozenset((
    *("overlay", "bad_frames", "bits_per_pixel", "detail", "camera", "flicker", "clusters"),
    *("nsfw", "faces", "speech", "caption_language", "caption_clusters"),
))
"""Operators that are off by default and have tests of their own; the last five may need packages."""


@pytest.mark.vllm
@pytest.mark.timeout(3000)
def test_every_operator_and_the_engine_on_real_footage(shared_videos: Path, tmp_path: Path, ray_here: None) -> None:
    import torch
    from safetensors.torch import save_file
    from tiny_clip import DIM, build_tiny_clip

    head = {"layers.0.weight": torch.linspace(-1, 1, DIM)[None], "layers.0.bias": torch.full((1,), 5.0)}
    save_file(head, tmp_path / "head.safetensors")
    clip = {"clip": {"model": str(build_tiny_clip(tmp_path / "clip")), "device": "cpu"}}
    settings = {
        **dict.fromkeys(("frame_consistency", "embedding"), clip),
        "aesthetic": clip | {"head": str(tmp_path / "head.safetensors")},
        "duplicates": {"best": "aesthetic", "cosine": 0.9999},
        "caption_alignment": clip | {"min_score": -1.0},
    }
    operators = {name: settings.get(name) for name in TABLES.operators if name not in ELSEWHERE}
    rules = {"short_side_px": {"min": 128}, "motion": {"min": 0.2}, "aesthetic": {"min": 0}}
    out = curated(shared_videos, recipe_in(tmp_path, operators, rules=rules), tmp_path / "out")
    recipe, _ = load_recipe(out / "recipe.yaml", [], TABLES)
    (file,) = (out / "clips").glob("part-*.parquet")
    assert pq.read_schema(file).remove_metadata() == table_schema(recipe.writers).remove_metadata()
    written = {column for operator in recipe.operators.values() for column in operator.writes}
    assert written | {"caption", "caption_en", "caption_zh", "caption_alignment"} <= set(pq.read_schema(file).names)
    rows = rows_of(out).values()
    accepted = [row for row in rows if row["status"] == "accepted"]
    assert len(accepted) >= 20
    known = set.union(*({name for name, value in row.items() if value is not None} for row in accepted))
    assert written - {"duplicate_of", "content_box"} - known == set()
    for row in accepted:
        assert row["caption"] == row["caption_en"] and row["caption_zh"] and row["caption_status"] == "ok"
        assert -1 <= row["caption_alignment"] <= 1 and (out / row["clip_path"]).is_file()
    assert len({row["caption"] for row in accepted}) > len(accepted) / 2, "each clip has words of its own"


@pytest.mark.vllm
@pytest.mark.timeout(1200)
def test_a_captioner_killed_in_the_midst_loses_nothing_and_doubles_nothing(
    demo_footage: Path, tmp_path: Path, ray_here: None
) -> None:
    footage = tmp_path / "in"
    footage.mkdir()
    for name in ("flyover.mp4", "rushes.mp4", "phone.mp4"):
        shutil.copy2(demo_footage / name, footage / name)
    shots = {"min_s": 0.2, "max_s": 0.4}
    recipe = recipe_in(tmp_path, {"facts": None}, shots=shots, workers={"caption": 1})
    undisturbed = curated(footage, recipe, tmp_path / "undisturbed")
    assert len(rows_of(undisturbed)) >= 40
    killed: list[int] = []
    is_over = threading.Event()
    killer = threading.Thread(target=kill_the_captioner, args=(tmp_path / "out", 8, killed, is_over))
    killer.start()
    curated(footage, recipe, tmp_path / "out")
    is_over.set()
    killer.join()
    assert len(killed) == 1
    assert_same_output(undisturbed, tmp_path / "out")


def kill_the_captioner(out: Path, after: int, killed: list[int], is_over: threading.Event) -> None:
    """Kill the worker that holds the engine, once some clips have been captioned."""
    while captioned(out) < after:
        if is_over.wait(0.05):
            return
    (engine,) = (one for one in psutil.Process(os.getpid()).children(recursive=True) if "EngineCore" in name_of(one))
    worker = engine.parent()
    assert worker is not None and "ray::" in name_of(worker)
    worker.kill()
    killed.append(worker.pid)


def name_of(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join([process.name(), *process.cmdline()])
    return ""


def captioned(out: Path) -> int:
    """Count the clips that parts hold with a caption."""
    count = 0
    for part in (out / "_parts").glob("[!.]*.parquet"):
        with suppress(FileNotFoundError):  # folded meanwhile
            column = pq.read_table(part, columns=["caption"])["caption"]
            count += len(column) - column.null_count
    return count
