"""What of a source is to be read, where the progress is reported, and what it may cost."""

from dataclasses import dataclass
from pathlib import Path

from core.limits import Limits
from media.container import USUAL_LIMITS
from media.types import Heartbeat, SourceFacts, Span, no_heartbeat


@dataclass(frozen=True, eq=False)
class Stretch:
    """Frames with pts in `[start_pts, end_pts)`.

    Attributes:
        path: the file.
        facts: what the probe said of it.
        start_pts: of the first frame wanted; null: the file's first.
        end_pts: of the first frame not wanted any more; null: all to the end.
        beat: called now and then with the seconds dealt with, and for each frame skipped.
        limits: what reading may cost.
    """

    path: Path
    facts: SourceFacts
    start_pts: int | None = None
    end_pts: int | None = None
    beat: Heartbeat = no_heartbeat
    limits: Limits = USUAL_LIMITS


@dataclass(frozen=True, eq=False)
class Excerpt:
    """A span of a source that is read again, to be written.

    Attributes:
        path: the file.
        facts: what the probe said of it.
        span: of the clip.
        beat: called for each packet and frame that is read or written.
        limits: what reading may cost.
    """

    path: Path
    facts: SourceFacts
    span: Span
    beat: Heartbeat = no_heartbeat
    limits: Limits = USUAL_LIMITS
