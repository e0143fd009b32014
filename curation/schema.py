"""The table's columns: the one place that lists every column with type, unit, meaning and writer."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

VIDEO = frozenset({"video"})
BOTH = frozenset({"video", "image"})


@dataclass(frozen=True)
class Column:
    """One column: `writer` is the step or operator that fills it, `media` the types of row it exists for."""

    name: str
    dtype: pa.DataType
    unit: str
    meaning: str
    writer: str
    media: frozenset[str] = BOTH


F, I, S = pa.float64(), pa.int64(), pa.string()  # noqa: E741 - a table reads better with short names
C = Column

COLUMNS: tuple[Column, ...] = (
    C("clip_id", S, "", "uuid5 of source content, input-relative path and span", "analyse"),
    C("type", S, "", "video or image", "analyse"),
    C("source_path", S, "", "where from: path relative to source_root", "sources"),
    C("source_root", S, "", "absolute folder that source_path is relative to", "sources"),
    C("source_size_bytes", I, "bytes", "file size when planned; with the mtime it tells a changed source", "sources"),
    C("source_mtime_ns", I, "ns", "time of last change when planned", "sources"),
    C("source_id", S, "", "content id: SHA-256 of the file", "probe"),
    C("source_clips", pa.int32(), "rows", "rows this source yields in all", "table"),
    C("source_num_frames", I, "frames", "decoded frames of the chosen video stream", "table"),
    C("source_duration_s", F, "s", "presentation length of the chosen video stream", "table", VIDEO),
    C("shot_index", pa.int32(), "", "which shot of the source, from 0", "table", VIDEO),
    C("kind", S, "", "clip, or transition: frames in which one shot turns into the next", "analyse", VIDEO),
    C(
        "shot_start_s",
        F,
        "s",
        "start of the shot as detected, before trimming and dividing; a shot begins with the transition into it",
        "analyse",
        VIDEO,
    ),
    C("shot_end_s", F, "s", "end of the shot as detected", "analyse", VIDEO),
    C("start_s", F, "s", "start of the clip in the source, from its first frame", "analyse", VIDEO),
    C("end_s", F, "s", "end of the clip, exclusive", "analyse", VIDEO),
    C("duration_s", F, "s", "end_s - start_s", "analyse", VIDEO),
    C("start_frame", I, "frames", "decoded index of the clip's first frame", "table", VIDEO),
    C("num_frames", I, "frames", "decoded frames in the clip", "analyse"),
    C("width_px", I, "px", "of the source as displayed: rotation and pixel aspect applied", "probe"),
    C("height_px", I, "px", "likewise", "probe"),
    C("short_side_px", I, "px", "the smaller of the two", "probe"),
    C("area_px", I, "px^2", "width times height", "probe"),
    C("fps", F, "1/s", "mean frame rate of the source", "probe", VIDEO),
    C("codec", S, "", "name of the source's codec", "probe"),
    # -- operators; a table has the columns of the operators its recipe names
    C("aspect_ratio", F, "", "width / height as displayed", "facts"),
    C("bit_depth", pa.int32(), "bits", "per colour component", "facts"),
    C("transfer", S, "", "sdr, pq (HDR10) or hlg", "facts"),
    C("bit_rate_bps", I, "bit/s", "of the video stream", "facts", VIDEO),
    C("is_vfr", pa.bool_(), "", "frame times are uneven", "facts", VIDEO),
    C("has_audio", pa.bool_(), "", "the file has a sound stream", "facts", VIDEO),
    C("motion", F, "%/s", "mean optical-flow speed, percent of the frame diagonal per second", "motion", VIDEO),
    C("camera_pan_x", F, "%/s", "median flow to the right, percent of the diagonal per second", "motion", VIDEO),
    C("camera_pan_y", F, "%/s", "median flow downwards", "motion", VIDEO),
    C("camera_zoom", F, "1/s", "relative growth of the picture per second; negative when it shrinks", "motion", VIDEO),
    C("sharpness", F, "", "variance of the Laplacian of luma at a fixed short side, mean over frames", "sharpness"),
    C("brightness", F, "", "mean luma, 0 black to 1 white", "brightness"),
    C("clipped", F, "", "share of pixels at black or at white, 0..1", "brightness"),
    C("frozen", F, "", "share of frames equal to the one before, 0..1", "frozen", VIDEO),
    C("letterbox", F, "", "share of the picture covered by bars, 0..1", "letterbox"),
    C(
        "content_box",
        pa.list_(pa.float64()),
        "",
        "picture inside the bars: left, top, right, bottom, 0..1",
        "letterbox",
    ),
    C("text_area", F, "", "share of the frame under text, union of quads, 0..1", "text_area"),
    C(
        "visual_quality",
        F,
        "",
        "exposure, contrast, colour, sharpness and block noise together, 0..1",
        "visual_quality",
    ),
    C("aesthetic", F, "", "how much people like the pictures, about 1..10 (LAION), mean over frames", "aesthetic"),
    C("aesthetic_frames", pa.list_(F), "", "the same of each frame looked at", "aesthetic"),
    C(
        "frame_consistency",
        F,
        "",
        "lowest CLIP cosine of two neighbouring frames: a clip that hides a cut scores low",
        "frame_consistency",
        VIDEO,
    ),
    C("embedding", pa.list_(pa.float16()), "", "CLIP vector of the clip, of unit length", "embedding"),
    C("temporal_hash", pa.list_(I), "", "768 bits that nearly equal pictures share, in order of time", "temporal_hash"),
    C("duplicate_of", S, "", "clip_id of the better clip that this one is a copy of", "duplicates"),
    C("colors", pa.list_(S), "", "names of the dominant colours, the commonest first", "visual_quality"),
    # -- verdict and what follows
    C("status", S, "", "accepted, rejected or failed", "judge"),
    C("reasons", pa.list_(S), "", "why rejected: <column>:low, :high or :missing, or a step's own word", "judge"),
    C("error", S, "", "why failed: <step>: <message>", "any step"),
    C("caption", S, "", "text for the trainer", "caption"),
    C("caption_model", S, "", "what wrote it", "caption"),
    C("caption_status", S, "", "ok, or what is wrong with it", "caption"),
    C("caption_en", S, "", "the caption in English", "caption_en"),
    C("caption_zh", S, "", "the caption in Chinese", "caption_zh"),
    C("caption_alignment", F, "", "mean CLIP cosine of the caption's sentences and the frames", "caption_alignment"),
    C("clip_path", S, "", "file of the clip, relative to the output; null until cut", "cut"),
    C("clip_width_px", I, "px", "of the written file", "cut"),
    C("clip_height_px", I, "px", "likewise", "cut"),
    C("clip_fps", F, "1/s", "likewise", "cut", VIDEO),
    C("clip_num_frames", I, "frames", "frames that the written file decodes to", "cut"),
)

BY_NAME: dict[str, Column] = {column.name: column for column in COLUMNS}
CAPTIONING = ("caption", "caption_en", "caption_zh", "caption_alignment")
"""writers of what is known of a clip once it is captioned"""
FINISH_COLUMNS = tuple(c.name for c in COLUMNS if c.writer in (*CAPTIONING, "cut"))
STEP_WRITERS = frozenset({"sources", "probe", "analyse", "table", "judge", "any step", "caption", "cut"})

GOES_ON = -1
"""`_border` of a segment whose last shot goes on in the next one.

