"""Metrics that Prometheus can read, while a run goes on and only on this machine."""

import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from footage import pan, write

import run_pipeline
from core.errors import UserError
from core.metrics import HELP, Metrics, metrics_text, serving_metrics
from core.progress import Done, Tally
from curation import pipeline

SAMPLE = re.compile(r'(\w+)(?:\{(\w+)="((?:[^"\\\n]|\\["\\n])*)"\})? ([0-9.e+-]+)')


def read(text: str) -> dict[tuple[str, str], float]:
    """Read the text format strictly: each family has HELP and TYPE before its samples."""
    assert text.endswith("\n")
    values: dict[tuple[str, str], float] = {}
    family = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family = line.split()[2]
        elif line.startswith("# TYPE "):
            assert line.split()[2] == family
            assert line.split()[3] == ("counter" if family.endswith("_total") else "gauge")
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            assert found[1] == family
            values[found[1], found[3] or ""] = float(found[4])
    return values


def test_a_tally_is_told_in_full() -> None:
    tally = Tally()
    tally.add(Done("analyse", 3, 12.5, share=1000, cpu_s={"decode": 2.0}, fetched_bytes=700))
    tally.add(Done("finish", 2, 9.0, rejects={"motion:low": 1, 'odd "name"\\\n': 2}, problems=("a bug",)))
    tally.gpus = {"there": 2.0, "booked": 1.25}
    values = read(metrics_text(tally, 4.0))
    assert values["selects_gpus", "booked"] == 1.25
    assert values["selects_rows_total", "analyse"] == 3
    assert values["selects_footage_seconds_total", "finish"] == 9.0
    assert values["selects_rejected_total", "motion:low"] == 1
    assert values["selects_rejected_total", r"odd \"name\"\\\n"] == 2
    assert values["selects_cpu_seconds_total", "decode"] == 2.0
    assert values["selects_fetched_bytes_total", ""] == 700
    assert values["selects_source_bytes_total", ""] == 1000
    assert values["selects_problems_total", ""] == 1
    assert values["selects_run_seconds", ""] == 4.0
    doubled = read(metrics_text(tally.plus(tally), 4.0))
    assert doubled["selects_rejected_total", "motion:low"] == 2
    assert doubled["selects_gpus", "there"] == 2.0, "what is booked now is no sum over lives of the actor that counts"


def test_it_is_served_on_loopback_while_the_block_runs() -> None:
    metrics, tally = Metrics(), Tally()
    with serving_metrics(0, metrics) as port:
        url = f"http://127.0.0.1:{port}"
        metrics.watch(tally)
        for number in (1, 2):
            tally.add(Done("probe", 1))
            with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:  # noqa: S310
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                assert read(answer.read().decode())["selects_rows_total", "probe"] == number
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/etc/passwd", timeout=30)  # noqa: S310
        with pytest.raises(UserError, match="cannot be listened on"), serving_metrics(port, metrics):
            pass
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/metrics", timeout=30)  # noqa: S310


def test_a_run_of_curate_tells_what_it_has_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[dict[tuple[str, str], float]] = []
    write_run = pipeline._write_run

    def ask(*arguments: object) -> None:
        address = re.search(r"http://127\.0\.0\.1:\d+/metrics", capsys.readouterr().err)
        assert address is not None
        with urllib.request.urlopen(address[0], timeout=30) as answer:  # noqa: S310
            seen.append(read(answer.read().decode()))
        write_run(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "_write_run", ask)
    write(tmp_path / "a.mp4", list(pan(96)))
    recipe = tmp_path / "quick.yaml"
    recipe.write_text("shots: {min_s: 1.0, max_s: 3.0}\noperators: {brightness: }\nrules: {brightness: {min: 0.99}}\n")
    words = [tmp_path / "a.mp4", "--config", recipe, "--output", tmp_path / "out", "--runner", "inline"]
    assert run_pipeline.main(["curate", *map(str, words), "--metrics-port", "0"]) == 0
    (values,) = seen
    assert values["selects_rows_total", "probe"] == 1
    assert values["selects_rejected_total", "brightness:low"] == values["selects_rows_total", "finish"] > 0
    assert values["selects_source_bytes_total", ""] == (tmp_path / "a.mp4").stat().st_size


def test_the_dashboard_asks_for_metrics_that_are_there() -> None:
    board = json.loads((Path(__file__).resolve().parents[2] / "deploy" / "grafana.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    named = {name for expression in asked for name in re.findall(r"selects_\w+", expression)}
    assert named <= HELP.keys()
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) == len(asked)
