"""What an output is called where its name alone is shown."""

from pathlib import Path

from core.storage.place import called


def name_of_output(out: Path) -> str:
    """Return the last part of what an output is called: of its URL, or of its folder."""
    place = called(out)
    return out.resolve().name if place == str(out) else place.rstrip("/").rpartition("/")[2]
