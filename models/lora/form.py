"""The form of an adapter: what has to agree for one to go on with the weights of another."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AdapterForm:
    """The form of an adapter.

    Attributes:
        rank: inner dimension.
        alpha: the update is scaled by alpha / rank; None: alpha = rank.
        dora: train row norms as well (arXiv 2402.09353).
    """

    rank: int
    alpha: float | None = None
    dora: bool = field(default=False, kw_only=True)
