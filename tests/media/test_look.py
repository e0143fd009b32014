"""A look by ranges says what the whole probe would say, or nothing."""

import statistics
from pathlib import Path

import pytest
from footage import pan, write

from core.errors import MediaError
from core.limits import Limits
from core.storage.ranged import RangedFile
from media.look import refusal_of
from media.probe import probe_video
from media.types import no_heartbeat


def looked(path: Path, share: float = 1.0, limits: Limits = Limits()) -> tuple[str | None, RangedFile]:  # noqa: B008
    content = path.read_bytes()

    def read(start: int, length: int) -> bytes:
        return content[start : start + length]

    file = RangedFile(read, len(content), int(share * len(content)), f"media{path.suffix}")
    return refusal_of(file, limits, no_heartbeat), file


def padded(path: Path, megabytes: int) -> Path:
    """Make a file of MP4 larger by a box that holds nothing."""
    size = megabytes << 20
    path.write_bytes(path.read_bytes() + size.to_bytes(4, "big") + b"free" + bytes(size - 8))
    return path


def test_a_film_is_looked_at_by_a_little_of_it(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", list(pan(48)))
    said, file = looked(padded(tmp_path / "a.mp4", 4), 0.05)
    assert said is None
    assert not file.is_spent
    assert file.fetched_bytes < 0.05 * (tmp_path / "a.mp4").stat().st_size


@pytest.mark.parametrize("kind", ["no index", "text", "too large a picture", "cut off"])
def test_it_refuses_in_the_words_of_the_whole_probe(kind: str, tmp_path: Path) -> None:
    path, limits = tmp_path / "a.mp4", Limits(max_pixels=100) if kind == "too large a picture" else Limits()
    write(path, list(pan(48)))
    whole = path.read_bytes()
    if kind == "no index":
        path.write_bytes(whole[:32] + bytes(2 << 20))
    elif kind == "cut off":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "text":
        path.write_bytes(whole[:4] + b"ftypisom" + b"no film at all" * 1000)
    with pytest.raises(MediaError) as told:
        probe_video(path, limits=limits)
    said, _ = looked(path, limits=limits)
    assert said == str(told.value)


def test_what_it_cannot_know_it_does_not_say(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", list(pan(48)))
    said, file = looked(tmp_path / "a.mp4", 0.01)
    assert said is None
    assert file.is_spent
    (tmp_path / "b.mp4").write_bytes(b"GIF89a" + bytes(3000))  # something else by its content
    assert looked(tmp_path / "b.mp4")[0] is None


@pytest.mark.slow
def test_of_real_footage_a_twentieth_tells_nearly_all(shared_videos: Path) -> None:
    size = fetched = told = count = 0
    needed = []
    for path in sorted(shared_videos.iterdir()):
        if path.suffix not in (".mp4", ".mov", ".mkv", ".webm", ".m4v"):
            continue
        said, file = looked(path, 0.05)
        try:
            probe_video(path)
            truth = None
        except MediaError as error:
            truth = str(error)
        assert said in (None, truth)
        size, fetched = size + path.stat().st_size, fetched + file.fetched_bytes
        count, told = count + 1, told + (not file.is_spent)
        needed.append(looked(path)[1].fetched_bytes)
    print(f"{count} files: {fetched / size:.2%} of {size / 1e6:.0f} MB read, which was enough for {told} of them")
    print(f"without a bound half of them need at most {statistics.median(needed) / 1e3:.0f} kB")
    assert fetched <= 0.05 * size
