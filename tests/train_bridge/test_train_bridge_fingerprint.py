"""The names of cache entries: they change with what matters, and with nothing else."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from caches import LARGE, SMALL
from pipelines import write_pipeline

from train_bridge.cache import fingerprint
from train_bridge.cache.encoders import FolderEncoders
from train_bridge.cache.fingerprint import content_ids, latent_key, text_key, weights_id


def test_keys_differ_in_whatever_matters_and_stay_as_they_are():
    base = ("c" * 32, None, SMALL, "vae")
    others = [
        ("d" * 32, None, SMALL, "vae"),
        ("c" * 32, (0.0, None), SMALL, "vae"),
        ("c" * 32, (0.0, 1.0), SMALL, "vae"),
        ("c" * 32, (0.0, 1.5), SMALL, "vae"),
        ("c" * 32, None, LARGE, "vae"),
        ("c" * 32, None, replace(SMALL, height_px=32, width_px=16), "vae"),
        ("c" * 32, None, SMALL, "vae2"),
    ]
    keys = [latent_key(*arguments) for arguments in (base, *others)]
    assert len(set(keys)) == len(keys) and all(len(key) == 32 for key in keys)
    assert latent_key("c" * 32, (0, 1), SMALL, "vae") == latent_key("c" * 32, (0.0, 1.0000000001), SMALL, "vae")
    assert text_key("a", "t") != text_key("a", "u") != text_key("b", "t")
    # A change here makes every user's cache worthless: raise CODE_VERSION on purpose, never by accident.
    assert fingerprint.CODE_VERSION == 1 and latent_key(*base) == "24efd82dfa9a596c3d653159100d9ea8"
    assert fingerprint.TEXT_CODE_VERSION == 1 and text_key("a", "t") == "545b729eba72708710a7fc9284fba77b"


def test_content_ids_know_unread_files(tmp_path, monkeypatch):
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file in files:
        file.write_bytes(file.name.encode() * 1000)
    memo = tmp_path / "files.parquet"
    found = content_ids([*files, tmp_path / "none", files[0]], memo)
    assert found.ids == {f: hashlib.blake2b(f.read_bytes(), digest_size=16).hexdigest() for f in files}
    assert list(found.errors) == [tmp_path / "none"]
    read = []
    plain = fingerprint.file_id
    monkeypatch.setattr(fingerprint, "file_id", lambda path: read.append(path.name) or plain(path))
    assert content_ids(files, memo).ids == found.ids and not read
    files[1].write_bytes(b"other")
    changed = content_ids(files, memo)
    assert read == ["b"] and changed.ids[files[1]] != found.ids[files[1]]
    memo.write_bytes(b"damaged")
    assert content_ids(files, memo).ids == changed.ids and sorted(read) == ["a", "b", "b", "c"]
    whole = memo.read_bytes()
    footer = 8 + int.from_bytes(whole[-8:-4], "little")  # Parquet's description of itself stands at the end
    memo.write_bytes(whole[:-footer] + b"\xff" * (footer - 8) + whole[-8:])
    assert content_ids(files, memo).ids == changed.ids and len(read) == 7


def test_weights_are_known_by_every_part_of_their_content(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "WHOLE_BELOW_BYTES", 1000)
    monkeypatch.setattr(fingerprint, "SAMPLE_BYTES", 16)
    folder = tmp_path / "vae"
    (folder / "tokenizer").mkdir(parents=True)
    rng = np.random.default_rng(0)
    (folder / "config.json").write_text(json.dumps({"latent_channels": 4}))
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    (folder / "small.safetensors").write_bytes(rng.bytes(900))
    (folder / "large.safetensors").write_bytes(rng.bytes(5000))
    first = weights_id(folder)
    (folder / "README.md").write_text("words")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.json").write_text("{}")
    assert weights_id(folder) == first
    moved = folder.rename(tmp_path / "elsewhere")
    assert weights_id(moved) == first
    seen = {first}
    for name in ("config.json", "tokenizer/vocab.json", "small.safetensors"):
        content = bytearray((moved / name).read_bytes())
        content[len(content) // 2] ^= 1
        (moved / name).write_bytes(bytes(content))
        seen.add(weights_id(moved))
    for at in (0, 4999):  # the first and the last byte are always among the blocks
        content = bytearray((moved / "large.safetensors").read_bytes())
        content[at] ^= 1
        (moved / "large.safetensors").write_bytes(bytes(content))
        seen.add(weights_id(moved))
    with (moved / "large.safetensors").open("ab") as file:
        file.write(b"\0")
    seen.add(weights_id(moved))
    assert len(seen) == 7
    assert weights_id(moved / "large.safetensors") not in seen
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError):
        weights_id(tmp_path / "empty")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return write_pipeline(tmp_path_factory.mktemp("pipeline"))


def ids_of(pipeline):
    return FolderEncoders.of(pipeline / "vae", pipeline, 64, half=False)


def change(path):
    content = path.read_bytes()
    is_text = path.suffix != ".safetensors"
    path.write_bytes(content + b"\n" if is_text else content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize(
    "name",
    ["scheduler/scheduler_config.json", "transformer/config.json", "transformer/diffusion_pytorch_model.safetensors",
     "sampling.json", "model_index.json", "text_encoder/generation_config.json"],
)  # fmt: skip
def test_what_encoding_does_not_read_is_no_part_of_its_name(pipeline, name):
    """Editing a base's scheduler encodes nothing again; nor does training its transformer."""
    before = ids_of(pipeline)
    old = (pipeline / name).read_bytes()
    try:
        change(pipeline / name)
        assert ids_of(pipeline) == before
        assert before.earlier_ids()[1] != ids_of(pipeline).text_id
    finally:
        (pipeline / name).write_bytes(old)


