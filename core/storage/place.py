"""Where a file lies, as people call it: its path, or the URL that a folder of this machine is a copy of."""

from pathlib import Path

from core.files import atomic_write, make_folder

NAME = ".place"


def record_place(folder: Path, url: str) -> None:
    """Record the URL that a folder is a copy of, so that messages and settings name it."""
    make_folder(folder)
    atomic_write(folder / NAME, url)


def called(path: Path) -> str:
    """Return what a file or folder is called: a URL where it is of such a copy, or the path as it was given."""
    for above in (path, *path.parents):
        try:
            url = (above / NAME).read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue
        return "/".join([url.rstrip("/"), *path.relative_to(above).parts])
    return str(path)
