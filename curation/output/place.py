"""What outputs are called: their folders, or the URLs that folders of this machine are copies of."""

from pathlib import Path

from core.storage.place import NAME


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
