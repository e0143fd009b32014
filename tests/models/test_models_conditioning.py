"""Named parts go together: stacked for guidance, with another text in some rows, moved and read back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.transformers.conditioning import (
    Conditioning,
    batched,
    moved,
    of_text,
    parts_of,
    repeated,
    row_of,
    stacked,
    text_parts,
    with_text_where,
    without_image,
)

torch.set_num_threads(1)


def drawn(rows: int, seed: int = 0, image: bool = True) -> Conditioning:
    draw = torch.Generator().manual_seed(seed)
    return Conditioning(
        text=torch.randn(rows, 5, 4, generator=draw),
        text_mask=torch.rand(rows, 5, generator=draw) > 0.5,
        second_text=torch.randn(rows, 3, 6, generator=draw),
        second_text_mask=torch.rand(rows, 3, generator=draw) > 0.5,
        image=torch.randn(rows, 2, 7, generator=draw) if image else None,
        image_mask=torch.ones(rows, 2, dtype=torch.bool) if image else None,
        latents=torch.randn(rows, 9, 2, 4, 4, generator=draw),
        size_px=torch.tensor([[512.0, 896.0]]).expand(rows, 2),
    )


@given(rows=st.integers(1, 4), seed=st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_halves_of_a_stack_are_what_was_stacked(rows: int, seed: int) -> None:
    first, second = drawn(1, seed), drawn(rows, seed + 1)
    both = parts_of(stacked(first, second))
    for name, part in both.items():
        without, given_ = part.chunk(2)
        assert torch.equal(given_, parts_of(second)[name]), name
        assert torch.equal(without, parts_of(first)[name].expand_as(without)), name


def test_what_only_the_given_has_counts_for_both_but_an_image_is_left_out() -> None:
    given_, text = drawn(2), text_parts(drawn(1, 1))
    both = stacked(of_text(text), given_)
    assert both.latents is not None and torch.equal(both.latents[:2], both.latents[2:])
    assert both.size_px is not None and torch.equal(both.size_px[:2], both.size_px[2:])
    assert both.image is not None and both.image_mask is not None
    assert not both.image[:2].any() and not both.image_mask[:2].any() and both.image_mask[2:].all()


def test_a_mask_that_only_one_has_is_all_ones_in_the_other() -> None:
    plain, masked = Conditioning(torch.zeros(1, 5, 4)), Conditioning(torch.ones(1, 5, 4), torch.zeros(1, 5).bool())
    both = stacked(plain, masked)
    assert both.text_mask is not None and both.text_mask.tolist() == [[True] * 5, [False] * 5]


def test_texts_of_different_encoders_are_no_stack() -> None:
    with pytest.raises(ValueError, match="both need the same parts"):
        stacked(Conditioning(torch.zeros(1, 5, 4)), of_text(text_parts(drawn(1))))


def test_some_rows_get_another_text_and_nothing_else() -> None:
    conditioning, empty = drawn(3), drawn(1, 7)
    changed = with_text_where(torch.tensor([False, True, False]), empty, conditioning)
    for row, source in ((0, conditioning), (1, empty), (2, conditioning)):
        place = 0 if source is empty else row
        for name, part in text_parts(source).items():
            assert torch.equal(parts_of(changed)[name][row], part[place]), name
    assert changed.latents is conditioning.latents and changed.image is conditioning.image


def test_rows_apart_and_together_again_are_the_batch() -> None:
    conditioning = drawn(3)
    again = batched([row_of(conditioning, row) for row in range(3)])
    for name, part in parts_of(conditioning).items():
        assert torch.equal(parts_of(again)[name], part), name
    one = repeated(drawn(1), 3)
    assert all(len(part) == 3 for part in parts_of(one).values())


def test_masks_and_sizes_keep_their_type() -> None:
    half = moved(drawn(2), dtype=torch.bfloat16)
    assert half.text.dtype == torch.bfloat16 and half.latents is not None and half.latents.dtype == torch.bfloat16
    assert half.text_mask is not None and half.text_mask.dtype == torch.bool
    assert half.size_px is not None and half.size_px.dtype == torch.float32, "a bfloat16 cannot hold 897 pixels"


def test_without_its_image_the_rest_stays() -> None:
    bare = without_image(drawn(2))
    assert bare.image is not None and not bare.image.any()
    assert bare.image_mask is not None and not bare.image_mask.any()
    assert torch.equal(bare.text, drawn(2).text)
    assert without_image(drawn(2, image=False)).image is None
