"""Whose device each part of a worker computes on.

No GPU was at hand: the device interface is replaced by one that notes what it is asked.
"""

import threading
from pathlib import Path

import pytest
import torch

from models import accelerator
from models.geometry import Bucket
from models.memory import modes as memory
from train_bridge.cache import encoders as encoders_module
from train_bridge.cache.encoders import FolderEncoders
from train_bridge.loop import launch
from train_bridge.loop.batches import Ahead
from train_bridge.methods.types import Batch
from train_bridge.types import MicroBatch


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, torch.device]]:
    """Have two GPUs, the second one current, and note which thread made which device current."""
    noted: list[tuple[str, torch.device]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda d: noted.append((threading.current_thread().name, d)))
    return noted


def test_the_process_names_its_device_with_an_index(asked: list[tuple[str, torch.device]]) -> None:
    assert accelerator.own_device() == torch.device("cuda", 1)


def test_a_worker_asks_ray_for_its_device_and_one_alone_takes_the_current(
    asked: list[tuple[str, torch.device]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "get_device", lambda: torch.device("cuda", 3))  # as with half a GPU for each of eight
    assert launch.worker_device(alone=False, gpus_per_worker=0.5) == torch.device("cuda", 3)
    assert launch.worker_device(alone=False, gpus_per_worker=0) == torch.device("cpu")
    assert launch.worker_device(alone=True, gpus_per_worker=0) == torch.device("cuda", 1)


def test_the_thread_that_reads_ahead_uses_the_workers_device(asked: list[tuple[str, torch.device]]) -> None:
    device, micro = torch.device("cuda", 3), MicroBatch(Bucket(1, 16, 16), (0,), (1.0,))
    ahead = Ahead(lambda _, seeds: Batch(seeds, torch.ones(1)), [(micro, (0,))], device=device)
    assert len(list(ahead)) == 1
    ahead.close()
    ((thread, used),) = asked
    assert used == device and thread != threading.current_thread().name


def test_encoders_load_and_compute_on_the_device_they_are_given(
    asked: list[tuple[str, torch.device]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[object] = []

    class Text:
        @staticmethod
        def load(folder: Path, positions: int, dtype: torch.dtype) -> "Text":
            loaded.append(dtype)
            return Text()

        model = torch.nn.Linear(4, 4)

        def encode_parts(self, captions: list[str]) -> dict[str, torch.Tensor]:
            return {"text": torch.zeros(len(captions), 2, 4)}

    monkeypatch.setattr(encoders_module, "TEXT_ENCODERS", {"qwen2_vl": Text})
    monkeypatch.setattr(encoders_module, "offload_layers_where_short", lambda model, device: loaded.append(device))
    device = torch.device("cuda", 3)
    encode = FolderEncoders("vae", "text", 2, "v", "t", half=True).load_text(device)
    thread = threading.Thread(target=lambda: encode(["a"]), name="other")
    thread.start()
    thread.join()
    assert loaded == [torch.bfloat16, device] and asked == [("other", device)]


def test_a_text_encoder_that_is_too_large_is_fetched_by_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[object] = []
    network = torch.nn.Linear(256, 256)
    monkeypatch.setattr(network, "to", moved.append)
    monkeypatch.setattr(memory, "_offload_layers", lambda part, device, *, ahead: moved.append((part, ahead)))
    device = torch.device("cuda", 3)
    monkeypatch.setattr(memory, "free_bytes", lambda _: 4 * 256 * 256)  # just less than weights, bias and margin
    assert memory.offload_layers_where_short(network, device)
    monkeypatch.setattr(memory, "free_bytes", lambda _: 5 * 257 * 256)
    assert not memory.offload_layers_where_short(network, device)
    assert moved == [(network, False), device]
