"""T5, mT5 and the bilingual CLIP give what PixArt-α's and HunyuanDiT's pipelines give; published files load."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
import torch
from closeness import close
from diffusers import HunyuanDiTPipeline, PixArtAlphaPipeline
from safetensors.torch import load_file, save_file
from transformers import MT5Config, MT5EncoderModel, T5ForConditionalGeneration

from models.errors import ModelError
from models.text.clip_and_mt5 import V4_TEXT, V5_TEXT, LoadedPair
from models.text.masked_text import T5_NETWORKS, find_parts, load_masked
from models.text.t5 import T5, LoadedT5
from models.text.tiny_masked import TINY_WIDTH, build_tiny_t5

torch.set_num_threads(1)
LEFT, RIGHT = "a red ball rolls left", "a red ball rolls right"
LONG = " ".join(f"ball {number} rolls over hill {number}" for number in range(60))
CAPTIONS = [LEFT, "", "  Two Marks: <b>, 3%!  ", "红色的球", LONG]


@pytest.fixture(scope="module")
def pair_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    V5_TEXT.build_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t5")
    T5().build_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def pair(pair_folder: Path) -> LoadedPair:
    return V5_TEXT.load(pair_folder)


@pytest.fixture(scope="module")
def t5(t5_folder: Path) -> LoadedT5:
    return T5().load(t5_folder)


def test_v1_reads_text_as_pixart(t5: LoadedT5) -> None:
    pipeline = PixArtAlphaPipeline(
        tokenizer=t5.text.tokenizer, text_encoder=t5.model, vae=None, transformer=None, scheduler=None
    )
    with torch.no_grad():
        expected, mask, *_ = pipeline.encode_prompt(
            CAPTIONS, do_classifier_free_guidance=False, device=torch.device("cpu"), max_sequence_length=120
        )
    found = t5.encode_parts(CAPTIONS)
    assert found.keys() == {"text", "text_mask"}
    assert found["text"].shape == (5, 120, TINY_WIDTH) and not found["text"].requires_grad
    assert close(found["text"], expected)
    assert torch.equal(found["text_mask"], mask.bool())


def test_v5_reads_text_as_hunyuandit(pair: LoadedPair) -> None:
    pipeline = HunyuanDiTPipeline(
        None, pair.first.model, pair.first.tokenizer, None, None, None, None, False, pair.second.model,
        pair.second.tokenizer,
    )  # fmt: skip
    found = pair.encode_parts(CAPTIONS)
    for which, name in enumerate(("text", "second_text")):
        with torch.no_grad():
            expected, _, mask, _ = pipeline.encode_prompt(
                CAPTIONS,
                torch.device("cpu"),
                torch.float32,
                do_classifier_free_guidance=False,
                text_encoder_index=which,
            )
        assert found[name].shape == (5, (77, 256)[which], TINY_WIDTH)
        assert close(found[name], expected)
        assert torch.equal(found[f"{name}_mask"], mask.bool())


def test_v4_cuts_texts_to_140_tokens_for_the_second_encoder(pair_folder: Path, pair: LoadedPair) -> None:
    v4 = V4_TEXT.load(pair_folder)
    tokens = v4.second.tokenizer(LONG).input_ids
    assert len(tokens) > 256
    cut = v4.second.tokenizer.decode(tokens[:140])
    found, expected = v4.encode_parts([LONG, LEFT]), pair.encode_parts([cut, LEFT])
    assert int(found["second_text_mask"][0].sum()) == 141
    assert close(found["second_text"], expected["second_text"])
    assert close(found["text"], pair.encode_parts([LONG, LEFT])["text"])
    assert int(pair.encode_parts([LONG])["second_text_mask"].sum()) == 256


def test_padding_says_nothing_to_tokens_and_the_mask_tells_them_apart(t5_folder: Path) -> None:
    short, long = (T5().load(t5_folder, positions).encode_parts([LEFT, ""]) for positions in (40, 90))
    count = int(short["text_mask"][0].sum())
    assert count == len(T5().load(t5_folder).text.tokenizer(LEFT).input_ids)
    assert torch.equal(short["text_mask"][0], torch.arange(40) < count)
    assert close(short["text"][0, :count], long["text"][0, :count])
    assert int(short["text_mask"][1].sum()) == 1  # the closing token
    assert torch.equal(short["text_mask"].sum(1), long["text_mask"].sum(1))


def test_a_caption_does_not_depend_on_the_others(pair: LoadedPair) -> None:
    together = pair.encode_parts(CAPTIONS)
    for row, caption in enumerate(CAPTIONS):
        alone = pair.encode_parts([caption])
        assert all(torch.allclose(alone[name][0].float(), together[name][row].float(), atol=1e-5) for name in alone)


def test_captions_differ_clearly_in_embeddings_of_order_one(pair: LoadedPair) -> None:
    found = pair.encode_parts([LEFT, RIGHT, "a blue ball rolls left"])
    for name in ("text", "second_text"):
        assert 0.5 < float(found[name].std()) < 2
        for other in (1, 2):
            both = found[f"{name}_mask"][0] & found[f"{name}_mask"][other]
            x, y = found[name][0][both], found[name][other][both]
            assert float((x - y).pow(2).mean().sqrt() / x.std()) > 0.3
            assert float((x.mean(0) - y.mean(0)).norm() / x.mean(0).norm()) > 0.1


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_truncated_tells_exactly_when_something_is_cut_off(pair_folder: Path, t5: LoadedT5, extra: int) -> None:
    assert t5.truncated(["x" * (120 - 2 + extra), "short"]) == [extra > 0, False]  # a space before, a token behind
    v4, v5 = V4_TEXT.load(pair_folder), V5_TEXT.load(pair_folder)
    assert v5.first.truncated(["x" * (77 - 2 + extra)]) == [extra > 0]
    assert v5.second.truncated(["x" * (256 - 2 + extra)]) == [extra > 0]
    caption = "x" * (140 - 1 + extra)
    assert v4.second.truncated([caption]) == [extra > 0]
    assert v4.truncated([caption, LEFT]) == [extra > 0, False]  # a word of so many letters is one token to CLIP
    assert v5.truncated([caption, LONG]) == [False, True]
    assert v4.truncated([]) == []
    assert int(v4.encode_parts([caption])["second_text_mask"].sum()) == min(140 + extra, 140) + 1


def test_the_type_is_the_files_or_what_is_asked(pair_folder: Path) -> None:
    assert V5_TEXT.load(pair_folder).encode_parts([LEFT])["second_text"].dtype == torch.float32
    half = V5_TEXT.load(pair_folder, dtype=torch.bfloat16).encode_parts([LEFT])
    assert half["text"].dtype == half["second_text"].dtype == torch.bfloat16
    assert half["text_mask"].dtype == half["second_text_mask"].dtype == torch.bool


def test_networks_on_the_meta_device_are_the_loaded_ones(pair_folder: Path, t5_folder: Path) -> None:
    for kind, folder in ((V5_TEXT, pair_folder), (T5(), t5_folder)):
        empty, loaded = kind.empty(folder), kind.load(folder).model
        assert {n: p.shape for n, p in empty.named_parameters()} == {n: p.shape for n, p in loaded.named_parameters()}
        assert all(p.is_meta for p in empty.parameters())
        assert kind.widths(folder) == kind.tiny_widths
        assert kind.working_bytes(empty, 200, 2) > kind.working_bytes(empty, 200, 1) > 0
        assert set(kind.find(folder)) == set(kind.classes)
        tokenizers = (kind.tokenizer(None), kind.tokenizer(folder))
        first, again = (one(kind.prompts(one, CAPTIONS)).input_ids for one in tokenizers)
        assert first == again


def test_published_t5_has_a_sentencepiece_model_and_may_have_a_decoder(t5_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "published"
    (folder / "tokenizer").mkdir(parents=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([LEFT, RIGHT, *LONG.split()] * 5),
        model_prefix=str(folder / "tokenizer" / "spiece"),
        vocab_size=36,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    words = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "model_max_length": 512}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(words))
    whole = T5ForConditionalGeneration(T5().load(t5_folder).model.config)
    whole.save_pretrained(folder / "text_encoder")
    loaded = T5().load(folder)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer" / "spiece.model"))
    assert loaded.text.tokenizer(LEFT).input_ids == [*reference.encode(LEFT), 1]
    tokens = torch.tensor([[*reference.encode(LEFT), 1]])
    with torch.no_grad():
        expected = whole.eval().encoder(tokens)[0]
    found = loaded.encode_parts([LEFT])
    assert torch.allclose(found["text"][0][found["text_mask"][0]], expected[0], atol=1e-5)


def test_published_clip_has_a_vocabulary_and_mt5_is_taken(pair_folder: Path, pair: LoadedPair, tmp_path: Path) -> None:
    folder = tmp_path / "published"
    shutil.copytree(pair_folder, folder)
    tokenizer = pair.first.tokenizer
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_text("\n".join(words))
    (folder / "tokenizer" / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "model_max_length": 77})
    )
    config = pair.second.model.config
    small = MT5Config(vocab_size=config.vocab_size, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    MT5EncoderModel(small).save_pretrained(folder / "text_encoder_2")
    found = V5_TEXT.load(folder).encode_parts([LEFT, RIGHT])
    assert close(found["text"], pair.encode_parts([LEFT, RIGHT])["text"])
    assert found["second_text"].shape == (2, 256, 32)
    assert V5_TEXT.widths(folder) == {"text": TINY_WIDTH, "second_text": 32}


def test_a_pickle_of_tensors_loads_and_one_of_code_does_not(t5_folder: Path, t5: LoadedT5, tmp_path: Path) -> None:
    shutil.copytree(t5_folder, tmp_path, dirs_exist_ok=True)
    home = tmp_path / "text_encoder"
    weights = load_file(home / "model.safetensors")
    (home / "model.safetensors").unlink()
    torch.save(weights, home / "pytorch_model.bin")
    assert close(T5().load(tmp_path).encode_parts([LEFT])["text"], t5.encode_parts([LEFT])["text"])

    class Code:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"shared.weight": Code()}, home / "pytorch_model.bin")
    with pytest.raises(ModelError, match="holds more than tensors; give safetensors"):
        T5().load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_encoders_are_found_in_a_pipeline_beside_a_tokenizer_and_with_it(t5_folder: Path, tmp_path: Path) -> None:
    expected = (t5_folder / "text_encoder", t5_folder / "tokenizer")
    assert find_parts(t5_folder, "", T5_NETWORKS) == find_parts(expected[0], "", T5_NETWORKS) == expected
    for part in expected:
        shutil.copytree(part, tmp_path / "one", dirs_exist_ok=True)
    assert find_parts(tmp_path / "one", "", T5_NETWORKS) == (tmp_path / "one", tmp_path / "one")


def test_what_does_not_fit_is_refused_in_one_line(pair_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pair"
    shutil.copytree(pair_folder, folder)
    with pytest.raises(ModelError, match="a text encoder of type bert; this family's text_encoder is t5 or mt5"):
        T5().load(folder)
    weights = load_file(folder / "text_encoder_2" / "model.safetensors")
    lost = next(name for name in weights if "SelfAttention.q" in name)
    save_file({name: t for name, t in weights.items() if name != lost}, folder / "text_encoder_2" / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(ModelError, match=r"1 weights are missing \(encoder.block.0.*SelfAttention.q"):
        V5_TEXT.load(folder)
    shutil.rmtree(folder / "tokenizer_2")
    with pytest.raises(ModelError, match="no tokenizer_2; it belongs beside"):
        V5_TEXT.load(folder)
    shutil.rmtree(folder / "text_encoder_2")
    with pytest.raises(ModelError, match="text_encoder_2"):
        V5_TEXT.load(folder)
    with pytest.raises(ModelError, match="0 positions; at least 1"):
        V5_TEXT.load(pair_folder, 0)
    with pytest.raises(ModelError, match="90 positions; this encoder has 77"):
        V5_TEXT.load(pair_folder, 90)
    build_tiny_t5(tmp_path, "")
    config = tmp_path / "text_encoder" / "config.json"
    words = len(json.loads((tmp_path / "tokenizer" / "tokenizer.json").read_text())["model"]["vocab"])
    with pytest.raises(ModelError, match="no text encoder can be loaded|weights are missing|tokens, but"):
        config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": words - 5}))
        load_masked(find_parts(tmp_path, "", T5_NETWORKS), T5_NETWORKS, 10)


def test_the_tiny_encoders_follow_their_seed_and_leave_the_global_generator_alone(tmp_path: Path) -> None:
    torch.manual_seed(12345)
    state = torch.get_rng_state()
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        build_tiny_t5(tmp_path / name, "", seed)
    assert torch.equal(torch.get_rng_state(), state)
    one, same, other = (
        load_file(tmp_path / n / "text_encoder" / "model.safetensors") for n in ("one", "same", "other")
    )
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)
