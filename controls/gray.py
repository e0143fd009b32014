"""The picture without its colours: for colouring."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from controls.amounts import EachPicture, contrast
from curation.schema import BOTH
from curation.types import MapDrawer


@dataclass(frozen=True)
class Gray:
    """Full-range luma, frame by frame."""

    media: ClassVar[frozenset[str]] = BOTH
    suffix: ClassVar[Literal["mp4", "txt"]] = "mp4"

    @property
    def takes(self) -> Literal["gray", "rgb"]:
        """Luma."""
        return "gray"

    def start(self) -> MapDrawer:
        """Return a drawer for one clip."""
        return EachPicture(lambda picture: picture, contrast)
