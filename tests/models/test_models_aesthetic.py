"""LAION's heads: the real weights recomputed plainly, and files that are no heads."""

import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from models.errors import ModelError  # noqa: E402
from models.scorers.aesthetic import HEADS, head_name, load_head  # noqa: E402
from models.scorers.clip import embedding_dim  # noqa: E402
from models.weights.table import WEIGHTS  # noqa: E402

MLP = "improved_sac+logos+ava1-l14-linearMSE.pth"


def unit_vectors(count, dim, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_improved_head_equals_its_layers_one_after_another(shared):
    path = shared / "weights" / MLP
    state = torch.load(path, map_location="cpu", weights_only=True)
    layers = torch.nn.Sequential(  # as its authors define it
        torch.nn.Linear(768, 1024), torch.nn.Dropout(0.2), torch.nn.Linear(1024, 128), torch.nn.Dropout(0.2),
        torch.nn.Linear(128, 64), torch.nn.Dropout(0.1), torch.nn.Linear(64, 16), torch.nn.Linear(16, 1),
    ).eval()  # fmt: skip
    layers.load_state_dict({name.removeprefix("layers."): tensor for name, tensor in state.items()})
    embeddings = unit_vectors(50, 768)
    with torch.no_grad():
        wanted = layers(torch.from_numpy(embeddings))[:, 0].numpy()
    head = load_head(path)
    assert head.score(embeddings) == pytest.approx(wanted, abs=2e-5)
    assert wanted.std() > 0.01 and 0 < wanted.mean() < 10
    assert head.score(embeddings[:0]).shape == (0,)


@pytest.mark.parametrize(("tower", "dim"), [("l_14", 768), ("b_16", 512), ("b_32", 512)])
def test_the_first_heads_are_one_line_of_arithmetic(shared, tower, dim):
    path = shared / "weights" / f"laion_sa_0_4_vit_{tower}_linear.pth"
    state = torch.load(path, map_location="cpu", weights_only=True)
    embeddings = unit_vectors(20, dim)
    wanted = embeddings @ state["weight"].numpy()[0] + state["bias"].numpy()[0]
    assert load_head(path).score(embeddings) == pytest.approx(wanted, abs=1e-5)


def test_each_head_is_listed_with_the_tower_whose_embeddings_it_takes(shared):
    files = {
        "laion-mlp-l-14": MLP,
        "laion-v1-l-14": "laion_sa_0_4_vit_l_14_linear.pth",
        "laion-v1-b-16": "laion_sa_0_4_vit_b_16_linear.pth",
        "laion-v1-b-32": "laion_sa_0_4_vit_b_32_linear.pth",
    }
    assert set(HEADS.values()) == set(files) <= set(WEIGHTS)
    for (_, tower), name in HEADS.items():
        assert len(load_head(shared / "weights" / files[name]).weight) == embedding_dim(tower)


def test_a_tower_without_that_head_is_told_which_there_are():
    with pytest.raises(ModelError, match="no head 'mlp' for ViT-B-32; there are mlp with ViT-L-14, linear with"):
        head_name("mlp", "ViT-B-32")


def test_layers_of_any_depth_and_both_formats_give_the_same(tmp_path):
    layers = torch.nn.Sequential(
        torch.nn.Linear(8, 5), *(torch.nn.Linear(5, 5) for _ in range(10)), torch.nn.Linear(5, 1)
    )
    torch.save(layers.state_dict(), tmp_path / "head.pth")
    save_file(layers.state_dict(), tmp_path / "head.safetensors")
    embeddings = unit_vectors(6, 8)
    with torch.no_grad():
        wanted = layers(torch.from_numpy(embeddings))[:, 0].numpy()
    for name in ("head.pth", "head.safetensors"):  # layer 10 comes after layer 9, not after layer 1
        assert load_head(tmp_path / name).score(embeddings) == pytest.approx(wanted, abs=1e-5)


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path):
    torch.save({"weight": Attack(str(tmp_path / "run"))}, tmp_path / "head.pth")
    with pytest.raises(ModelError, match="not readable as an aesthetic head") as told:
        load_head(tmp_path / "head.pth")
    assert not (tmp_path / "run").exists() and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"weight": torch.ones(2, 8), "bias": torch.ones(2)}, "ends in 2 numbers"),
        ({"a.weight": torch.ones(4, 8), "b.weight": torch.ones(1, 4)}, "more or less than linear layers"),
        ({"weight": torch.ones(1, 8), "bias": torch.ones(1), "scale": torch.ones(1)}, "more or less than"),
        ({"0.weight": torch.ones(4, 8), "0.bias": torch.ones(4), "1.weight": torch.ones(1, 5), "1.bias": torch.ones(1)},
         "do not fit each other"),
        ({}, "more or less than"),
        ([torch.ones(1)], "not a state dict"),
    ],
)  # fmt: skip
def test_a_file_of_something_else_is_told_of_in_one_line(tmp_path, state, told):
    torch.save(state, tmp_path / "head.pth")
    with pytest.raises(ModelError, match=told):
        load_head(tmp_path / "head.pth")


def test_a_missing_or_broken_file_is_told_of_in_one_line(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"x" * 100)
    (tmp_path / "broken.pth").write_bytes(b"x" * 100)
    for name in ("broken.safetensors", "broken.pth", "absent.pth", "absent.safetensors"):
        with pytest.raises(ModelError, match=f"{name}: not readable") as told:
            load_head(tmp_path / name)
        assert "\n" not in str(told.value)
