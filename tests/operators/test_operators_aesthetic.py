"""Aesthetic scores: the mean of what the head says of each frame, with LAION's own head on known embeddings."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")

from safetensors.torch import save_file  # noqa: E402
from tiny_clip import DIM, build_tiny_clip  # noqa: E402

from curation.types import ClipInput, Frames  # noqa: E402
from media.types import SourceFacts, Span  # noqa: E402
from models.errors import ModelError  # noqa: E402
from models.scorers.clip import ClipTower, load_tower  # noqa: E402
from operators.aesthetic import Aesthetic  # noqa: E402
from operators.clip_frames import Clip  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_tiny_clip(tmp_path_factory.mktemp("clip"))


def clip_of(count, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 40, 60, 3), dtype=np.uint8)
    return ClipInput(SourceFacts("image", 1, 1, "png"), Span(0, 1, 0, 1), Frames(pixels, np.arange(count) / 2))


def head_file(path, dim=DIM, bias=5.0):
    weight = torch.randn(1, dim, generator=torch.Generator().manual_seed(1))
    save_file({"weight": weight, "bias": torch.tensor([bias])}, path)
    return weight[0].numpy()


def test_it_is_the_mean_over_frames_and_each_frame_is_kept(folder, tmp_path):
    weight = head_file(tmp_path / "head.safetensors")
    score = Aesthetic(str(tmp_path / "head.safetensors"), clip=Clip(str(folder), "cpu")).load()
    clip = clip_of(4)
    (scores,) = score([clip])
    wanted = load_tower(str(folder), device="cpu").encode_images(list(clip.frames.pixels)) @ weight + 5
    assert scores["aesthetic_frames"] == pytest.approx(wanted.tolist(), abs=1e-5)
    assert scores["aesthetic"] == pytest.approx(wanted.mean(), abs=1e-5)


def test_with_the_real_head_it_gives_what_the_plain_layers_give(shared, tmp_path, monkeypatch):
    """A tower that gives fixed embeddings stands in for ViT-L/14; the head is LAION's, found by its name."""
    real = shared / "weights" / "improved_sac+logos+ava1-l14-linearMSE.pth"
    (tmp_path / "laion-mlp-l-14.pth").symlink_to(real)
    monkeypatch.setenv("SELECTS_WEIGHTS", str(tmp_path))
    embeddings = np.random.default_rng(2).normal(size=(6, 768)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)

    class Fixed:
        dim = 768

        def encode_images(self, pictures, batch):
            return embeddings[[picture[0, 0, 0] for picture in pictures]]

    monkeypatch.setattr(Clip, "load", lambda self: Fixed())
    frames = [np.full((2, 4, 4, 3), 2 * i, np.uint8) for i in range(3)]
    for pixels in frames:
        pixels[1] += 1
    clips = [ClipInput(SourceFacts("video", 1, 1, "h264"), Span(0, 1, 0, 2), Frames(p, np.arange(2.0))) for p in frames]
    values = torch.from_numpy(embeddings)
    state = torch.load(real, map_location="cpu", weights_only=True)
    for layer in (0, 2, 4, 6, 7):
        values = values @ state[f"layers.{layer}.weight"].T + state[f"layers.{layer}.bias"]
    wanted = values[:, 0].numpy().reshape(3, 2)
    for scores, frame_scores in zip(Aesthetic().load()(clips), wanted, strict=True):
        assert scores["aesthetic_frames"] == pytest.approx(frame_scores.tolist(), abs=2e-5)
        assert scores["aesthetic"] == pytest.approx(frame_scores.mean(), abs=2e-5)


def test_numbers_lost_in_half_precision_are_missing_not_wrong(folder, tmp_path, monkeypatch):
    head_file(tmp_path / "head.safetensors")
    broken = np.ones((2, DIM), np.float32)
    broken[1, 3] = np.nan
    monkeypatch.setattr(ClipTower, "encode_images", lambda self, pictures, batch: broken)
    (scores,) = Aesthetic(str(tmp_path / "head.safetensors"), clip=Clip(str(folder), "cpu")).load()([clip_of(2)])
    assert scores == {"aesthetic": None, "aesthetic_frames": None}


def test_a_head_for_another_tower_is_refused(folder, tmp_path):
    head_file(tmp_path / "head.safetensors", dim=DIM + 1)
    with pytest.raises(ModelError, match=f"embeddings of length {DIM + 1}, but .* gives {DIM}"):
        Aesthetic(str(tmp_path / "head.safetensors"), clip=Clip(str(folder), "cpu")).load()
    with pytest.raises(ModelError, match="no head 'mlp' for"):
        Aesthetic(clip=Clip(str(folder), "cpu")).load()


def test_settings_that_look_at_nothing_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Aesthetic(frames=0)
