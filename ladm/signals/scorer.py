"""Token ids of rows -> a score of each: the protocol that the scorer of every signal follows. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ladm.corpus.rows.row import Ids, Row

LEAST_TOKENS = 16
"""Of context-gain and longattn: fewer leave no quarter with a short context before it, and no distant attention."""


@dataclass(frozen=True, kw_only=True)
class ScorerOutput:
    """The score of a row, higher is better, and what else is stored of it.

    `extras` are columns by name, each a number or a list of numbers. A run stores them as float32. Those that a score
    is made of must be float32 numbers already, because rescoring makes it again of what is stored.
    """

    score: float | None
    """None: the score is the first column of the row."""
    extras: dict[str, float | list[float]] = field(default_factory=dict)


class SignalScorer(Protocol):
    """One way to score documents, ready to run on one device.

    `asynchronous`: does `score` return before the numbers are computed? Then the next rows are started
    before these are waited for, so that the device always has work.
    """

    @property
    def asynchronous(self) -> bool: ...

    def check(self, row: Row) -> Ids:
        """The token ids of a row that can be scored. Raises RowError for one that cannot."""
        ...

    def score(self, ids_BT: npt.NDArray[np.int64], *, low_memory: bool = False) -> Callable[[], list[ScorerOutput]]:
        """Start scoring rows of equal length; the returned function waits for their scores, in the same order.

        Any number may be NaN; the caller checks.

        `low_memory`: use less memory, whatever it costs in time, because a row alone did not fit.
        """
        ...


@runtime_checkable
class RowColumnScorer(Protocol):
    """A scorer with columns that need no forward pass: the thread that reads rows computes them beside it."""

    @property
    def wants_text(self) -> bool: ...

    def row_columns(self, ids: Ids, text: str | None) -> dict[str, float]:
        """Columns of a checked row, made from its ids and its text; `text` None where the data has none."""
        ...
