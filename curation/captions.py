"""Captions for accepted rows, and the checks that judge them once more."""

from collections.abc import Callable, Sequence
from pathlib import Path

from curation.samples import decode_samples
from curation.schema import FINISH_COLUMNS
from curation.types import Caption, Frames, Row

WriteCaptions = Callable[[Sequence[tuple[Row, Frames | None]]], list[Caption]]


def caption_rows(rows: Sequence[Row], write: WriteCaptions, out: Path) -> list[Row]:
    """Caption the accepted rows that have none; a caption that fails its checks rejects its clip.

    Args:
        rows: judged rows, accepted ones with their files and the captioner's frames.
        write: a loaded captioner.
        out: output folder, where the file of a clip rejected here is removed again.
    """
    waiting = [i for i, row in enumerate(rows) if row["status"] == "accepted" and row["caption"] is None]
    asked = [(rows[i], decode_samples(rows[i]["_samples"], "caption")) for i in waiting]
    captions = write(asked) if asked else []
    finished = list(rows)
    for index, caption in zip(waiting, captions, strict=True):
        finished[index] = _with_caption(rows[index], caption, out)
    return finished


def _with_caption(row: Row, caption: Caption, out: Path) -> Row:
    told = {"caption": caption.text, "caption_model": caption.model, "caption_status": caption.status}
    if caption.status == "ok":
        return row | told
    if row["clip_path"] is not None:
        (out / row["clip_path"]).unlink(missing_ok=True)
    cut = {name: None for name in FINISH_COLUMNS if name not in told}
    return row | cut | told | {"status": "rejected", "reasons": [f"caption:{caption.status}"]}
