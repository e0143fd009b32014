"""Networks that several workers divide (FSDP2): built on `meta`, read by one, resumed by any number, exported in parts.

No GPU was at hand: the workers are two processes on the CPU with gloo.
"""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from divided import make_job
from safetensors import safe_open
from safetensors.torch import load_file

from models.transformers.easyanimate_v5 import EasyAnimate
from train_bridge.loop.checkpoint import checkpoints
from train_bridge.loop.fill import folder_tensors
from train_bridge.loop.parallel import Worker
from train_bridge.loop.sharded import convert, is_sharded, read_sharded
from train_bridge.loop.trainer import Trainer

torch.set_num_threads(1)
pytestmark = pytest.mark.slow  # processes that import torch and meet
ROOT = Path(__file__).resolve().parents[2]
MEETINGS = itertools.count()
PLAIN = {"lora": 0, "dora": False, "half": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in several files."""
    folder = tmp_path_factory.mktemp("divided")
    torch.manual_seed(0)
    family = EasyAnimate()
    config = {"num_layers": 2, "mmdit_layers": 2, "num_attention_heads": 2}
    family.build(family.presets["tiny"] | config).save_pretrained(folder / "base", max_shard_size="700KB")
    assert len(list((folder / "base").glob("*.safetensors"))) > 1
    return folder


def divided(folder: Path, run: str, steps: int, **job: object) -> list[dict[str, object]]:
    """Train with two workers; return what each saw."""
    job = PLAIN | job | {"run": run, "steps": steps, "meeting": f"meeting-{next(MEETINGS)}"}
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(ROOT / "tests" / "helpers" / "divided.py"), str(folder)]
    workers = [
        subprocess.Popen([*words, str(rank), "2", json.dumps(job)], cwd=ROOT, env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    errors = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], errors[0].decode()[-3000:] + errors[1].decode()[-3000:]
    return [json.loads((folder / run / f"rank-{rank}.json").read_text()) for rank in range(2)]


def alone(folder: Path, run: str, steps: int, **job: object) -> int:
    """Train in this process; return the step it began at."""
    (folder / run).mkdir(exist_ok=True)
    settings: dict[str, object] = PLAIN | job
    trainer = Trainer.start(make_job(folder, Worker(), folder / run, steps, **settings), Worker())  # type: ignore[arg-type]
    started = trainer.step
    trainer.run()
    return started


def losses(folder: Path, run: str) -> list[float]:
    lines = [json.loads(line) for line in (folder / run / "log.jsonl").read_text().splitlines()]
    return [line["transformer"] for line in lines if line["what"] == "train"]


def test_two_divided_workers_train_what_one_trains_and_one_of_them_reads(folder: Path) -> None:
    seen = divided(folder, "two", 6)
    assert alone(folder, "one", 6) == 0
    assert losses(folder, "two") == pytest.approx(losses(folder, "one"), rel=1e-4)
    assert seen[0]["opened"] and not seen[1]["opened"]
    whole = sum(tensor.numel() * 4 for tensor in load_base(folder).values())
    assert all(worker["held"] < 0.55 * whole for worker in seen)
    last = checkpoints(folder / "two")[-1]
    assert is_sharded(last) and not list(last.rglob("*.safetensors"))
    # The running mean where there is one, as `one` has it in a file.
    expected = load_file(
        checkpoints(folder / "one")[-1] / "ema" / "transformer" / "diffusion_pytorch_model.safetensors"
    )
    found = read_sharded(last, "transformer")
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], atol=2e-4) for name in expected)


def load_base(folder: Path) -> dict[str, torch.Tensor]:
    read, names = folder_tensors(folder / "base")
    return {name: read(name) for name in names}


def test_a_divided_run_goes_on_with_another_number_of_workers(folder: Path) -> None:
    divided(folder, "whole", 6)
    divided(folder, "parts", 3)
    assert alone(folder, "parts", 5) == 3  # one worker takes over from two
    assert divided(folder, "parts", 6)[1]["begun_at"] == 5  # and two from one, whose checkpoint is not divided
    assert losses(folder, "parts") == pytest.approx(losses(folder, "whole"), rel=1e-4)


@pytest.mark.parametrize("job", [{"lora": 4, "half": True}, {"lora": 4, "dora": True}])
def test_adapters_on_a_divided_base_train_as_on_a_whole_one(folder: Path, job: dict[str, object]) -> None:
    name = "-".join(job)
    divided(folder, f"two-{name}", 3, **job)
    alone(folder, f"one-{name}", 3, **job)
    # In bf16 the order of sums matters in the third digit.
    assert losses(folder, f"two-{name}") == pytest.approx(
        losses(folder, f"one-{name}"), rel=2e-2 if "half" in job else 1e-4
    )
    saved = read_sharded(checkpoints(folder / f"two-{name}")[-1], "transformer")
    assert saved and all("lora" in key and tensor.dtype == torch.float32 for key, tensor in saved.items())


def test_workers_stop_together_where_one_of_them_meets_a_row_that_is_not_finite(folder: Path) -> None:
    seen = divided(folder, "poisoned", 40, poison=4)
    assert seen[0]["stopped"] == seen[1]["stopped"]
    assert re.search(r"step \d+: .*, of row 4 \(3 such steps", str(seen[0]["stopped"]))
    for worker in checkpoints(folder / "poisoned"):
        assert all(tensor.isfinite().all() for tensor in read_sharded(worker, "transformer").values())


def test_the_export_writes_bounded_files_that_diffusers_reads(folder: Path, tmp_path: Path) -> None:
    divided(folder, "export", 1)
    family, last = EasyAnimate(), checkpoints(folder / "export")[-1]
    config = json.loads((folder / "base" / "config.json").read_text())
    convert(last, "transformer", tmp_path, config, most_bytes=700_000)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 1
    for file in files:
        with safe_open(file, "pt") as opened:
            sizes = [opened.get_tensor(name).nbytes for name in list(opened.keys())]
        assert sum(sizes) <= 700_000 or len(sizes) == 1
    loaded = family.load(tmp_path).state_dict()
    expected = read_sharded(last, "transformer")
    assert loaded.keys() == expected.keys() and all(torch.equal(loaded[name], expected[name]) for name in loaded)
