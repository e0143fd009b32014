"""How the last shot of a segment relates to the segment that follows it in the source."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Border:
    """What lies at the end of a segment.

    Attributes:
        is_cut: a new shot begins there; else the segment's last shot continues in the next one.
        transition_frames: frames beyond the border that a transition still covers.
    """

    is_cut: bool = True
    transition_frames: int = 0

    def to_column(self) -> int:
        """Return the value of the work column `_border`: frames where a shot begins, else -1 - frames."""
        return self.transition_frames if self.is_cut else -1 - self.transition_frames

    @classmethod
    def from_column(cls, value: int | None) -> Self:
        """Return what the work column `_border` says; null, where nobody knows, is a cut."""
        if value is None:
            return cls()
        return cls(is_cut=value >= 0, transition_frames=value if value >= 0 else -1 - value)
