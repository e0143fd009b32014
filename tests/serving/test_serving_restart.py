"""Servers that are killed, and those that others can reach."""

from pathlib import Path

import httpx
import pytest
from pipelines import write_pipeline
from served import QUICK, serve

from cli.main import main
from sampling.request import DEFAULTS
from serving.aliases import Forward
from serving.offered import Offered
from serving.wire import asked_of, request_of

TOKEN = "a-token-of-more-than-16-letters"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("pipeline") / "tiny")


@pytest.mark.slow
def test_a_server_killed_in_mid_job_does_all_jobs_after_its_restart(pipeline, tmp_path):
    folder = tmp_path / "data"
    server = serve([str(pipeline)], folder)
    done = server.client.post("/v1/videos", json=QUICK).json()["id"]
    server.ended(done)
    content = server.client.get(f"/v1/videos/{done}/content").content
    runs = server.client.post("/v1/videos", json=QUICK | {"num_inference_steps": 300, "seed": 9}).json()["id"]
    waits = server.client.post("/v1/videos", json=QUICK | {"seed": 2}).json()["id"]
    while server.client.get(f"/v1/videos/{runs}").json()["status"] != "in_progress":
        pass
    server.kill()

    server = serve([f"other={pipeline}", str(pipeline)], folder)
    assert {job["id"] for job in server.client.get("/v1/videos").json()["data"]} == {done, runs, waits}
    assert server.client.get(f"/v1/videos/{done}/content").content == content
    assert [server.ended(name)["status"] for name in (runs, waits)] == ["completed"] * 2
    assert server.ended(runs)["settings"]["steps"] == 300
    assert server.stop() == 0


@pytest.mark.slow
def test_a_token_is_asked_for_and_two_servers_do_not_share_a_folder(pipeline, tmp_path, capsys):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    server = serve([str(pipeline)], tmp_path / "data", "--token-file", str(tmp_path / "token"), token=TOKEN)
    assert server.client.get("/v1/models").status_code == 200
    assert TOKEN not in "".join(server.lines), "a token that was given is not printed"
    for path in ("/v1/models", "/docs", "/openapi.json", "/nothing"):
        assert httpx.get(f"{server.address}{path}").status_code == 401
    assert main(["serve", str(pipeline), "--output", str(tmp_path / "data")]) == 2
    assert "is in use by process" in capsys.readouterr().err
    server.stop()


@pytest.mark.slow
def test_easyanimates_own_routes_answer_with_its_fields(pipeline, tmp_path):
    import base64

    server = serve([str(pipeline)], tmp_path / "data")
    asked = {
        "prompt_textbox": "a red disc", "width_slider": 48, "height_slider": 48, "length_slider": 9,
        "sample_step_slider": 2, "sampler_dropdown": "Euler", "base_model_path": "/models/tiny", "resize_method": "x",
    }  # fmt: skip
    assert server.client.post("/easyanimate/update_edition", json={"edition": "v5.1"}).json() == {"message": "Success"}
    made = server.client.post("/easyanimate/infer_forward", json=asked)
    assert made.status_code == 200, made.text
    answer = made.json()
    content = base64.b64decode(answer["base64_encoding"])
    assert content[4:8] == b"ftyp"
    assert server.client.get(answer["save_sample_path"]).content == content
    wrong = server.client.post("/easyanimate/infer_forward", json=asked | {"base_model_path": "/models/other"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "base_model_path")
    wrong = server.client.post("/easyanimate/infer_forward", json=asked | {"width_slider": 50})
    assert wrong.status_code == 400, "an error has its status, where EasyAnimate's server answers 200"
    server.stop()


@pytest.mark.parametrize(("asked", "overlap"), [({}, 5), ({"overlap_video_length": 1}, 1)])
def test_a_long_video_of_easyanimates_route_overlaps_as_its_family_does(pipeline, tmp_path, asked, overlap):
    offered = Offered({"tiny": pipeline}, {}, DEFAULTS)
    whole = {"generation_method": "Long Video Generation", "length_slider": 13, "partial_video_length": 9}
    form = Forward(prompt_textbox="a red disc", width_slider=48, height_slider=48, **whole, **asked)
    request = request_of(asked_of(form.request(offered), {}), offered.facts("tiny", ()), tmp_path)
    job = offered.plan("tiny", (), request)
    assert (job.length, job.overlap) == (13, overlap)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--queue", "0"], "--queue 0"),
        (["--lora", "x=/nowhere"], "no such file"),
        (["--token-file", "/nowhere"], "--token-file"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(pipeline, tmp_path, capsys, words, told):
    assert main(["serve", str(pipeline), "--output", str(tmp_path / "data"), *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_folder_that_is_no_model_is_told_in_one_line(tmp_path, capsys):
    assert main(["serve", str(tmp_path), "--output", str(tmp_path / "data")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_nothing_that_the_description_allows_breaks_the_server(pipeline, tmp_path):
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings

    server = serve([str(pipeline)], tmp_path / "data", "--rate", "1000000")
    schema = schemathesis.openapi.from_url(f"{server.address}/openapi.json")
    seen = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.endswith("/sync") or "generations" in operation.path or "forward" in operation.path:
            continue  # they wait for videos of any size

        @given(case=operation.as_strategy())
        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        def check(case) -> None:
            answer = case.call(base_url=server.address)
            assert answer.status_code < 500, answer.text
            seen.add((case.path, answer.status_code))

        check()
    for job in server.client.get("/v1/videos", params={"limit": 100}).json()["data"]:
        server.client.delete(f"/v1/videos/{job['id']}")
    assert server.client.get("/health").status_code == 200
    assert {path for path, _ in seen} >= {"/v1/videos", "/v1/videos/{video_id}", "/v1/models"}
    server.stop()
