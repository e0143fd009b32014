"""The models that are known by name: they fit their GPUs, and vLLM gives each its frames and their times."""

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from captioners.ask import Request
from captioners.presets import FIT, GPU_GB, PRESETS, Preset, gpus_of, repository_of
from captioners.vllm import Vllm, engine_arguments
from captioners.vllm_engine import _Running
from curation.types import Frames


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_each_has_as_few_gpus_as_hold_it(preset: Preset) -> None:
    assert preset.weights_gb <= preset.gpus * GPU_GB * FIT
    assert preset.gpus in (1, 2, 4, 8), "the number must divide the attention heads"
    assert preset.gpus == 1 or preset.weights_gb > preset.gpus / 2 * GPU_GB * FIT


@pytest.mark.parametrize("name", PRESETS)
def test_the_name_tells_the_repository_and_its_size(name: str) -> None:
    repository = repository_of(name)
    family, size = re.fullmatch(r"(.+)-([\d.]+)b(?:-a\d+b)?", name).groups()  # type: ignore[union-attr]
    assert re.sub(r"\W", "", family) in re.sub(r"\W", "", repository.lower())
    assert f"-{size}b" in repository.lower()
    assert PRESETS[name].parameters_b == pytest.approx(float(size), rel=0.5, abs=0.8)


def test_other_repositories_and_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    assert repository_of("somebody/some-model_1.5") == "somebody/some-model_1.5"
    assert repository_of(str(tmp_path)) == str(tmp_path)
    assert gpus_of("somebody/some-model_1.5") == 1


@pytest.mark.parametrize("word", ["qwen2.5-vl-8b", "internvl3", "a/b/c", "", "-"])
def test_what_is_neither_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="no preset, folder or owner/name"):
        repository_of(word)


TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type in ('image', 'image_url') -%}IMAGE
{%- elif part.type in ('video', 'video_url') -%}VIDEO
{%- elif part.type == 'text' -%}{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""
TEXT = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "bos_token_id": None,
}
VISION = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
PIXELS = {"height": 56, "width": 56}


def template(image: str, video: str) -> str:
    return TEMPLATE.replace("IMAGE", image).replace("VIDEO", video)


