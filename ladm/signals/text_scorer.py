"""Statistics of texts alone as a scorer without a model. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ladm.corpus.rows.row import Ids, Row, token_ids
from ladm.signals.scorer import ScorerOutput
from ladm.signals.text_columns import TextColumns

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class TextScorer:
    """All its columns are of the row itself; the thread of a worker that reads rows computes them."""

    columns: TextColumns
    vocab_size: int
    asynchronous: bool = False
    wants_text: bool = True

    def check(self, row: Row) -> Ids:
        """The ids of a row of at least one token. Raises RowError for anything but a list of ids of the vocabulary."""
        return token_ids(row, vocab_size=self.vocab_size)

    def row_columns(self, ids: Ids, text: str | None) -> dict[str, float]:
        """The statistics of a row."""
        return self.columns.of(ids, text)

    def score(self, ids_BT: npt.NDArray[np.int64], *, low_memory: bool = False) -> Callable[[], list[ScorerOutput]]:  # noqa: ARG002
        """No score besides the columns, the first of which orders the results."""
        return lambda: [ScorerOutput(score=None) for _ in ids_BT]


@dataclass(frozen=True, kw_only=True)
class TextScorerFactory:
    """Makes the scorer in a worker; it travels there by pickle."""

    columns: TextColumns
    vocab_size: int

    def __call__(self, _device: str) -> TextScorer:
        return TextScorer(columns=self.columns, vocab_size=self.vocab_size)
