"""Which condition channels a model has, in which order: a model's kind is told by its spec.

EasyAnimate V5 and V5.1 have their condition after the noisy latents on the channel axis (C latent channels):

    inpaint             mask 1, masked video C
    control             control C                          V5
    control_reference   control C, reference C             V5.1
    camera_reference    camera 6, reference C              V5.1

V3 and V4 have `inpaint` as encoded mask C, masked video C. A family states its kinds (`FamilyDefaults.kinds`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from models.errors import ModelError

if TYPE_CHECKING:
    from models.transformers.architecture import Shape

PartName = Literal["mask", "encoded_mask", "masked_video", "control", "camera", "reference"]


@dataclass(frozen=True)
class Part:
    """One condition beside the noisy latents.

    Attributes:
        channels: how many it takes; None: as many as there are latent channels.
        zeroed: share of rows in training that see zeros in its place, as published.
        meaning: what it says, for messages.
    """

    channels: int | None
    zeroed: float
    meaning: str


PARTS: Mapping[PartName, Part] = {
    "mask": Part(1, 0.0, "which pixels are known"),
    "encoded_mask": Part(None, 0.0, "which pixels are known, as the VAE encodes it"),
    "masked_video": Part(None, 0.0, "the known pixels"),
    "control": Part(None, 0.2, "a control map"),
    "camera": Part(6, 0.2, "a camera path"),
    "reference": Part(None, 0.2, "a reference image"),
}


@dataclass(frozen=True)
class ConditionSpec:
    """The layout of a model's condition channels.

    Attributes:
        name: of the kind of model.
        parts: in the order of the channels; none for text-to-video.
    """

    name: str
    parts: tuple[PartName, ...] = ()

    def __contains__(self, part: str) -> bool:
        """Return whether the model has a part."""
        return part in self.parts

    def channels(self, latent_channels: int) -> int:
        """Return how many condition channels there are."""
        return sum(_channels(part, latent_channels) for part in self.parts)

    def places(self, latent_channels: int) -> dict[PartName, slice]:
        """Return each part's place among the condition channels."""
        found: dict[PartName, slice] = {}
        begin = 0
        for part in self.parts:
            found[part] = slice(begin, begin + _channels(part, latent_channels))
            begin = found[part].stop
        return found

    def join(self, given: Mapping[PartName, torch.Tensor], shape: Sequence[int]) -> torch.Tensor:
        """Put parts side by side, with zeros for those that are not given.

        Args:
            given: (B, channels, f, h, w) each, as the network shall see them.
            shape: batch, latent channels, frames, height and width.

        Returns:
            (B, channels of all parts, f, h, w), float32 on the CPU where nothing is given.

        Raises:
            ModelError: a part that the model has no channels for, or of another shape.
        """
        batch, latent_channels, *size = shape
        for part, tensor in given.items():
            if part not in self.parts:
                raise ModelError(f"{PARTS[part].meaning}: a model of kind {self.name} has no channels for it")
            wanted = (batch, _channels(part, latent_channels), *size)
            if tuple(tensor.shape) != wanted:
                raise ModelError(f"{PARTS[part].meaning} of shape {tuple(tensor.shape)}: wanted {wanted}")
        like = next(iter(given.values()), torch.zeros(0))
        nothing = {part: like.new_zeros(batch, _channels(part, latent_channels), *size) for part in self.parts}
        return torch.cat([given.get(part, nothing[part]) for part in self.parts], dim=1)

    def changed(self, condition: torch.Tensor, latent_channels: int, factors: Mapping[PartName, float]) -> torch.Tensor:
        """Multiply parts of a condition (B, channels, f, h, w) by factors; 0 is how they are left out in training."""
        changed = condition.clone()
        for part, place in self.places(latent_channels).items():
            if part in factors:
                changed[:, place] = factors[part] * changed[:, place]
        return changed


TEXT_TO_VIDEO = ConditionSpec("text_to_video")
INPAINT = ConditionSpec("inpaint", ("mask", "masked_video"))
ENCODED_INPAINT = ConditionSpec("inpaint", ("encoded_mask", "masked_video"))
CONTROL = ConditionSpec("control", ("control",))
CONTROL_REFERENCE = ConditionSpec("control_reference", ("control", "reference"))
CAMERA_REFERENCE = ConditionSpec("camera_reference", ("camera", "reference"))

EASYANIMATE_V5: tuple[ConditionSpec, ...] = (
    TEXT_TO_VIDEO, INPAINT, CONTROL, CONTROL_REFERENCE, CAMERA_REFERENCE,
)  # fmt: skip
"""the kinds of V5 and V5.1, each with a number of channels of its own"""
EASYANIMATE_V3: tuple[ConditionSpec, ...] = (TEXT_TO_VIDEO, ENCODED_INPAINT)
"""the kinds of V3 and V4"""


def spec_of(shape: "Shape", specs: Sequence[ConditionSpec]) -> ConditionSpec:
    """Return the spec of a model.

    Args:
        shape: the model's.
        specs: the kinds of its family.

    Raises:
        ModelError: no kind of the family has so many channels.
    """
    latent = shape.out_channels
    for spec in specs:
        if shape.in_channels == latent + spec.channels(latent):
            return spec
    known = ", ".join(f"{latent + spec.channels(latent)} ({spec.name})" for spec in specs)
    raise ModelError(
        f"transformer with {shape.in_channels} input channels for {latent}: only {known} are known; take another model"
    )


def find_spec(name: str, specs: Sequence[ConditionSpec] = EASYANIMATE_V5) -> ConditionSpec:
    """Return the spec of this name.

    Raises:
        ModelError: there is none.
    """
    for spec in specs:
        if spec.name == name:
            return spec
    raise ModelError(f"kind of model '{name}': there is none; known: {', '.join(spec.name for spec in specs)}")


def _channels(part: PartName, latent_channels: int) -> int:
    channels = PARTS[part].channels
    return latent_channels if channels is None else channels
