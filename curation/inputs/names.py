"""What a file's name says: which files are taken for media, and how the table spells any name."""

import hashlib
import os
import re

LIST_SUFFIXES = frozenset((".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet"))
OTHER_SUFFIXES = LIST_SUFFIXES | frozenset((
    *(".aac", ".ac3", ".aif", ".aiff", ".amr", ".ape", ".flac", ".m4a", ".m4b", ".mid", ".mka", ".mp3", ".oga"),
    *(".opus", ".wav", ".wma", ".ass", ".idx", ".lrc", ".sbv", ".srt", ".ssa", ".sub", ".sup", ".vtt"),
    *(".cfg", ".conf", ".css", ".ini", ".htm", ".html", ".js", ".log", ".md", ".nfo", ".rst", ".tex", ".toml", ".xml"),
    *(".xmp", ".yaml", ".yml", ".c", ".go", ".h", ".ipynb", ".java", ".py", ".rs", ".sh", ".cue", ".edl", ".list"),
    *(".lst", ".m3u", ".m3u8", ".mpd", ".pls", ".doc", ".docx", ".epub", ".key", ".odp", ".ods", ".odt", ".pdf"),
    *(".ppt", ".pptx", ".rtf", ".xls", ".xlsm", ".xlsx", ".7z", ".bz2", ".dmg", ".gz", ".iso", ".jar", ".rar", ".tar"),
    *(".tgz", ".torrent", ".xz", ".zip", ".zst", ".arrow", ".ckpt", ".db", ".feather", ".h5", ".hdf5", ".lmdb"),
    *(
        ".mat",
        ".npy",
        ".npz",
        ".onnx",
        ".orc",
        ".pickle",
        ".pkl",
        ".pt",
        ".pth",
        ".safetensors",
        ".sqlite",
        ".tfrecord",
    ),
    *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2", ".psd", ".svg", ".exr", ".hdr", ".ico", ".thm"),
    *(".crc", ".md5", ".sha1", ".sha256", ".sfv", ".dll", ".exe", ".so", ".otf", ".ttf", ".aep", ".prproj"),
))
"""Suffixes of files that are no footage, whatever their first bytes look like: lists, sound, text, raw photographs."""

LONGEST_BYTES = 4096
"""of a path, as systems have it (PATH_MAX)"""
_MARK = re.compile(r"~[0-9a-f]{8}(\.[^./]*)?\Z")
_ZERO, _LONG = "\\x00", "\\x…"


def is_possible(name: str) -> bool:
    """Return whether a file can have this path at all: no zero byte, no half character, not too long."""
    try:
        return len(name) < LONGEST_BYTES and "\0" not in name and len(os.fsencode(name)) < LONGEST_BYTES
    except UnicodeEncodeError:
        return False


def as_text(name: str) -> str:
    r"""Return a file's name as the table can hold it; one that is not UTF-8 is escaped and marked by its true bytes.

    Without the mark it would be one with a file whose name is spelt as the escape is; a name that is spelt
    like a marked one is marked again. What a list may hold but no file can have is marked as well: a zero byte
    is spelt `\x00`, halves of surrogate pairs by their bytes, and a name that is too long ends in `\x…`.
    """
    raw = name.encode("utf-8", "surrogateescape" if _is_from_system(name) else "surrogatepass")
    text = raw.decode("utf-8", "backslashreplace").replace("\0", _ZERO)
    is_long = len(raw) >= LONGEST_BYTES and any(len(part) > 255 for part in raw.split(b"/"))
    if text.encode() == raw and not is_marked(text) and not is_long:
        return text
    stem, suffix = os.path.splitext(text)
    if is_long:
        stem, suffix = f"{text[:200]}{_LONG}", ""
    return f"{stem}~{hashlib.sha256(raw).hexdigest()[:8]}{suffix}"


def _is_from_system(name: str) -> bool:
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def is_marked(path: str) -> bool:
    """Return whether a path was marked by `as_text`, or is spelt as if it were."""
    return "\\x" in path and _MARK.search(path) is not None


def path_problem(path: str) -> str | None:
    """Return why a source of this path cannot be opened, None where it can."""
    if path.endswith("/"):
        return "the folder cannot be read; grant access, or leave it out"
    if not is_marked(path):
        return None
    if _LONG in path:
        return "no file can have so long a name; correct the list that names it"
    if _ZERO in path:
        return "no file can have this name, which holds a zero byte; correct the list that names it"
    return "the name is not UTF-8 (or spelt as one that is not); rename the file, or the folder it is in"
