"""One decode of a source: shots, clips, pixel scores, frame samples and previews. Runs in the media child."""

import hashlib
import os
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from core.cpu_time import StepClock
from core.errors import MediaError
from curation.analysis.hearing import Hear, hear_nothing, listen
from curation.analysis.look import expect_size
from curation.analysis.previews import PREVIEW, write_previews
from curation.analysis.samples import SampleStore, encode_samples
from curation.inputs.sources import name_problem
from curation.judge import rules_of, still_undecided
from curation.shots.border import Border
from curation.shots.divide import Divider, Piece
from curation.shots.split import Splitter
from curation.shots.types import Marks, ShotDetector
from curation.types import ClipInput, Frames, Operator, Row, Sampling, Source
from curation.work import STILL, Plan, Task, clip_id, failed_row, source_columns, span_of, task_columns
from media.animated import media_type
from media.container import open_file, storage_error
from media.decode import FrameReader, read_frames
from media.frame import DecodedFrame, RgbFrame
from media.image import image_facts, read_image
from media.probe import probe_video
from media.segments import divide_source
from media.stretch import Stretch
from media.timeline import Clock
from media.types import Heartbeat, Lost, Segment, SourceFacts, Span

OVERRUN_S = 1.0
"""How far past its end a segment looks, to tell whether a cut lies exactly on the border."""
READ_BYTES = 1 << 20
"""A source is hashed in pieces of this size, so that slow storage shows signs of life."""


def probe_source(plan: Plan, source: Source, beat: Heartbeat) -> list[Task]:
    """Hash a source, read its facts and divide it into segments.

    Raises:
        MediaError: unreadable, above a limit, not what was planned, or nothing to see in it.
    """
    if problem := name_problem(source):
        raise MediaError(problem)
    limits = plan.recipe.limits
    source_id = content_id(source, beat, limits.max_file_gb)
    whole = Segment(0, 1, None, None)
    if media_type(source.file) == "image":
        facts = image_facts(source.file, read_image(source.file, limits.max_pixels))
        expect_unchanged(source)
        return [Task(source, source_id, facts, whole)]
    facts, scan = probe_video(source.file, beat, limits)
    expect_unchanged(source)
    return [Task(source, source_id, facts, s) for s in divide_source(facts, scan, plan.recipe.shots.segment_s)]


def content_id(source: Source, beat: Heartbeat, max_file_gb: float) -> str:
    """Return the SHA-256 of a source's file, which must be the one that was planned.

    Raises:
        MediaError: the file is empty, gone, unreadable, too large, or has changed.
    """
    digest = hashlib.sha256()
    with open_file(source.file) as file:
        _expect_planned(source, file.status)
        expect_size(source, max_file_gb)
        while file.tell() <= source.size_bytes and (chunk := file.read(READ_BYTES)):  # it may grow for ever
            digest.update(chunk)
            beat(0.0)
        _expect_planned(source, os.fstat(file.fileno()))
    return digest.hexdigest()


def expect_unchanged(source: Source) -> None:
    """Make sure that a source's file is the one that was planned: of the same size and time of change.

    Raises:
        MediaError: it is gone or has changed, so that what was read of it may be of two contents.
    """
    try:
        _expect_planned(source, source.file.stat())
    except OSError as error:
        raise storage_error(error) from None


def _expect_planned(source: Source, status: os.stat_result) -> None:
    found = (status.st_size, source.mtime_ns if source.is_remote else status.st_mtime_ns)  # a copy is of its version
    if found != (source.size_bytes, source.mtime_ns):
        raise MediaError("the source changed while it was read; curate again")


def analyse(plan: Plan, task: Task, beat: Heartbeat, clock: StepClock) -> Iterator[Row]:
    """Decode one segment and give a row for each clip in it.

    A `failed` row says of each damaged stretch when and why, and no clip holds any of it; so does one of a source
    that ends before its end, or changed meanwhile. There is always a row, and the last one carries the segment's
    totals in its work columns.
    """
    rows = _image_rows(plan, task, clock) if task.facts.type == "image" else _video_rows(plan, task, beat, clock)
    held: Row | None = None
    count = 0
    while True:
        try:
            row = next(rows)
        except StopIteration as end:
            totals: Row = end.value
            break
        if held is not None:
            yield held
        held, count = row, count + 1
    if problem := _untold(task, held):
        if held is not None:
            yield held
        held, count = failed_row(plan, task.source, "analyse", problem, task), count + 1
    if held is not None:
        yield held | totals | {"_segment_rows": count}


