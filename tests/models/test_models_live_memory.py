"""Bytes alive at once are counted by hand here, and alike with and without computing."""

import pytest
import torch

from models.memory.live_memory import peak_bytes
from models.vae.video_vae import PRESETS, build_vae, encode_moments

torch.set_num_threads(1)
MB = 1 << 20


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_only_what_lives_at_once_counts(device: str) -> None:
    def chain() -> torch.Tensor:
        tensor = torch.zeros(MB, dtype=torch.uint8, device=device)
        for _ in range(5):
            tensor = tensor + 1  # the old one dies when the new one is there
        return tensor

    def heap() -> list[torch.Tensor]:
        return [torch.zeros(MB, dtype=torch.uint8, device=device) for _ in range(5)]

    assert peak_bytes(chain) == 2 * MB
    assert peak_bytes(heap) == 5 * MB


def test_views_and_changes_in_place_take_nothing_and_neither_does_what_was_there() -> None:
    old = torch.zeros(MB)
    assert peak_bytes(lambda: old.view(2, -1).t().add_(1)[0]) == 0
    assert peak_bytes(lambda: (old + 1).mul_(2).view(-1, 2)) == 4 * MB


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_encoding_in_stretches_needs_less_than_encoding_at_once(device: str) -> None:
    with torch.device(device):
        vae, frames = build_vae(PRESETS["tiny"]), torch.zeros(1, 3, 17, 32, 32)

    def encode(at_once: int) -> object:
        with torch.no_grad():
            return encode_moments(vae, frames, frames_at_once=at_once)

    peaks = {at_once: peak_bytes(lambda at_once=at_once: encode(at_once)) for at_once in (4, 16)}
    assert peaks[4] < 0.5 * peaks[16]
    # Two of the widest activations, with 8 channels at full size, must live at once.
    assert peaks[16] > 2 * 8 * 17 * 32 * 32 * 4
