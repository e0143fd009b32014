"""Text from outside, made valid where it comes in, and harmless where it is shown: terminals, logs, spreadsheets."""

import os
import re
from collections.abc import Mapping
from urllib.parse import quote

HIDDEN = "***"
SHORTEST_SECRET = 8
"""characters; a shorter value would be found in harmless words"""
LONGEST_CAPTION = 100_000
"""characters; no captioner's text is longer in a table, whatever its own limit"""

# Names of variables, and of keys in URLs, headers and settings, that say: what follows is a secret.
_SECRET_VARIABLE = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)(_ID)?$", re.IGNORECASE)
_KEYS = (
    r"(?:api[_-]?key|access[_-]?key(?:[_-]?id)?|secret[_-]?key|private[_-]?key|token|secret|password|passwd"
    r"|passphrase|credentials?|signature|\bsig)"
)
_PLAIN_KEYS = r"(?:api[_-]?key|access[_-]?key|secret[_-]?key|password|passwd)"  # the others are words of messages, too
_VALUE = r"(?:\"[^\"]*\"|'[^']*'|[\"']?[^\s\"'&;,)}\]]+)"
# No text takes long: every repetition is bounded, or over characters its end is not among.
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # user:password@ of a URL: up to the last @ before a slash, else a password that itself holds a slash
    (re.compile(r"(?<=://)(?:[^\s/]{1,300}@|[^\s/@:]{0,300}:[^\s@]{1,300}@)"), f"{HIDDEN}@"),
    (
        re.compile(r"(?i)(\bauthorization[\"']?\s*[=:]\s*[\"']?)(?:[a-z][\w-]{0,40}\s+)?[^\s\"',;]+"),
        rf"\g<1>{HIDDEN}",
    ),
    (re.compile(r"(?i)(\bbearer\s+)[\w.~+/=-]+"), rf"\g<1>{HIDDEN}"),
    (
        re.compile(rf"(?i)((?:{_KEYS}[\"']?\s*=|{_KEYS}[\"']\s*:|{_PLAIN_KEYS}\s*:)\s*){_VALUE}"),
        rf"\g<1>{HIDDEN}",
    ),
)

# A cell that a spreadsheet might run, whatever blanks and quotes (ours among them) stand before. The full-width
# signs count where the keyboard has them.
_FORMULA = re.compile(r"[\s\ufeff'\"]*[=+\-@＝＋－＠]|['\"]*[\t\r\n]")


def clean_text(text: str, most: int | None = None) -> str:
    r"""Return text that every encoder, table and JSON reader takes: well-formed Unicode without NUL, of bounded length.

    For the door: captions, prompts, metadata of containers, text read in pictures. Two halves of one character, as
    JSON may spell them, become that character; a half alone, such as `\ud83d`, and NUL become U+FFFD. Names of files
    are another matter: there a half stands for a byte that is not UTF-8 (`os.fsdecode`), and must stay to open them.

    Args:
        text: anything.
        most: characters to keep, at least 1; null: all. What is cut off leaves `…` as the last of them.

    Returns:
        The text; cleaned again it stays as it is.
    """
    if most is not None:
        text = text[: 2 * most + 1]  # halves may come in pairs; no more of it is looked at
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def printable(text: str, most: int | None = None) -> str:
    r"""Return text on one line that no terminal obeys: control characters become visible, as in `\x1b` or `\n`.

    Direction marks, zero-width characters and halves of characters count as control characters.

    Args:
        text: anything.
        most: characters to keep; null: all. Take secrets out first: half a secret is not found any more.
    """
    if most is not None:
        text = text[: most + 1]  # no more of it is looked at; what is escaped only gets longer
    if not text.isprintable():
        text = "".join(c if c.isprintable() or _is_blank(c) else _escaped(c) for c in text)
    return text if most is None or len(text) <= most else text[: max(0, most - 1)] + "…"


def printable_lines(text: str) -> str:
    """Return text of several lines, such as a traceback, that no terminal obeys."""
    return "\n".join(printable(line) for line in text.split("\n"))


def without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Put `***` in place of whatever looks like a secret.

    Hidden are the values of variables whose names say that they are secrets, users and passwords in URLs,
    what follows `Bearer` and `Authorization:`, and values of keys such as `token=` or `X-Amz-Signature=`.

    Args:
        text: such as an error's.
        environment: variables whose values are secrets where their names say so.
    """
    for value in _secret_values(environment):
        text = text.replace(value, HIDDEN)
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    return text


def safe_cell(text: str) -> str:
    """Return a CSV cell that no spreadsheet takes for a formula: such a text gets an apostrophe before it."""
    return f"'{text}" if _FORMULA.match(text) else text


def from_safe_cell(text: str) -> str:
    """Return the text that `safe_cell` was given; what it would not have written stays as it is."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text, 1) else text


def _secret_values(environment: Mapping[str, str]) -> list[str]:
    """Return the secrets as texts may hold them: whole, by line, quoted, as part of a URL; the longest first."""
    found: set[str] = set()
    for name, value in environment.items():
        if _SECRET_VARIABLE.search(name):
            for part in {value, *value.split("\n")}:
                if len(part.strip()) >= SHORTEST_SECRET:
                    raw = part.strip().encode("utf-8", "surrogatepass")
                    found |= {part.strip(), repr(part.strip())[1:-1], quote(raw, safe="")}
    return sorted(found, key=lambda value: (-len(value), value))


def _is_blank(character: str) -> bool:
    """Tell a space of another width, as file names hold them, from line and paragraph separators."""
    return character.isspace() and character not in "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
