"""An engine of vLLM in this process, asked from many threads: how it is started, fed, watched and ended.

An engine that dies or hangs is started again. What it had is asked again, one by one, so that a clip that kills
engines is lost alone.
"""

import asyncio
import os
import subprocess
import threading
import time
import uuid
import zlib
from collections.abc import Mapping
from concurrent.futures import wait
from contextlib import suppress
from typing import Any

from captioners.ask import AskFailed, Reply, Request, frame_times_s, video_metadata
from captioners.orphans import marked
from core.errors import RunError, UserError, nearest
from curation.types import Frames
from models.errors import one_line

MOST_DEATHS = 3
"""Deaths of the engine without an answer in between, after which the run ends."""
LOOK_S = 5.0


def silence() -> None:
    """Let vLLM report nothing to anybody and be quiet; before it is imported, for this process and the engine's."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Forked, the engine would inherit the locks of threads that it does not have.
    os.environ.setdefault("VLLM_WORKER_MULTIPROCESSING_METHOD", "spawn")


class Engine:
    """An engine with the event loop that it lives on; any thread may ask. One that dies is started again."""

    def __init__(self, arguments: Mapping[str, Any], template: Mapping[str, Any], patience_s: float):
        """Start it.

        Raises:
            UserError: vLLM is not installed, or takes the arguments for wrong.
            RunError: it cannot be started here.
        """
        silence()
        self._arguments, self._template, self._patience_s = dict(arguments), dict(template), patience_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()
        self._lock = threading.Lock()
        # What an engine had when it died is asked again one by one: only what kills alone is given up.
        self._suspects = threading.Lock()
        self._deaths = 0
        self._is_closed = False
        self._running: _Running | None = None
        try:
            self._running = self._start()
        except BaseException:
            self.close()
            raise

    def ask(self, request: Request) -> Reply:
        """Ask and wait; see `ask.Ask`.

        Raises:
            AskFailed: the engine does not take this request, or died of it.
            RunError: the engine dies again and again.
        """
        with suppress(_Dead):
            return self._once(request)
        with self._suspects, suppress(_Dead):
            return self._once(request)
        raise AskFailed("vLLM's engine died of this clip, or twice while it had it")

    def _once(self, request: Request) -> Reply:
        running = self._alive()
        try:
            reply = self._wait(running, request)
        except _Dead:
            self._bury(running)
            raise
        self._deaths = 0
        return reply

    def close(self) -> None:
        """End the engine and its processes; what is being asked fails."""
        with self._lock:
            running, self._running, self._is_closed = self._running, None, True
        if running is not None:
            running.end()
        if self._thread.is_alive():
            wait([asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop)], LOOK_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(LOOK_S)

    def _alive(self) -> "_Running":
        with self._lock:
            if self._running is None:
                if self._is_closed:
                    raise RunError("vLLM's engine has been closed")
                if self._deaths >= MOST_DEATHS:
                    raise RunError(
                        f"vLLM's engine died {self._deaths} times and answered nothing in between; its words are in "
                        f"the worker's log; lower gpu_memory, max_num_seqs or max_model_len; then resume"
                    )
                self._running = self._start()
            return self._running

    def _bury(self, running: "_Running") -> None:
        with self._lock:
            if self._running is not running:
                return
            self._running, self._deaths = None, self._deaths + 1
            running.end()

    def _wait(self, running: "_Running", request: Request) -> Reply:
        answer = asyncio.run_coroutine_threadsafe(running.answer(request), self._loop)
        began_s = time.monotonic()
        while not wait([answer], LOOK_S).done:
            if running.has_ended or time.monotonic() - max(began_s, running.last_reply_s) > self._patience_s:
                answer.cancel()
                raise _Dead
        if answer.cancelled():
            raise _Dead
        return answer.result()

    def _start(self) -> "_Running":
        return asyncio.run_coroutine_threadsafe(_started(self._arguments, self._template), self._loop).result()


class _Dead(Exception):
    """The engine answers nothing any more."""


class _Running:
    """An engine that has been started."""

    def __init__(self, engine: Any, template: dict[str, Any], watcher: "subprocess.Popen[bytes]"):
        self._engine, self._template, self._watcher = engine, template, watcher
        self._defaults = engine.model_config.get_diff_sampling_param()
        processor = engine.renderer.get_mm_processor()
        self._takes_video = "video" in processor.info.supported_mm_limits
        self._reads_times = processor.data_parser.video_needs_metadata
        self.last_reply_s = time.monotonic()
        self.has_ended = False

    async def answer(self, request: Request) -> Reply:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        chosen = {
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": zlib.crc32(request.clip_id.encode()),
            "output_kind": RequestOutputKind.FINAL_ONLY,
        }
        asked = f"{request.clip_id}/{uuid.uuid4().hex}"
        try:
            prompt = await self._prompt(request)
            async for output in self._engine.generate(prompt, SamplingParams(**(self._defaults | chosen)), asked):
                told = output
        except EngineDeadError:
            raise _Dead from None
        except (VLLMClientError, EngineGenerateError, ValueError) as error:  # too long, or too odd a shape of picture
            cause = _deepest(error)
            if not isinstance(cause, VLLMClientError | ValueError | RuntimeError):
                raise
            raise AskFailed(f"vLLM does not take the clip: {one_line(cause)}") from None
        self.last_reply_s = time.monotonic()
        said = told.outputs[0]
        return Reply(told.request_id.rpartition("/")[0], said.text, said.finish_reason == "length")

    async def _prompt(self, request: Request) -> dict[str, Any]:
        """Fill the model's own chat template; several frames are one video where the model takes videos."""
        from vllm.renderers import ChatParams

        frames = request.frames
        is_video = frames is not None and len(frames) > 1 and self._takes_video
        parts = (
            []
            if frames is None
            else video_parts(frames, reads_times=self._reads_times)
            if is_video
            else image_parts(frames)
        )
        content = [*parts, {"type": "text", "text": request.prompt}]
        how = ChatParams(chat_template_kwargs={"add_generation_prompt": True} | self._template)
        _, prompt = await self._engine.renderer.render_messages_async([{"role": "user", "content": content}], how)
        if is_video and frames is not None:
            video = (frames.pixels, video_metadata(frames) | {"do_sample_frames": False})
            prompt["multi_modal_data"] = {"video": [video]}
        prompt.pop("multi_modal_uuids", None)  # vLLM knows frames again by their content, never by a name
        return prompt

    def end(self) -> None:
        self.has_ended = True
        reader = self._engine.output_handler
        if reader is not None:  # else it would tell of the end as of a death
            reader.get_loop().call_soon_threadsafe(reader.cancel)
        self._engine.shutdown()
        self._watcher.kill()
        self._watcher.wait()


