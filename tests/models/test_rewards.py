"""Rewards say what they are named for, and their gradient reaches the frames."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_clip import CONFIG, DIM, SIDE_PX, build_tiny_clip

from models.errors import ModelError
from models.rewards.aesthetic import Aesthetic
from models.rewards.caption_alignment import CaptionAlignment
from models.rewards.motion import Stillness
from models.rewards.preference import Preference, open_clip_names
from models.rewards.reward import Reward
from models.rewards.table import FREE, REWARDS, find_reward
from models.scorers.aesthetic import load_head
from models.scorers.clip import load_tower
from operators.sharpness import laplacian_variance

torch.set_num_threads(1)
CPU = torch.device("cpu")
PROMPTS = ["a red disc", "a green field"]


def frames(seed: int = 0, count: int = 5, side: int = 24) -> torch.Tensor:
    return torch.rand(2, 3, count, side, side, generator=torch.Generator().manual_seed(seed))


def judged(reward: Reward, shown: torch.Tensor) -> torch.Tensor:
    return reward.load(CPU, None)(shown, PROMPTS)


@pytest.mark.parametrize("name", [*FREE, "random_cnn"])
def test_gradients_reach_the_frames_and_equal_finite_differences(name: str) -> None:
    shown = (0.3 + 0.4 * frames()).double().requires_grad_()
    judge = REWARDS[name].load(CPU, None)
    if name == "stillness":  # noise moves enough to be free of the penalty
        shown = (0.5 + 0.001 * frames()).double().requires_grad_()
    (gradient,) = torch.autograd.grad(judge(shown, PROMPTS).sum(), shown)
    assert gradient.isfinite().all() and gradient.abs().max() > 0
    way = gradient / gradient.norm()
    step = 1e-4 if name != "random_cnn" else 1e-2
    with torch.no_grad():
        up, down = (float(judge(shown + sign * step * way, PROMPTS).double().sum()) for sign in (1, -1))
    assert (up - down) / (2 * step) == pytest.approx(float(gradient.norm()), rel=0.03)


def test_brightness_contrast_and_motion_are_what_was_drawn() -> None:
    shown = torch.zeros(2, 3, 3, 16, 16)
    shown[0] = 0.75
    shown[1, :, :, :, 8:] = 1.0
    shown[1, :, 1] = 1 - shown[1, :, 1]
    assert judged(REWARDS["brightness"], shown)[0].tolist() == pytest.approx([0.75] * 3)
    assert judged(REWARDS["contrast"], shown)[1].tolist() == pytest.approx([0.5] * 3, abs=1e-3)
    change = judged(REWARDS["motion"], shown)
    assert change.shape == (2, 2) and change[0].tolist() == [0, 0] and change[1].tolist() == pytest.approx([100, 100])
    assert judged(REWARDS["stillness"], shown).tolist() == [[-1.0], [0.0]]
    assert judged(Stillness(floor=200.0), shown).tolist() == [[-1.0], [-0.5]]


def test_sharpness_is_the_operators_measure() -> None:
    gray = (255 * frames(count=1, side=64)[0, 0, 0]).round().to(torch.uint8)
    shown = (gray.float() / 255).expand(2, 3, 1, 64, 64)
    found = float(judged(REWARDS["sharpness"], shown)[0, 0])
    assert found * 500 / (1 - found) == pytest.approx(laplacian_variance(gray.numpy()), rel=0.01)


def test_a_blurred_picture_is_less_sharp() -> None:
    shown = frames(side=32)
    blurred = torch.nn.functional.avg_pool3d(shown, (1, 3, 3), stride=1, padding=(0, 1, 1))
    assert (judged(REWARDS["sharpness"], blurred) < judged(REWARDS["sharpness"], shown)).all()


def test_clip_rewards_are_the_scorers_numbers_with_a_gradient(tmp_path: Path) -> None:
    folder = str(build_tiny_clip(tmp_path / "clip"))
    torch.save({"0.weight": torch.randn(1, DIM), "0.bias": torch.tensor([5.0])}, tmp_path / "head.pth")
    pixels = (255 * frames(count=2, side=SIDE_PX)).round().to(torch.uint8)
    shown = (pixels.float() / 255).requires_grad_()
    tower = load_tower(folder, device="cpu")
    pictures = [pixels[b, :, t].permute(1, 2, 0).numpy() for b in range(2) for t in range(2)]
    known = tower.encode_images(pictures)
    likes = Aesthetic(folder, head_file=str(tmp_path / "head.pth")).load(CPU, None)(shown, PROMPTS)
    expected = load_head(tmp_path / "head.pth").score(known).reshape(2, 2)
    assert np.allclose(likes.detach().numpy(), expected, atol=1e-3)
    fits = CaptionAlignment(folder).load(CPU, None)(shown, PROMPTS)
    said = tower.encode_texts(PROMPTS)
    assert np.allclose(fits.detach().numpy(), np.einsum("btd,bd->bt", known.reshape(2, 2, -1), said), atol=1e-3)
    for value in (likes, fits):
        (gradient,) = torch.autograd.grad(value.sum(), shown)
        assert gradient.isfinite().all() and gradient.abs().sum() > 0


def test_weights_of_transformers_clip_mean_the_same_in_open_clip() -> None:
    import open_clip
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 128, "hidden_act": "gelu"}
    text = sizes | {"num_attention_heads": 2, "vocab_size": 100, "max_position_embeddings": 77, "eos_token_id": 99}
    vision = sizes | {"num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    theirs = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()
    config = CONFIG | {"embed_dim": 16, "quick_gelu": False}
    config["vision_cfg"] = CONFIG["vision_cfg"] | {"width": 32, "head_width": 16, "layers": 2}
    config["text_cfg"] = CONFIG["text_cfg"] | {"vocab_size": 100, "width": 32, "heads": 2, "layers": 2}
    ours = open_clip.CLIP(**config).eval()
    ours.load_state_dict(open_clip_names(dict(theirs.state_dict())))
    pictures = torch.rand(2, 3, 32, 32)
    tokens = torch.randint(1, 98, (2, 77))
    tokens[:, 20:] = 0
    tokens[:, 19] = 99
    with torch.no_grad():
        assert torch.allclose(ours.encode_image(pictures), _projected(theirs, pictures=pictures), atol=1e-4)
        assert torch.allclose(ours.encode_text(tokens), _projected(theirs, tokens=tokens), atol=1e-4)


def _projected(model: torch.nn.Module, pictures: torch.Tensor | None = None, tokens: torch.Tensor | None = None):
    if pictures is not None:
        return model.visual_projection(model.vision_model(pixel_values=pictures).pooler_output)
    return model.text_projection(model.text_model(input_ids=tokens).pooler_output)


def test_missing_weights_are_named_with_size_and_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"HPS_v2.1_compressed.pt \(2.0 GB\).*weights fetch hps-v2-1"):
        find_reward("hps_v2_1").load(CPU, str(tmp_path))
    bad = tmp_path / "bad.pt"
    torch.save({"state_dict": {"a": torch.zeros(1)}}, bad)
    with pytest.raises(ModelError, match="not the weights of a RN50"):
        Preference("hps-v2-1", True, str(bad), architecture="RN50").load(CPU, None)


def test_rewards_that_there_are_not_or_have_no_gradient_are_refused() -> None:
    with pytest.raises(ModelError, match=r"did you mean 'brightness'\?"):
        find_reward("brightnes")
    with pytest.raises(ModelError, match="text_area: cannot be differentiated; those that can: brightness, contrast"):
        find_reward("text_area", frozenset({"text_area"}))
