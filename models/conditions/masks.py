"""Which part of a video is hidden from a model that learns to fill it in: EasyAnimate V5's kinds of mask."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from models.errors import ModelError

Size = tuple[int, int, int]
"""frames, height and width"""
ALL = "all"
MOST_KEPT = 4
"""frames kept at an end"""


@dataclass(frozen=True)
class MaskKind:
    """One way to hide pixels.

    Attributes:
        draw: gives bool (T, H, W), true where pixels are to be generated.
        probability: V5's share of it.
        frames: that a video must have at least; those for 1 are for images, too.
    """

    draw: Callable[[Size, torch.Generator], torch.Tensor]
    probability: float
    frames: int = 1


def draw_mask(probabilities: Mapping[str, float], size: Size, generator: torch.Generator) -> tuple[str, torch.Tensor]:
    """Draw a kind among those that fit the size, then a mask of it, which hides at least one pixel.

    Args:
        probabilities: by kind, in any scale (`V5_PROBABILITIES`); kinds not named are not drawn. Where none fits, such
            as kept first frames for an image, everything is hidden.
        size: frames, height and width in pixels.
        generator: on the CPU.

    Returns:
        The kind, and bool (T, H, W), true where pixels are to be generated.

    Raises:
        ModelError: as `check_probabilities`.
    """
    check_probabilities(probabilities)
    fitting = {kind: p for kind, p in probabilities.items() if p > 0 and MASKS[kind].frames <= size[0]} or {ALL: 1.0}
    names = sorted(fitting)
    drawn = torch.multinomial(torch.tensor([fitting[name] for name in names]), 1, generator=generator)
    kind = names[int(drawn)]
    mask = MASKS[kind].draw(size, generator)
    if not bool(mask.any()):
        mask[_integer(0, size[0], generator)] = True
    return kind, mask


def check_probabilities(probabilities: Mapping[str, float]) -> None:
    """Refuse what cannot be drawn from.

    Raises:
        ModelError: an unknown kind, a negative or infinite number, or none above 0.
    """
    for kind, probability in probabilities.items():
        if kind not in MASKS:
            raise ModelError(f"mask kind '{kind}': there is none; take some of {', '.join(MASKS)}")
        if not 0 <= probability < float("inf"):
            raise ModelError(f"mask kind {kind}: share {probability} must be a number from 0 on")
    if not sum(probabilities.values()) > 0:
        raise ModelError("mask kinds: none has a share above 0; name at least one, such as first_frames: 1")


def _box(size: Size, generator: torch.Generator) -> torch.Tensor:
    frames, height, width = size
    rows, columns = (_side(length, generator) for length in (height, width))
    return (rows[:, None] & columns[None]).expand(frames, -1, -1).clone()


def _all(size: Size, generator: torch.Generator) -> torch.Tensor:
    return torch.ones(size, dtype=torch.bool)


def _first_frames(size: Size, generator: torch.Generator) -> torch.Tensor:
    return _frames_between(_integer(1, min(MOST_KEPT, size[0] - 1) + 1, generator), size[0], size)


def _both_ends(size: Size, generator: torch.Generator) -> torch.Tensor:
    kept = _integer(1, min(MOST_KEPT, (size[0] - 1) // 2) + 1, generator)
    return _frames_between(kept, size[0] - kept, size)


def _timed_box(size: Size, generator: torch.Generator) -> torch.Tensor:
    half = size[0] // 2
    begin, end = _integer(0, half, generator), _integer(half, size[0], generator)
    return _frames_between(begin, end, size) & _box(size, generator)


def _noise(size: Size, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 2, size, generator=generator, dtype=torch.uint8).bool()


def _patches(size: Size, generator: torch.Generator) -> torch.Tensor:
    """Hide one patch of up to a quarter of each side in some frames, half of them at most."""
    frames, height, width = size
    some = torch.randperm(frames, generator=generator)[: _integer(1, max(frames // 2, 1) + 1, generator)]
    hit = torch.zeros(frames, dtype=torch.bool)
    hit[some] = True
    spans = []
    for length in (height, width):
        longest = max(length // 4, 1)
        spans_px = torch.randint(1, longest + 1, (frames, 1), generator=generator)
        begin = (torch.rand(frames, 1, generator=generator) * (length - spans_px + 1)).long()
        place = torch.arange(length)
        spans.append((place >= begin) & (place < begin + spans_px))
    return spans[0][:, :, None] & spans[1][:, None, :] & hit[:, None, None]


def _ellipse(size: Size, generator: torch.Generator) -> torch.Tensor:
    return _inside(size, _radius(size, generator), _radius(size, generator), generator)


def _circle(size: Size, generator: torch.Generator) -> torch.Tensor:
    radius = _radius(size, generator)
    return _inside(size, radius, radius, generator)


def _frame_drop(size: Size, generator: torch.Generator) -> torch.Tensor:
    dropped = torch.rand(size[0], generator=generator) > 0.5
    return dropped[:, None, None].expand(size).clone()


MASKS: Mapping[str, MaskKind] = {
    "box": MaskKind(_box, 0.05),
    ALL: MaskKind(_all, 0.2),  # text-to-video
    "first_frames": MaskKind(_first_frames, 0.2, frames=2),
    "both_ends": MaskKind(_both_ends, 0.2, frames=3),
    "timed_box": MaskKind(_timed_box, 0.05, frames=2),
    "noise": MaskKind(_noise, 0.05),
    "patches": MaskKind(_patches, 0.05),
    "ellipse": MaskKind(_ellipse, 0.1),
    "circle": MaskKind(_circle, 0.05),
    "frame_drop": MaskKind(_frame_drop, 0.05, frames=2),
}
V5_PROBABILITIES: Mapping[str, float] = {name: kind.probability for name, kind in MASKS.items()}


def _frames_between(begin: int, end: int, size: Size) -> torch.Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[begin:end] = True
    return mask


def _side(length: int, generator: torch.Generator) -> torch.Tensor:
    """Draw a stretch of a side, a quarter to three quarters of it, about any of its points, cut at the border."""
    span = _integer(max(length // 4, 1), max(length // 4 * 3, 2), generator)
    centre, place = _integer(0, length, generator), torch.arange(length)
    return (place >= centre - span // 2) & (place < centre + (span + 1) // 2)


def _radius(size: Size, generator: torch.Generator) -> int:
    shorter = min(size[1:])
    smallest = max(shorter // 8, 1)
    return _integer(smallest, max(shorter // 4, smallest) + 1, generator)


def _inside(size: Size, vertical: int, horizontal: int, generator: torch.Generator) -> torch.Tensor:
    frames, height, width = size
    y = (torch.arange(height) - _integer(0, height, generator)) / vertical
    x = (torch.arange(width) - _integer(0, width, generator)) / horizontal
    return (y.square()[:, None] + x.square()[None] < 1).expand(frames, -1, -1).clone()


def _integer(low: int, end: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, end, (1,), generator=generator))
