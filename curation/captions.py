"""Captions for accepted rows: asked for in parallel, compared with their frames, checked, and judged once more."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from core.sanitize import LONGEST_CAPTION, clean_text
from curation.analysis.samples import decode_samples
from curation.cut import remove_files
from curation.schema import FINISH_COLUMNS
from curation.types import Align, Caption, Captioner, CaptionScorer, Frames, Row

WriteCaptions = Callable[[Sequence[tuple[Row, Frames | None]]], list[Caption]]
UNFIT = "unfit"
"""`caption_status` of a caption that says something else than its frames"""
FAILED = "failed"
"""what a captioner says where nobody answered"""
TOO_LONG = "too_long"
"""`caption_status` of a caption beyond every limit"""
LONGEST_NAME = 300
"""characters of a model's name, and of what went wrong"""


@dataclass(frozen=True)
class CaptionWriter:
    """A loaded captioner with its threads, and what compares captions with frames.

    Attributes:
        write: from (row, frames) to captions.
        threads: one for each call that may be under way; null: calls come one after another.
        align: from (caption, frames) to a likeness, null where there is none; or null, where nothing is compared.
        least: likeness that a caption must have.
    """

    write: WriteCaptions
    threads: ThreadPoolExecutor | None = None
    align: Align | None = None
    least: float = 0.0

    def captions(self, rows: Sequence[Row]) -> list[tuple[Caption, float | None]]:
        """Caption the clips of rows; one whose caption does not fit its frames is asked about once more."""
        first = self._aligned(rows, self._written(rows))
        again = [i for i, (caption, _) in enumerate(first) if caption.status == UNFIT]
        if again:
            unfit = [rows[i] for i in again]
            for i, better in zip(again, self._aligned(unfit, self._written(unfit)), strict=True):
                first[i] = better
        return first

    def _written(self, rows: Sequence[Row]) -> list[Caption]:
        if self.threads is None:
            captions = self.write([(row, _frames(row)) for row in rows]) if rows else []
        else:  # unpacked by each thread for itself: frames of all that wait would fill the memory
            captions = [caption for (caption,) in self.threads.map(lambda row: self.write([(row, _frames(row))]), rows)]
        for row, caption in zip(rows, captions, strict=True):
            if caption.clip_id not in (None, row["clip_id"]):
                raise RuntimeError(f"clip {row['clip_id']} was asked about, the caption is for {caption.clip_id}")
        return [valid_caption(caption) for caption in captions]

    def _aligned(self, rows: Sequence[Row], captions: list[Caption]) -> list[tuple[Caption, float | None]]:
        if self.align is None or not rows:
            return [(caption, None) for caption in captions]
        fine = [i for i, caption in enumerate(captions) if caption.status == "ok"]
        likeness: list[float | None] = [None] * len(captions)
        for i, value in zip(fine, self.align([(captions[i].text, _frames(rows[i])) for i in fine]), strict=True):
            likeness[i] = value
        return [
            (_unfit(caption) if caption.status == "ok" and (value is None or value < self.least) else caption, value)
            for caption, value in zip(captions, likeness, strict=True)
        ]


def load_writer(captioner: Captioner, alignment: CaptionScorer | None) -> CaptionWriter:
    """Load a captioner and, where the recipe asks for it, what compares captions with frames."""
    threads = ThreadPoolExecutor(captioner.slots, "caption") if captioner.slots > 1 else None
    if alignment is None:
        return CaptionWriter(captioner.load(), threads)
    return CaptionWriter(captioner.load(), threads, alignment.load(), alignment.min_score)


def caption_rows(rows: Sequence[Row], writer: CaptionWriter, out: Path) -> list[Row]:
    """Caption the accepted rows that have none; a caption that fails its checks rejects its clip.

    Args:
        rows: judged rows, accepted ones with their files and the captioner's frames.
        writer: a loaded captioner.
        out: output folder, where the file of a clip rejected here is removed again.
    """
    waiting = [i for i, row in enumerate(rows) if row["status"] == "accepted" and has_no_caption(row)]
    finished = list(rows)
    for index, (caption, likeness) in zip(waiting, writer.captions([rows[i] for i in waiting]), strict=True):
        finished[index] = _with_caption(rows[index], caption, likeness, out)
    return finished


def has_no_caption(row: Row) -> bool:
    """Return whether a row has neither the captioner's text nor a person's."""
    return row["caption"] is None and row.get("caption_by_hand") is None


def valid_caption(caption: Caption) -> Caption:
    """Return a caption whose texts a table takes, whoever wrote them; one that is far too long is cut and rejected."""
    said = [caption.text or "", *caption.texts.values()]
    is_long = caption.status == "ok" and max(map(len, said)) > LONGEST_CAPTION
    return replace(
        caption,
        text=None if caption.text is None else clean_text(caption.text, LONGEST_CAPTION),
        model=clean_text(caption.model, LONGEST_NAME),
        status=TOO_LONG if is_long else caption.status,
        texts={name: clean_text(text, LONGEST_CAPTION) for name, text in caption.texts.items()},
        error=None if caption.error is None else clean_text(caption.error, 2 * LONGEST_NAME),
    )


def _frames(row: Row) -> Frames | None:
    return decode_samples(row["_samples"], "caption")


def _unfit(caption: Caption) -> Caption:
    return Caption(caption.text, caption.model, UNFIT, caption.clip_id, caption.texts)


def _with_caption(row: Row, caption: Caption, likeness: float | None, out: Path) -> Row:
    told: Row = {"caption": caption.text, "caption_model": caption.model, "caption_status": caption.status}
    told |= {name: text for name, text in caption.texts.items() if name in row}
    if "caption_alignment" in row:
        told["caption_alignment"] = likeness
    if caption.status == "ok":
        return row | told
    remove_files(out, row)
    if caption.status == FAILED:  # nobody answered: `--retry-failed` asks again
        nothing = {name: None for name in FINISH_COLUMNS if name in row}
        return row | nothing | {"status": "failed", "error": f"caption: {caption.error or 'no answer'}"}
    cut = {name: None for name in FINISH_COLUMNS if name not in told and name in row}
    return row | cut | told | {"status": "rejected", "reasons": [f"caption:{caption.status}"]}
