"""CLIP towers: the same numbers as open_clip's own way, each frame once, full batches, errors in one line."""

import dataclasses
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

from PIL import Image  # noqa: E402
from tiny_clip import CONFIG, DIM, build_tiny_clip  # noqa: E402

from models.errors import ModelError  # noqa: E402
from models.scorers import clip  # noqa: E402
from models.scorers.clip import TOWERS, Published, embedding_dim, load_tower, needed_weights  # noqa: E402
from models.weights.table import WEIGHTS, Weights  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def tower(folder, monkeypatch):
    """A tower that has seen nothing yet."""
    monkeypatch.setattr(clip, "_LOADED", {})
    return load_tower(str(folder), device="cpu")


def pictures(count, seed=0, sizes=((40, 60), (33, 32), (64, 24), (200, 100))):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*sizes[i % len(sizes)], 3), dtype=np.uint8) for i in range(count)]


def counted(tower, monkeypatch):
    """Record how many pictures go through the network at a time."""
    sizes, encode = [], tower._model.encode_image
    monkeypatch.setattr(
        tower._model, "encode_image", lambda pixels, **how: sizes.append(len(pixels)) or encode(pixels, **how)
    )
    return sizes


def plainly(folder, images):
    """Embed as open_clip's own examples do, one picture at a time."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    with torch.no_grad():
        features = [model.encode_image(preprocess(Image.fromarray(image))[None])[0] for image in images]
    return np.stack([(f / f.norm()).numpy() for f in features])


def test_pictures_get_the_vectors_that_open_clip_gives_them(folder, tower):
    images = pictures(7)
    vectors = tower.encode_images(images, batch=3)
    assert vectors.shape == (7, DIM) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(7), abs=1e-6)
    assert vectors == pytest.approx(plainly(folder, images), abs=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 0.05, "a tower that gives all the same would pass the rest"


def test_texts_get_the_vectors_that_open_clip_gives_them(folder, tower):
    texts = ["a red house", "a blue boat on the sea", "一只猫"]
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    with torch.no_grad():
        wanted = model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(texts), normalize=True).numpy()
    assert tower.encode_texts(texts) == pytest.approx(wanted, abs=1e-5)
    assert tower.encode_texts([]).shape == (0, DIM)
    assert tower.encode_images([]).shape == (0, DIM)


def test_equal_pictures_are_encoded_once_within_a_call_and_between_calls(tower, monkeypatch):
    sizes = counted(tower, monkeypatch)
    a, b, c = pictures(3)
    first = tower.encode_images([a, b, a.copy()])
    second = tower.encode_images([c, b.copy()])
    assert sizes == [2, 1]
    assert (first[0] == first[2]).all() and (second[1] == first[1]).all()


def test_pictures_of_the_same_bytes_and_other_shapes_are_not_equal(tower):
    image = pictures(1)[0]
    turned = tower.encode_images([image, image.reshape(60, 40, 3)])
    assert np.abs(turned[0] - turned[1]).max() > 1e-3


def test_what_is_remembered_is_bounded(tower, monkeypatch):
    monkeypatch.setattr(clip, "REMEMBERED", 2)
    sizes = counted(tower, monkeypatch)
    a, b, c = pictures(3)
    tower.encode_images([a, b, c])
    tower.encode_images([b, c])
    tower.encode_images([a])
    assert sizes == [3, 1] and len(tower._known) == 2


def test_batches_are_full_and_the_order_is_kept(tower, monkeypatch):
    sizes = counted(tower, monkeypatch)
    images = pictures(11, seed=4)
    vectors = tower.encode_images(images, batch=4)
    assert sizes == [4, 4, 3]
    tower._known.clear()
    for i in (10, 3, 7):
        assert tower.encode_images([images[i]])[0] == pytest.approx(vectors[i], abs=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_near_and_comes_out_as_float32_of_unit_length(folder, tower, dtype):
    images = pictures(4)
    half = load_tower(str(folder), device="cpu", dtype=dtype).encode_images(images)
    assert half.dtype == np.float32
    assert np.linalg.norm(half, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert (half * tower.encode_images(images)).sum(axis=1).min() > 0.999


def test_several_threads_may_ask_at_once(folder, tower):
    images = pictures(12)
    with ThreadPoolExecutor(4) as threads:
        shared = list(threads.map(lambda i: tower.encode_images(images[i : i + 4])[0], range(8)))
    assert np.stack(shared) == pytest.approx(plainly(folder, images[:8]), abs=1e-5)


def test_all_who_ask_for_the_same_share_one_tower(folder, tower):
    assert load_tower(str(folder), None, "auto" if not torch.cuda.is_available() else "cpu", "float32") is tower
    assert load_tower(str(folder), device="cpu", dtype="bfloat16") is not tower


def test_no_chunk_of_a_long_caption_is_cut_off(tower):
    text = "A very long caption tells of a red house, a boat and 17 gulls. " * 9 + "The end is near"
    chunks = tower.split_text(text)
    assert len(chunks) > 2 and " ".join(chunks) == text
    ends = tower._tokenizer(chunks).argmax(dim=1)  # the end mark is the largest token
    longer = [len(tower._tokenizer.encode(chunk)) + 1 for chunk in chunks]
    assert ends.tolist() == longer and max(longer) <= 76
    words = "cat " * 200
    assert tower._tokenizer(tower.split_text(words)).argmax(dim=1).tolist() == [76, 76, 51], "75 words fill the window"
    assert tower._tokenizer([text]).argmax() == 76 < len(tower._tokenizer.encode(text)), "alone it would be"


def test_a_published_tower_loads_from_a_weights_folder_under_its_name(folder, tower, tmp_path, monkeypatch):
    content = (folder / "open_clip_model.safetensors").read_bytes()
    entry = Weights("a/b", "main", "open_clip_model.safetensors", hashlib.sha256(content).hexdigest(), "MIT", 1)
    monkeypatch.setitem(WEIGHTS, "clip-tiny", entry)
    monkeypatch.setitem(TOWERS, "Tiny", Published("tiny-quickgelu", "clip-tiny", DIM))
    (tmp_path / "tiny-quickgelu.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(tmp_path / "tiny-quickgelu.json")
    (tmp_path / "clip-tiny.safetensors").write_bytes(content)
    monkeypatch.setenv("SELECTS_WEIGHTS", str(tmp_path))
    images = pictures(3)
    assert load_tower("Tiny", device="cpu").encode_images(images) == pytest.approx(tower.encode_images(images))
    assert needed_weights("Tiny") == ("clip-tiny",) and needed_weights(str(folder)) == ()
    monkeypatch.setitem(WEIGHTS, "clip-tiny", dataclasses.replace(entry, sha256="0" * 64))
    monkeypatch.setattr(clip, "_LOADED", {})
    with pytest.raises(ModelError, match="not the published clip-tiny"):
        load_tower("Tiny", device="cpu")


def test_the_published_towers_are_built_as_openai_trained_them():
    for name, tower in TOWERS.items():
        config = open_clip.get_model_config(tower.architecture)
        assert config["quick_gelu"] is True, name
        assert config["embed_dim"] == embedding_dim(name)
        assert tower.weights in WEIGHTS
        vision = config["vision_cfg"]
        side, patch, width = vision["image_size"], vision["patch_size"], vision["width"]
        assert f"-{patch}" in name and (side == 336) == name.endswith("336")
        # The file must have room for at least the vision layers: 12 width² numbers each, 4 bytes a number.
        assert WEIGHTS[tower.weights].size_bytes > 4 * 12 * width**2 * vision["layers"]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: (f / "open_clip_config.json").unlink(), "neither one of ViT-L-14"),
        (lambda f: (f / "open_clip_config.json").write_text("{"), "neither one of ViT-L-14"),
        (lambda f: (f / "open_clip_config.json").write_text('{"model_cfg": []}'), "neither one of ViT-L-14"),
        (lambda f: (f / "open_clip_model.safetensors").unlink(), "no such file"),
        (lambda f: (f / "open_clip_model.safetensors").write_bytes(b"x" * 50), "not loadable as CLIP"),
        (
            lambda f: (f / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG | {"embed_dim": 8}})),
            "not loadable as CLIP",
        ),
    ],
)
def test_a_folder_that_is_no_clip_is_told_of_in_one_line(tmp_path, spoil, told):
    folder = build_tiny_clip(tmp_path / "clip")
    spoil(folder)
    with pytest.raises(ModelError, match=told) as error:
        load_tower(str(folder), device="cpu")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_a_device_or_dtype_that_is_not_there_is_told(folder):
    with pytest.raises(ModelError, match="no dtype 'int4'"):
        load_tower(str(folder), device="cpu", dtype="int4")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="no GPU here"):
            load_tower(str(folder), device="cuda:0")


def test_the_length_of_embeddings_is_known_without_loading(folder):
    assert embedding_dim(str(folder)) == DIM
    with pytest.raises(ModelError, match="neither one of"):
        embedding_dim("ViT-Z-1")
