"""Tar shards are data to train on; nothing in them is believed, and nothing is written outside of one folder."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from core.errors import UserError
from curation.export.rows import Tally
from curation.export.webdataset import write_webdataset
from train_bridge.config import DataSettings
from train_bridge.data import webdataset
from train_bridge.data.metadata import Metadata, read_metadata
from train_bridge.data.tar_members import TarError, read_members


def read(source: Path | str, unpacked: Path, **keys) -> Metadata:
    return read_metadata(DataSettings(metadata=str(source), unpacked=str(unpacked), **keys))


def tar(path: Path, members: list[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as shard:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    return path


def sample(key: str, text: str = "a disc", **facts: object) -> list[tuple[str, bytes]]:
    members = [(f"{key}.mp4", f"clip {key}".encode()), (f"{key}.txt", text.encode())]
    return members + ([(f"{key}.json", json.dumps(facts).encode())] if facts else [])


def files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def test_what_export_writes_is_read(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    records = []
    for i, suffix in enumerate((".mp4", ".mp4", ".jpg")):
        (tmp_path / "train" / f"{i}{suffix}").write_bytes(f"medium {i}".encode())
        kind = "image" if suffix == ".jpg" else "video"
        records.append({
            "file_path": f"train/{i}{suffix}", "text": f"köche {i}", "type": kind, "width": 64, "height": 48,
            "fps": 12.0, "num_frames": 1 if kind == "image" else 24, "clip_id": f"clip-{i}",
        })  # fmt: skip
    write_webdataset(tmp_path, iter(records), Tally(), 1, 1 << 30)
    metadata = read(tmp_path / "webdataset", tmp_path / "unpacked")
    assert metadata.refused == ()
    rows = sorted(metadata.rows, key=lambda row: row.row_id)
    assert [(r.row_id, r.caption, r.kind, r.width_px, r.num_frames) for r in rows] == [
        ("clip-0", "köche 0", "video", 64, 24),
        ("clip-1", "köche 1", "video", 64, 24),
        ("clip-2", "köche 2", "image", 64, 1),
    ]
    assert [row.path.read_bytes() for row in rows] == [b"medium 0", b"medium 1", b"medium 2"]
    assert all(row.path.is_relative_to(tmp_path / "unpacked") for row in rows)


def test_a_file_a_folder_a_glob_and_braces_name_the_same(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for i in range(3):
        tar(data / f"shard-{i:06d}.tar", sample(f"a{i}") + sample(f"b{i}"))
    (data / "README.md").write_text("shards")
    found = {
        name: [(r.row_id, r.path.read_bytes()) for r in read(name, tmp_path / "unpacked").rows]
        for name in (str(data), f"{data}/*.tar", f"{data}/shard-{{000000..000002}}.tar")
    }
    expected = [(f"shard-{i:06d}.tar/{k}{i}", f"clip {k}{i}".encode()) for i in range(3) for k in "ab"]
    assert all(rows == expected for rows in found.values()), found
    assert len(read(data / "shard-000001.tar", tmp_path / "unpacked").rows) == 2
    assert len(files(tmp_path / "unpacked")) == 6, "each clip is unpacked once"
    with pytest.raises(UserError, match=r"shard-000003.tar: no such shard"):
        read(f"{data}/shard-{{000000..000003}}.tar", tmp_path / "unpacked")
    with pytest.raises(UserError, match="no shard"):
        read(f"{data}/other-*.tar", tmp_path / "unpacked")
    with pytest.raises(UserError, match="more than 100000 shards"):
        read(f"{data}/{{0..99999}}{{0..99999}}.tar", tmp_path / "unpacked")
    (data / "c.mp4").write_bytes(b"x")
    with pytest.raises(UserError, match="holds clips and shards"):
        read(data, tmp_path / "unpacked")
    (data / "x.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(UserError, match="compressed"):
        read(data / "x.tar.gz", tmp_path / "unpacked")


def test_only_rows_that_are_used_are_unpacked_and_only_once(tmp_path: Path) -> None:
    members = [member for i in range(5) for member in sample(f"{i}", aesthetic=i)]
    source, unpacked = tar(tmp_path / "s.tar", members), tmp_path / "unpacked"
    metadata = read(source, unpacked, where="aesthetic >= 3", weight="aesthetic")
    assert [(r.row_id, r.weight) for r in metadata.rows] == [("s.tar/3", 3.0), ("s.tar/4", 4.0)]
    assert metadata.left_out == 3
    before = {path: path.stat().st_mtime_ns for path in files(unpacked)}
    assert len(before) == 2
    assert len(read(source, unpacked).rows) == 5
    after = {path: path.stat().st_mtime_ns for path in files(unpacked)}
    assert len(after) == 5 and before.items() <= after.items()
    damaged = next(iter(before))
    damaged.write_bytes(b"")  # as a power cut may leave it
    assert {r.path.read_bytes() for r in read(source, unpacked).rows} == {f"clip {i}".encode() for i in range(5)}


def test_no_room_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset.shutil, "disk_usage", lambda folder: _Usage())
    with pytest.raises(UserError, match=r"1 clips .*there is room for .*data\.unpacked"):
        read(tar(tmp_path / "s.tar", sample("a")), tmp_path / "unpacked")
    assert files(tmp_path / "unpacked") == []


class _Usage:
    free = 3


def test_samples_that_cannot_be_used_are_refused_by_their_key(tmp_path: Path) -> None:
    members = [
        *sample("good"), ("none.txt", b"x"), ("two.mp4", b"x"), ("two.webm", b"x"), ("still.mp4", b"x"),
        ("still.jpg", b"x"), ("still.txt", b"with a thumbnail"), ("bare.mp4", b"x"), ("bad.mp4", b"x"),
        ("bad.json", b"{"), ("long.mp4", b"x"), ("long.txt", b"x" * 400_001), ("nul.mp4", b"x"), ("nul.txt", b"a\0b"),
        ("again.mp4", b"1"), ("again.mp4", b"2"), ("other.MP4", b"x"), ("other.json", b'{"caption": "from json"}'),
        ("folder/deep.left.mp4", b"x"), ("folder/deep.txt", b"deep"),
    ]  # fmt: skip
    metadata = read(tar(tmp_path / "s.tar", members), tmp_path / "unpacked")
    assert [(r.row_id, r.caption) for r in metadata.rows] == [
        ("s.tar/good", "a disc"), ("s.tar/still", "with a thumbnail"), ("s.tar/other", "from json"),
        ("s.tar/folder/deep", "deep"),
    ]  # fmt: skip
    assert sorted((r.where, r.key, r.reason) for r in metadata.refused) == [
        ("s.tar/again", "row", "has two files of one kind"),
        ("s.tar/bad", ".json", "is broken JSON"),
        ("s.tar/bare", ".txt", "is missing"),
        ("s.tar/long", ".txt", "is larger than 390 KB"),
        ("s.tar/none", "row", "has neither a video nor an image"),
        ("s.tar/nul", ".txt", "holds a zero byte"),
        ("s.tar/two", "row", "has several videos or images"),
    ]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_are_those_that_tarfile_finds(tmp_path: Path, format: int) -> None:
    long = "folder/" * 12 + "x" * 60 if format == tarfile.USTAR_FORMAT else "folder/" * 40 + "x" * 120
    plain = "n" if format == tarfile.USTAR_FORMAT else "naïve"
    path = tar(tmp_path / "s.tar", [(f"{long}.mp4", b"1" * 700), (f"{plain}.txt", b""), ("c.mp4", b"3" * 512)], format)
    with tarfile.open(path) as theirs, path.open("rb") as file:
        expected = [(m.name, m.offset_data, m.size) for m in theirs if m.isreg()]
        assert [(m.name, m.offset, m.size_bytes) for m in read_members(file)] == expected
        assert len(expected) == 3


def test_no_name_and_no_link_leads_anywhere(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    path = tmp_path / "s" / "s.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as shard:
        for name in ("../../up.mp4", "/abs.mp4", "a/../../b.mp4", "~/home.mp4", "new\nline\x1b[2J.mp4"):
            info = tarfile.TarInfo(name)
            info.size = 4
            shard.addfile(info, io.BytesIO(b"clip"))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"link{kind.decode()}.mp4")
            info.type, info.linkname = kind, str(tmp_path / "secret.mp4")
            shard.addfile(info)
    before = {p: p.read_bytes() for p in files(tmp_path)}
    metadata = read_metadata(DataSettings(metadata=str(path), unpacked=str(tmp_path / "unpacked")), captions=False)
    assert len(metadata.rows) == 5
    for row in metadata.rows:
        assert row.path.resolve().is_relative_to(tmp_path / "unpacked") and row.path.read_bytes() == b"clip"
        assert not row.path.is_symlink()
    assert {p: p.read_bytes() for p in files(tmp_path) if not p.is_relative_to(tmp_path / "unpacked")} == before


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (header("x.mp4", 1 << 50), "is cut off after"),
        (header("././@LongLink", 1 << 40, tarfile.GNUTYPE_LONGNAME), "is cut off after"),
        (header("x", 1 << 20, tarfile.XHDTYPE) + bytes(1 << 20), "has a header of 1048576 bytes"),
        (header("x", 12, tarfile.XHDTYPE) + b"99999 path=a".ljust(512, b"\0"), "has a broken header"),
        (header("x", 12, tarfile.XHDTYPE) + b"12 size=-99\n".ljust(512, b"\0") + header("x.mp4", 0), "is broken"),
        (header("x.mp4", 512, tarfile.GNUTYPE_SPARSE) + bytes(512), "holds a sparse file"),
        (b"\xff" * 512, "is broken at byte"),
        (b"half a header", "is cut off after"),
    ],
)
def test_a_shard_that_lies_costs_what_follows_in_it(tmp_path: Path, content: bytes, why: str) -> None:
    path = tar(tmp_path / "s.tar", sample("good"))
    end = 512 * 4
    path.write_bytes(path.read_bytes()[:end] + content)
    metadata = read(path, tmp_path / "unpacked")
    assert [row.row_id for row in metadata.rows] == ["s.tar/good"]
    (refusal,) = metadata.refused
    assert refusal.reason.startswith("the shard ") and why in refusal.reason


BYTES = st.lists(st.tuples(st.integers(0, 1), st.floats(0, 0.999), st.binary(max_size=40)), max_size=6)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BYTES)
@example([])
def test_damage_is_told_and_nothing_else_happens(tmp_path: Path, damage: list[tuple[int, float, bytes]]) -> None:
    path = tar(tmp_path / "s.tar", sample("a", width=64) + sample("é" * 60))
    content = bytearray(path.read_bytes()[:6000])
    for cut, place, new in damage:
        at = int(place * len(content))
        content[at : len(content) if cut else at + len(new)] = new
    path.write_bytes(content)
    with path.open("rb") as file:
        try:
            for member in read_members(file):
                assert 0 <= member.offset <= member.offset + member.size_bytes <= len(content)
        except TarError as error:
            assert "\n" not in str(error)
    try:
        metadata = read(path, tmp_path / "unpacked")
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert all(row.path.parent.parent == tmp_path / "unpacked" for row in metadata.rows)
    assert {p.name for p in tmp_path.iterdir()} <= {"s.tar", "unpacked"}


def test_the_users_cache_holds_what_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = read_metadata(DataSettings(metadata=str(tar(tmp_path / "s.tar", sample("a"))))).rows
    assert rows[0].path.is_relative_to(tmp_path / "cache" / "selects" / "unpacked")
