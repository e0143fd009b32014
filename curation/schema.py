"""The table's columns: the one place that lists every column with type, unit, meaning and writer."""

from collections.abc import Iterable, Mapping
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


@dataclass(frozen=True)
class VectorWriter:
    """An operator by name, whose list columns hold vectors of `length` numbers."""

    name: str
    length: int


Writer = str | VectorWriter | Column
"""what decides a table's columns: an operator or step by name, one that writes vectors with their length, or a column
of a plug-in, which is not listed here"""
CONTROLS: tuple[tuple[str, str, frozenset[str]], ...] = (
    ("canny", "share of pixels on an edge, mean over frames, 0..1", BOTH),
    ("lines", "share of pixels on a straight line, mean over frames, 0..1", BOTH),
    ("soft_edges", "strength of edges, mean over pixels and frames, 0..1", BOTH),
    ("trajectory", "how far points get from where they began, mean, as a share of the diagonal, 0..1", VIDEO),
    ("camera", "share of the steps between frames that one movement of the camera explains, 0..1", VIDEO),
    ("gray", "contrast: standard deviation of luma, mean over frames, as a share of the largest there is, 0..1", BOTH),
    ("blur", "contrast of the blurred luma, likewise", BOTH),
    ("tile", "contrast of the coarse luma, likewise", BOTH),
    ("depth", "range of inverse depth as a share of the nearest, mean over frames, 0..1", BOTH),
    ("pose", "share of the frames in which a person is found, 0..1", BOTH),
    ("hed", "strength of edges, mean over pixels and frames, 0..1", BOTH),
    ("mlsd", "share of pixels on a straight line, mean over frames, 0..1", BOTH),
)
"""Control maps: name, what the amount in them means, and the types of row that they exist for."""
CONTROL = "control_"
"""begins the columns of control maps, and the names of their writers"""

F, I, S = pa.float64(), pa.int64(), pa.string()  # noqa: E741 - a table reads better with short names
C = Column
MARKS = pa.list_(pa.struct([("kind", S), ("start_s", F), ("end_s", F), ("score", F)]))

LANGUAGES = {"en": "English", "zh": "Chinese"}
LENGTHS = ("short", "medium", "long")
CAPTION_LENGTHS = tuple(
    (language, length, f"caption_{language}_{length}") for language in LANGUAGES for length in LENGTHS
)
"""language, length and column of captions of several lengths"""

