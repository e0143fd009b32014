"""A tiny Qwen2.5-VL with random weights, saved as a published one would be: config, safetensors, tokenizer, processor.

Its text is gibberish of small letters, but it is a function of the prompt and of every frame, ends by itself now
and then, and is the same wherever the same weights run.
"""

from pathlib import Path

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if loop.first and message.role != 'system' -%}
<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif -%}
<|im_start|>{{ message.role }}
{% if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type in ('image', 'image_url') -%}
<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type in ('video', 'video_url') -%}
<|vision_start|><|video_pad|><|vision_end|>
{%- elif part.type == 'text' -%}
{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""
"""Qwen2.5-VL's own, in short."""


def save_tiny_vlm(folder: Path, seed: int = 0) -> Path:
    """Build the model (2 layers, hidden size 64, some 300 tokens, float32) and save it with its processor.

    Args:
        folder: is made; then holds what `from_pretrained` and vLLM read.
        seed: of the weights.
    """
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2Tokenizer,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    words = [*sorted(ByteLevel.alphabet()), *SPECIAL]
    ids = {word: index for index, word in enumerate(words)}
    tokenizer = Qwen2Tokenizer(
        vocab=ids,
        merges=[],
        eos_token="<|im_end|>",
        extra_special_tokens=list(SPECIAL),
        model_max_length=8192,
    )
    assert len(tokenizer) == len(words)
    size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 64}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(size=size),
        tokenizer,
        Qwen2VLVideoProcessor(size=size, cap_pixels_per_frame=False),
        chat_template=CHAT_TEMPLATE,
    )
    ending = {"eos_token_id": ids["<|im_end|>"], "bos_token_id": None, "pad_token_id": ids["<|endoftext|>"]}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(words),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "initializer_range": 0.2,
            **ending,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [1],
            "initializer_range": 0.2,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
        **ending,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config).eval()
        with torch.no_grad():
            # Logits of all but small letters and the end are 0, far below the best letter's.
            head = model.lm_head.weight
            kept = torch.zeros(len(words), 1)
            kept[[ids[letter] for letter in LETTERS]] = 1
            kept[ids["<|im_end|>"]] = 1.2
            head.copy_(torch.randn(head.shape) * kept)
    model.generation_config.update(**ending, do_sample=False)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
