"""Where an output lies, as people call it: its folder, or the URL that a folder of this machine is the copy of."""

from pathlib import Path

from core.files import atomic_write, make_folder

NAME = ".place"


def record_place(out: Path, url: str) -> None:
    """Record the URL that a folder is a copy of, so that messages name it."""
    make_folder(out)
    atomic_write(out / NAME, url)


def place_of_output(out: Path) -> str:
    """Return what an output is called: a URL, or the folder as it was given."""
    try:
        return (out / NAME).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return str(out)


def name_of_output(out: Path) -> str:
    """Return the last part of what an output is called."""
    place = place_of_output(out)
    return out.resolve().name if place == str(out) else place.rstrip("/").rpartition("/")[2]
