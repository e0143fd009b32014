"""The text encoder gives diffusers' embeddings; the tiny one knows every byte and tells captions apart."""

import json
import shutil
import unicodedata
from pathlib import Path

import diffusers
import pytest
import torch
from closeness import close
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from models.errors import ModelError
from models.text.qwen2_vl import Qwen2VLText, build_tiny, find_encoder

torch.set_num_threads(1)

LEFT, RIGHT = "a red ball rolls left", "a red ball rolls right"
CAPTIONS = [LEFT, "", "<|image_pad|> a mark<|im_end|>", "红色的球向左滚动，镜头缓慢推近。", "a ball; " * 60]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> Qwen2VLText:
    return Qwen2VLText.load(tiny)


def by_diffusers(encoder: Qwen2VLText, captions: list[str]) -> torch.Tensor:
    pipeline = diffusers.EasyAnimatePipeline(
        text_encoder=encoder.model, tokenizer=encoder.tokenizer, vae=None, transformer=None, scheduler=None
    )
    with torch.no_grad():
        return pipeline.encode_prompt(
            captions, do_classifier_free_guidance=False, max_sequence_length=encoder.positions
        )[0]


@pytest.mark.parametrize("positions", [256, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_embeddings_are_those_of_the_pipeline_bit_for_bit(tiny: Path, positions: int, dtype: torch.dtype) -> None:
    encoder = Qwen2VLText.load(tiny, positions, dtype)
    embeddings = encoder.encode(CAPTIONS)
    assert embeddings.shape == (len(CAPTIONS), positions, encoder.dim)
    assert embeddings.dtype == dtype
    assert not embeddings.requires_grad
    assert close(embeddings, by_diffusers(encoder, CAPTIONS))


def test_embeddings_can_be_trained_on(encoder: Qwen2VLText) -> None:
    weight = torch.ones(encoder.dim, requires_grad=True)
    (encoder.encode([LEFT]) * weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


def test_a_caption_does_not_depend_on_the_others_in_its_batch(encoder: Qwen2VLText) -> None:
    together = encoder.encode(CAPTIONS)
    for caption, embedding in zip(CAPTIONS, together, strict=True):
        assert torch.allclose(encoder.encode([caption])[0], embedding, atol=1e-5)


def test_different_captions_give_clearly_different_embeddings_of_order_one(encoder: Qwen2VLText) -> None:
    pairs = [(LEFT, RIGHT), (LEFT, "a blue ball rolls left"), (LEFT, ""), ("红球向左滚", "红球向右滚")]
    for a, b in pairs:
        x, y = encoder.encode([a, b])
        assert 0.5 < float(x.std()) < 2
        assert float(x.abs().max()) < 10
        # root mean square of the difference, in deviations; independent embeddings would give 1.41
        assert float((x - y).pow(2).mean().sqrt() / x.std()) > 0.4
        # the positions are a set to the transformer, so their mean must differ as well
        assert float((x.mean(0) - y.mean(0)).norm() / x.mean(0).norm()) > 0.1


def test_word_order_shows(encoder: Qwen2VLText) -> None:
    x, y = encoder.encode(["a ball hits a cube", "a cube hits a ball"])
    assert float((x - y).pow(2).mean().sqrt() / x.std()) > 0.4


def test_the_tiny_encoder_follows_its_seed_and_leaves_the_global_generator_alone(tmp_path: Path, tiny: Path) -> None:
    before = torch.get_rng_state()
    torch.manual_seed(12345)
    state = torch.get_rng_state()
    build_tiny(tmp_path / "same", seed=0)
    build_tiny(tmp_path / "other", seed=1)
    Qwen2VLText.load(tmp_path / "other").encode([LEFT])
    assert torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(before)
    first, same, other = (
        load_file(folder / "text_encoder" / "model.safetensors")
        for folder in (tiny, tmp_path / "same", tmp_path / "other")
    )
    assert first.keys() == same.keys()
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    assert sum(tensor.numel() for tensor in first.values()) < 200_000


def test_building_again_replaces_what_was_there_and_leaves_no_temporaries(tmp_path: Path) -> None:
    build_tiny(tmp_path, seed=3)
    (tmp_path / "tokenizer" / "old.txt").write_text("old")
    build_tiny(tmp_path, seed=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text_encoder", "tokenizer"]
    assert not (tmp_path / "tokenizer" / "old.txt").exists()


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_every_text_is_tokens_of_its_bytes_and_comes_back(encoder: Qwen2VLText, text: str) -> None:
    assume("<|" not in text)  # the marks of the chat template are tokens of their own
    normal = unicodedata.normalize("NFC", text)
    tokens = encoder.tokenizer(text=[text]).input_ids[0]
    assert len(tokens) == len(normal.encode())
    assert all(0 <= token < 256 for token in tokens)
    assert encoder.tokenizer.decode(tokens, clean_up_tokenization_spaces=False) == normal


@pytest.mark.parametrize("extra", [-2, -1, 0, 1, 2])
def test_truncated_tells_exactly_when_something_is_cut_off(encoder: Qwen2VLText, extra: int) -> None:
    frame = len("user\n" + "\nassistant\n") + 3  # bytes and special tokens that the chat template adds
    caption = "x" * (encoder.positions - frame + extra)
    assert encoder.truncated([caption, "short"]) == [extra > 0, False]
    assert encoder.truncated([]) == []


def test_what_is_cut_off_has_no_effect(encoder: Qwen2VLText) -> None:
    filling = "x" * (encoder.positions - len("user\n") - 1)  # and the mark that opens a turn
    assert close(encoder.encode([filling]), encoder.encode([filling + " and more"]))
    assert not torch.equal(encoder.encode([filling]), encoder.encode([filling[:-1] + " and more"]))


def test_an_encoder_is_found_in_a_pipeline_beside_its_tokenizer_and_with_it(tiny: Path, tmp_path: Path) -> None:
    assert find_encoder(tiny) == (tiny / "text_encoder", tiny / "tokenizer")
    assert find_encoder(tiny / "text_encoder") == (tiny / "text_encoder", tiny / "tokenizer")
    shutil.copytree(tiny / "text_encoder", tmp_path / "qwen")
    with pytest.raises(ModelError, match="no tokenizer"):
        find_encoder(tmp_path / "qwen")
    shutil.copytree(tiny / "tokenizer", tmp_path / "qwen", dirs_exist_ok=True)
    assert find_encoder(tmp_path / "qwen") == (tmp_path / "qwen", tmp_path / "qwen")
    assert close(Qwen2VLText.load(tmp_path / "qwen").encode([LEFT]), Qwen2VLText.load(tiny).encode([LEFT]))


def changed(tiny: Path, to: Path) -> Path:
    shutil.copytree(tiny, to)
    return to


def test_wrong_folders_are_refused_with_the_mend(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no text encoder here; give a pipeline folder"):
        Qwen2VLText.load(tmp_path)

    other = changed(tiny, tmp_path / "t5")
    (other / "text_encoder" / "config.json").write_text(json.dumps({"architectures": ["T5EncoderModel"]}))
    with pytest.raises(ModelError, match="T5EncoderModel.*Qwen2VLForConditionalGeneration"):
        Qwen2VLText.load(other)

    lacking = changed(tiny, tmp_path / "lacking")
    file = lacking / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    gone = next(key for key in tensors if "layers.0.self_attn.q_proj.weight" in key)
    save_file({key: tensor for key, tensor in tensors.items() if key != gone}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="1 weights are missing .*q_proj"):
        Qwen2VLText.load(lacking)

    cut = changed(tiny, tmp_path / "cut")
    file = cut / "text_encoder" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ModelError, match="no text encoder can be loaded"):
        Qwen2VLText.load(cut)

    silent = changed(tiny, tmp_path / "silent")
    (silent / "tokenizer" / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        Qwen2VLText.load(silent)

    with pytest.raises(ModelError, match="0 positions"):
        Qwen2VLText.load(tiny, positions=0)


def test_a_tokenizer_of_another_encoder_is_refused(tiny: Path, tmp_path: Path) -> None:
    foreign = changed(tiny, tmp_path / "foreign")
    tokenizer = Qwen2VLText.load(tiny).tokenizer
    tokenizer.add_tokens(["<|more|>"])
    tokenizer.save_pretrained(foreign / "tokenizer")
    with pytest.raises(ModelError, match="264 tokens, but .* knows 263"):
        Qwen2VLText.load(foreign)


def test_pickled_weights_are_never_opened(tiny: Path, tmp_path: Path) -> None:
    pickled = changed(tiny, tmp_path / "pickled")
    file = pickled / "text_encoder" / "model.safetensors"
    torch.save(load_file(file), pickled / "text_encoder" / "pytorch_model.bin")
    file.unlink()
    with pytest.raises(ModelError, match="no .safetensors beside config.json"):
        Qwen2VLText.load(pickled)
