"""One decode of a source: shots, clips, pixel scores, frame samples and previews. Runs in the media child."""

import hashlib
import os
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import numpy as np

from curation.clock import StepClock
from curation.errors import MediaError
from curation.judge import rules_of, still_standing
from curation.previews import PREVIEW, write_previews
from curation.samples import SampleStore, encode_samples
from curation.schema import blank_row, work_schema
from curation.shots.divide import Divider, Piece
from curation.shots.split import Lost, Splitter
from curation.sources import looks_like_image, name_problem
from curation.types import Beat, ClipInput, Frames, Operator, Row, Sampling, Segment, Source, Span
from curation.video.container import open_file, storage_error
from curation.video.decode import Clock, FrameReader, read_frames
from curation.video.frame import DecodedFrame, RgbFrame
from curation.video.image import image_facts, read_image
from curation.video.probe import probe_video
from curation.video.segments import divide_source
from curation.work import STILL, Plan, Task, clip_id, failed_row, source_columns, span_of, task_columns

OVERRUN_S = 1.0
"""How far past its end a segment looks, to tell whether a cut lies exactly on the border."""
READ_BYTES = 1 << 20
"""A source is hashed in pieces of this size, so that slow storage shows signs of life."""


def probe_source(plan: Plan, source: Source, beat: Beat) -> list[Task]:
    """Hash a source, read its facts and divide it into segments.

    Raises:
        MediaError: unreadable, above a limit, not what was planned, or nothing to see in it.
    """
    if problem := name_problem(source):
        raise MediaError(problem)
    limits = plan.recipe.limits
    source_id = content_id(source, beat, limits.max_file_gb)
    whole = Segment(0, 1, None, None)
    if looks_like_image(source.file):
        facts = image_facts(source.file, read_image(source.file, limits.max_pixels))
        expect_unchanged(source)
        return [Task(source, source_id, facts, whole)]
    facts, scan = probe_video(source.file, beat, limits)
    expect_unchanged(source)
    return [Task(source, source_id, facts, s) for s in divide_source(facts, scan, plan.recipe.shots.segment_s)]


def content_id(source: Source, beat: Beat, max_file_gb: float) -> str:
    """Give the SHA-256 of a source's file, which must be the one that was planned.

    Raises:
        MediaError: the file is empty, gone, unreadable, too large, or has changed.
    """
    digest = hashlib.sha256()
    with open_file(source.file) as file:
        _expect_planned(source, file.status)
        if source.size_bytes > max_file_gb * 1e9:
            raise MediaError(f"the file is larger than the {max_file_gb:g} GB of limits.max_file_gb")
        if source.size_bytes == 0:
            raise MediaError("the file is empty")
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
    if (status.st_size, status.st_mtime_ns) != (source.size_bytes, source.mtime_ns):
        raise MediaError("the source changed while it was read; curate again")


