"""Measure `motion` of pans of known speed at several sizes and frame rates, after x264 crf 23.

    python -m benchmarks.pans

Prints measured / true speed, lowest and highest over 360p, 720p and 1080p at 24 and 60 fps.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from benchmarks.measure import verdict
from curation.analysis.samples import SampleStore
from curation.types import ClipInput
from demo.drawing import write_video
from demo.landscapes import scene
from media.decode import whole_frames
from media.probe import probe_video
from media.stretch import Stretch
from media.types import Span
from operators.motion import Motion

SIZES = ((640, 360), (1280, 720), (1920, 1080))
RATES = (24, 60)
SPEEDS = (3.0, 10.0)  # percent of the diagonal per second
LEAST, MOST = 0.95, 1.05
"""of the true speed; at 360p60 the encoder freezes the plain sky of the photo, of which `LEAST_OF_SKY` is asked"""
LEAST_OF_SKY = 0.65
SECONDS = 4


def textures() -> dict[str, np.ndarray]:
    """Return pictures to pan over, uint8 (H, W, 3): even texture, a landscape with sky, and a photo if there is one."""
    cells = np.random.default_rng(0).integers(0, 255, (375, 650, 3), dtype=np.uint8)
    found = {
        "even texture": cv2.resize(cells, (2600, 1500), interpolation=cv2.INTER_CUBIC),
        "drawn landscape with sky": scene(3, 2600, 1500),
    }
    shared = Path(os.environ.get("SELECTS_SHARED", Path(__file__).parents[1] / ".." / "shared"))
    photo = shared / "videos" / "images" / "datajuicer_blip.jpg"
    if photo.is_file():
        with Image.open(photo) as image:
            found["photo, mostly plain sky"] = np.asarray(image.convert("RGB"))
    return found


def pan(texture: np.ndarray, size: tuple[int, int], fps: int, speed: float) -> Iterator[np.ndarray]:
    """Yield the frames of a pan to the right; every size and rate sees the same part of the texture."""
    width = min(1280, int(texture.shape[1] * 0.55))
    window = (width, int(width * size[1] / size[0]))
    step_px = speed / 100 * float(np.hypot(*window)) / fps
    for i in range(SECONDS * fps):
        place = np.array([[1, 0, i * step_px], [0, 1, 20]], np.float32)
        view = cv2.warpAffine(texture, place, window, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        shrinks = size[0] < window[0]
        yield cv2.resize(view, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def measured(path: Path) -> float:
    """Return the motion score of a file taken as one clip."""
    facts, _ = probe_video(path)
    operator = Motion()
    assert operator.sampling is not None
    store, count, end_s = SampleStore([operator.sampling]), 0, 0.0
    for frame in whole_frames(Stretch(path, facts)):
        store.offer(frame, frame.coarse())
        count, end_s = count + 1, frame.time_s + frame.duration_s
    span = Span(0.0, end_s, 0, count)
    frames = store.take(operator.sampling, span)
    assert frames is not None
    return float(operator.load()([ClipInput(facts, span, frames)])[0]["motion"])


def main() -> int:
    """Draw, encode, measure, print; return 1 where a speed is off."""
    cv2.setNumThreads(1)
    missed = []
    print(f"{'texture':28} {'%/s':>5} {'lowest':>7} {'highest':>8}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pan.mp4"
        for name, texture in textures().items():
            for speed in SPEEDS:
                ratios = []
                for size in SIZES:
                    for fps in RATES:
                        frames = pan(texture, size, fps, speed)
                        write_video(path, frames, fps, options={"preset": "veryfast", "crf": "23"})
                        ratios.append(measured(path) / speed)
                print(f"{name:28} {speed:5.0f} {min(ratios):7.2f} {max(ratios):8.2f}", flush=True)
                if min(ratios) < (LEAST_OF_SKY if "sky" in name and "plain" in name else LEAST) or max(ratios) > MOST:
                    missed.append(f"{name}, {speed:.0f} %/s: {min(ratios):.2f} to {max(ratios):.2f}")
    return verdict(missed)


if __name__ == "__main__":
    sys.exit(main())
