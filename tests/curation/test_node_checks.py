"""What is wrong with the nodes of a cluster: found by comparison with the driver, and shown as one table."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from core.machine import Gpu
from curation.engine.node_checks import Fault, Finding, ModelNeed, NodeFacts, findings_of, refusal_text, table_text
from curation.engine.node_look import (
    MOST_SAMPLES,
    Question,
    RunNeeds,
    Sample,
    in_use,
    look,
    output_faults,
    readable_here,
    samples_of,
    stage_faults,
    unreadable,
)
from curation.types import Source

DRIVER = NodeFacts(
    "3.12.4",
    {"av": "16.0.1", "pandas": "2.3.0", "vllm": None},
    "libavcodec 62.11.100",
    ("libx265",),
    {"core": "aa", "media": "bb"},
    (),
)


def found(node: NodeFacts | Fault, *needs: ModelNeed) -> list[tuple[str, bool]]:
    return [(finding.what, finding.refuses) for finding in findings_of(DRIVER, {"a": node}, needs)]


def test_a_node_like_the_driver_has_nothing_wrong() -> None:
    assert found(DRIVER) == [] and refusal_text([], 3) is None


@pytest.mark.parametrize(
    ("node", "what", "refuses"),
    [
        (replace(DRIVER, python="3.11.9"), "has Python 3.11.9, and the driver 3.12.4", True),
        (replace(DRIVER, python="3.12.1"), "has Python 3.12.1, and the driver 3.12.4", False),
        (replace(DRIVER, versions=DRIVER.versions | {"av": "15.1.0"}), "has av 15.1.0, and the driver 16.0.1", True),
        (replace(DRIVER, versions=DRIVER.versions | {"av": "16.0.9"}), "has av 16.0.9, and the driver 16.0.1", False),
        (replace(DRIVER, versions=DRIVER.versions | {"av": None}), "has no package av", True),
        (replace(DRIVER, versions=DRIVER.versions | {"pandas": "3.0"}), "has pandas 3.0, and the driver 2.3.0", False),
        (replace(DRIVER, lacks_codecs=("libx264", "libx265")), "its FFmpeg lacks libx264", True),
        (
            replace(DRIVER, ffmpeg="libavcodec 59.37.100"),
            "has FFmpeg's libavcodec 59.37.100, and the driver libavcodec 62.11.100",
            True,
        ),
        (replace(DRIVER, code={"core": "aa"}), "runs other code than the driver: media", True),
        (replace(DRIVER, faults=(Fault("cannot read", "mount it"),)), "cannot read", True),
        (Fault("does not answer within 180 s", "see whether it is alive"), "does not answer within 180 s", True),
    ],
)
def test_each_difference_is_said_and_some_may_pass(node: NodeFacts | Fault, what: str, refuses: bool) -> None:
    assert found(node) == [(what, refuses)]


def test_gpus_that_are_too_small_or_in_use_are_said() -> None:
    clip, captioner = ModelNeed("clip", 2.2), ModelNeed("finish", 30.0)
    node = replace(DRIVER, gpus=(Gpu("A10", 24.0, 23.0), Gpu("A10", 24.0, 1.5), Gpu("A10", 24.0)))
    too_small = "GPU {} (A10, 24 GB) is too small for finish (30.0 GB)"
    crowded = "GPU 1 (A10) has 1.5 GB free of 24: not enough for clip (2.2 GB)"
    assert found(node, clip) == [(crowded, True)]
    assert found(node, captioner) == [(too_small.format(number), False) for number in range(3)]


def test_gpus_that_ray_has_not_are_left_out() -> None:
    busy, idle, unknown = Gpu("A10", 24.0, 1.0), Gpu("A10", 24.0, 23.0), Gpu("A10", 24.0)
    assert in_use([busy, idle], 0) == ()
    assert in_use([busy, idle], 1) == (idle,) and in_use([busy, idle], 0.5) == (idle,)
    assert in_use([busy, idle, unknown], 3) == in_use([busy, idle, unknown], 8) == (busy, idle, unknown)


def test_the_table_has_a_line_for_each_trouble_however_many_nodes_have_it() -> None:
    findings = [Finding(f"10.0.0.{i}", "cannot read /data", "mount it there") for i in range(40)]
    findings += [Finding("10.0.0.1", "has pandas 3.0", "pip install pandas==2.3.0", refuses=False)]
    read, mount, pandas, _ = table_text(findings, 50).splitlines()
    assert read == "  10.0.0.0, 10.0.0.1, 10.0.0.2, 10.0.0.3 and 36 more  cannot read /data"
    assert pandas.startswith("  10.0.0.1  ") and pandas.endswith("  (let pass) has pandas 3.0")
    assert read.index("cannot") == mount.index("fix: mount it there") == pandas.index("(let pass)")
    assert "all 40 nodes" in table_text(findings[:40], 40)
    text = refusal_text(findings, 50)
    assert text is not None and text.startswith("40 of 50 nodes cannot do this run: cannot read /data (see the table)")
    assert refusal_text(findings[40:], 50) is None


def test_secrets_and_control_characters_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret-0123456789")
    findings = [Finding("a", "denied: planted-secret-0123456789 \x1b[31m", "token=abcdefgh12345")]
    for text in (table_text(findings, 1), refusal_text(findings, 1) or ""):
        assert "planted" not in text and "abcdefgh" not in text and "\x1b" not in text


# -- what a machine finds when it looks at itself


def test_the_driver_finds_what_it_has() -> None:
    facts = look(Question(RunNeeds(("av", "no-such-package"))))
    assert facts.versions["av"] and facts.versions["no-such-package"] is None
    assert facts.ffmpeg.startswith("libavcodec") and {"core", "curation", "media"} <= facts.code.keys()
    assert facts.faults == () and findings_of(facts, {"a": facts}) == []


def test_samples_are_taken_from_the_whole_of_every_root() -> None:
    sources = [Source("/films", f"{i:04}.mp4", 1, 1) for i in range(1000)]
    sources += [Source("/more", "only.mp4", 1, 1)]
    sources += [Source("s3://bucket", f"{i}.mp4", 1, 1) for i in range(50)]
    samples = samples_of(sources)
    assert len(samples) <= MOST_SAMPLES + 1
    assert {"/films/0000.mp4", "/films/0999.mp4", "/more/only.mp4"} < {sample.place for sample in samples}
    assert [sample.place for sample in samples if sample.is_remote] == ["s3://bucket/0.mp4"]
    assert len(samples_of([Source(f"/{i}", "a.mp4", 1, 1) for i in range(5000)])) == MOST_SAMPLES
    assert samples_of([]) == ()


def test_files_that_are_missing_or_others_are_one_fault_for_each_root(tmp_path: Path) -> None:
    (tmp_path / "there.mp4").write_bytes(b"12345")
    there = Sample(str(tmp_path), str(tmp_path / "there.mp4"), 5, False)
    gone, other = replace(there, place=str(tmp_path / "gone.mp4")), replace(there, size_bytes=6)
    assert unreadable([there]) == []
    (fault,) = unreadable([there, gone, other])
    assert f"cannot read 2 of 3 files tried in {tmp_path}, such as {gone.place} (No such file" in fault.what
    assert "same path" in fault.fix and readable_here([there, gone, other]) == (there,)


def test_an_output_folder_that_is_another_one_there_is_a_fault(tmp_path: Path) -> None:
    mark = tmp_path / ".seen-1"
    mark.touch()
    assert output_faults(str(mark), None) == output_faults(None, None) == []
    assert os.listdir(tmp_path) == [".seen-1"]
    (fault,) = output_faults(str(tmp_path / "elsewhere" / ".seen-1"), None)
    assert "does not see the output folder" in fault.what and "bucket" in fault.fix


def test_a_node_that_does_not_share_the_folder_must_reach_the_bucket(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.storage.object_store import open_object_store

    unseen = str(tmp_path / "elsewhere" / ".seen-1")
    assert output_faults(unseen, f"{bucket_url}/out") == []
    assert list(open_object_store(bucket_url).list()) == []
    (fault,) = output_faults(unseen, "s3://no-such-bucket/out")
    assert "cannot write to the output: s3://no-such-bucket" in fault.what and "credentials" in fault.fix
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    needs = RunNeeds(bucket=f"{bucket_url}/out")
    (fault,) = look(Question(needs, unseen)).faults
    assert "cannot be reached" in fault.what


def test_copies_of_sources_need_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELECTS_STAGE", str(tmp_path / "not" / "yet"))
    assert stage_faults(0) == stage_faults(1000) == []
    (fault,) = stage_faults(1 << 60)
    assert "GB free in" in fault.what and "SELECTS_STAGE" in fault.fix
    (tmp_path / "file").touch()
    monkeypatch.setenv("SELECTS_STAGE", str(tmp_path / "file" / "below"))
    (fault,) = stage_faults(1000)
    assert "cannot be written to" in fault.what