def analyse(plan: Plan, task: Task, beat: Beat, clock: StepClock) -> Iterator[Row]:
    """Decode one segment and give a row for each clip in it.

    Damage ends the segment: the clips before it stay, and a `failed` row says when and why; so does a source
    that changed meanwhile. There is always a row, and the last one carries the segment's totals in its work
    columns.
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
    """Tell what no row says yet: that the source changed meanwhile, or that it gave no row at all."""
    if last is not None and last["status"] == "failed":
        return None
    try:
        expect_unchanged(task.source)
    except MediaError as changed:
        return changed
    return MediaError("nothing in it could be made a clip") if last is None else None


def reader_of(plan: Plan) -> FrameReader:
    """Give the frame reader that the recipe asks for."""
    if plan.recipe.reader == "decord":
        from curation.video.decord_reader import read_frames_decord

        return read_frames_decord
    return read_frames


def pooled_samplings(plan: Plan, media: str) -> dict[str, Sampling]:
    """Give the samplings of the operators that run in pools of their own, by operator."""
    pooled = {name: op for pool in plan.recipe.pools.values() for name, op in pool.items()}
    return {n: op.sampling for n, op in pooled.items() if media in op.media and op.sampling is not None}


class _ClipScorer:
    """Measures one clip after another from the samples that were taken for it."""

    def __init__(self, plan: Plan, task: Task, clock: StepClock):
        self.plan, self.task, self.clock = plan, task, clock
        media = task.facts.type
        pixel: dict[str, Operator] = {n: op for n, op in plan.recipe.pixel_operators.items() if media in op.media}
        self._scorers = [(name, op.sampling, op.load()) for name, op in pixel.items()]
        self._pooled = pooled_samplings(plan, media)
        self._rules = rules_of(plan.recipe)
        self._pending = frozenset(c for n in self._pooled for c in plan.recipe.operators[n].writes)
        own = [s for _, s, _ in self._scorers if s is not None]
        self.samplings = [*own, *self._pooled.values(), PREVIEW]

    def row(self, span: Span, store: SampleStore, fixed: Row) -> Row:
        """Give a clip's row with its pixel scores, and what the steps after this one need of its frames."""
        facts = self.task.facts
        row = blank_row(work_schema(self.plan.writers))
        row |= source_columns(self.task.source) | task_columns(self.task) | fixed
        for name, sampling, score in self._scorers:
            with self.clock.step(name):
                frames = store.take(sampling, span) if sampling else Frames(np.zeros((0, 2, 2), np.uint8), np.zeros(0))
                if frames is not None:
                    row |= score([ClipInput(facts, span, frames)])[0]
        with self.clock.step("previews"):
            frames = store.take(PREVIEW, span) or store.coarse_pictures(span, PREVIEW.count or 1)
            if frames is not None:
                write_previews(Path(self.plan.out), row["clip_id"], frames)
        with self.clock.step("samples"):
            wanted = self.plan.recipe.score_rejected or still_standing(row, self._rules, self._pending)
            if self._pooled and wanted:
                row["_samples"] = encode_samples({n: store.take(s, span) for n, s in self._pooled.items()})
        return row


def _video_rows(plan: Plan, task: Task, beat: Beat, clock: StepClock) -> Generator[Row, None, Row]:
    """Give the rows of a segment; return its totals."""
    shots, segment, facts = plan.recipe.shots, task.segment, task.facts
    times = Clock.of(facts)
    start_s = times.seconds(segment.start_pts) if segment.start_pts is not None else 0.0
    border_s = times.seconds(segment.end_pts) if segment.end_pts is not None else None
    read_to = times.pts(border_s + OVERRUN_S) if border_s is not None else None
    previous_s = times.seconds(segment.previous_pts) if segment.previous_pts is not None else None

    detector, fps = plan.recipe.detector, facts.fps or 25.0
    divider = Divider(shots.min_s, shots.max_s, shots.trim_s)
    splitter = Splitter(detector.start(fps), detector.lag_s, divider, fps, not facts.is_vfr)
    scorer = _ClipScorer(plan, task, clock)
    store = SampleStore(scorer.samplings, previous_s)
    end_s, error = start_s, None

    def rows_of(found: Iterator[Piece | Lost]) -> Iterator[Row]:
        for piece in clock.each("shots", found):
            if isinstance(piece, Lost):
                lost = MediaError(f"no frames until {piece.end_s:.2f} s", piece.start_s)
                yield failed_row(plan, task.source, "analyse", lost, task)
            else:
                yield scorer.row(_span(piece), store, _piece_columns(piece, task))
                store.drop_before(piece.end_s)

    decoded = reader_of(plan)(task.source.file, facts, segment.start_pts, read_to, beat, plan.recipe.limits)
    clock.begin()
    try:
        for frame in decoded:
            clock.lap("decode")
            coarse = frame.coarse()
            if border_s is not None and frame.time_s >= border_s - 1e-6:
                clock.lap("scale")
                splitter.look_beyond(coarse)
                beat(0.0)
                continue
            store.offer(frame, coarse)
            clock.lap("scale")
            if splitter.push(coarse):
                yield from rows_of(splitter.look())
                clock.begin()
            end_s = round(frame.time_s + frame.duration_s, 6)
            beat(frame.duration_s)
        end_s = border_s if border_s is not None else end_s
    except MediaError as caught:
        if caught.is_transient:
            raise
        error = caught if caught.time_s is not None else MediaError(str(caught), end_s if splitter.count else None)
    clock.lap("decode")  # what it took to learn that there is no further frame
    yield from rows_of(splitter.finish(end_s))
    if error is None and splitter.count == 0:
        error = MediaError("no frame could be decoded", start_s)
    if error is not None:
        yield failed_row(plan, task.source, "analyse", error, task)
    border = splitter.border if border_s is not None and error is None else 0
    return {"_segment_frames": splitter.count, "_segment_end_s": end_s if splitter.count else None, "_border": border}