def _untold(task: Task, last: Row | None) -> MediaError | None:
    """Return what no row says yet: that the source changed meanwhile, or that it gave no row at all."""
    if last is not None and last["status"] == "failed" and last["end_s"] is None:
        return None
    try:
        expect_unchanged(task.source)
    except MediaError as changed:
        return changed
    return MediaError("nothing in it could be made a clip") if last is None else None


def reader_of(plan: Plan) -> FrameReader:
    """Return the frame reader that the recipe asks for."""
    if plan.recipe.reader == "decord":
        from media.decord_reader import read_frames_decord

        return read_frames_decord
    return read_frames


def pooled_samplings(plan: Plan, media: str) -> dict[str, Sampling]:
    """Return the samplings of the operators that run in pools of their own, by operator."""
    pooled = {name: op for pool in plan.recipe.pools.values() for name, op in pool.items()}
    return {n: op.sampling for n, op in pooled.items() if media in op.media and op.sampling is not None}


class _ClipScorer:
    """Measures one clip after another from the samples that were taken for it."""

    def __init__(self, plan: Plan, task: Task, clock: StepClock, hear: Hear = hear_nothing):
        self.plan, self.task, self.clock, self.hear = plan, task, clock, hear
        media = task.facts.type
        pixel: dict[str, Operator] = {n: op for n, op in plan.recipe.pixel_operators.items() if media in op.media}
        self._scorers = [(name, op, op.load()) for name, op in pixel.items()]
        self._pooled = pooled_samplings(plan, media)
        self._rules = rules_of(plan.recipe)
        self._pending = frozenset(c for n in self._pooled for c in plan.recipe.operators[n].writes)
        own = [op.sampling for op in pixel.values() if op.sampling is not None]
        self.samplings = [*own, *self._pooled.values(), PREVIEW]

    def row(self, span: Span, store: SampleStore, fixed: Row, facts: SourceFacts) -> Row:
        """Return a clip's row with its pixel scores, and what the steps after this one need of its frames."""
        row = self.plan.blank()
        row |= source_columns(self.task.source) | task_columns(replace(self.task, facts=facts)) | fixed
        for name, operator, score in self._scorers:
            with self.clock.step(name):
                sampling = operator.sampling
                frames = store.take(sampling, span) if sampling else Frames(np.zeros((0, 2, 2), np.uint8), np.zeros(0))
                if frames is not None:
                    row |= score([ClipInput(facts, span, frames, self.hear(operator, span))])[0]
        with self.clock.step("previews"):
            frames = store.take(PREVIEW, span) or store.coarse_pictures(span, PREVIEW.count or 1)
            if frames is not None:
                write_previews(Path(self.plan.out), row["clip_id"], frames)
        with self.clock.step("samples"):
            wanted = self.plan.recipe.score_rejected or still_undecided(row, self._rules, self._pending)
            if self._pooled and wanted:
                row["_samples"] = encode_samples({n: store.take(s, span) for n, s in self._pooled.items()})
        return row


