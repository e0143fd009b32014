"""Text in pictures: Pillow's own font for what it has, fonts of the machine for Chinese, emoji and the rest."""

import os
import sys
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

MOST_FILES = 4000
MOST_CHARACTERS = 2000
"""of a text that is wrapped; no picture has room for so many"""
SUFFIXES = frozenset({".ttf", ".otf", ".ttc", ".otc"})
# Parts of file names, in lower case: fonts with many characters, tried before the others.
PREFERRED = (
    "notosanscjk", "notosanssc", "notosansjp", "sourcehansans", "pingfang", "hiragino", "msyh", "yugoth", "malgun",
    "wqy", "droidsansfallback", "arial unicode", "notocoloremoji", "notoemoji", "apple color emoji", "seguiemj",
    "notosans-regular", "dejavusans.", "freesans.", "unifont",
)  # fmt: skip
BITMAP_SIZES_PX = (109, 160, 136, 128, 96, 64)
"""of colour fonts that are pictures: one size each, and drawn smaller"""
NO_CHARACTER = "\U0010ffff"
JOINED = frozenset({"Mn", "Me", "Mc", "Cf", "Sk"})
"""categories of what changes the character before it"""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font_folders() -> tuple[Path, ...]:
    """Return where systems keep fonts; not all of them exist."""
    home, data = Path.home(), os.environ.get("XDG_DATA_HOME")
    own = Path(data) if data else home / ".local" / "share"
    windows = Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts"
    folders = [own / "fonts", home / ".fonts", home / "Library" / "Fonts", Path("/usr/local/share/fonts")]
    folders += [Path("/usr/share/fonts"), Path("/System/Library/Fonts"), Path("/Library/Fonts"), windows]
    return tuple(folders)


@cache
def fonts_of(size_px: int) -> "Fonts":
    """Return the fonts of a size; they are looked for when the first character needs one."""
    return Fonts(size_px)


class Fonts:
    """The fonts that a size of text is drawn with."""

    def __init__(self, size_px: int):
        """Load Pillow's own."""
        self._size_px = size_px
        self._own: Font = ImageFont.load_default(size_px)
        self._missing = _look(self._own, NO_CHARACTER)
        self._chosen: dict[str, _Face | None] = {}
        self._found: list[_Face] = []

    def length(self, text: str) -> float:
        """Return how wide a line is, in px."""
        return sum(face.length(run) if face else self._own.getlength(run) for face, run in self._runs(text))

    def draw(self, picture: Image.Image, place: tuple[float, float], text: str, fill: str = "black") -> None:
        """Write a line into an RGB picture; `place` is its top left corner, as in `ImageDraw.text`."""
        left, top = place
        pen = ImageDraw.Draw(picture)
        for face, run in self._runs(text):
            if face is None:
                pen.text((left, top), run, fill=fill, font=self._own)
                left += self._own.getlength(run)
            else:
                face.draw(picture, (left, top + self._ascent), run, fill)
                left += face.length(run)

    def wrap(self, text: str, width_px: float, most_lines: int) -> list[str]:
        """Divide a text into lines that fit, at spaces and between characters of scripts without them.

        Args:
            text: one paragraph.
            width_px: of a line.
            most_lines: what does not fit into them is left out, and `…` stands for it.
        """
        lines: list[str] = []
        line = ""
        for word in _words(text[:MOST_CHARACTERS]):
            if len(lines) > most_lines:
                break
            while word:
                if not line and self.length(word) > width_px:  # longer than a line
                    word, rest = self._head(word, width_px)
                else:
                    rest = ""
                if line and self.length((line + word).rstrip()) > width_px:
                    lines.append(line.rstrip())
                    line = ""
                    continue
                line, word = line + word, rest
                if rest:
                    lines.append(line)
                    line = ""
        lines += [line.rstrip()] if line.strip() else []
        if len(lines) > most_lines:
            last = lines[most_lines - 1] + " …"
            while len(last) > 2 and self.length(last) > width_px:
                last = last[:-3] + " …"
            lines = [*lines[: most_lines - 1], last]
        return lines

    def _head(self, word: str, width_px: float) -> tuple[str, str]:
        count = 1
        while count < len(word) and self.length(word[: count + 1]) <= width_px:
            count += 1
        return word[:count], word[count:]

    @property
    def _ascent(self) -> int:
        return self._own.getmetrics()[0] if isinstance(self._own, ImageFont.FreeTypeFont) else self._size_px

    def _runs(self, text: str) -> list[tuple["_Face | None", str]]:
        """Divide a line into stretches of one font; None stands for Pillow's own."""
        runs: list[tuple[_Face | None, str]] = []
        for character in text:
            is_joined = runs and unicodedata.category(character) in JOINED
            face = runs[-1][0] if is_joined else self._face(character)
            if runs and runs[-1][0] is face:
                runs[-1] = face, runs[-1][1] + character
            else:
                runs.append((face, character))
        return runs

    def _face(self, character: str) -> "_Face | None":
        if character.isascii() or character.isspace():
            return None
        if character not in self._chosen:
            self._chosen[character] = self._look_for(character)
        return self._chosen[character]

    def _look_for(self, character: str) -> "_Face | None":
        if not isinstance(self._own, ImageFont.FreeTypeFont) or not character.isprintable():
            return None
        if _look(self._own, character) != self._missing:
            return None
        for face in self._found:
            if face.has(character):
                return face
        for path in _font_files(font_folders()):
            loaded = _load(path, self._size_px)
            if loaded is not None and loaded.has(character):
                self._found.append(loaded)
                return loaded
        _tell_missing(character)
        return None


