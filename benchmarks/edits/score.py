"""Boundaries matched with the transitions of films: by kind, by range, and by what deceived the detector."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields

from benchmarks.edits.film import Event, Film
from curation.shots.types import Boundary

TOLERANCE_FRAMES = 2
GROUPS = {"wipe": "wipe", "slide": "wipe", "push": "wipe", "zoom": "zoom", "whip": "zoom"}
"""Kinds that count as one when a detector's kinds are compared."""
NO_CUT = {"flash", "glitch"}
"""Kinds of boundaries that end no shot."""


@dataclass
class Score:
    """Counts over films.

    Attributes:
        drawn: transitions by kind.
        hits: those that were found.
        typed: those that were found with the right kind, kinds of one group counting as equal.
        false: boundaries that match none, by decoy, or by where they lie: `shot`, `transition` (a second one).
        false_points: how many of them cover two frames at most, and are cuts rather than gradual.
        overlaps: intersection over union of the gradual transitions found, by range.
        decoys: decoys drawn, by kind.
        frames: frames seen.
        spent_s: processor time.
        wrong: what was not found and what was found besides, one line each.
    """

    drawn: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    typed: Counter[str] = field(default_factory=Counter)
    false: Counter[str] = field(default_factory=Counter)
    false_points: int = 0
    overlaps: list[float] = field(default_factory=list)
    decoys: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    spent_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def __add__(self, other: "Score") -> "Score":
        """Pool the counts of two sets of films."""
        return Score(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    def f1(self, kinds: Iterable[str] | None = None) -> float:
        """Return F1 over all transitions; over `hard` alone or all gradual kinds, false boundaries of that length."""
        names = set(self.drawn) if kinds is None else set(kinds)
        hits, drawn = (sum(counts[name] for name in names) for counts in (self.hits, self.drawn))
        false = sum(self.false.values())
        if kinds is not None:
            false = self.false_points if "hard" in names else false - self.false_points
        return 2 * hits / (hits + false + drawn) if drawn else 0.0

    def recall(self, kinds: Iterable[str]) -> float:
        """Return the share of the transitions of some kinds that were found."""
        names = set(kinds)
        return sum(self.hits[k] for k in names) / max(1, sum(self.drawn[k] for k in names))

    def recall_by_kind(self) -> dict[str, float]:
        """Return the share that was found of each kind drawn."""
        return {kind: self.recall([kind]) for kind in self.drawn}


def add(score: Score, film: Film, found: Sequence[Boundary], spent_s: float) -> None:
    """Match the boundaries of one film one to one, the nearest first, and count."""
    score.frames += len(film.frames)
    score.spent_s += spent_s
    score.drawn.update(event.kind for event in film.transitions)
    score.decoys.update(event.kind for event in film.decoys)
    found = [b for b in found if getattr(b, "kind", None) not in NO_CUT]
    pairs = sorted(
        (-_overlap(b, event), abs(b.start + b.end - event.start - event.end), i, k)
        for i, b in enumerate(found)
        for k, event in enumerate(film.transitions)
        if b.start <= event.end + TOLERANCE_FRAMES and b.end >= event.start - TOLERANCE_FRAMES
    )
    taken: set[int] = set()
    matched: set[int] = set()
    for _, _, i, k in pairs:
        if i in taken or k in matched:
            continue
        taken.add(i)
        matched.add(k)
        event, boundary = film.transitions[k], found[i]
        score.hits[event.kind] += 1
        kind = str(getattr(boundary, "kind", ""))
        score.typed[event.kind] += GROUPS.get(kind, kind) == GROUPS.get(event.kind, event.kind)
        if event.end > event.start:
            score.overlaps.append(_overlap(boundary, event))
    for i, boundary in enumerate(found):
        if i not in taken:
            where = _deceived_by(boundary, film)
            score.false[where] += 1
            score.false_points += boundary.end - boundary.start <= TOLERANCE_FRAMES
            score.wrong.append(
                f"false {boundary.kind} at [{boundary.start}, {boundary.end}), {boundary.score}: {where}"
            )
    for k, event in enumerate(film.transitions):
        if k not in matched:
            score.wrong.append(f"missed {event.kind} [{event.start}, {event.end})")


def _overlap(boundary: Boundary, event: Event) -> float:
    """Return the intersection over union of two ranges; a range without frames counts as one frame."""
    ends = max(boundary.end, boundary.start + 1), max(event.end, event.start + 1)
    both = min(ends) - max(boundary.start, event.start)
    return max(0, both) / (max(ends) - min(boundary.start, event.start))


def _deceived_by(boundary: Boundary, film: Film) -> str:
    """Name what lies where a boundary is false."""
    for name, events in (("", film.decoys), ("transition", film.transitions)):
        for event in events:
            near = 2 * TOLERANCE_FRAMES
            if boundary.start <= event.end + near and boundary.end >= event.start - near:
                return name or event.kind
    return "shot"
