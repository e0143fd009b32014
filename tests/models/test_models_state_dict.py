"""Damaged files of weights are refused in one line, whatever was damaged."""

import random
from pathlib import Path

import pytest
import torch

from models.errors import ModelError
from models.weights.state_dict import read_state_dict


@pytest.mark.filterwarnings("ignore")  # torch names odd protocols
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path, zipped: bool) -> None:
    whole, file = tmp_path / "whole.pth", tmp_path / "damaged.pth"
    torch.save({"a": torch.ones(5), "b": torch.zeros(3)}, whole, _use_new_zipfile_serialization=zipped)
    content, chance, refused = whole.read_bytes(), random.Random(0), 0
    assert read_state_dict(whole).keys() == {"a", "b"}
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        file.write_bytes(damaged[: chance.choice((None, None, chance.randrange(len(content))))])
        try:
            read_state_dict(file)
        except ModelError as error:
            refused += 1
            assert "\n" not in str(error) and str(file) in str(error)
    assert refused > 30
