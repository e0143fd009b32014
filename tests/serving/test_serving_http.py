"""The HTTP API over a tiny pipeline: what clients ask, what they get, and what they cannot have."""

import base64
import io
import json
import threading
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from pipelines import moving, picture, write_pipeline
from served import QUICK, Served, serve

from sampling.files import write_sample
from sampling.model import open_model
from sampling.request import Request, SegmentPrompt
from sampling.settings_file import settings_within


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("pipeline") / "tiny")


@pytest.fixture(scope="module")
def server(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "data"
    started = serve([str(pipeline)], folder)
    yield started
    assert started.stop() == 0


def data_url(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def frames_of(content: bytes) -> np.ndarray:
    with av.open(io.BytesIO(content)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def fault(answer: httpx.Response, status: int) -> dict:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    return answer.json()["error"]


def test_a_job_is_made_told_of_and_removed(server: Served, pipeline: Path, tmp_path: Path) -> None:
    created = server.client.post("/v1/videos", json=QUICK | {"seed": 5})
    assert created.status_code == 200
    job = created.json()
    assert (job["object"], job["status"], job["model"]) == ("video", "queued", "tiny")
    done = server.ended(job["id"])
    assert (done["status"], done["progress"], done["size"], done["error"]) == ("completed", 100, "48x48", None)
    assert done["settings"]["seed"] == 5
    assert str(pipeline) not in json.dumps(done)
    content = server.client.get(f"/v1/videos/{job['id']}/content")
    assert content.headers["content-type"] == "video/mp4"
    (tmp_path / "a.mp4").write_bytes(content.content)
    assert settings_within(tmp_path / "a.mp4")["seed"] == 5, "the file itself says how it was made"
    sheet = server.client.get(f"/v1/videos/{job['id']}/content", params={"variant": "thumbnail"})
    assert Image.open(io.BytesIO(sheet.content)).format == "PNG"
    torch.set_num_threads(1)
    ours = open_model(pipeline).sample(Request("a red disc", width_px=48, height_px=48, num_frames=9, steps=2, seed=5))
    write_sample(ours, tmp_path / "b.mp4")
    assert (tmp_path / "b.mp4").read_bytes() == content.content, "byte for byte what the sampler makes"
    listed = server.client.get("/v1/videos", params={"limit": 1}).json()
    assert [entry["id"] for entry in listed["data"]] == [job["id"]]
    assert server.client.delete(f"/v1/videos/{job['id']}").json()["deleted"]
    assert fault(server.client.get(f"/v1/videos/{job['id']}"), 404)["param"] == "video_id"


def test_equal_requests_have_equal_bytes_and_are_computed_once(server: Served) -> None:
    asked = QUICK | {"seed": 77}
    first, second = (server.client.post("/v1/videos", json=asked).json()["id"] for _ in range(2))
    assert server.ended(first)["status"] == server.ended(second)["status"] == "completed"
    third = server.client.post("/v1/videos", json=asked).json()
    assert third["status"] == "completed", "at once: the file is there"
    contents = {server.client.get(f"/v1/videos/{name}/content").content for name in (first, second, third["id"])}
    assert len(contents) == 1
    server.client.delete(f"/v1/videos/{first}")
    assert server.client.get(f"/v1/videos/{second}/content").status_code == 200, "each has a file of its own"


def test_openais_client_works(server: Served) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["tiny"]
    video = client.videos.create(
        prompt="a red disc", model="tiny", seconds="1", size="48x48", extra_body={"num_inference_steps": 2}
    )
    assert server.ended(video.id)["seconds"] == "1.125", "9 frames at 8 fps: the nearest to 1 s that the model makes"
    assert client.videos.retrieve(video.id).status == "completed"
    assert frames_of(client.videos.download_content(video.id).read()).shape == (9, 48, 48, 3)
    assert video.id in [entry.id for entry in client.videos.list()]
    assert client.videos.delete(video.id).deleted
    made = client.images.generate(
        prompt="a disc", n=2, size="48x48", response_format="b64_json", extra_body={"num_inference_steps": 2}
    )
    shapes = [Image.open(io.BytesIO(base64.b64decode(image.b64_json))).size for image in made.data]
    assert shapes == [(48, 48)] * 2
    assert made.data[0].b64_json != made.data[1].b64_json
    with pytest.raises(openai.BadRequestError, match="multiples of 16") as caught:
        client.videos.create(prompt="a", size="50x48")
    assert caught.value.type == "invalid_request_error"


def test_media_come_in_forms_and_as_data_urls(server: Served, tmp_path: Path) -> None:
    first = picture(tmp_path / "first.png")
    fields = {name: str(value) for name, value in QUICK.items()}
    with first.open("rb") as file:
        form = server.client.post("/v1/videos/sync", data=fields, files={"input_reference": ("../../x.gif", file)})
    text = server.client.post("/v1/videos/sync", json=QUICK | {"image": data_url(first)})
    assert form.status_code == text.status_code == 200, (form.text[:300], text.text[:300])
    assert form.content == text.content
    video = moving(tmp_path / "moving.mp4")
    with video.open("rb") as file, picture(tmp_path / "mask.png").open("rb") as mask:
        sent = {"video": ("v", file), "mask": ("m", mask)}
        masked = server.client.post("/v1/videos/sync", data=fields | {"strength": "0.5"}, files=sent)
    assert masked.status_code == 200, masked.text[:300]


@pytest.mark.parametrize(
    ("change", "status", "field", "words"),
    [
        ({"size": "50x48"}, 400, None, "multiples of 16"),
        ({"size": "big"}, 422, "size", "pattern"),
        ({"num_frames": 10}, 400, None, "4n"),
        ({"num_frames": "ten"}, 422, "num_frames", "integer"),
        ({"fps": True}, 422, "fps", "number"),
        ({"seconds": "NaN"}, 422, "seconds", "finite"),
        ({"seconds": -1}, 422, "seconds", "greater"),
        ({"seconds": 1}, 400, "seconds", "give one"),
        ({"promt": "x"}, 422, "promt", "did you mean 'prompt'"),
        ({"strength": 0.5}, 400, "strength", "give a video"),
        ({"model": "other"}, 400, "model", "served: tiny"),
        ({"loras": {"x": 1.0}}, 400, "loras", "not offered"),
        ({"loras": {"x": "much"}}, 422, "loras.x", "number"),
        ({"sampler": "none"}, 400, "sampler", "none"),
        ({"image": "/etc/passwd"}, 400, "image", "data URL"),
        ({"image": "file:///etc/passwd"}, 400, "image", "data URL"),
        ({"image": "http://169.254.169.254/latest/meta-data"}, 400, "image", "data URL"),
        ({"image": "data:image/png;base64,%%%"}, 400, "image", "base64 is broken"),
        ({"image": "data:image/png;base64,aGVsbG8="}, 400, "image", "neither an image nor a video"),
        ({"prompt": ""}, 422, "prompt", "at least 1"),
    ],
    ids=str,
)
def test_what_cannot_be_is_told_before_anything_loads(
    server: Served, change: dict, status: int, field: str | None, words: str
) -> None:
    told = fault(server.client.post("/v1/videos", json=QUICK | change), status)
    assert words in told["message"]
    assert field is None or told["param"] == field
    assert "/tmp" not in told["message"]


def test_bodies_that_are_no_requests(server: Served) -> None:
    json_type = {"Content-Type": "application/json"}
    fault(server.client.post("/v1/videos", content=b"[" * 100_000, headers=json_type), 422)
    fault(server.client.post("/v1/videos", content=b"[1]", headers=json_type), 422)
    fault(server.client.post("/v1/videos", content=b"\xff\xfe", headers=json_type), 422)
    fault(server.client.post("/v1/videos", content=b"prompt=x", headers={"Content-Type": "text/plain"}), 415)
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert server.client.post("/v1/videos", content=b"--y\r\nnothing", headers=broken).status_code in (400, 422)
    fault(server.client.post("/v1/videos", data=QUICK, files={"prompt": b"x"}), 422)


def test_bombs_are_refused(server: Served) -> None:
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    told = fault(server.client.post("/v1/videos", data=QUICK, files={"image": png}), 400)
    assert "megapixels" in told["message"]
    large = (b"x" * (1 << 20) for _ in range(70))
    told = fault(server.client.post("/v1/videos", content=large, headers={"Content-Type": "application/json"}), 413)
    assert "64 MiB" in told["message"]


@pytest.mark.parametrize("name", ["..", "..%2F..%2Fetc%2Fpasswd", "%2e%2e/%2e%2e/job.json", "video_0", "a" * 500])
def test_no_path_leads_out_of_the_results(server: Served, name: str) -> None:
    for path in (f"/v1/videos/{name}", f"/v1/videos/{name}/content", f"/v1/videos/{name}/content/job.json"):
        answer = server.client.get(path)
        assert answer.status_code in (200, 404, 405), answer.text
        assert b"root:" not in answer.content
        assert answer.status_code == 404 or answer.json().get("object") == "list"


def test_another_hosts_name_is_refused(server: Served) -> None:
    told = fault(server.client.get("/v1/models", headers={"Host": "attacker.example"}), 421)
    assert "localhost" in told["message"]


def test_a_running_job_is_cancelled_between_two_steps(server: Served) -> None:
    job = server.client.post("/v1/videos", json=QUICK | {"num_inference_steps": 1000}).json()
    while not server.client.get(f"/v1/videos/{job['id']}").json()["progress"]:
        pass
    server.client.post(f"/v1/videos/{job['id']}/cancel")
    done = server.ended(job["id"])
    assert (done["status"], done["error"]) == ("cancelled", None)
    assert done["progress"] < 99
    assert server.client.post(f"/v1/videos/{job['id']}/cancel").json()["status"] == "cancelled", "again: no change"


def test_many_clients_find_a_full_queue_and_none_is_lost(server: Served) -> None:
    long = server.client.post("/v1/videos", json=QUICK | {"num_inference_steps": 1000, "seed": 1}).json()["id"]
    while server.client.get(f"/v1/videos/{long}").json()["status"] != "in_progress":
        pass
    answers: list[httpx.Response] = []

    def ask(seed: int) -> None:
        with httpx.Client(base_url=server.address, timeout=300) as client:
            answers.append(client.post("/v1/videos", json=QUICK | {"seed": 1000 + seed}))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [answer.json()["id"] for answer in answers if answer.status_code == 200]
    full = [answer for answer in answers if answer.status_code == 429]
    assert (len(taken), len(full)) == (8, 42)
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in full)
    server.client.post(f"/v1/videos/{long}/cancel")
    assert [server.ended(name)["status"] for name in taken] == ["completed"] * 8


def test_pictures_are_taken_all_or_none(server: Served) -> None:
    long = server.client.post("/v1/videos", json=QUICK | {"num_inference_steps": 1000, "seed": 2}).json()["id"]
    while server.client.get(f"/v1/videos/{long}").json()["status"] != "in_progress":
        pass
    waiting = [server.client.post("/v1/videos", json=QUICK | {"seed": 2000 + n}).json()["id"] for n in range(6)]
    known = server.client.get("/v1/videos", params={"limit": 100}).json()["data"]
    pictures = {"prompt": "a disc", "size": "48x48", "num_inference_steps": 2, "seed": 900}
    refused = server.client.post("/v1/images/generations", json=pictures | {"n": 3})
    assert "queue is full" in fault(refused, 429)["message"] and int(refused.headers["retry-after"]) >= 1
    assert fault(server.client.post("/v1/images/generations", json=pictures | {"n": 9}), 400)["param"] == "n"
    after = server.client.get("/v1/videos", params={"limit": 100}).json()["data"]
    assert [job["id"] for job in after] == [job["id"] for job in known], "of three that do not fit, none is taken"
    for name in (long, *waiting):
        server.client.post(f"/v1/videos/{name}/cancel")
    assert len(server.client.post("/v1/images/generations", json=pictures | {"n": 3}).json()["data"]) == 3


def test_a_long_video_has_a_prompt_for_each_stretch(server: Served, pipeline: Path, tmp_path: Path) -> None:
    parts = [{"prompt": "a red disc", "num_frames": 9}, {"prompt": "a blue square", "num_frames": 8}]
    asked = {name: value for name, value in QUICK.items() if name != "prompt"} | {"prompts": parts, "overlap": 1}
    job = server.ended(server.client.post("/v1/videos", json=asked | {"seed": 5}).json()["id"])
    assert (job["status"], job["prompt"], job["settings"]["segments"]) == ("completed", "a red disc", 2)
    content = server.client.get(f"/v1/videos/{job['id']}/content").content
    form = {name: str(value) for name, value in asked.items()} | {"seed": "5", "prompts": json.dumps(parts)}
    assert server.client.post("/v1/videos/sync", data=form).content == content
    lines = ["9 | a red disc", "8 | a blue square"]
    assert server.client.post("/v1/videos/sync", json=asked | {"seed": 5, "prompts": lines}).content == content
    words = tuple(SegmentPrompt(part["prompt"], part["num_frames"]) for part in parts)
    torch.set_num_threads(1)
    ours = open_model(pipeline).sample(
        Request("", prompts=words, width_px=48, height_px=48, num_frames=9, overlap=1, steps=2, seed=5)
    )
    write_sample(ours, tmp_path / "ours.mp4")
    assert (tmp_path / "ours.mp4").read_bytes() == content
    for wrong, status in (
        ([{"prompt": "a", "num_frames": 9}, {"prompt": "b"}], 400),
        ([{"text": "a"}], 422),
        ("a", 422),
    ):
        assert fault(server.client.post("/v1/videos", json=QUICK | {"prompts": wrong}), status)["param"].startswith(
            "prompts"
        )


def test_files_say_nothing_of_where_they_were_made(server: Served, pipeline: Path, tmp_path: Path) -> None:
    first = picture(tmp_path / "first.png")
    job = server.client.post("/v1/videos", json=QUICK | {"image": data_url(first), "seed": 31}).json()
    assert server.ended(job["id"])["status"] == "completed"
    for variant in ("video", "thumbnail"):
        content = server.client.get(f"/v1/videos/{job['id']}/content", params={"variant": variant}).content
        assert not any(place.encode() in content for place in (str(pipeline.parent), str(tmp_path), "/tmp", job["id"]))
    (tmp_path / "a.mp4").write_bytes(server.client.get(f"/v1/videos/{job['id']}/content").content)
    made = settings_within(tmp_path / "a.mp4")
    assert made["model"] == "tiny" and "/" not in made["image"]


def test_the_description_tells_what_is_taken(server: Served) -> None:
    description = server.client.get("/openapi.json").json()
    body = description["paths"]["/v1/videos"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    assert "negative_prompt" in description["components"]["schemas"]["VideoRequest"]["properties"]
    assert server.client.get("/health").json() == {"status": "ok", "waiting": 0}
