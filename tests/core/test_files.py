"""What appears, appears whole: atomic files, folder swaps and their repair."""

import os
import threading
from pathlib import Path

import pytest

from core import files


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def make(folder: Path, content: str) -> Path:
    folder.mkdir()
    (folder / "part.txt").write_text(content)
    return folder


@pytest.mark.parametrize("content", [b"\x00\r\n\xff", "tsch\u00fcss\r\n\n", ""])
def test_atomic_write_keeps_every_byte(tmp_path, content):
    files.atomic_write(tmp_path / "a.txt", "before")
    files.atomic_write(tmp_path / "a.txt", content)
    expected = content if isinstance(content, bytes) else content.encode()
    assert (tmp_path / "a.txt").read_bytes() == expected
    assert names(tmp_path) == ["a.txt"]


def test_atomic_path_lends_a_hidden_name_with_the_same_extension(tmp_path):
    with files.atomic_path(tmp_path / "clip.mp4") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".mp4"
        assert temporary.name.startswith(".")
        assert str(os.getpid()) in temporary.name
        assert files.TEMPORARY_NAME.match(temporary.name)
        temporary.write_bytes(b"1")
        assert not (tmp_path / "clip.mp4").exists()
    assert names(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failing_block_leaves_the_old_file_and_nothing_else(tmp_path, error):
    files.atomic_write(tmp_path / "a.json", "old")
    with pytest.raises(error), files.atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise error
    assert (tmp_path / "a.json").read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), files.atomic_path(tmp_path / "a.json"):
        pass
    assert names(tmp_path) == []


def test_long_names_still_fit(tmp_path):
    target = tmp_path / ("\u00e9" * 120 + ".mp4")  # 244 bytes
    files.atomic_write(target, "x")
    assert target.read_text() == "x"


@pytest.mark.parametrize("can_exchange", [True, False])
def test_swap_replaces_a_folder_and_leaves_no_trace(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    files.swap_folder(make(tmp_path / "n1", "1"), tmp_path / "clips")
    files.swap_folder(make(tmp_path / "n2", "2"), tmp_path / "clips")
    assert (tmp_path / "clips" / "part.txt").read_text() == "2"
    assert names(tmp_path) == ["clips"]


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("fail_at", [1, 2, 3])
def test_a_crash_at_any_rename_can_be_repaired(tmp_path, monkeypatch, can_exchange, fail_at):
    make(tmp_path / "clips", "old")
    make(tmp_path / "fresh", "new")
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    calls, rename = [], os.rename

    def failing_rename(a, b):
        calls.append((a, b))
        if len(calls) == fail_at:
            raise OSError("power cut")
        rename(a, b)

    monkeypatch.setattr(files.os, "rename", failing_rename)
    renames = 1 if can_exchange else 3
    if fail_at <= renames:
        with pytest.raises(OSError, match="power cut"):
            files.swap_folder(tmp_path / "fresh", tmp_path / "clips")
    else:
        files.swap_folder(tmp_path / "fresh", tmp_path / "clips")
    monkeypatch.setattr(files.os, "rename", rename)
    missing = not (tmp_path / "clips").exists()
    assert missing == (not can_exchange and fail_at == 3)
    assert files.recover_swap(tmp_path / "clips") == missing
    assert (tmp_path / "clips" / "part.txt").read_text() == ("old" if fail_at < renames or fail_at == 1 else "new")
    assert not files.recover_swap(tmp_path / "clips")
    assert [n for n in names(tmp_path) if n.startswith(".")] == []


def test_recover_restores_the_old_folder_when_there_is_no_new_one(tmp_path):
    make(tmp_path / ".clips.swap-old", "old")
    assert files.recover_swap(tmp_path / "clips")
    assert (tmp_path / "clips" / "part.txt").read_text() == "old"


def test_a_crash_after_the_exchange_keeps_the_new_folder(tmp_path):
    make(tmp_path / "clips", "new")
    make(tmp_path / ".clips.swap-new", "old")
    assert not files.recover_swap(tmp_path / "clips")
    assert (tmp_path / "clips" / "part.txt").read_text() == "new"
    assert names(tmp_path) == ["clips"]


def test_readers_never_see_the_folder_missing(tmp_path):
    make(tmp_path / "a", "")
    make(tmp_path / "b", "")
    if not files._exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange names")
    final = make(tmp_path / "clips", "0")
    misses, done = [], threading.Event()

    def watch():
        while not done.is_set():
            if not final.is_dir():
                misses.append(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for i in range(50):
        files.swap_folder(make(tmp_path / f"n{i}", str(i)), final)
    done.set()
    watcher.join()
    assert not misses
    assert (final / "part.txt").read_text() == "49"


def test_atomic_folder_appears_whole_or_not_at_all(tmp_path):
    with files.atomic_folder(tmp_path / "shards") as folder:
        (folder / "part.txt").write_text("1")
        assert not (tmp_path / "shards").exists()
    with pytest.raises(ValueError, match="stop"), files.atomic_folder(tmp_path / "shards") as folder:
        (folder / "part.txt").write_text("2")
        raise ValueError("stop")
    assert (tmp_path / "shards" / "part.txt").read_text() == "1"
    assert names(tmp_path) == ["shards"]


def test_leftovers_go_by_age_and_by_name(tmp_path):
    old, young = files.temporary_path(tmp_path / "a.mp4"), files.temporary_path(tmp_path / "a.mp4")
    folder = files.temporary_path(tmp_path / "shards")
    folder.mkdir()
    for file in (old, young, tmp_path / ".hidden", tmp_path / "kept.mp4"):
        file.write_text("x")
    for file in (old, folder, tmp_path / ".hidden"):
        os.utime(file, (0, 0))
    assert files.remove_leftovers(tmp_path) == 2
    assert names(tmp_path) == sorted([".hidden", "kept.mp4", young.name])
