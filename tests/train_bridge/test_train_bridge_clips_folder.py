"""A folder of clips with their captions beside them is data to train on; what cannot be used is told by its file."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from core.errors import UserError
from train_bridge.config import DataSettings
from train_bridge.data.metadata import Metadata, read_metadata


def read(source: Path, **keys) -> Metadata:
    return read_metadata(DataSettings(metadata=str(source), **keys))


def write(folder: Path, **texts: str | bytes) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    for name, text in texts.items():
        stem, suffix = name.rsplit("_", 1)
        (folder / f"{stem}.{suffix}").write_bytes(text.encode() if isinstance(text, str) else text)


def test_clips_have_their_captions_beside_them(tmp_path: Path) -> None:
    write(tmp_path, a_mp4="x", a_txt="\ufeffa red disc\r\n", b_jpg="x", b_txt="a house\nat dusk", notes_md="none")
    write(tmp_path / "deep", c_mov="x", c_txt="a field", d_webm="x")
    (tmp_path / "deep" / "d.webm.txt").write_bytes("zwei Köche".encode("utf-16"))
    Image.new("RGB", (8, 8)).save(tmp_path / "unnamed", "png")
    (tmp_path / "unnamed.txt").write_text("black")
    metadata = read(tmp_path)
    assert [(r.row_id, r.path, r.caption, r.kind) for r in metadata.rows] == [
        ("a.mp4", tmp_path / "a.mp4", "a red disc", "video"),
        ("b.jpg", tmp_path / "b.jpg", "a house\nat dusk", "image"),
        ("unnamed", tmp_path / "unnamed", "black", "image"),
        ("deep/c.mov", tmp_path / "deep" / "c.mov", "a field", "video"),
        ("deep/d.webm", tmp_path / "deep" / "d.webm", "zwei Köche", "video"),
    ]
    assert metadata.refused == ()
    assert read(tmp_path, root=str(tmp_path / "deep")).rows == metadata.rows, "paths are the folder's own"


def test_what_cannot_be_used_is_refused_by_its_file(tmp_path: Path) -> None:
    write(tmp_path, a_mp4="x", b_mp4="x", b_txt=" \n", c_mp4="x", c_txt=b"caf\xe9", d_mp4="x", d_txt="a\0b")
    write(tmp_path, e_mp4="x", e_txt="a" * 400_001, f_mp4="x", f_txt="fine", f_jpg="x", g_mp4="x", g_json="[1]")
    write(tmp_path, h_mp4="x", h_json="{", h_txt="x", i_mp4="x")
    os.mkfifo(tmp_path / "i.txt")  # reading it would wait for ever
    metadata = read(tmp_path)
    assert [row.row_id for row in metadata.rows] == ["f.mp4"]
    assert sorted((r.where, r.key, r.reason) for r in metadata.refused) == [
        ("a.mp4", ".txt", "is missing"),
        ("b.mp4", ".txt", "is missing"),
        ("c.mp4", ".txt", "holds bytes that are no UTF-8, or half a character"),
        ("d.mp4", ".txt", "holds a zero byte"),
        ("e.mp4", ".txt", "is larger than 390 KB"),
        ("f.jpg", "row", "a still that is called as a video beside it"),
        ("g.mp4", ".json", "is not an object"),
        ("h.mp4", ".json", "is broken JSON"),
        ("i.mp4", ".txt", "cannot be read (not a regular file)"),
    ]


def test_a_name_that_is_no_utf_8_costs_its_row_only(tmp_path: Path) -> None:
    write(tmp_path, a_mp4="x", a_txt="a")
    for name in (b"caf\xe9.mp4", b"caf\xe9.txt"):
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(b"x")
    metadata = read(tmp_path)
    assert [row.row_id for row in metadata.rows] == ["a.mp4"]
    (refusal,) = metadata.refused
    assert (refusal.key, refusal.reason) == ("file_path", "holds bytes that are no UTF-8, or half a character")
    str(refusal).encode()


def test_a_vae_needs_no_captions(tmp_path: Path) -> None:
    write(tmp_path, a_mp4="x", b_mp4="x", b_txt="b")
    rows = read_metadata(DataSettings(metadata=str(tmp_path)), captions=False).rows
    assert [row.caption for row in rows] == ["", "b"]


def test_facts_beside_clips_count_as_metadata_does(tmp_path: Path) -> None:
    for i in range(4):
        facts = {"aesthetic": float(i), "width": 640, "height": 480, "source": f"film {i // 2}", "file_path": "../../x"}
        write(tmp_path, **{f"{i}_mp4": "x", f"{i}_txt": f"clip {i}", f"{i}_json": json.dumps(facts)})
    metadata = read(tmp_path, where="aesthetic > 0", weight="aesthetic")
    assert [(r.row_id, r.weight, r.width_px, r.source) for r in metadata.rows] == [
        ("1.mp4", 1.0, 640, "film 0"),
        ("2.mp4", 2.0, 640, "film 1"),
        ("3.mp4", 3.0, 640, "film 1"),
    ]
    with pytest.raises(UserError, match=r"no column 'aesthetics' \(did you mean 'aesthetic'"):
        read(tmp_path, where="aesthetics > 1")


def test_links_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", secret_mp4="x")
    write(tmp_path / "data", a_txt="a", b_mp4="x", b_txt="b")
    (tmp_path / "data" / "a.mp4").symlink_to(tmp_path / "elsewhere" / "secret.mp4")
    metadata = read(tmp_path / "data")
    assert [row.row_id for row in metadata.rows] == ["b.mp4"]
    assert [(r.where, r.reason) for r in metadata.refused] == [("a.mp4", "leads out of the root")]
    assert len(read(tmp_path / "data", absolute=True).rows) == 2


def test_a_metadata_file_in_the_folder_goes_first_and_a_folder_without_clips_is_told(tmp_path: Path) -> None:
    write(tmp_path, a_mp4="x", a_txt="beside", metadata_jsonl='{"file_name": "a.mp4", "text": "listed"}')
    assert read(tmp_path).rows[0].caption == "listed"
    write(tmp_path / "clips", b_mp4="x", b_txt="b")
    assert read(tmp_path / "clips").rows[0].caption == "b"
    write(tmp_path / "empty", readme_md="nothing")
    with pytest.raises(UserError, match="no table"):
        read(tmp_path / "empty")