@pytest.mark.parametrize(
    ("name", "latents", "texts"),
    [("vae/diffusion_pytorch_model.safetensors", True, False), ("text_encoder/model.safetensors", False, True),
     ("text_encoder/config.json", False, True), ("tokenizer/tokenizer.json", False, True),
     ("tokenizer/tokenizer_config.json", False, True), ("tokenizer/chat_template.jinja", False, True)],
)  # fmt: skip
def test_what_encoding_reads_is_part_of_its_name(pipeline, name, latents, texts):
    before = ids_of(pipeline)
    old = (pipeline / name).read_bytes()
    try:
        change(pipeline / name)
        after = ids_of(pipeline)
        assert (after.vae_id != before.vae_id, after.text_id != before.text_id) == (latents, texts)
    finally:
        (pipeline / name).write_bytes(old)


def test_a_vae_is_known_by_the_keys_that_encoding_reads(pipeline, tmp_path):
    """Another scale of its latents, or the note that an inpaint export leaves, changes no moments."""
    file = pipeline / "vae" / "config.json"
    before, old = ids_of(pipeline), file.read_bytes()
    try:
        values = json.loads(old)
        file.write_text(json.dumps(values | {"scaling_factor": 0.5, "cache_mag_vae": True, "_name_or_path": "x"}))
        assert ids_of(pipeline) == before
        file.write_text(json.dumps(values | {"layers_per_block": 9}))
        assert ids_of(pipeline).vae_id != before.vae_id
    finally:
        file.write_bytes(old)
    assert ids_of(pipeline).earlier_ids() == (
        weights_id(pipeline / "vae"), fingerprint.digest(weights_id(pipeline), 64)
    )  # fmt: skip


def test_an_encoder_in_one_folder_with_its_tokenizer_is_read_once(pipeline, tmp_path, monkeypatch):
    for part in ("text_encoder", "tokenizer"):
        for file in (pipeline / part).iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "below").mkdir()
    read, plain = [], fingerprint.file_id
    monkeypatch.setattr(fingerprint, "file_id", lambda path: read.append(path.name) or plain(path))
    first = fingerprint.text_weights_id(tmp_path, tmp_path)
    assert len(read) == len(set(read)) and {"config.json", "model.safetensors", "tokenizer.json"} <= set(read)
    (tmp_path / "below" / "config.json").write_text("{}")
    assert fingerprint.text_weights_id(tmp_path, tmp_path) == first
    with pytest.raises(FileNotFoundError):
        fingerprint.vae_weights_id(tmp_path / "no")
