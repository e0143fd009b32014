"""What maps by networks have in common."""

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import cv2
import numpy as np

from core.errors import UserError
from curation.types import Control

MAP_GPUS = 0.1
"""What a worker that cuts books of a GPU for its networks: they take some 1 to 2 GB, and wait for the encoder."""


@runtime_checkable
class MapNetwork(Protocol):
    """A control whose maps a network draws.

    Attributes:
        packages: modules that it imports, beside those that every installation has.
    """

    packages: ClassVar[tuple[str, ...]]

    @property
    def weights_named(self) -> tuple[str, ...]:
        """What its settings name: published weights (`models.weights.table`), files or folders."""
        ...

    @property
    def gpus(self) -> float:
        """GPUs that one worker books where there are any."""
        ...


def map_gpus(device: str) -> float:
    """Return what a worker books of a GPU for a network on a device: `auto`, `cpu` or `cuda`."""
    return 0.0 if device == "cpu" else MAP_GPUS


T = TypeVar("T")


def loaded(load: Callable[[], T]) -> T:
    """Return what `load` returns.

    Raises:
        UserError: it raises ModelError: weights that cannot be had or do not fit.
    """
    from models.errors import ModelError

    try:
        return load()
    except ModelError as error:
        raise UserError(str(error)) from None


def published_weights(control: Control) -> tuple[str, ...]:
    """Return the names of published weights that a control loads; none for one without a network."""
    from models.weights.table import WEIGHTS

    return tuple(name for name in control.weights_named if name in WEIGHTS) if isinstance(control, MapNetwork) else ()


def check_network(name: str, control: Control) -> None:
    """Look for all that a control needs before a run begins; own weights are loaded once, to see whether they fit.

    Args:
        name: of the control.
        control: any; one without a network needs nothing.

    Raises:
        UserError: a package is not installed, or weights cannot be had or do not fit.
    """
    from models.weights.find import find_weights

    if not isinstance(control, MapNetwork):
        return
    lacking = [package for package in control.packages if importlib.util.find_spec(package) is None]
    if lacking:
        raise UserError(f"controls.{name} needs {lacking[0]}: pip install 'selects-video[maps]'")
    known = published_weights(control)
    for each in known:
        loaded(partial(find_weights, each))
    own = [each for each in control.weights_named if each not in known]
    for each in own:
        if not Path(each).exists():
            raise UserError(
                f"controls.{name}: '{each}' is neither published weights (run_pipeline.py weights list) nor a file; "
                "give one of them"
            )
    if own:
        control.start()


def at_short_side(rgb: np.ndarray, short_side_px: int, multiple_px: int) -> np.ndarray:
    """Return a picture, uint8 (H, W, 3), at a short side, both sides rounded to multiples, as ControlNet's do.

    Args:
        rgb: the picture.
        short_side_px: at which it is looked at.
        multiple_px: sides are multiples of this.
    """
    height, width = rgb.shape[:2]
    scale = short_side_px / min(height, width)
    size = tuple(max(multiple_px, round(side * scale / multiple_px) * multiple_px) for side in (width, height))
    if size == (width, height):
        return rgb
    return cv2.resize(rgb, size, interpolation=cv2.INTER_LANCZOS4 if scale > 1 else cv2.INTER_AREA)