class _Segment:
    """One segment's frames on their way to rows: what is known of it as a whole, while it is decoded."""

    def __init__(self, plan: Plan, task: Task, clock: StepClock, beat: Heartbeat):
        """Get ready for its first frame."""
        self.plan, self.task, self.clock = plan, task, clock
        shots, segment, times = plan.recipe.shots, task.segment, Clock.of(task.facts)
        self.start_s = times.seconds(segment.start_pts) if segment.start_pts is not None else 0.0
        self.border_s = times.seconds(segment.end_pts) if segment.end_pts is not None else None
        self.read_to = times.pts(self.border_s + OVERRUN_S) if self.border_s is not None else None
        previous_s = times.seconds(segment.previous_pts) if segment.previous_pts is not None else None
        divider = Divider(shots.min_s, shots.max_s, shots.trim_s)
        self.splitter = Splitter(plan.recipe.detector, divider, task.facts.fps or 25.0, shots.ends_at)
        hear = listen(plan, task, (self.start_s, self.border_s), beat)
        self.scorer = _ClipScorer(plan, task, clock, hear)
        self.store = SampleStore(self.scorer.samplings, previous_s)
        self.reach_s = self.end_s = self.start_s  # where what was seen of it ends, and where its last frame ends
        self.error: MediaError | None = None
        self._sizes: list[tuple[float, tuple[int, int]]] = []  # from which time on the picture has which size

    def look(self, frame: DecodedFrame) -> Iterator[Row]:
        """Take the next frame."""
        if self._is_beyond(frame.time_s):
            if self._sizes and self._sizes[-1][1] != frame.size_px:
                self.splitter.end_at_border()
            else:
                self.splitter.look_beyond(frame.coarse())
            self.clock.lap("scale")
            return
        if not self._sizes or self._sizes[-1][1] != frame.size_px:
            if self._sizes:
                yield from self.rows_of(self.splitter.restart())
                self.clock.begin()
            self._sizes.append((frame.time_s, frame.size_px))
        coarse = frame.coarse()
        self.store.offer(frame, coarse)
        self.clock.lap("scale")
        if self.splitter.push(coarse):
            yield from self.rows_of(self.splitter.look())
            self.clock.begin()
        self.reach_s = self.end_s = round(frame.time_s + frame.duration_s, 6)

    def lose(self, lost: Lost) -> None:
        """Take a stretch of which there are no pictures."""
        if not self._is_beyond(lost.start_s):
            end_s = lost.end_s if self.border_s is None else min(lost.end_s, self.border_s)
            self.splitter.lose(replace(lost, end_s=end_s))
            self.reach_s = end_s
        if self.border_s is not None and lost.end_s >= self.border_s - 1e-6:
            self.splitter.end_at_border()

    def _is_beyond(self, time_s: float) -> bool:
        return self.border_s is not None and time_s >= self.border_s - 1e-6

    def rows_of(self, found: Iterator[Piece | Lost]) -> Iterator[Row]:
        """Return a row for each piece and each lost stretch."""
        for piece in self.clock.each("shots", found):
            if isinstance(piece, Lost):
                error = MediaError(piece.what, piece.start_s, end_s=piece.end_s)
                row = failed_row(self.plan, self.task.source, "analyse", error, self.task)
                yield row | {"_segment_rows": None, "_segment_frames": None}  # known with the segment's last row
            else:
                fixed = _piece_columns(piece, self.task, self.plan.recipe.detector)
                yield self.scorer.row(_span(piece), self.store, fixed, self._facts_at(piece.start_s))
                self.store.drop_before(piece.end_s)

    def _facts_at(self, time_s: float) -> SourceFacts:
        """Return the source's facts with the size that its picture has at a time."""
        width, height = next(size for start_s, size in reversed(self._sizes) if start_s <= time_s + 1e-6)
        return replace(self.task.facts, width_px=width, height_px=height)


def _video_rows(plan: Plan, task: Task, beat: Heartbeat, clock: StepClock) -> Generator[Row, None, Row]:
    """Yield the rows of a segment; return its totals."""
    segment = _Segment(plan, task, clock, beat)
    splitter, border_s = segment.splitter, segment.border_s
    read = reader_of(plan)
    stretch = Stretch(task.source.file, task.facts, task.segment.start_pts, segment.read_to, beat, plan.recipe.limits)
    decoded = read(stretch)
    clock.begin()
    try:
        for item in decoded:
            clock.lap("decode")
            if isinstance(item, Lost):
                segment.lose(item)
                beat(0.0)
                continue
            yield from segment.look(item)
            beat(0.0 if border_s is not None and item.time_s >= border_s - 1e-6 else item.duration_s)
        segment.reach_s = border_s if border_s is not None else segment.reach_s
        segment.end_s = border_s if border_s is not None else segment.end_s
    except MediaError as caught:
        if caught.is_transient:
            raise
        at_s = caught.time_s if caught.time_s is not None else segment.reach_s if splitter.count else None
        segment.error = MediaError(str(caught), at_s)
    clock.lap("decode")  # what it took to learn that there is no further frame
    yield from segment.rows_of(splitter.finish(segment.end_s))
    error = segment.error
    if error is None and splitter.count == 0 and segment.reach_s <= segment.start_s:
        error = MediaError("no frame could be decoded", segment.start_s)
    if error is not None:
        yield failed_row(plan, task.source, "analyse", error, task)
    border = splitter.border if border_s is not None and error is None else Border()
    reach_s = segment.reach_s if splitter.count or segment.reach_s > segment.start_s else None
    return {"_segment_frames": splitter.count, "_segment_end_s": reach_s, "_border": border.to_column()}


