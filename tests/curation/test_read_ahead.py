"""Sources in buckets are fetched before their turn: a few, in order, held until used, and never more than fit."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from buckets import make_bucket, point_at, upload
from faulty_proxy import Fault, faulty_proxy
from footage import pan, write
from runs import assert_same_output, curate

from core.storage.store import StoreError
from curation.analysis.read_ahead import MOST_AHEAD, ReadAhead
from curation.types import Source

WAIT_S = 60


def source(number: int, size_bytes: int = 1000) -> Source:
    return Source("s3://films", f"{number}.mp4", size_bytes, 1)


class Fetches:
    """Fetches by name: which were begun, which are held, and which shall wait or fail."""

    def __init__(self, *, fails: frozenset[int] = frozenset()) -> None:
        self.fails, self.begun, self.held = fails, list[str](), set[str]()
        self.came, self.lock = threading.Condition(), threading.Lock()

    @contextmanager
    def fetch(self, wanted: Source) -> Iterator[None]:
        with self.came:
            self.begun.append(wanted.path)
            self.came.notify_all()
        if int(wanted.path.removesuffix(".mp4")) in self.fails:
            raise StoreError(f"{wanted.path}: gone")
        with self.lock:
            self.held.add(wanted.path)
        try:
            yield
        finally:
            with self.lock:
                self.held.discard(wanted.path)

    def wait_for(self, count: int) -> set[str]:
        with self.came:
            assert self.came.wait_for(lambda: len(self.begun) >= count, WAIT_S)
            return set(self.begun)


def test_the_next_ones_are_fetched_while_one_is_worked_on_and_held_until_they_were_used() -> None:
    sources, fetches = [source(n) for n in range(MOST_AHEAD + 3)], Fetches()
    ahead = ReadAhead(fetches.fetch, sources)
    with ahead.at_hand(sources[0]):
        assert fetches.wait_for(1 + MOST_AHEAD) == {s.path for s in sources[: 1 + MOST_AHEAD]}
    with ahead.at_hand(sources[1]):
        fetches.wait_for(2 + MOST_AHEAD)
        assert sources[0].path not in fetches.held
        assert sources[1].path in fetches.held
    ahead.close()
    assert fetches.held == set()
    assert len(fetches.begun) == len(set(fetches.begun)) == 2 + MOST_AHEAD


def test_no_more_is_ahead_than_an_eighth_of_the_room_for_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELECTS_STAGE_GB", str(20_000 / 1e9))
    sources, fetches = [source(n) for n in range(5)], Fetches()
    ahead = ReadAhead(fetches.fetch, sources)
    with ahead.at_hand(sources[0]):
        assert fetches.wait_for(3) == {"0.mp4", "1.mp4", "2.mp4"}
    large = ReadAhead(fetches.fetch, [source(7), source(8, 3000), source(9)])
    with large.at_hand(source(7)), large.at_hand(source(8, 3000)):  # alone, when it is its turn
        pass
    for each in (ahead, large):
        each.close()
    assert fetches.held == set()


def test_what_cannot_be_fetched_says_so_when_it_is_its_turn() -> None:
    sources, fetches = [source(n) for n in range(3)], Fetches(fails=frozenset({1, 2}))
    ahead = ReadAhead(fetches.fetch, sources)
    with ahead.at_hand(sources[0]):
        fetches.wait_for(3)
    with pytest.raises(StoreError, match=r"1\.mp4: gone"), ahead.at_hand(sources[1]):
        pass
    ahead.close()  # the third was never wanted


@pytest.mark.slow
def test_a_run_fetches_a_film_while_it_works_on_another(
    s3_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films, recipe = tmp_path / "films", tmp_path / "quick.yaml"
    films.mkdir()
    recipe.write_text("shots: {min_s: 1.0, max_s: 3.0}\noperators: {facts: , brightness: }\n")
    for number in range(24):
        write(films / f"{number:02d}.mp4", list(pan(26, seed=number)))
    monkeypatch.setenv("SELECTS_STAGE", str(tmp_path / "stage"))
    point_at(s3_address, monkeypatch, tmp_path)
    bucket = make_bucket(s3_address)
    upload(films, f"s3://{bucket}")
    curate(films, "--config", recipe, out=tmp_path / "local")
    waiting, most, both = 0, 0, threading.Condition()

    def hold_until_another_comes(number: int, method: str, path: str) -> Fault:
        nonlocal waiting, most
        if method == "GET" and ".mp4" in path:
            with both:
                waiting += 1
                most = max(most, waiting)
                both.notify_all()
                both.wait_for(lambda: most > 1, WAIT_S)
                waiting -= 1
        return ""

    with faulty_proxy(s3_address, hold_until_another_comes) as (address, traffic):
        point_at(address, monkeypatch, tmp_path)
        curate(f"s3://{bucket}", "--config", recipe, out=tmp_path / "remote")
    assert most > 1
    assert_same_output(tmp_path / "local", tmp_path / "remote", frozenset(("source_root", "source_mtime_ns")))
    assert traffic.requests["GET"] <= 24 + 8  # each film by one request, and the listing
