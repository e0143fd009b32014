"""Formats that plug-ins add: what one must be, and the table of them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from core import plugins
from core.plugins import PluginTable, lacking
from curation.export.rows import Record, Tally

FILE = re.compile(r"(train/)?[A-Za-z0-9][\w-]*(\.[\w-]+)+")
"""where a format's file may lie in an output: beside the table or beside the clips, with a suffix"""
OURS = frozenset({
    *("json_of_internal_datasets.json", "webvid.csv", "train/metadata.jsonl", "exports.json", "plugins.json"),
    *("run.json", "recipe.yaml", "report.html"),
})
CLIPS = (".mp4", ".jpg", ".mkv", ".webm")


class Exporter(Protocol):
    """A format of one text file: an object, or a module, that an entry point names.

    Attributes:
        file: the file in an output, such as `mine.csv` or `train/mine.jsonl`.
    """

    file: str

    def write(self, file: IO[str], records: Iterator[Record], tally: Tally, prefix: Path | None) -> None:
        """Write the records, whose keys are those of `curation.export.RECORD`, and count each in `tally.rows`.

        Args:
            file: open for UTF-8 text; it takes its place only once it is whole.
            records: accepted clips with a file and a caption, in the table's order.
            tally: `rows`, and `not_videos` for records that the format cannot name.
            prefix: the folder to put before each `file_path`; null: it stays relative to the output.
        """
        ...


def exporter_fault(name: str, value: Any) -> str | None:
    """Return what is wrong with a plug-in's exporter, None for nothing."""
    if wrong := lacking(value, ("file", "write")):
        return wrong
    if not isinstance(value.file, str) or not FILE.fullmatch(value.file):
        return "its file must be NAME.SUFFIX or train/NAME.SUFFIX, in letters, digits, _ and -"
    if value.file in OURS or value.file.endswith(CLIPS):
        return f"its file {value.file} is one of ours"
    return None


EXPORTERS: PluginTable[Exporter] = PluginTable(
    {}, plugins.EXPORTERS, exporter_fault, taken=("internal", "webvid", "diffusers", "webdataset")
)