COLUMNS: tuple[Column, ...] = (
    C("clip_id", S, "", "uuid5 of source content, input-relative path and span", "analyse"),
    C("type", S, "", "video or image", "analyse"),
    C("source_path", S, "", "where from: path relative to source_root", "sources"),
    C("source_root", S, "", "absolute folder, or URL, that source_path is relative to", "sources"),
    C("source_size_bytes", I, "bytes", "file size when planned; with the mtime it tells a changed source", "sources"),
    C("source_mtime_ns", I, "ns", "time of last change when planned; of an object a number of its ETag", "sources"),
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
    C(
        "transition_kind",
        S,
        "",
        "of the transition that ends the shot (its own, of a transition's row): hard, jump, dissolve, fade_black, "
        "fade_white, wipe, slide, push, zoom, whip, other; null where the source ends or the detector does not tell",
        "analyse",
        VIDEO,
    ),
    C("transition_score", F, "0..1", "the detector's confidence in that transition", "analyse", VIDEO),
    C("flashes", I, "", "flashes in the clip; null where the detector does not tell", "analyse", VIDEO),
    C("glitches", I, "", "stretches of damaged frames in the clip, likewise", "analyse", VIDEO),
    C("marks", MARKS, "", "what the detector saw in the clip and ended no clip at, in order", "analyse", VIDEO),
    C("start_s", F, "s", "start of the clip in the source, from its first frame", "analyse", VIDEO),
    C("end_s", F, "s", "end of the clip, exclusive", "analyse", VIDEO),
    C("duration_s", F, "s", "end_s - start_s", "analyse", VIDEO),
    C("start_frame", I, "frames", "decoded index of the clip's first frame", "table", VIDEO),
    C("num_frames", I, "frames", "decoded frames in the clip", "analyse"),
    C("width_px", I, "px", "of the source as displayed: rotation and pixel aspect applied", "probe"),
    C("height_px", I, "px", "likewise", "probe"),
    C("short_side_px", I, "px", "the smaller of the two", "probe"),
    C("area_px", I, "px^2", "width times height", "probe"),
    C(
        "fps",
        F,
        "1/s",
        "frame rate of the source: the usual one, holds left out; the mean one if it is uneven",
        "probe",
        VIDEO,
    ),
    C("codec", S, "", "name of the source's codec", "probe"),
    C(
        "other_video_streams",
        pa.list_(S),
        "",
        "video streams of the file that were not chosen, in words",
        "probe",
        VIDEO,
    ),
    # -- operators; a table has the columns of the operators its recipe names
    C("aspect_ratio", F, "", "width / height as displayed", "facts"),
    C("bit_depth", pa.int32(), "bits", "per colour component", "facts"),
    C("transfer", S, "", "sdr, pq (HDR10) or hlg", "facts"),
    C("interlaced", S, "", "progressive, or which field was first before deinterlacing: tff, bff", "facts", VIDEO),
    C("bit_rate_bps", I, "bit/s", "of the video stream", "facts", VIDEO),
    C("is_vfr", pa.bool_(), "", "frame times are uneven", "facts", VIDEO),
    C("has_audio", pa.bool_(), "", "the file has a sound stream", "facts", VIDEO),
    C("audio_codec", S, "", "name of the codec of the source's sound; null without one that is known", "facts", VIDEO),
    C("audio_rate_hz", pa.int32(), "Hz", "samples per second of the source's sound", "facts", VIDEO),
    C("audio_channels", pa.int32(), "channels", "channels of the source's sound", "facts", VIDEO),
    C("bits_per_pixel", F, "bit", "bit_rate_bps over width, height and frame rate", "bits_per_pixel", VIDEO),
    C("motion", F, "%/s", "mean optical-flow speed, percent of the frame diagonal per second", "motion", VIDEO),
    C("camera_pan_x", F, "%/s", "median flow to the right, percent of the diagonal per second", "motion", VIDEO),
    C("camera_pan_y", F, "%/s", "median flow downwards", "motion", VIDEO),
    C("camera_zoom", F, "1/s", "relative growth of the picture per second; negative when it shrinks", "motion", VIDEO),
    C("pan", F, "%/s", "camera to the right, percent of the diagonal per second, mean of the clip", "camera", VIDEO),
    C("tilt", F, "%/s", "camera upwards, likewise", "camera", VIDEO),
    C("zoom", F, "%/s", "growth of the picture, percent per second: 100 ln(enlargement) / s", "camera", VIDEO),
    C("roll", F, "deg/s", "turn of the camera, degrees per second; clockwise is positive", "camera", VIDEO),
    C("shake", F, "%", "root mean square of the path beside its slow part, percent of the diagonal", "camera", VIDEO),
    C(
        "camera_move",
        S,
        "",
        "static, pan_left, pan_right, tilt_up, tilt_down, zoom_in, zoom_out, roll, handheld or mixed; "
        "null where no camera explains the motion",
        "camera",
        VIDEO,
    ),
    C("camera_confidence", F, "", "how far camera_move is certain, 0..1", "camera", VIDEO),
    C("speed_change", F, "", "fast over slow speed of the picture, 1 or more; null where it stands", "speed", VIDEO),
    C("sharpness", F, "", "variance of the Laplacian of luma at a fixed short side, mean over frames", "sharpness"),
    C("detail_cutoff", F, "", "frequency at which detail ends, share of Nyquist; enlarged: well below 1", "detail"),
    C("brightness", F, "", "mean luma, 0 black to 1 white", "brightness"),
    C("clipped", F, "", "share of pixels at black or at white, 0..1", "brightness"),
    C("bad_frames", F, "", "share of frames that are nearly black, over-exposed or blank, 0..1", "bad_frames"),
    C("dark_frames", F, "", "share of frames that are nearly black, 0..1", "bad_frames"),
    C("overexposed_frames", F, "", "share of frames of which much is burnt out, 0..1", "bad_frames"),
    C("flat_frames", F, "", "share of frames that show one colour all over, 0..1", "bad_frames"),
    C("grey_frames", F, "", "share of frames without colour, 0..1; not counted as bad", "bad_frames"),
    C("flicker", F, "%", "root mean square of fast brightness changes of the whole picture, percent", "flicker", VIDEO),
    C("flicker_hz", F, "Hz", "frequency of the flicker; null where it is not periodic", "flicker", VIDEO),
    C("frozen", F, "", "share of the time in which nothing new is shown, 0..1", "frozen", VIDEO),
    C("letterbox", F, "", "share of the picture covered by bars, 0..1", "letterbox"),
    C(
        "content_box",
        pa.list_(pa.float64()),
        "",
        "picture inside the bars: left, top, right, bottom, 0..1",
        "letterbox",
    ),
    C(
        "standing_edges",
        F,
        "",
        "straight edges that stand while both sides change, each as a share of the side it runs along, summed",
        "split_screen",
        VIDEO,
    ),
    C("split", I, "", "pictures that these edges divide the frame into; 1: it is not split", "split_screen", VIDEO),
    C(
        "text_area",
        F,
        "",
        "share of the frame under text, union of quads, largest of the frames, 0..1",
        "text_area",
    ),
    C(
        "overlay_area",
        F,
        "",
        "share of the picture under subtitles, logos and watermarks at any time of the clip, 0..1",
        "overlay",
    ),
    C("scene_text_area", F, "", "share of the frame under text of the scene, largest of the frames, 0..1", "overlay"),
    C(
        "safe_box",
        pa.list_(pa.float64()),
        "",
        "largest part of the picture without overlays and bars: left, top, right, bottom, 0..1; null: there is none",
        "overlay",
    ),
    C("safe_share", F, "", "share of the picture that this part has, 0..1", "overlay"),
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
    C("speech", F, "", "share of the clip in which somebody talks, 0..1; null without sound", "speech", VIDEO),
    C("nsfw", F, "", "probability that it is pornographic, largest of the frames, 0..1 (open_nsfw)", "nsfw"),
    C("faces_max", I, "faces", "most faces on one of the frames looked at", "faces"),
    C("face_area", F, "", "share of the frame in boxes around faces, largest of the frames, 0..1", "faces"),
    C("faces_presence", F, "", "share of the frames looked at that show a face, 0..1", "faces"),
    C("temporal_hash", pa.list_(I), "", "768 bits that nearly equal pictures share, in order of time", "temporal_hash"),
    C("duplicate_of", S, "", "clip_id of the better clip that this one is a copy of", "duplicates"),
    C("cluster", S, "", "smallest clip_id of the clips that this one looks like, for quotas", "clusters"),
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
    *(
        C(name, S, "", f"a {length} caption in {LANGUAGES[language]}", name)
        for language, length, name in CAPTION_LENGTHS
    ),
    C("caption_alignment", F, "", "mean CLIP cosine of the caption's sentences and the frames", "caption_alignment"),
    C("caption_language", S, "", "code of the caption's language, such as en; null where unsure", "caption_language"),
    C(
        "caption_cluster",
        S,
        "",
        "smallest clip_id of those whose captions say the same, for quotas",
        "caption_clusters",
    ),
    C(
        "caption_by_hand",
        S,
        "",
        "a person's text, which takes the place of `caption` in exports and training",
        "review",
    ),
    C("review", S, "", "a person's verdict, which wins over the rules: keep or drop; null: the rules decide", "review"),
    C("review_by", S, "", "who said the last word on the clip", "review"),
    C("review_at", S, "", "when, as 2026-01-31T12:00:00Z", "review"),
    C("review_tags", pa.list_(S), "", "words that people gave the clip", "review"),
    C("clip_path", S, "", "file of the clip, relative to the output; null until cut", "cut"),
    C("clip_width_px", I, "px", "of the written file", "cut"),
    C("clip_height_px", I, "px", "likewise", "cut"),
    C("clip_fps", F, "1/s", "likewise", "cut", VIDEO),
    C("clip_num_frames", I, "frames", "frames that the written file decodes to", "cut"),
    C("clip_audio_codec", S, "", "codec of the written file's sound; null: it holds none", "cut", VIDEO),
    C("clip_audio_rate_hz", pa.int32(), "Hz", "samples per second of the written file's sound", "cut", VIDEO),
    C("clip_audio_channels", pa.int32(), "channels", "channels of the written file's sound", "cut", VIDEO),
    C(
        "clip_audio_status",
        S,
        "",
        "ok, or what is wrong with its sound: dropped, none in this span, cannot be decoded, damaged; "
        "null where the source has none",
        "cut",
        VIDEO,
    ),
    C("clip_cut", S, "", "how the file was made: transcode, copy or image", "cut"),
    C(
        "clip_cut_fallback",
        S,
        "",
        "why a clip was transcoded that was to be copied; null where it was not",
        "cut",
        VIDEO,
    ),
    # -- control maps; a table has the columns of those its recipe names
    *(
        column
        for name, amount, media in CONTROLS
        for column in (
            C(
                f"{CONTROL}{name}_path",
                S,
                "",
                f"{name} map of the clip, relative to the output; null until made",
                f"{CONTROL}{name}",
                media,
            ),
            C(f"{CONTROL}{name}_amount", F, "", f"what the {name} map holds: {amount}", f"{CONTROL}{name}", media),
        )
    ),
)

