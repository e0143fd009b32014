"""Image tokens are CLIP's own, from its folder or its pipeline's, and what is no CLIP is refused in a line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from models.errors import ModelError
from models.text.table import IMAGE_ENCODERS

torch.set_num_threads(1)

PICTURES = np.random.default_rng(0).integers(0, 255, (2, 40, 56, 3), dtype=np.uint8)
EMBEDDING, TOKENS = IMAGE_ENCODERS["clip_embedding"], IMAGE_ENCODERS["clip_tokens"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("pipeline")
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=12,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(folder / "image_encoder")
    return folder


def test_tokens_are_what_transformers_computes(pipeline: Path) -> None:
    theirs = CLIPVisionModelWithProjection.from_pretrained(pipeline / "image_encoder").eval()
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    with torch.no_grad():
        expected = theirs(processor(images=list(PICTURES), return_tensors="pt").pixel_values)
    one = EMBEDDING.load(pipeline).encode_parts(PICTURES)
    torch.testing.assert_close(one["image"], expected.image_embeds[:, None])
    some = TOKENS.load(pipeline / "image_encoder").encode_parts(PICTURES)
    torch.testing.assert_close(some["image"], expected.last_hidden_state[:, 1:])
    assert some["image"].shape == (2, 16, 16) and some["image_mask"].all()


@pytest.mark.parametrize("kind", [EMBEDDING, TOKENS])
def test_no_image_has_the_shape_of_one(kind, pipeline: Path) -> None:
    loaded = kind.load(pipeline, torch.float32)
    given, nothing = loaded.encode_parts(PICTURES), loaded.no_parts(2)
    assert {name: part.shape for name, part in given.items()} == {name: part.shape for name, part in nothing.items()}
    assert not any(part.any() for part in nothing.values())


def test_a_picture_does_not_depend_on_the_others(pipeline: Path) -> None:
    loaded = TOKENS.load(pipeline)
    torch.testing.assert_close(loaded.encode_parts(PICTURES[1:])["image"], loaded.encode_parts(PICTURES)["image"][1:])


def test_what_is_no_image_encoder_is_refused_in_one_line(pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no image encoder here"):
        EMBEDDING.load(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    with pytest.raises(ModelError, match="of class .'BertModel'."):
        EMBEDDING.load(tmp_path)