def _span(piece: Piece) -> Span:
    return Span(piece.start_s, piece.end_s, piece.start, piece.end - piece.start)


def _piece_columns(piece: Piece, task: Task, detector: ShotDetector) -> Row:
    span, told = _span(piece), detector.marks if isinstance(detector, Marks) else frozenset()
    seen = [mark.kind for mark in piece.marks]
    return {
        "clip_id": clip_id(task.source_id, task.source, f"{span.start_s:.6f}-{span.end_s:.6f}"),
        "kind": piece.kind,
        "shot_index": piece.shot,
        "shot_start_s": piece.shot_start_s,
        "shot_end_s": piece.shot_end_s,
        "transition_kind": piece.ended_by.kind if piece.ended_by else None,
        "transition_score": piece.ended_by.score if piece.ended_by else None,
        "flashes": seen.count("flash") if "flash" in told else None,
        "glitches": seen.count("glitch") if "glitch" in told else None,
        "marks": [asdict(mark) for mark in piece.marks] if told or seen else None,
        "start_s": span.start_s,
        "end_s": span.end_s,
        "duration_s": span.duration_s,
        "start_frame": span.start_frame,
        "num_frames": span.num_frames,
    }


def _image_rows(plan: Plan, task: Task, clock: StepClock) -> Generator[Row, None, Row]:
    """Yield the one row of a still image; return its totals."""
    try:
        pixels = read_image(task.source.file, plan.recipe.limits.max_pixels)
    except MediaError as error:
        if error.is_transient:
            raise
        yield failed_row(plan, task.source, "analyse", error, task)
        return {}
    span = STILL
    scorer = _ClipScorer(plan, task, clock)
    frame: DecodedFrame = RgbFrame(pixels, 0, 0.0, 0.0)
    store = SampleStore(scorer.samplings)
    store.offer(frame, frame.coarse())
    fixed = {"clip_id": clip_id(task.source_id, task.source, "image"), "num_frames": 1}
    yield scorer.row(span, store, fixed, task.facts)
    return {"_segment_frames": 1}


def sample_again(
    plan: Plan, row: Row, task: Task, samplings: Mapping[str, Sampling], beat: Heartbeat
) -> dict[str, Frames]:
    """Read an analysed clip again and give its frames as sampled, by name; names without a frame are left out.

    Raises:
        MediaError: the source cannot be read any more.
    """
    span = span_of(row)
    if task.facts.type == "image":
        begin_s = 0.0
        pixels = read_image(task.source.file, plan.recipe.limits.max_pixels)
        frames: Iterator[DecodedFrame | Lost] = iter([RgbFrame(pixels, 0, 0.0, 0.0)])
    else:
        # A step of the grid earlier, so that it stands as it stood when the clip was first seen.
        steps_s = [1 / s.rate_fps for s in samplings.values() if s.rate_fps]
        begin_s = max(0.0, span.start_s - max([1.0, *steps_s]))
        times = Clock.of(task.facts)
        start_pts = times.pts(begin_s) if begin_s > 0 else None
        end_pts = times.pts(span.end_s)
        frames = reader_of(plan)(Stretch(task.source.file, task.facts, start_pts, end_pts, beat, plan.recipe.limits))
    store = SampleStore(samplings.values(), begin_s or None)
    for frame in frames:
        beat(0.0)
        if isinstance(frame, Lost):
            continue  # before the clip: no clip holds any of it
        store.offer(frame, frame.coarse())
        if frame.time_s + frame.duration_s >= span.end_s - 1e-6:
            break  # no further: right behind the clip the file may be damaged
    taken = {name: store.take(sampling, span) for name, sampling in samplings.items()}
    return {name: found for name, found in taken.items() if found is not None}