class _Face:
    """A font of the machine; one of pictures is drawn at its own size and made smaller."""

    def __init__(self, font: ImageFont.FreeTypeFont, scale: float):
        self._font, self._scale = font, scale
        self._missing = _look(font, NO_CHARACTER)

    def has(self, character: str) -> bool:
        return _look(self._font, character) not in (self._missing, b"")

    def length(self, text: str) -> float:
        return self._font.getlength(text, mode="RGBA") * self._scale

    def draw(self, picture: Image.Image, baseline: tuple[float, float], text: str, fill: str) -> None:
        if self._scale == 1:
            pen = ImageDraw.Draw(picture)
            pen.text(baseline, text, fill=fill, font=self._font, anchor="ls", embedded_color=True)
            return
        ascent, descent = self._font.getmetrics()
        size = (max(1, round(self._font.getlength(text, mode="RGBA"))), ascent + descent)
        large = Image.new("RGBA", size)
        pen = ImageDraw.Draw(large)
        pen.text((0, ascent), text, fill=fill, font=self._font, anchor="ls", embedded_color=True)
        small = large.resize((max(1, round(size[0] * self._scale)), max(1, round(size[1] * self._scale))))
        picture.paste(small, (round(baseline[0]), round(baseline[1] - ascent * self._scale)), small)


def _look(font: Font, character: str) -> bytes:
    """Return how a character is drawn, in colour if it has some; nothing where it leaves the picture empty."""
    if not isinstance(font, ImageFont.FreeTypeFont):
        return b""
    box = font.getbbox(character, mode="RGBA")
    picture = Image.new("RGBA", (max(1, round(box[2]) + 2), max(1, round(box[3]) + 2)))
    ImageDraw.Draw(picture).text((0, 0), character, fill="black", font=font, embedded_color=True)
    return picture.tobytes() if picture.getbbox() else b""


@cache
def _load(path: str, size_px: int) -> _Face | None:
    for size in (size_px, *BITMAP_SIZES_PX):
        try:
            return _Face(ImageFont.truetype(path, size), size_px / size)
        except OSError:  # not this size, or no font
            continue
    return None


@cache
def _font_files(folders: tuple[Path, ...]) -> Sequence[str]:
    paths = (os.path.join(at, name) for folder in folders for at, _, names in os.walk(folder) for name in names)
    files = [path for path in paths if os.path.splitext(path)[1].lower() in SUFFIXES]

    def place(path: str) -> tuple[int, str]:
        name = os.path.basename(path).lower()
        return next((i for i, part in enumerate(PREFERRED) if part in name), len(PREFERRED)), path

    return sorted(files, key=place)[:MOST_FILES]


@cache
def _told() -> set[str]:
    return set()


def _tell_missing(character: str) -> None:
    """Say so of the first one in each process."""
    if not _told():
        _told().add(character)
        name = unicodedata.name(character, "without a name")
        print(
            f"note: no font on this machine has U+{ord(character):04X} ({name}); pictures show boxes for what is "
            "missing until a font is installed, such as Noto Sans CJK or Noto Emoji",
            file=sys.stderr,
        )


def _words(text: str) -> list[str]:
    """Divide a text where lines may end: after spaces, and around wide characters."""
    words = [""]
    for character in " ".join(text.split()):
        is_wide = unicodedata.east_asian_width(character) in "WF"
        if words[-1] and (words[-1][-1] == " " or is_wide or unicodedata.east_asian_width(words[-1][-1]) in "WF"):
            is_held = character == " " or unicodedata.category(character) in JOINED | {"Po", "Pe", "Pf"}
            if not is_held or words[-1][-1] == " ":
                words.append("")
        words[-1] += character
    return words
