"""Two orders of steps re-stated: every clip is cut and encoded first, then opened again by each filter.

    python -m benchmarks.peers.restated {easyanimate,hugging_face} --out DIR --ffmpeg PROGRAM [--full-size] VIDEO …

`easyanimate`: stages of processes, one for each core: detection on PyAV's frames; scenes that are long and large enough
encoded by the ffmpeg program; then the motion of each clip, every frame of which is read. Its own flow is at full
size (`--full-size`), scores divided by the size; without it the flow is at the task's.
`hugging_face`: one video after another: detection on OpenCV's frames, every scene encoded by the ffmpeg program; then
each clip is opened for its facts, and again for its motion.
Both write `DIR/result.json`: a list of clips, and seconds that ffmpeg took of the CPU.
"""

import argparse
import json
import resource
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import Pool, cpu_count
from pathlib import Path

import av
import cv2
import numpy as np
from scenedetect import ContentDetector, detect

from benchmarks.peers.task import (
    CONTENT_THRESHOLD,
    CRF,
    MIN_HEIGHT_PX,
    MIN_S,
    MIN_SHOT_FRAMES,
    MIN_WIDTH_PX,
    MOTION_FPS,
    MOTION_SIDE_PX,
    PRESET,
    Clip,
    is_kept,
)

ENCODE = ("-c:v", "libx264", "-preset", PRESET, "-crf", str(CRF), "-an")
DECODE_ONLY = ("-an", "-f", "null")


@dataclass(frozen=True)
class Scene:
    """A scene of a video, in frames and seconds."""

    video: str
    number: int
    start: int
    end: int
    start_s: float
    end_s: float

    def file(self, out: Path) -> Path:
        """Return where the encoded clip is."""
        return out / f"{Path(self.video).stem}_{self.number}.mp4"


def scenes_of(video: str, backend: str) -> list[Scene]:
    """Detect a video's scenes; all of it is one where there is no cut."""
    found = detect(video, ContentDetector(CONTENT_THRESHOLD, MIN_SHOT_FRAMES), start_in_scene=True, backend=backend)
    return [
        Scene(video, number, start.frame_num, end.frame_num, start.seconds, end.seconds)
        for number, (start, end) in enumerate(found)
    ]


def cut_scene(scene: Scene, out: Path, ffmpeg: str, options: tuple[str, ...] = ENCODE) -> float:
    """Let ffmpeg cut a scene as these tools do; return the CPU-seconds it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    to = "-" if options is DECODE_ONLY else str(scene.file(out))
    words = [ffmpeg, "-loglevel", "panic", "-nostdin", "-y", "-ss", str(scene.start_s), "-i", scene.video]
    subprocess.run([*words, "-t", str(scene.end_s - scene.start_s), *options, to], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def facts_of(clip: Path) -> tuple[float, int, int]:
    """Open a video for its seconds, width and height."""
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        seconds = float((stream.duration or 0) * (stream.time_base or 0))
        return seconds, stream.codec_context.width, stream.codec_context.height


def is_large(width_px: int, height_px: int) -> bool:
    """Return whether a picture is large enough for the task."""
    return width_px >= MIN_WIDTH_PX and height_px >= MIN_HEIGHT_PX


def motion_of(clip: Path, *, full_size: bool) -> float:
    """Read every frame of a clip and give the mean flow between those half a second apart, in the task's pixels."""
    capture = cv2.VideoCapture(str(clip))
    step = max(1, round(capture.get(cv2.CAP_PROP_FPS) / MOTION_FPS))
    values, previous, number = [], None, 0
    while True:
        read, frame = capture.read()
        if not read:
            break
        if number % step == 0:
            shrink = MOTION_SIDE_PX / min(frame.shape[:2])
            if not full_size and shrink < 1:
                size = (round(frame.shape[1] * shrink), round(frame.shape[0] * shrink))
                frame, shrink = cv2.resize(frame, size, interpolation=cv2.INTER_AREA), 1.0
            gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
            if previous is not None:
                flow = cv2.calcOpticalFlowFarneback(previous, gray, None, 0.5, 3, 15, 3, 5, 1.2, 0)  # type: ignore
                values.append(float(np.linalg.norm(flow, axis=-1).mean()) * shrink)
            previous = gray
        number += 1
    capture.release()
    return float(np.mean(values)) if values else -1.0


def easyanimate(videos: list[str], out: Path, ffmpeg: str, *, full_size: bool) -> tuple[list[Clip], float]:
    """Do the stages one after another, each over all that the one before left."""
    with Pool(cpu_count()) as pool:
        found = [scene for scenes in pool.imap(partial(scenes_of, backend="pyav"), videos) for scene in scenes]
        large = {v for v, (_, w, h) in zip(videos, map(facts_of, map(Path, videos)), strict=True) if is_large(w, h)}
        cut = [scene for scene in found if scene.video in large and scene.end_s - scene.start_s >= MIN_S]
        encoder_s = sum(pool.imap(partial(cut_scene, out=out, ffmpeg=ffmpeg), cut))
        files = [scene.file(out) for scene in cut]
        facts = pool.map(facts_of, files)
        motion = pool.map(partial(motion_of, full_size=full_size), files, chunksize=1)
    kept = {s for s, one, moves in zip(cut, facts, motion, strict=True) if is_kept(*one, moves)}
    return _clips(found, kept), encoder_s


def hugging_face(videos: list[str], out: Path, ffmpeg: str, *, full_size: bool) -> tuple[list[Clip], float]:
    """Split one video after another, then score one clip after another."""
    found = [scene for video in videos for scene in scenes_of(video, "opencv")]
    encoder_s = sum(cut_scene(scene, out, ffmpeg) for scene in found)
    kept = {s for s in found if is_kept(*facts_of(s.file(out)), motion_of(s.file(out), full_size=full_size))}
    return _clips(found, kept), encoder_s


ORDERS = {"easyanimate": easyanimate, "hugging_face": hugging_face}


def _clips(found: Iterable[Scene], kept: set[Scene]) -> list[Clip]:
    return [Clip(Path(scene.video).stem, scene.start, scene.end, scene in kept) for scene in found]


def main() -> None:
    """Do the task in one of the orders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("order", choices=ORDERS)
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ffmpeg", required=True)
    parser.add_argument("--full-size", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    clips, encoder_s = ORDERS[options.order](options.videos, options.out, options.ffmpeg, full_size=options.full_size)
    result = {"clips": [asdict(clip) for clip in clips], "ffmpeg_cpu_s": encoder_s}
    (options.out / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
