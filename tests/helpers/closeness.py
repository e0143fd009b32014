"""When two results count as the same.

Equal arithmetic gives equal bits on one processor and library only: kernels are chosen by processor, number of rows
and alignment of memory. What is computed is compared with a tolerance; bits are compared where nothing is computed
(what is stored and read back, masks, random draws, a mean's untouched rows).
"""

import numpy as np
import torch

ROUNDING = 1e-4
"""relative to the largest value: what summing in another order may change in float32"""


def close(a: torch.Tensor, b: torch.Tensor, rounding: float = ROUNDING) -> bool:
    """Return whether two tensors of one shape and type differ by no more than float32's rounding."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    largest = float(b.detach().abs().max()) if b.numel() else 0.0
    return torch.allclose(a, b, rtol=rounding, atol=rounding * largest)


def close_pixels(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two uint8 pictures differ by no more than one level, in few pixels: what rounding may change."""
    difference = np.abs(a.astype(np.int16) - b.astype(np.int16)) if a.shape == b.shape else np.array([255])
    return bool(difference.max() <= 1 and (difference > 0).mean() < 0.01)