def tokenizer(*special: str, **named: str) -> tuple[Any, dict[str, int]]:
    """Return a tokenizer of bytes and special tokens, and the numbers of these."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *special)
    ids = {word: number for number, word in enumerate([*sorted(ByteLevel.alphabet()), *special])}
    made = Qwen2Tokenizer(
        vocab=ids, merges=[], eos_token="<|im_end|>", extra_special_tokens=list(special), model_max_length=4096, **named
    )
    return made, ids


def qwen3_vl(folder: Path) -> None:
    from transformers import Qwen2VLImageProcessor, Qwen3VLConfig, Qwen3VLProcessor, Qwen3VLVideoProcessor

    words, ids = tokenizer("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    size = {"shortest_edge": 32 * 32, "longest_edge": 32 * 32 * 64}
    form = template("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>")
    pictures = Qwen2VLImageProcessor(size=size, patch_size=16)
    videos = Qwen3VLVideoProcessor(size=size | {"longest_edge": 32 * 32 * 512})
    Qwen3VLProcessor(pictures, words, videos, chat_template=form).save_pretrained(folder)
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6], "mrope_interleaved": True}
    text = TEXT | {"model_type": "qwen3_vl_text", "vocab_size": len(ids), "head_dim": 32, "rope_parameters": rope}
    sight = {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 64}
    Qwen3VLConfig(
        text_config=text,
        vision_config=sight | {"deepstack_visual_indexes": [0], "num_position_embeddings": 64},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        architectures=["Qwen3VLForConditionalGeneration"],
    ).save_pretrained(folder)


def internvl(folder: Path) -> None:
    from transformers import GotOcr2ImageProcessor, InternVLConfig, InternVLProcessor, InternVLVideoProcessor

    named = {"start_image": "<img>", "end_image": "</img>", "context_image": "<IMG_CONTEXT>", "video": "<video>"}
    words, ids = tokenizer(*named.values(), **{f"{name}_token": token for name, token in named.items()})
    for name, token in named.items():
        setattr(words, f"{name}_token_id", ids[token])
    form = template("<IMG_CONTEXT>\n", "<video>\n")
    pictures, videos = GotOcr2ImageProcessor(size=PIXELS, crop_to_patches=False), InternVLVideoProcessor(size=PIXELS)
    InternVLProcessor(pictures, words, videos, image_seq_length=4, chat_template=form).save_pretrained(folder)
    InternVLConfig(
        text_config=TEXT | {"vocab_size": len(ids)},
        vision_config=VISION | {"image_size": [56, 56], "patch_size": [14, 14]},
        image_token_id=ids["<IMG_CONTEXT>"],
        image_seq_length=4,
        architectures=["InternVLForConditionalGeneration"],
    ).save_pretrained(folder)


def llava_onevision(folder: Path) -> None:
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    words, ids = tokenizer("<image>", "<video>")
    tiles = [[56, 56], [112, 56], [56, 112]]
    pictures = LlavaOnevisionImageProcessor(size=PIXELS, image_grid_pinpoints=tiles)
    LlavaOnevisionProcessor(
        pictures,
        words,
        LlavaOnevisionVideoProcessor(size=PIXELS),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=template("<image>\n", "<video>\n"),
    ).save_pretrained(folder)
    sight = VISION | {"model_type": "siglip_vision_model", "image_size": 56, "patch_size": 14, "vision_use_head": False}
    LlavaOnevisionConfig(
        text_config=TEXT | {"vocab_size": len(ids)},
        vision_config=sight,
        image_token_index=ids["<image>"],
        video_token_index=ids["<video>"],
        image_grid_pinpoints=tiles,
        vision_feature_layer=-1,
        architectures=["LlavaOnevisionForConditionalGeneration"],
    ).save_pretrained(folder)


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("build", "family", "one", "five"),
    [
        (qwen3_vl, "qwen3-vl", r"<\|image_pad\|>", r".*<0\.6 seconds>.*<1\.8 seconds>.*<2\.7 seconds>.*"),
        (internvl, "internvl3", "<IMG_CONTEXT>", r"(Frame\d: <img>(<video>|<IMG_CONTEXT>)+</img>\n?){5}.*TIMES"),
        (llava_onevision, "llava-onevision", "<image>", "(<video>)+\\s*TIMES"),
    ],
    ids=["Qwen3-VL", "InternVL3", "LLaVA-OneVision"],
)
def test_every_frame_and_its_time_reach_the_model_as_it_was_taught(
    build: Callable[[Path], None], family: str, one: str, five: str, tmp_path: Path
) -> None:
    build(tmp_path)
    reads_times, told = read(tmp_path, 1)
    assert re.search(f"user\n.*{one}.*Describe it", told, re.DOTALL) and "t = " not in told
    reads_times, told = read(tmp_path, 5)
    times = re.escape("(t = 0.3 s, 0.9 s, 1.5 s, 2.1 s, 2.7 s)")
    assert re.search(f"user\n{five.replace('TIMES', times)}\\s*Describe it", told, re.DOTALL)
    assert told.rstrip().endswith("assistant")
    assert {preset.is_timed for name, preset in PRESETS.items() if name.startswith(family)} == {reads_times}


def read(folder: Path, count: int) -> tuple[bool, str]:
    """Return whether a model reads times itself, and the whole prompt in its own tokens for some frames."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    import vllm
    from vllm.renderers import renderer_from_config

    settings = Vllm(model=str(folder), device="cpu", dtype="float32", max_model_len=2048)
    config = vllm.AsyncEngineArgs(**engine_arguments(settings, str(folder)), enforce_eager=True).create_engine_config()
    renderer = renderer_from_config(config)
    engine = SimpleNamespace(renderer=renderer, model_config=config.model_config)
    running = _Running(engine, {}, None)  # type: ignore[arg-type]
    pixels = np.random.default_rng(0).integers(0, 256, (count, 56, 84, 3), dtype=np.uint8)
    asked = Request("clip", "Describe it.", Frames(pixels, 7 + 0.6 * (np.arange(count) + 0.5)), 16, 0.0)

    async def told() -> str:
        (prompt,) = await renderer.render_cmpl_async([await running._prompt(asked)])
        return str(renderer.get_tokenizer().decode(prompt["prompt_token_ids"]))

    try:
        return running._reads_times, asyncio.run(told())
    finally:
        renderer.shutdown()