def video_parts(frames: Frames, *, reads_times: bool) -> list[dict[str, Any]]:
    """Return the parts of a message that stand for a video, with its times where the model has no other way to know."""
    parts: list[dict[str, Any]] = [{"type": "video_url", "video_url": None, "uuid": "frames"}]
    if not reads_times:
        times = ", ".join(f"{time_s:.1f} s" for time_s in frame_times_s(frames))
        parts.append({"type": "text", "text": f"(t = {times})"})
    return parts


def image_parts(frames: Frames) -> list[dict[str, Any]]:
    """Return the parts of a message that show frames as pictures: each after its time, a single one without."""
    from PIL import Image

    parts: list[dict[str, Any]] = []
    for time_s, rgb in zip(frame_times_s(frames), frames.pixels, strict=True):
        if len(frames) > 1:
            parts.append({"type": "text", "text": f"{time_s:.1f} s:"})
        parts.append({"type": "image_pil", "image_pil": Image.fromarray(rgb)})
    return parts


async def _cancel_all() -> None:
    """End what is still going on on the running loop."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _deepest(error: Exception) -> Exception:
    """Return the error that began it: what wraps it shows all the pixels."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


async def _started(arguments: dict[str, Any], template: dict[str, Any]) -> _Running:
    """Start an engine on the running loop, and somebody who ends its processes should this one be killed."""
    try:
        import vllm
        from vllm.v1.engine.async_llm import AsyncLLM
    except ImportError as error:
        raise UserError(
            f"caption: vLLM cannot be imported where the captioner runs ({one_line(error)}); "
            f"pip install 'selects-video[vllm]', or use the captioner endpoint"
        ) from None
    known = list(vllm.AsyncEngineArgs.__dataclass_fields__)
    for name in arguments:
        if name not in known:
            raise UserError(
                f"vLLM has no engine argument '{name}'{nearest(name, known)}", field="caption.settings.extra"
            )
    try:
        config = vllm.AsyncEngineArgs(**arguments).create_engine_config()
        if not config.model_config.is_multimodal_model:
            raise ValueError("a model that sees nothing")
    except (ValueError, OSError) as error:  # among them pydantic's, which name the argument
        raise UserError(f"caption: vLLM refuses {arguments['model']} as set: {one_line(error)}") from None
    with marked() as watcher:
        try:
            return _Running(AsyncLLM.from_vllm_config(config, disable_log_stats=True), template, watcher)
        except BaseException as error:
            watcher.kill()
            watcher.wait()
            if not isinstance(error, RuntimeError | ValueError | OSError):
                raise
            raise RunError(
                f"caption: vLLM cannot start {arguments['model']} here: {one_line(error)}; its words are in the "
                f"worker's log; often gpu_memory or tensor_parallel does not fit, or another process holds the GPU"
            ) from None
