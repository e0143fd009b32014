"""What workers with disks of their own deliver, and what the driver takes of it."""

from concurrent.futures import Future
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import OutputError
from core.progress import Tally
from core.storage.object_store import ObjectStore, open_object_store
from curation.engine.ray_worker import Reports, TallyActor
from curation.output.commits import WORK, last_commit, leftovers
from curation.output.deliveries import Delivery, Handoff, Receiver, delivery_of, shared_mark
from curation.output.remote import remote_output
from curation.output.stand_ins import stands_for
from curation.recipe import Recipe
from curation.work import Plan

CLIP, OTHER = "0b8f3c1e-1111-5000-8000-00000000000a", "0b8f3c1e-1111-5000-8000-00000000000b"
ID = "0" * 32


@pytest.fixture(autouse=True)
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELECTS_STAGE", str(tmp_path / "stage"))
    return tmp_path / "stage"


@pytest.fixture
def store(bucket_url: str) -> ObjectStore:
    return open_object_store(f"{bucket_url}/out")


def write(folder: str | Path, path: str, content: bytes) -> None:
    file = Path(folder) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def part_of(*clips: str | None) -> bytes:
    """Return a part: a row for each clip, whose file it names; None: a row of a clip that has no file."""
    sink = pa.BufferOutputStream()
    names = [None if clip is None else f"train/{clip}.mp4" for clip in clips]
    pq.write_table(
        pa.table({"clip_id": [clip or OTHER for clip in clips], "clip_path": pa.array(names, pa.string())}), sink
    )
    return sink.getvalue().to_pybytes()


def make_clip(delivery: Delivery, clip: str) -> None:
    """Write what the steps write for a clip, as the steps of a worker do."""
    write(delivery.out, f"previews/{clip[:2]}/{clip}-0.jpg", b"picture of " + clip.encode())
    write(delivery.out, f"train/{clip}.mp4", b"film of " + clip.encode() * 9)


def test_the_driver_has_what_parts_name_and_a_commit_has_it_for_good(store: ObjectStore) -> None:
    with remote_output(store) as output:
        write(output.folder, "recipe.yaml", b"# The recipe of this output\n")
        delivery = Delivery(output.handoff)
        make_clip(delivery, CLIP)
        make_clip(delivery, OTHER)  # is rejected by a later step: no part names its film
        delivery.deliver()
        assert [path for path in Path(delivery.out).rglob("*") if path.is_file()] == [], "nothing stays on the node"
        output.receive()
        assert not (output.folder / "train").exists(), "no part tells of them yet"
        write(delivery.out, "_parts/1.parquet", part_of(CLIP, None))
        delivery.deliver()
        output.receive()
        film = output.folder / f"train/{CLIP}.mp4"
        assert stands_for(film, film.stat().st_size) is not None
        assert (output.folder / f"previews/0b/{CLIP}-0.jpg").read_bytes() == b"picture of " + CLIP.encode()
        assert not (output.folder / f"train/{OTHER}.mp4").exists()
        assert (output.folder / f"previews/0b/{OTHER}-0.jpg").exists(), "rejected clips have pictures, too"
        assert not list(store.list(output.handoff.prefix("_parts"))), "what is folded does not come again"
        output.commit()
        assert store.read(f"train/{CLIP}.mp4") == b"film of " + CLIP.encode() * 9
        output.finish(is_complete=True)
    assert not list(store.list(f"{WORK}/"))
    assert f"train/{OTHER}.mp4" not in last_commit(store).files
    assert leftovers(store) == []


def test_a_part_that_the_driver_wrote_brings_the_film_that_a_node_made(store: ObjectStore, tmp_path: Path) -> None:
    delivery, out = Delivery(Handoff(store.url, ID)), tmp_path / "out"
    make_clip(delivery, CLIP)
    delivery.deliver()
    receiver = Receiver(Handoff(store.url, ID), store, out)
    receiver.receive()
    assert not (out / "train").exists()
    write(out, "_parts/2.parquet", part_of(CLIP))
    receiver.receive()
    assert (out / f"train/{CLIP}.mp4").exists()
    (out / f"train/{CLIP}.mp4").unlink()  # as `select` may do
    receiver.receive()
    assert not (out / f"train/{CLIP}.mp4").exists(), "each part is looked at once"
    assert Receiver(Handoff(store.url, "1" * 32), store, tmp_path / "other").objects == {}


def test_files_are_there_before_the_part_that_names_them(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    delivery = Delivery(Handoff(store.url, ID))
    make_clip(delivery, CLIP)
    write(delivery.out, "_parts/1.parquet", part_of(CLIP))
    write(delivery.out, "train/.half.tmp-1-abcd1234.mp4", b"is being written")
    put, order = ObjectStore.put, []

    def noted(self: ObjectStore, key: str, content: bytes | Path) -> str:
        order.append(key.split("/")[2])
        return put(self, key, content)

    monkeypatch.setattr(ObjectStore, "put", noted)
    delivery.deliver()
    assert order == ["files", "files", "_parts"]
    assert (Path(delivery.out) / "train/.half.tmp-1-abcd1234.mp4").exists()


def test_a_worker_delivers_only_where_it_does_not_see_the_folder(tmp_path: Path, bucket_url: str) -> None:
    plan = Plan(Recipe(), str(tmp_path), "run")
    with pytest.raises(OutputError, match="does not see this folder; give one that all nodes share, or a bucket"):
        delivery_of(plan, None)
    elsewhere = delivery_of(plan, Handoff(f"{bucket_url}/out", ID))
    assert elsewhere is not None
    assert elsewhere.out != plan.out
    shared_mark(plan).touch()
    assert delivery_of(plan, None) is None


def test_folders_of_dead_workers_go_and_those_of_living_ones_stay(bucket_url: str, stage: Path) -> None:
    first = Delivery(Handoff(f"{bucket_url}/out", ID))
    number = first.out.rpartition("-")[2]
    dead, living = Path(first.out.replace(f"-{number}", "-999999999")), Path(first.out.replace(f"-{number}", "-1"))
    dead.mkdir()
    living.mkdir()
    Delivery(Handoff(f"{bucket_url}/out", ID))
    assert not dead.exists()
    assert living.exists()


class _Remote:
    """Answers as Ray's handle of an actor does."""

    def __init__(self, actor: TallyActor):
        self.actor = actor
        self.add = self

    def remote(self, held: Tally) -> "_Remote":
        self.answer: Future[bool] = Future()
        self.answer.set_result(self.actor.add(held))
        return self

    def future(self) -> "Future[bool]":
        return self.answer


def test_a_worker_elsewhere_learns_from_its_reports_that_the_run_is_to_stop(tmp_path: Path) -> None:
    actor, stop = TallyActor(), tmp_path / "stop"
    reports = Reports(_Remote(actor), stop)
    reports.send()
    assert not stop.exists()
    actor.read(stops=True)
    reports.send()
    assert stop.exists()
