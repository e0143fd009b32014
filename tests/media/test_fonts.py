"""Text in pictures: characters that Pillow's own font lacks are drawn with another one, or said to be missing."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont, ImageOps

from media import fonts
from media.fonts import Fonts
from sampling.pictures import contact_sheet

SIZE_PX = 14


def font_with(characters: dict[str, str], own: bytes) -> bytes:
    """Return a font in which some characters look like others of Pillow's own, and no more characters are."""
    count = struct.unpack(">H", own[4:6])[0]
    records = [struct.unpack(">4sIII", own[12 + 16 * i : 28 + 16 * i]) for i in range(count)]
    offset = next(begin for tag, _, begin, _ in records if tag == b"cmap")
    glyphs = glyph_numbers(own[offset:])
    groups = [(ord(new), ord(new), glyphs[ord(old)]) for new, old in sorted(characters.items())]
    body = b"".join(struct.pack(">III", *group) for group in groups)
    table = struct.pack(">HHHHI", 0, 1, 3, 10, 12) + struct.pack(">HHIII", 12, 0, 16 + len(body), 0, len(groups)) + body
    content = bytearray(own + table)
    for i, (tag, check, _, _) in enumerate(records):
        if tag == b"cmap":
            content[12 + 16 * i : 28 + 16 * i] = struct.pack(">4sIII", tag, check, len(own), len(table))
    return bytes(content)


def glyph_numbers(cmap: bytes) -> dict[int, int]:
    """Read the glyphs of Latin letters from a table of format 4."""
    count = struct.unpack(">H", cmap[2:4])[0]
    offsets = [struct.unpack(">HHI", cmap[4 + 8 * i : 12 + 8 * i])[2] for i in range(count)]
    table = next(cmap[at:] for at in offsets if struct.unpack(">H", cmap[at : at + 2])[0] == 4)
    double = struct.unpack(">H", table[6:8])[0]
    ends, starts, deltas, ranges = (
        struct.unpack(f">{double // 2}H", table[at : at + double])
        for at in (14, 16 + double, 16 + 2 * double, 16 + 3 * double)
    )
    found = {}
    for place, (end, start, delta, shift) in enumerate(zip(ends, starts, deltas, ranges, strict=True)):
        for code in range(max(start, 32), min(end, 126) + 1):
            at = 16 + 3 * double + 2 * place + shift + 2 * (code - start)
            glyph = (code + delta) if not shift else struct.unpack(">H", table[at : at + 2])[0]
            found[code] = glyph & 0xFFFF
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine whose fonts are those in this folder."""
    (tmp_path / "fonts" / "deep").mkdir(parents=True)
    monkeypatch.setattr(fonts, "font_folders", lambda: (tmp_path / "fonts", tmp_path / "none"))
    caches = (fonts.fonts_of, fonts._font_files, fonts._load, fonts._told)
    for kept in caches:
        kept.cache_clear()
    yield tmp_path / "fonts"
    for kept in caches:
        kept.cache_clear()


def drawn(text: str) -> np.ndarray:
    picture = Image.new("RGB", (200, 24), "white")
    Fonts(SIZE_PX).draw(picture, (2, 1), text)
    return np.asarray(picture).astype(int)


def own_font() -> bytes:
    return bytes(ImageFont.load_default(SIZE_PX).font_bytes)


def written(other: Path, *pieces: tuple[str, bool]) -> np.ndarray:
    """Write pieces with Pillow alone: in its own font, or in another one."""
    picture, left = Image.new("RGB", (200, 24), "white"), 2.0
    own, named = ImageFont.load_default(SIZE_PX), ImageFont.truetype(other, SIZE_PX)
    for text, is_other in pieces:
        font = named if is_other else own
        ImageDraw.Draw(picture).text((left, 1 + own.getmetrics()[0]), text, fill="black", font=font, anchor="ls")
        left += font.getlength(text)
    return np.asarray(picture).astype(int)


def test_a_character_that_only_another_font_has_is_drawn_with_it(folder: Path) -> None:
    (folder / "NotoSansCJK.ttc").write_bytes(b"no font")
    file = folder / "deep" / "some.ttf"
    file.write_bytes(font_with({"日": "A", "本": "B", "😀": "C"}, own_font()))
    assert np.array_equal(drawn("plain"), written(file, ("plain", False)))
    assert np.array_equal(drawn("日本"), written(file, ("日本", True)))
    mixed = (("x ", False), ("日", True), (" y", False), ("😀", True), ("z語", False))
    assert np.array_equal(drawn("x 日 y😀z語"), written(file, *mixed)), "each in its place; boxes for what none has"
    assert Fonts(SIZE_PX).length("日") == ImageFont.truetype(file, SIZE_PX).getlength("日")


def test_a_contact_sheet_shows_such_captions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = np.zeros((1, 32, 48, 3), np.uint8)
    (folder / "some.otf").write_bytes(font_with({"日": "A"}, own_font()))
    sheet = np.asarray(contact_sheet([video], ["日"]))
    assert np.array_equal(sheet[1:20, 2:60], drawn("日")[1:20, 2:60]) and not capsys.readouterr().err


def test_without_a_font_boxes_are_drawn_and_it_is_said_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = drawn("日本")
    contact_sheet([np.zeros((1, 32, 48, 3), np.uint8)] * 2, ["日 本", "😀"])
    assert (first < 255).any()
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "no font on this machine has U+65E5 (CJK UNIFIED IDEOGRAPH-65E5)" in told
    drawn("plain text, and żółć")
    assert not capsys.readouterr().err


@given(st.text(st.sampled_from("ab  cd日本、。e😀\u0301\n"), max_size=200), st.integers(30, 300), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_wrapped_lines_fit_and_lose_nothing_but_spaces_and_what_has_no_room(text: str, width: int, most: int) -> None:
    some = fonts.fonts_of(SIZE_PX)
    lines = some.wrap(text, width, most)
    assert len(lines) <= most and all(some.length(line) <= width for line in lines)
    shown, whole = "".join("".join(lines).split()), "".join(text.split())
    if not lines or not lines[-1].endswith(" …"):
        assert shown == whole
    else:
        assert whole.startswith(shown.removesuffix("…"))


def test_lines_end_between_words_and_between_chinese_characters() -> None:
    some = fonts.fonts_of(SIZE_PX)
    width = some.length("a red disc ")
    assert some.wrap("a red disc rolls away", width, 3) == ["a red disc", "rolls away"]
    assert some.wrap("雪" * 9, some.length("雪" * 4), 3) == ["雪" * 4, "雪" * 4, "雪"]
    assert some.wrap("雪" * 9, some.length("雪" * 4), 1)[0].endswith(" …")
    assert some.wrap("", 100, 2) == []


def test_a_font_of_one_large_size_is_drawn_smaller(folder: Path) -> None:
    """As colour fonts that are pictures need it; their own size is 109 px."""
    file = folder / "some.ttf"
    file.write_bytes(font_with({"日": "A"}, own_font()))
    whole, smaller = (fonts._Face(ImageFont.truetype(file, size), SIZE_PX / size) for size in (SIZE_PX, 109))
    boxes = []
    for face in (whole, smaller):
        picture = Image.new("RGB", (40, 24), "white")
        face.draw(picture, (5, 16), "日", "black")
        boxes.append(ImageOps.invert(picture).getbbox())
        assert face.has("日") and not face.has("本")
    assert np.abs(np.subtract(*boxes)).max() <= 1
    assert smaller.length("日") == pytest.approx(whole.length("日"), abs=0.3)
