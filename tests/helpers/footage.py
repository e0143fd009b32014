"""Drawn footage whose times are given frame by frame, files joined without remuxing, and packets that are damaged."""

import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

TICKS = 90_000


def pan(count: int, size: tuple[int, int] = (160, 96), seed: int = 0, step_px: int = 3) -> Iterator[np.ndarray]:
    """A view that moves over a texture, so that every frame differs from every other one."""
    width, height = size
    coarse = np.random.default_rng(seed).integers(30, 220, (height // 8 + 2, width // 2 + 2, 3), dtype=np.uint8)
    texture = cv2.resize(coarse, (width * 5, height), interpolation=cv2.INTER_CUBIC)
    for index in range(count):
        left = index * step_px % (width * 4)
        yield np.ascontiguousarray(texture[:, left : left + width])


def noise(count: int, size: tuple[int, int] = (160, 96)) -> Iterator[np.ndarray]:
    """Frames that no encoder can predict, so that packets are large and damage hits picture data."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        yield rng.integers(0, 255, (size[1], size[0], 3), np.uint8)


def write(
    path: Path,
    frames: Sequence[np.ndarray],
    fps: int = 24,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    times_s: Sequence[float] | None = None,
    last_s: float | None = None,
) -> Path:
    """Encode frames at an even rate, or at their own times; the last one is shown for `last_s`."""
    options = options or ({"preset": "ultrafast", "bf": "2"} if codec == "libx264" else {})
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        time_base = Fraction(1, TICKS) if times_s is not None else Fraction(1, fps)
        stream.codec_context.time_base = time_base
        packets = []
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = index if times_s is None else round(times_s[index] * TICKS)
            frame.time_base = time_base
            packets += stream.encode(frame)
        packets += stream.encode(None)
        if last_s is not None:
            packets[-1].duration = round(last_s / packets[-1].time_base)
        for packet in packets:
            container.mux(packet)
    return path


def join(path: Path, *parts: Path) -> Path:
    """`cat PARTS > PATH`."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def damage(path: Path, *numbers: int) -> Path:
    """Flip bytes in the middle of packets, by their numbers in the order of decoding."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data, rng = bytearray(path.read_bytes()), random.Random(5)
    for number in numbers:
        place, size = packets[number]
        for offset in range(place + size // 3, place + min(2 * size // 3, size // 3 + 400)):
            data[offset] ^= rng.randrange(1, 256)
    path.write_bytes(bytes(data))
    return path
