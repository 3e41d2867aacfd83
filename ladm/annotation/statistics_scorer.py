"""Text statistics as a scorer without a model, so that the engines that score rows also annotate them. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ladm.corpus.rows import Ids, Row, token_ids
from ladm.signals.scorer import Scored
from ladm.signals.text_columns import TextColumns


@dataclass(frozen=True, kw_only=True)
class StatisticsScorer:
    """All its columns are of the row itself; the reading thread of a worker computes them."""

    columns: TextColumns
    vocab_size: int
    asynchronous: bool = False
    wants_text: bool = True

    def check(self, row: Row) -> Ids:
        """The ids of a row. Raises RowError for one that has none."""
        return token_ids(row, vocab_size=self.vocab_size)

    def row_columns(self, ids: Ids, text: str | None) -> dict[str, float]:
        """The statistics of a row."""
        return self.columns.of(ids, text)

    def score(self, ids_BT: Any, *, low_memory: bool = False) -> Callable[[], list[Scored]]:  # noqa: ARG002
        """Nothing beside the columns: the first of them orders the rows of the result."""
        return lambda: [Scored(score=None) for _ in ids_BT]


@dataclass(frozen=True, kw_only=True)
class MakeStatisticsScorer:
    """Makes the scorer in a worker; it travels there by pickle."""

    columns: TextColumns
    vocab_size: int

    def __call__(self, _device: str) -> StatisticsScorer:
        return StatisticsScorer(columns=self.columns, vocab_size=self.vocab_size)


def rows_in_batch(_num_tokens: int) -> int:
    """Rows that are made durable at once."""
    return 16