BY_NAME: dict[str, Column] = {column.name: column for column in COLUMNS}
CAPTIONING = (
    *("caption", "caption_en", "caption_zh", "caption_alignment"),
    *(name for _, _, name in CAPTION_LENGTHS),
)
"""writers of what is known of a clip once it is captioned"""
CONTROL_PATHS = tuple(f"{CONTROL}{name}_path" for name, _, _ in CONTROLS)
CONTROL_AMOUNTS = tuple(f"{CONTROL}{name}_amount" for name, _, _ in CONTROLS)
"""null until the map is made: a rule on one says nothing before"""
CAPTION_COLUMNS = ("caption_en", "caption_zh", *(name for _, _, name in CAPTION_LENGTHS))
"""texts beside `caption`, in a table whose captioner wrote them"""
FILE_COLUMNS = ("clip_path", *CONTROL_PATHS)
"""columns that name files of a clip, relative to the output"""
FINISH_COLUMNS = tuple(c.name for c in COLUMNS if c.writer in (*CAPTIONING, "cut") or c.name in CONTROL_PATHS)
STEP_WRITERS = frozenset({"sources", "probe", "analyse", "table", "judge", "any step", "caption", "review", "cut"})


def caption_columns(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns of captions beside `caption` that a captioner's settings ask for: by language and length."""
    asking = settings.get("asking", {})
    languages = asking.get("languages", ())
    lengths = asking.get("lengths", ()) or settings.get("lengths", ())
    if not isinstance(lengths, list | tuple):  # a key of a plug-in's captioner that means something else
        lengths = ()
    of_lengths = (f"caption_{language}_{length}" for language in languages or ("en",) for length in lengths)
    return (*(f"caption_{language}" for language in languages), *(c for c in of_lengths if c in BY_NAME))


# What a row carries on its way and the published table leaves out.
WORK_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("_done_segments", pa.list_(pa.int32())),  # of a source, segments whose rows are parts already
    ("_task", S),  # the segment to decode, with the source's facts, as JSON
    ("_segment", pa.int32()),  # which segment of the source
    ("_segments", pa.int32()),  # how many the source has
    ("_segment_rows", pa.int32()),  # rows of this segment in all; null until its last row
    ("_segment_frames", I),  # decoded frames of this segment; likewise
    ("_segment_end_s", F),  # where its last frame ends
    ("_border", pa.int32()),  # on a segment's last row, see `shots.border.Border`
    ("_samples", pa.binary()),  # encoded frames for pooled operators and the captioner
)