0 or more: a new shot begins at the border, with a transition of so many frames. Below -1: the shot goes on, and
the transition into it reaches `-1 - _border` frames beyond the border.
"""

# What a row carries on its way and the published table leaves out.
WORK_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("_done_segments", pa.list_(pa.int32())),  # of a source, segments whose rows are parts already
    ("_task", S),  # the segment to decode, with the source's facts, as JSON
    ("_segment", pa.int32()),  # which segment of the source
    ("_segments", pa.int32()),  # how many the source has
    ("_segment_rows", pa.int32()),  # rows of this segment in all; null until its last row
    ("_segment_frames", I),  # decoded frames of this segment; likewise
    ("_segment_end_s", F),  # where its last frame ends
    ("_border", pa.int32()),  # on a segment's last row, see GOES_ON
    ("_samples", pa.binary()),  # encoded frames for pooled operators and the captioner
)


# What a part keeps of them, for `table.fold` to finish its rows.
PART_COLUMNS = ("_segment", "_segments", "_segment_rows", "_segment_frames", "_segment_end_s", "_border")


def table_schema(writers: Iterable[str]) -> pa.Schema:
    """Give the Arrow schema of a table whose recipe names these operators.

    Args:
        writers: names of operators; one that writes vectors is followed by their length, as in `embedding[768]`.
    """
    lengths: dict[str, int | None] = dict.fromkeys(STEP_WRITERS)
    for writer in writers:
        name, _, length = writer.rstrip("]").partition("[")
        lengths[name] = int(length) if length else None
    return pa.schema([
        pa.field(c.name, pa.list_(c.dtype.value_type, lengths[c.writer]) if lengths[c.writer] else c.dtype)
        for c in COLUMNS
        if c.writer in lengths
    ])


def work_schema(writers: Iterable[str]) -> pa.Schema:
    """Give the schema of rows under way: the table's columns and the work columns."""
    return pa.schema([*table_schema(writers), *(pa.field(name, dtype) for name, dtype in WORK_COLUMNS)])


def part_schema(writers: Iterable[str]) -> pa.Schema:
    """Give the schema of finished rows that wait to be folded into the table."""
    work = dict(WORK_COLUMNS)
    return pa.schema([*table_schema(writers), *(pa.field(name, work[name]) for name in PART_COLUMNS)])


def blank_row(schema: pa.Schema) -> dict[str, Any]:
    """Give a row with every column null."""
    return dict.fromkeys(schema.names)
