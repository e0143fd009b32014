"""`data.timesteps`: how the noise levels that each row is trained at are tilted and bounded."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from core.errors import UserError
from curation.expressions import Expression, parse, weights

WHAT = "data.timesteps"
MOST_TILT = 50.0
"""beyond it all draws fall on one level"""
MOST_T = 1000.0
BOUND = re.compile(r"(min|max)\s*\(\s*t\s*\)\s*=(?!=)(.*)", re.DOTALL)
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


@dataclass(frozen=True)
class Timesteps:
    """What `data.timesteps` says.

    Attributes:
        tilt: above 0 towards much noise; None: none.
        low: lowest timestep; None: 0.
        high: highest timestep; None: 1000.
    """

    tilt: Expression | None = None
    low: Expression | None = None
    high: Expression | None = None

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """Those that read columns."""
        return tuple(e for e in (self.tilt, self.low, self.high) if e is not None)

    def values(self, table: pa.Table) -> np.ndarray:
        """Return tilt, lowest and highest timestep of each row: float64 (N, 3), NaN where something is missing.

        Raises:
            UserError: an expression is no number.
        """
        parts = ((self.tilt, 0.0), (self.low, 0.0), (self.high, MOST_T))
        columns = [np.full(len(table), rest) if e is None else weights(table, e) for e, rest in parts]
        return np.stack(columns, axis=1)


def parse_timesteps(text: str) -> Timesteps:
    """Read `tqd(motion, visual_quality); min(t) = 200; max(t) = 900`, each part of which may be left out.

    Raises:
        UserError: a part that is not readable, or is there twice.
    """
    found: dict[str, Expression] = {}
    for part in _parts(text):
        bound = BOUND.fullmatch(part)
        name = bound[1] if bound else "tilt"
        if name in found:
            what = f"{name}(t)" if bound else "a tilt"
            raise UserError(f"{WHAT}: {what} is there twice; write one tilt, min(t) = … and max(t) = …, with ; between")
        found[name] = parse(bound[2] if bound else part, f"{WHAT}, {name}(t)" if bound else WHAT)
    return Timesteps(found.get("tilt"), found.get("min"), found.get("max"))


def flaw(tilt: float, low: float, high: float) -> tuple[str, str] | None:
    """Return what is wrong with a row's values and the fix, None where nothing is."""
    if not (np.isfinite(tilt) and np.isfinite(low) and np.isfinite(high)):
        return "is missing", "change data.timesteps, or leave the row out with data.where"
    if abs(tilt) > MOST_TILT:
        return f"is tilted by more than {MOST_TILT:g}", "lower the tilt in data.timesteps"
    if not 0 <= low < high <= MOST_T:
        return "leaves no timesteps", "see that 0 <= min(t) < max(t) <= 1000"
    return None


def _parts(text: str) -> Iterator[str]:
    """Divide at semicolons outside of quotes; what is empty between two is passed over."""
    covered = QUOTED.sub(lambda quoted: "'" * len(quoted[0]), text)
    begin = 0
    for place in [*(i for i, letter in enumerate(covered) if letter == ";"), len(text)]:
        if (part := text[begin:place].strip()) or not text.strip():
            yield part
        begin = place + 1
