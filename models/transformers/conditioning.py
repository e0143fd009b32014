"""What a video transformer is conditioned on beside the noisy latents and the timestep, in named parts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch


@dataclass(frozen=True)
class Conditioning:
    """The conditions of one call of a transformer; a family uses the parts that it knows.

    Attributes:
        text: embeddings of the caption (B, L, D).
        text_mask: which of them are tokens rather than padding (B, L), True or 1 for a token; None: all.
        second_text: embeddings by the family's second text encoder (B, L2, D2); None where it has one.
        second_text_mask: as `text_mask`, for `second_text`.
        image: tokens of a condition image (B, K, D3); None without one.
        image_mask: as `text_mask`, for `image`.
        latents: condition channels (B, C, F, H, W) that follow the noisy latents on the channel axis; None without.
        size_px: height and width of the sample in pixels (B, 2), for families that embed it; None where not.
    """

    text: torch.Tensor
    text_mask: torch.Tensor | None = None
    second_text: torch.Tensor | None = None
    second_text_mask: torch.Tensor | None = None
    image: torch.Tensor | None = None
    image_mask: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    size_px: torch.Tensor | None = None


TEXT_PARTS = ("text", "text_mask", "second_text", "second_text_mask")
"""what text encoders yield and the cache keeps"""
MASKS = ("text_mask", "second_text_mask", "image_mask")
SHARED = ("latents", "size_px")
"""what guidance gives to the prediction without the text, too"""


def of_text(parts: Mapping[str, torch.Tensor]) -> Conditioning:
    """Return the conditioning of an encoder's or the cache's tensors, by the names of `TEXT_PARTS`."""
    return Conditioning(**{name: parts[name] for name in TEXT_PARTS if name in parts})


def text_parts(conditioning: Conditioning) -> dict[str, torch.Tensor]:
    """Return the parts of the text that are there, by name; the inverse of `of_text`."""
    return {name: part for name, part in parts_of(conditioning).items() if name in TEXT_PARTS}


def parts_of(conditioning: Conditioning) -> dict[str, torch.Tensor]:
    """Return the parts that are there, by name."""
    named = {field.name: getattr(conditioning, field.name) for field in fields(conditioning)}
    return {name: part for name, part in named.items() if part is not None}


def mapped(conditioning: Conditioning, change: Callable[[torch.Tensor], torch.Tensor]) -> Conditioning:
    """Apply a function to every part."""
    return Conditioning(**{name: change(part) for name, part in parts_of(conditioning).items()})


def moved(
    conditioning: Conditioning,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    *,
    non_blocking: bool = False,
) -> Conditioning:
    """Bring every part to a device, and those of floating point but sizes to a type."""
    return Conditioning(**{
        name: part.to(
            device, dtype if part.is_floating_point() and name != "size_px" else None, non_blocking=non_blocking
        )
        for name, part in parts_of(conditioning).items()
    })


def repeated(conditioning: Conditioning, rows: int) -> Conditioning:
    """Expand parts of one row to so many; those that have as many stay."""
    return mapped(conditioning, lambda part: part.expand(rows, *part.shape[1:]))


def row_of(conditioning: Conditioning, row: int) -> Conditioning:
    """Return one row as a batch of one; parts of one row are every row's."""
    return mapped(conditioning, lambda part: part[row : row + 1] if len(part) > 1 else part)


def batched(rows: Sequence[Conditioning]) -> Conditioning:
    """Put rows that have the same parts, of equal shapes, behind each other."""
    parts = [parts_of(row) for row in rows]
    return Conditioning(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def stacked(without: Conditioning, given: Conditioning) -> Conditioning:
    """Stack two conditionings of one network call: first the one that guidance leads away from, then the other.

    What only the second has of `SHARED` counts for both. Tokens of an image that only one has are zeros with a mask of
    0 in the other; a mask that only one has is 1 everywhere in the other.

    Args:
        without: 1 or B rows.
        given: B rows.

    Returns:
        2·B rows.

    Raises:
        ValueError: a text that only one of them has, or of other lengths.
    """
    count = len(given.text)
    first, second = parts_of(repeated(without, count)), parts_of(repeated(given, count))
    for name in SHARED:
        if name in second:
            first.setdefault(name, second[name])
    for one, other in ((first, second), (second, first)):
        if "image" in other and "image" not in one:
            tokens = other["image"]
            one["image"] = torch.zeros_like(tokens)
            one["image_mask"] = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        for name in MASKS:
            if name in other and name not in one:
                one[name] = torch.ones_like(other[name])
    if first.keys() != second.keys():
        raise ValueError(f"guidance between {sorted(first)} and {sorted(second)}: both need the same parts")
    return Conditioning(**{name: torch.cat([first[name].to(second[name].dtype), second[name]]) for name in first})


def with_text_where(rows: torch.Tensor, other: Conditioning, conditioning: Conditioning) -> Conditioning:
    """Replace the text of some rows by another, such as the empty one.

    Args:
        rows: bool (B,), true where the other text is taken.
        other: one row with the same parts of text.
        conditioning: B rows.
    """
    changed = {}
    for name, part in text_parts(conditioning).items():
        place = rows.to(part.device).view(-1, *[1] * (part.ndim - 1))
        changed[name] = torch.where(place, parts_of(other)[name].to(part), part)
    return replace(conditioning, **changed)


def without_image(conditioning: Conditioning) -> Conditioning:
    """Replace an image's tokens by zeros with a mask of 0, which is how families are asked for none."""
    if conditioning.image is None:
        return conditioning
    nothing = torch.zeros(conditioning.image.shape[:2], dtype=torch.bool, device=conditioning.image.device)
    return replace(conditioning, image=torch.zeros_like(conditioning.image), image_mask=nothing)
