"""Captions from any image-text-to-text model of transformers, in this process: for a laptop or a single GPU.

One clip at a time; many GPUs or many clips want `vllm` or `endpoint`. Weights are safetensors and no code of a
model's repository runs: models that need their own code are for a server (`endpoint`).
"""

import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from captioners.ask import Ask, AskFailed, Reply, Request, frame_times_s, video_metadata
from captioners.asking import Asking, Describe, described
from captioners.endpoint import Server
from captioners.presets import weights_gb_of
from core.settings import key
from curation.types import Frames, Sampling
from models.errors import ModelError, check_weights, one_line
from models.weights.repositories import find_repository

WORK_GB = 4.0
"""of a GPU, beside weights: frames, activations and the attention's cache of one clip"""


@dataclass(frozen=True)
class Transformers:
    """Captions from a model that runs right here."""

    model: str = key("Qwen/Qwen2.5-VL-3B-Instruct", "a folder, or owner/name on the hub")
    revision: str | None = key(None, "commit, tag or branch on the hub; null: the newest")
    device: Literal["auto", "cpu", "cuda", "mps"] = key("auto", "auto: the first GPU if there is one, else the CPU")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = key("auto", "auto: the files' own; float32 on a CPU")
    asking: Asking = key(Asking(), "what it is asked")
    rewriter: Server | None = key(None, "a server, to merge descriptions (asking.rewrite); null: the model itself")

    pool: ClassVar[str | None] = "caption"

    @property
    def sampling(self) -> Sampling | None:
        """RGB frames at uniform times."""
        return self.asking.sampling

    @property
    def gpus(self) -> float:
        """GPUs that each worker books where there are any."""
        return 0.0 if self.device == "cpu" else 1.0

    @property
    def gpu_memory_gb(self) -> float | None:
        """GB that each worker takes of its GPU, as its preset says; null for other models."""
        weights_gb = weights_gb_of(self.model)
        if weights_gb is None:
            return None
        return weights_gb * (2 if self.dtype == "float32" else 1) + WORK_GB

    @property
    def slots(self) -> int:
        """One clip after another."""
        return 1

    def load(self) -> Describe:
        """Load the model and give the captioning function.

        Raises:
            ModelError: the model is nowhere to be had, is not one of this kind, or is damaged.
        """
        folder = find_repository(self.model, self.revision)
        ask = load_ask(folder, self.device, self.dtype)
        name = folder.name if Path(self.model).is_dir() else self.model
        return described(ask, self.asking, name, self.rewriter.open()[0] if self.rewriter else None)


def load_ask(folder: Path, device: str = "auto", dtype: str = "auto") -> Ask:
    """Load a model with its processor and give the function that asks it; threads take turns.

    Args:
        folder: configuration, safetensors, tokenizer and processor.
        device: `auto`, or torch's name of one.
        dtype: `auto`, or torch's name of one.

    Raises:
        ModelError: not such a folder.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    from models.accelerator import own_device

    logging.disable_progress_bar()
    if device == "auto":
        device = str(own_device())
    if dtype == "auto" and device == "cpu":
        dtype = "float32"  # what CPUs compute fastest and best, whatever the files hold
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
        check_weights(report, folder)
        model = model.to(device).eval()
    except (OSError, ValueError, KeyError, SafetensorError, torch.OutOfMemoryError) as error:
        raise ModelError(
            f"{folder}: no image-text-to-text model that transformers loads ({one_line(error)}); "
            f"give a complete folder of one, or serve it and use the captioner endpoint"
        ) from None
    tokenizer = getattr(processor, "tokenizer", None)
    said = "describe this video"
    if tokenizer is None or tokenizer.decode(tokenizer.encode(said, add_special_tokens=False)).strip().lower() != said:
        raise ModelError(f"{folder}: its tokenizer does not know words; a file such as tokenizer.json is missing")
    if getattr(processor, "chat_template", None) is None:
        raise ModelError(f"{folder}: the model has no chat template; give an instruction-tuned one")
    takes_video = getattr(processor, "video_processor", None) is not None
    turns = threading.Lock()

    def ask(request: Request) -> Reply:
        try:
            inputs = model_inputs(processor, request, takes_video=takes_video).to(device, dtype=model.dtype)
        except ValueError as error:  # such as a picture 200 times as wide as high
            raise AskFailed(f"the model's processor refuses the clip: {one_line(error)}") from None
        how: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if request.temperature > 0:
            how = {"do_sample": True, "temperature": request.temperature}
        try:
            with turns, torch.inference_mode():
                torch.manual_seed(zlib.crc32(request.clip_id.encode()))
                told = model.generate(**inputs, max_new_tokens=request.max_tokens, **how)[0]
        except torch.OutOfMemoryError:
            raise AskFailed(
                f"not enough memory on {device} for {len(request.frames or ())} frames: "
                f"lower caption.settings.asking.frames or short_side_px"
            ) from None
        said = told if model.config.is_encoder_decoder else told[inputs["input_ids"].shape[1] :]
        ends = model.generation_config.eos_token_id
        ended = len(said) > 0 and said[-1].item() in (ends if isinstance(ends, list) else [ends])
        text = processor.batch_decode(said[None], skip_special_tokens=True)[0]
        return Reply(request.clip_id, text, len(said) >= request.max_tokens and not ended)

    return ask


def model_inputs(processor: Any, request: Request, *, takes_video: bool) -> Any:
    """Turn a request into a model's tensors, by its own chat template and preprocessing.

    Several frames are one video with its times where the processor takes videos, else pictures, each after its time.

    Raises:
        ValueError: the processor refuses the pictures.
    """
    content, how = _pictures(request.frames, takes_video=takes_video) if request.frames is not None else ([], {})
    content.append({"type": "text", "text": request.prompt})
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=how,
    )


def _pictures(frames: Frames, *, takes_video: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    if len(frames) > 1 and takes_video:
        return [{"type": "video", "video": frames.pixels}], {
            "do_sample_frames": False,
            "video_metadata": [video_metadata(frames)],
        }
    from PIL import Image

    content: list[dict[str, Any]] = []
    for time_s, rgb in zip(frame_times_s(frames), frames.pixels, strict=True):
        if len(frames) > 1:
            content.append({"type": "text", "text": f"{time_s:.1f} s:"})
        content.append({"type": "image", "image": Image.fromarray(rgb)})
    return content, {}
