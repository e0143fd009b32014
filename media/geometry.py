"""Sizes of pictures as they are shown."""

from fractions import Fraction


def displayed_size(coded_width: int, coded_height: int, aspect: Fraction | None, rotation: int) -> tuple[int, int]:
    """Return (width, height) with square pixels, upright.

    Pixels wider than high widen the picture, pixels higher than wide heighten it: nothing is scaled down.
    """
    width, height = coded_width, coded_height
    if aspect and aspect > 0 and Fraction(1, 10) < aspect < 10:
        if aspect > 1:
            width = round(width * aspect)
        else:
            height = round(height / aspect)
    return (height, width) if rotation % 180 else (width, height)