def _span(piece: Piece) -> Span:
    return Span(piece.start_s, piece.end_s, piece.start, piece.end - piece.start)


def _piece_columns(piece: Piece, task: Task) -> Row:
    span = _span(piece)
    return {
        "clip_id": clip_id(task.source_id, task.source, f"{span.start_s:.6f}-{span.end_s:.6f}"),
        "kind": piece.kind,
        "shot_index": piece.shot,
        "shot_start_s": piece.shot_start_s,
        "shot_end_s": piece.shot_end_s,
        "start_s": span.start_s,
        "end_s": span.end_s,
        "duration_s": span.duration_s,
        "start_frame": span.start_frame,
        "num_frames": span.num_frames,
    }


def _image_rows(plan: Plan, task: Task, clock: StepClock) -> Generator[Row, None, Row]:
    """Give the one row of a still image; return its totals."""
    try:
        pixels = read_image(task.source.file, plan.recipe.limits.max_pixels)
    except MediaError as error:
        if error.is_transient:
            raise
        yield failed_row(plan, task.source, "analyse", error, task)
        return {}
    span = STILL
    scorer = _ClipScorer(plan, task, clock)
    frame: DecodedFrame = RgbFrame(pixels, 0, 0.0, span.duration_s)
    store = SampleStore(scorer.samplings)
    store.offer(frame, frame.coarse())
    fixed = {"clip_id": clip_id(task.source_id, task.source, "image"), "num_frames": 1}
    yield scorer.row(span, store, fixed)
    return {"_segment_frames": 1}


def sample_again(plan: Plan, row: Row, task: Task, samplings: Mapping[str, Sampling], beat: Beat) -> dict[str, Frames]:
    """Read an analysed clip again and give its frames as sampled, by name; names without a frame are left out.

    Raises:
        MediaError: the source cannot be read any more.
    """
    span = span_of(row)
    if task.facts.type == "image":
        begin_s = 0.0
        pixels = read_image(task.source.file, plan.recipe.limits.max_pixels)
        frames: Iterator[DecodedFrame] = iter([RgbFrame(pixels, 0, 0.0, span.duration_s)])
    else:
        # A step of the grid earlier, so that it stands as it stood when the clip was first seen.
        steps_s = [1 / s.rate_fps for s in samplings.values() if s.rate_fps]
        begin_s = max(0.0, span.start_s - max([1.0, *steps_s]))
        times = Clock.of(task.facts)
        start_pts = times.pts(begin_s) if begin_s > 0 else None
        end_pts = times.pts(span.end_s)
        frames = reader_of(plan)(task.source.file, task.facts, start_pts, end_pts, beat, plan.recipe.limits)
    store = SampleStore(samplings.values(), begin_s or None)
    for frame in frames:
        store.offer(frame, frame.coarse())
        beat(0.0)
        if frame.time_s + frame.duration_s >= span.end_s - 1e-6:
            break  # no further: right behind the clip the file may be damaged
    taken = {name: store.take(sampling, span) for name, sampling in samplings.items()}
    return {name: found for name, found in taken.items() if found is not None}