# What a part keeps of them, for `table.fold` to finish its rows.
PART_COLUMNS = ("_segment", "_segments", "_segment_rows", "_segment_frames", "_segment_end_s", "_border")


def table_schema(writers: Iterable[Writer]) -> pa.Schema:
    """Return the Arrow schema of a table whose recipe names these operators.

    Args:
        writers: operators by name, those that write vectors with their length. Columns of plug-ins stand among them
            as they are, and behind those of our operators in the table.
    """
    lengths: dict[str, int | None] = dict.fromkeys(STEP_WRITERS)
    foreign: list[pa.Field] = []
    for writer in writers:
        if isinstance(writer, Column):
            foreign.append(pa.field(writer.name, writer.dtype))
            continue
        if isinstance(writer, VectorWriter):
            lengths[writer.name] = writer.length
        else:
            lengths[writer] = None
    fields = [
        pa.field(c.name, pa.list_(c.dtype.value_type, lengths[c.writer]) if lengths[c.writer] else c.dtype)
        for c in COLUMNS
        if c.writer in lengths
    ]
    verdict = [field.name for field in fields].index("status")
    return pa.schema([*fields[:verdict], *foreign, *fields[verdict:]])


def work_schema(writers: Iterable[Writer]) -> pa.Schema:
    """Return the schema of rows under way: the table's columns and the work columns."""
    return pa.schema([*table_schema(writers), *(pa.field(name, dtype) for name, dtype in WORK_COLUMNS)])


def part_schema(writers: Iterable[Writer]) -> pa.Schema:
    """Return the schema of finished rows that wait to be folded into the table."""
    work = dict(WORK_COLUMNS)
    return pa.schema([*table_schema(writers), *(pa.field(name, work[name]) for name in PART_COLUMNS)])


def blank_row(schema: pa.Schema) -> dict[str, Any]:
    """Return a row with every column null."""
    return dict.fromkeys(schema.names)
