"""Lists and settings from outside that are too large, have no end, or would wait for ever."""

import hashlib
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cli.common import TABLES
from core.errors import MediaError, UserError
from core.files import read_bounded
from curation.export.memory import read_memory
from curation.expressions import parse
from curation.inputs import records
from curation.inputs.folders import Searcher
from curation.inputs.sources import find_sources
from curation.recipe import resolve
from media.measure import measure
from train_bridge.cache import fingerprint
from train_bridge.config import load_config
from train_bridge.data.formats import read_listing
from train_bridge.loop.checkpoint import read_state
from train_bridge.loop.tracking import Log

BOUNDS = {"MOST_BYTES": 1 << 16, "MOST_RECORD": 1 << 12, "MOST_DOCUMENT": 1 << 16, "MOST_NESTED": 1000}
TOO_LARGE: dict[str, tuple[bytes, str]] = {
    "line.txt": (b"a.mp4\n" + b"x" * 5000, "a line or row of more than"),
    "line.jsonl": (b'"a.mp4"\n"' + b"x" * 5000 + b'"\n', "a line or row of more than"),
    "line.csv": (b"path\na.mp4\n" + b"x," * 2500 + b"\n", "a line or row of more than"),
    "header.csv": (b"x," * 2500 + b"path\na.mp4\n", "a line or row of more than"),
    "row.csv": (b"path\na.mp4\n" + b'"x\n",' * 1000 + b"\n", "a line or row of more than"),
    "bare_row.tsv": (b"a.mp4\n" + b'"x\n"\t' * 1000 + b"\n", "a line or row of more than"),
    "file.txt": (b"a.mp4\n" * 20_000, "larger than"),
    "blank.txt": (b"\n" * 70_000, "larger than"),
    "file.csv": (b"path\n" + b"a.mp4\n" * 20_000, "larger than"),
    "blank.jsonl": (b" \n" * 40_000 + b'"a.mp4"\n', "larger than"),
    "array.json": (b"[" + b'"a.mp4",' * 9000 + b'"a.mp4"]', "an array of more than"),
    "many.json": (b"[" + b"{}," * 2000 + b"{}]", "an array of more than"),
    "array.jsonl": (b"[" + b"[]," * 2000 + b'"a.mp4"]', "an array of more than"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_list_beyond_its_bounds_is_refused_in_one_line(tmp_path, monkeypatch, name):
    for bound, value in BOUNDS.items():
        monkeypatch.setattr(records, bound, value)
    (tmp_path / "a.mp4").write_bytes(b"a")
    (tmp_path / name).write_bytes(TOO_LARGE[name][0])
    with pytest.raises(UserError, match=f"{name}: not a readable list .{TOO_LARGE[name][1]}") as error:
        find_sources([str(tmp_path / name)])
    assert str(error.value).isprintable() and len(str(error.value)) < 400 + len(str(tmp_path))


def with_memory(gigabytes: float, code: str, *arguments: Any) -> str:
    """Run Python with so little memory; what it writes, errors included."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (int(gigabytes * 1e9),) * 2)

    words = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(words, preexec_fn=limit, capture_output=True, text=True, timeout=300)  # noqa: PLW1509
    return (done.stdout + done.stderr)[-2000:]


FIND = """
import sys
from core.errors import UserError
from curation.inputs.sources import find_sources
try:
    print([source.path for source in find_sources(sys.argv[1:])])
except UserError as error:
    print("refused:", error)
"""


def sparse(path: Path) -> None:
    os.truncate(path, 100 << 30)


def test_a_list_of_a_hundred_gigabytes_takes_little_memory(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"a")
    (tmp_path / "l.txt").write_bytes(b"a.mp4\n" + b"#" * 5000)
    sparse(tmp_path / "l.txt")  # the rest is one line of zero bytes
    said = with_memory(4, FIND, tmp_path / "l.txt")
    assert said.startswith("refused:") and "a line or row of more than 16 MB" in said, said


@pytest.mark.slow
def test_a_parquet_list_whose_rows_share_a_long_text_takes_little_memory(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"a")
    names = pa.DictionaryArray.from_arrays(pa.array([0] + [1] * 250, pa.int32()), ["a.mp4", "x" * 10_000_000])
    table = pa.table({"path": names})
    pq.write_table(table, tmp_path / "l.parquet", compression="zstd", store_schema=False)
    assert (tmp_path / "l.parquet").stat().st_size < 10_000
    said = with_memory(2, FIND, tmp_path / "l.parquet")
    assert said.startswith("['a.mp4', "), said


def test_a_parquet_list_with_pictures_beside_the_names_reads_the_names_alone(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"a")
    pictures = pa.array([{"bytes": b"x", "path": "y.jpg"}])
    pq.write_table(pa.table({"image": pictures, "path": pa.array([7]), "file": ["a.mp4"]}), tmp_path / "l.parquet")
    assert [source.path for source in find_sources([str(tmp_path / "l.parquet")])] == ["a.mp4"]


def test_what_is_small_is_read_where_memory_for_the_bound_is_not_to_be_had(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"file_path": "a.mp4"}\n')
    code = "import sys; from pathlib import Path; from core.files import read_bounded\n"
    code += "print(read_bounded(Path(sys.argv[1]), 16 << 30))"
    assert "a.mp4" in with_memory(4, code, tmp_path / "m.jsonl")
    assert read_bounded(tmp_path / "m.jsonl", 23) == (tmp_path / "m.jsonl").read_bytes()
    with pytest.raises(ValueError, match="larger"):
        read_bounded(tmp_path / "m.jsonl", 22)
    with pytest.raises(ValueError, match="larger than 2 MB"):
        read_bounded(Path("/dev/zero"), 2 << 20)


def test_pipes_among_footage_hold_nobody(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.mp4").write_bytes(b"a")
    os.mkfifo(tmp_path / "in/recipe.yaml")
    os.mkfifo(tmp_path / "in/a.json")  # where the settings of a sample would be
    os.mkfifo(tmp_path / "in/l.txt")
    code = "import sys; from pathlib import Path\n"
    code += "from sampling.settings_file import settings_of; from curation.inputs.sources import find_sources\n"
    code += "file = Path(sys.argv[1]); print([s.path for s in find_sources([str(file.parent)])], settings_of(file))"
    words = [sys.executable, "-c", code, str(tmp_path / "in/a.mp4")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "['a.mp4'] {}", done.stderr[-2000:]


@pytest.mark.parametrize(
    "values",
    [
        {"caption": {"captioner": "endpoint", "settings": {"server": {"model": "\ud83d"}}}},
        {"caption": {"captioner": "endpoint", "settings": {"asking": {"instruction": "say\0what"}}}},
        {"caption": {"captioner": "template", "settings": {"\udc00": 1}}},
        {"operators": {"\ud83d": {}}},
        {"rules": {"motion\udc00": {"min": 1}}},
        {"reader": "\ud83d"},
    ],
    ids=ascii,
)
def test_a_recipe_as_values_with_halves_of_characters_is_refused(values):
    with pytest.raises(UserError) as error:
        resolve(values, TABLES)
    assert "\n" not in str(error.value)


def test_a_training_config_with_half_a_character_is_refused():
    config = Path(__file__).parents[2] / "configs/train_tiny.yaml"
    for name in ("data.metadata", "model.base", "data.root"):
        with pytest.raises(UserError, match=rf"{name} .*: a text with a zero byte or half a character"):
            load_config(config, (), {name: "x\udcff"})


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 100_000, b"\xff", b"[]", b"{}", b'{"step": "a", "data_id": "b"}', b" " * (2 << 20)]
)
def test_a_damaged_state_of_a_checkpoint_is_one_line(tmp_path, content):
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(UserError, match=r"state\.json: cannot be read .*; delete the folder"):
        read_state(tmp_path)


def test_a_log_with_lines_of_others_goes_on_without_them(tmp_path):
    odd = [
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"step": ' + b"1" * 5000 + b"}",
        b"x" * (3 << 20),
        b'{"step": 9, "what": "train"}',
    ]
    good = [b'{"step": 1, "what": "train"}', b'{"step": 2, "what": "train"}']
    (tmp_path / "log.jsonl").write_bytes(b"\n".join([good[0], *odd, good[1], b'{"step": 2, "wh']))
    Log.open(tmp_path, 2).board.close()
    assert (tmp_path / "log.jsonl").read_bytes() == b"\n".join(good) + b"\n"


def test_what_is_remembered_of_exports_is_read_with_bounds(tmp_path):
    for content in (b'{"a":' * 100_000, b'{"webvid": {}}' + b" " * (2 << 20)):
        (tmp_path / "exports.json").write_bytes(content)
        assert read_memory(tmp_path) == {}


@pytest.mark.slow
def test_metadata_without_end_is_refused(tmp_path):
    code = "import sys; from core.errors import UserError; from train_bridge.data.formats import read_listing\n"
    code += "from pathlib import Path\ntry:\n    read_listing(Path('/dev/zero'), None, [])\n"
    code += "except UserError as error:\n    print(error)"
    said = with_memory(6, code)
    assert said.startswith("/dev/zero: larger than 1024 MB; divide it"), said


def test_keys_of_metadata_that_no_column_can_have_are_none(tmp_path):
    rows = '{"file_path": [], "\\ud83d": 1}\n{"file_path": [], "' + "k" * 1_000_000 + '": 1}\n'
    (tmp_path / "m.jsonl").write_text(rows)
    assert len(read_listing(tmp_path / "m.jsonl", None, [parse("1 > 0", "--where")]).records) == 2
    with pytest.raises(UserError, match="no column 'motion'") as error:
        read_listing(tmp_path / "m.jsonl", None, [parse("motion > 0", "--where")])
    assert len(str(error.value)) < 3000


@pytest.mark.parametrize("error", [struct.error("unpack requires 4 bytes"), TypeError("bad tag")], ids=repr)
def test_what_pillow_says_of_a_damaged_header_is_a_refused_row(tmp_path, monkeypatch, error):
    def fail(self: Any) -> Any:
        raise error

    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    monkeypatch.setattr(Image.Image, "getexif", fail)
    with pytest.raises(MediaError, match="image cannot be read"):
        measure(tmp_path / "a.jpg", "image")


def test_the_content_of_a_file_that_grows_for_ever_is_read_to_the_size_it_had(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    assert fingerprint.file_id(tmp_path / "a") == hashlib.blake2b(b"x" * 3_000_000, digest_size=16).hexdigest()
    code = "from pathlib import Path; from train_bridge.cache.fingerprint import file_id; file_id(Path('/dev/zero'))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_folder_that_a_list_names_again_and_again_is_searched_once(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.mp4").write_bytes(b"a")
    (tmp_path / "l.txt").write_text("in\n" * 100)
    walked: list[str] = []
    walk = Searcher.walk

    def count(self: Searcher, folder: str, *, is_word: bool = False) -> Any:
        walked.append(folder)
        return walk(self, folder, is_word=is_word)

    monkeypatch.setattr(Searcher, "walk", count)
    assert [source.path for source in find_sources([str(tmp_path / "l.txt")])] == ["in/a.mp4"]
    assert walked == [str(tmp_path / "in")]
