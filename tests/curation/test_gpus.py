"""What workers book of a GPU: as operators and captioners state it, and as plug-ins of version 0.9 did."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest

from captioners import CAPTIONERS
from captioners.transformers import Transformers
from captioners.vllm import Vllm
from curation.gpus import SCORE_GPUS, UsesGpu, booked_gpus, taken_gb
from curation.recipe import Tables, resolve
from curation.step_spec import StepSpec
from curation.steps import steps_of
from curation.work import Plan
from operators import OPERATORS
from operators.aesthetic import Aesthetic
from operators.caption_alignment import CaptionAlignment
from operators.clip_frames import Clip
from operators.faces import Faces
from operators.text_area import TextArea


@dataclass(frozen=True)
class OnDevice:
    device: str = "auto"


@dataclass(frozen=True)
class OnClip:
    clip: OnDevice = field(default_factory=OnDevice)


@dataclass(frozen=True)
class SaysSo:
    takes_gpu: ClassVar[bool] = False
    device: str = "auto"


@dataclass(frozen=True)
class Plain:
    pool: ClassVar[str | None] = "own"


@pytest.mark.parametrize(
    ("holder", "gpus"),
    [
        (Faces(), SCORE_GPUS),
        (Faces(device="cpu"), 0.0),
        (Aesthetic(), SCORE_GPUS),
        (Aesthetic(clip=Clip(device="cpu")), 0.0),
        (TextArea(engine="easyocr"), SCORE_GPUS),
        (TextArea(engine="rapidocr"), 0.0),
        (TextArea(engine="easyocr", device="cpu"), 0.0),
        (Transformers(), 1.0),
        (Transformers(device="cpu"), 0.0),
        (Vllm(tensor_parallel=4), 4.0),
        (Vllm(device="cpu"), 0.0),
        (CAPTIONERS["template"](), 0.0),
    ],
)
def test_ours_state_what_they_book(holder: object, gpus: float) -> None:
    assert booked_gpus(holder, 1.0) == gpus


@pytest.mark.parametrize(
    ("holder", "gpus"), [(OnDevice(), 0.7), (OnDevice("cpu"), 0.0), (OnClip(), 0.7), (SaysSo(), 0.0), (Plain(), 0.0)]
)
def test_plugins_written_for_earlier_versions_book_what_they_did(holder: object, gpus: float) -> None:
    assert not isinstance(holder, UsesGpu)
    assert booked_gpus(holder, 0.7) == gpus


def test_every_one_of_ours_with_a_device_states_its_gpus() -> None:
    for kind in (*OPERATORS.values(), *CAPTIONERS.values()):
        computes = {"device", "clip"} & set(kind.__dataclass_fields__)
        assert not computes or hasattr(kind, "gpus"), kind


def specs_of(values: dict[str, object]) -> list[StepSpec]:
    recipe, captioner = resolve(values, Tables(OPERATORS, CAPTIONERS))
    return [step.spec for step in steps_of(Plan(recipe, "out"), captioner)]


def test_steps_are_described_by_their_specs() -> None:
    specs = specs_of({"operators": {"faces": {}, "nsfw": {"device": "cpu"}, "text_area": {}}})
    assert specs == [
        StepSpec("probe", batch=None),
        StepSpec("analyse"),
        StepSpec("people", 8, holds_models=True, gpus=SCORE_GPUS, gpu_memory_gb=taken_gb([Faces()])),
        StepSpec("text", 8, holds_models=True),
        StepSpec("cut"),
        StepSpec("finish", 8),
    ]


def test_the_last_step_books_for_its_captioner_else_for_what_compares_captions() -> None:
    alignment: dict[str, object] = {"operators": {"caption_alignment": {}}}
    taken = taken_gb([CaptionAlignment()])
    assert specs_of(alignment)[-1] == StepSpec("finish", 8, holds_models=True, gpus=SCORE_GPUS, gpu_memory_gb=taken)
    vllm = {"caption": {"captioner": "vllm", "settings": {"tensor_parallel": 2, "max_num_seqs": 32}}}
    (both,) = [spec for spec in specs_of({**alignment, **vllm}) if spec.name == "finish"]
    assert replace(both, gpu_memory_gb=0.0) == StepSpec(
        "finish", 8, holds_models=True, at_once=12, gpus=2.0, fills_gpus=True
    )
    assert both.gpu_memory_gb > taken
