"""GPUs booked by memory, and pools that must find their places node by node."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioners import CAPTIONERS
from captioners.transformers import Transformers
from captioners.vllm import Vllm
from controls import CONTROLS
from core.errors import UserError
from curation.engine.booking import Booking, book_workers
from curation.engine.capacity import NodeCapacity, Pool, away_from, misfit, pool_of
from curation.gpus import CONTEXT_GB, SCORE_GPUS, taken_gb
from curation.recipe import Tables, resolve
from curation.step_spec import StepSpec
from curation.steps import steps_of
from curation.work import Plan
from operators import OPERATORS
from operators.aesthetic import Aesthetic
from operators.clip_frames import Clip
from operators.embedding import Embedding
from operators.faces import Faces

CLIP = StepSpec("clip", 8, holds_models=True, gpus=SCORE_GPUS, gpu_memory_gb=2.2)
SIZES_GB = {"large": 80.0, "middle": 24.0, "small": 1.0}
LARGE, MIDDLE, SMALL = (NodeCapacity(name, 16, 1, memory_gb, name) for name, memory_gb in SIZES_GB.items())


def booked(values: dict[str, object], nodes: Sequence[NodeCapacity]) -> dict[str, Booking]:
    recipe, captioner = resolve(values, Tables(OPERATORS, CAPTIONERS))
    plan = Plan(recipe, "out")
    return book_workers(plan, steps_of(plan, captioner), nodes)


TABLES = Tables(OPERATORS, CAPTIONERS, controls=CONTROLS)
SCORES: dict[str, object] = {"operators": {"embedding": {}, "faces": {}}}
VLLM = {"caption": {"captioner": "vllm", "settings": {"model": "qwen2.5-vl-7b"}}}


@pytest.mark.parametrize(
    ("values", "cpus", "gpus", "workers"),
    [
        (SCORES, 16, 0, {"clip": (4, 0), "people": (4, 0)}),
        (SCORES, 16, 1, {"clip": (2, 0.25), "people": (2, 0.25)}),
        (SCORES, 64, 8, {"clip": (16, 0.25), "people": (16, 0.25)}),
        ({**SCORES, **VLLM}, 64, 8, {"clip": (1, 0.25), "people": (1, 0.25), "finish": (7, 1)}),
    ],
)
def test_on_one_machine_whose_gpus_nobody_looked_at_all_is_as_stated(
    values: dict[str, object], cpus: int, gpus: int, workers: dict[str, tuple[int, float]]
) -> None:
    bookings = booked(values, [NodeCapacity("one", cpus, gpus)])
    assert {name: (bookings[name].workers, bookings[name].gpus) for name in workers} == workers


def test_a_worker_books_what_it_takes_of_the_smallest_gpu_that_holds_it() -> None:
    eight = replace(MIDDLE, gpu_memory_gb=8.0)
    assert pool_of(CLIP, [eight]) == pool_of(CLIP, [LARGE, eight]) == Pool(CLIP, 0.275)
    assert pool_of(CLIP, [LARGE, eight, SMALL]) == Pool(CLIP, 0.275, ("small",))
    assert pool_of(CLIP, [LARGE]) == Pool(CLIP, 0.125), "eight at most, however large it is"
    assert pool_of(replace(CLIP, gpus=0.1), [LARGE]).gpus == 0.1
    assert pool_of(CLIP, [LARGE, replace(MIDDLE, gpu_memory_gb=None)]) == Pool(CLIP, SCORE_GPUS), "one is not known"
    assert pool_of(replace(CLIP, gpu_memory_gb=0.0), [LARGE]) == Pool(replace(CLIP, gpu_memory_gb=0.0), SCORE_GPUS)
    assert pool_of(CLIP, [replace(LARGE, gpus=0)]).gpus == 0


def test_workers_keep_away_from_gpus_that_are_too_small() -> None:
    bookings = booked(SCORES, [LARGE, SMALL])
    assert bookings["clip"].avoids == ("small",) and bookings["analyse"].avoids == ()
    assert away_from(bookings["clip"].avoids) == {"label_selector": {"ray.io/node-id": "!in(small)"}}
    assert away_from(()) == {}


def test_a_model_that_no_gpu_holds_is_refused_with_the_numbers() -> None:
    with pytest.raises(
        UserError, match=r"finish takes .* GB of a GPU, and the largest has 16 GB \(large\): take a sm"
    ) as told:
        booked(VLLM, [replace(LARGE, gpu_memory_gb=16.0), SMALL])
    assert "\n" not in str(told.value)


def test_models_share_one_gpu_where_their_memory_fits() -> None:
    captioned: dict[str, object] = {"caption": {"captioner": "transformers", "settings": {}}, **SCORES}
    with pytest.raises(UserError, match="the models book .* GPUs, and there are 1"):
        booked(captioned, [NodeCapacity("one", 16, 1)])  # nobody looked, so that the captioner books all of it
    bookings = booked(captioned, [LARGE])
    assert bookings["finish"].workers == 1 and 0.1 < bookings["finish"].gpus < 0.2
    assert sum(b.workers * b.gpus for b in bookings.values()) <= 1


def test_a_worker_of_several_gpus_needs_them_on_one_node() -> None:
    four = {"caption": {"captioner": "vllm", "settings": {"model": "qwen2.5-vl-72b"}}}
    two = NodeCapacity("a", 16, 2, 80.0, "a")
    with pytest.raises(
        UserError, match="a worker of finish books 4 GPUs of one node, and none has more than 2: set tens"
    ):
        booked(four, [two, replace(two, id="b"), replace(two, id="c")])
    assert booked(four, [two, replace(two, id="b", gpus=4)])["finish"].workers == 1


def test_pools_that_fit_in_sum_but_not_node_by_node_are_refused_or_made_smaller() -> None:
    nodes = [NodeCapacity(name, 16, 1, 24.0, name) for name in "ab"]
    finish = replace(CLIP, name="finish", gpus=1.0, gpu_memory_gb=14.4)
    pools = [pool_of(CLIP, nodes), pool_of(finish, nodes)]
    assert [pool.gpus for pool in pools] == [0.125, 0.6]
    assert misfit(pools, {"clip": 6, "finish": 2}, nodes) is None
    told = misfit(pools, {"clip": 2, "finish": 3}, nodes)
    assert told is not None and "3 × 0.6 for finish" in told and "a: 1 and 16 CPUs, b: 1 and 16 CPUs" in told
    asked = {**VLLM, "operators": {"embedding": {}}, "workers": {"caption": 2, "score": 1}}
    with pytest.raises(UserError, match="the models book 1 × 0.25 for clip, 2 × 1 for finish GPUs, and there are 2"):
        booked(asked, [replace(node, gpu_memory_gb=None) for node in nodes])


def test_nodes_without_enough_cpus_hold_no_workers() -> None:
    nodes = [NodeCapacity("cpus", 16, 0), NodeCapacity("gpus", 0.05, 4, name="gpus")]
    with pytest.raises(UserError, match=r"no place for the last of clip \(gpus: 4 and 0.05 CPUs\)"):
        booked({"operators": {"embedding": {}}}, nodes)


nodes_of = st.lists(
    st.tuples(st.integers(1, 64), st.integers(0, 8), st.sampled_from([8.0, 24.0, 80.0])), min_size=1, max_size=8
)


@settings(max_examples=150, deadline=None)
@given(nodes_of, st.booleans(), st.booleans())
def test_what_is_booked_has_a_place(drawn: list[tuple[int, int, float]], is_known: bool, captions: bool) -> None:
    nodes = [NodeCapacity(str(i), cpus, gpus, gb if is_known else None) for i, (cpus, gpus, gb) in enumerate(drawn)]
    values: dict[str, object] = {**SCORES, "controls": {"depth": {}}}
    if captions:
        values["caption"] = {"captioner": "transformers", "settings": {}}
    recipe, captioner = resolve(values, TABLES)
    plan = Plan(recipe, "out")
    steps = steps_of(plan, captioner)
    try:
        bookings = book_workers(plan, steps, nodes)
    except UserError as error:
        assert "\n" not in str(error) and ": set " in str(error) or ": take " in str(error)
        return
    pools = [
        Pool(s.spec, bookings[s.spec.name].gpus, bookings[s.spec.name].avoids) for s in steps if s.spec.holds_models
    ]
    assert misfit(pools, {name: booking.workers for name, booking in bookings.items()}, nodes) is None


def test_operators_of_one_network_take_its_memory_once() -> None:
    clip = Clip().gpu_memory_gb
    assert clip is not None and 1 < clip < 2
    assert taken_gb([Embedding(), Aesthetic()]) == pytest.approx(CONTEXT_GB + clip)
    assert taken_gb([Embedding(), Aesthetic(clip=Clip(model="ViT-B-32"))]) > CONTEXT_GB + clip
    assert taken_gb([Embedding(), Faces()]) > taken_gb([Embedding()])
    assert taken_gb([Embedding(clip=Clip(model="/folder")), Faces()]) == 0, "of a folder nothing is known"
    assert taken_gb([]) == taken_gb([object()]) == 0


def test_captioners_say_what_their_models_take() -> None:
    small, large = Transformers(), Transformers(model="Qwen/Qwen2.5-VL-7B-Instruct")
    assert small.gpu_memory_gb and large.gpu_memory_gb and small.gpu_memory_gb < large.gpu_memory_gb < 24
    assert Transformers(model="somebody/some").gpu_memory_gb is None
    least = Vllm(model="qwen2.5-vl-72b").least_gpu_gb
    assert least is not None and 36 < least < 48, "a quarter of 147 GB, of which the engine takes nine tenths"
    assert Vllm(model="somebody/some").least_gpu_gb is None
