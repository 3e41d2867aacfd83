"""A run and what its page ranks by -> the values and the order of its documents. Imports no torch.

Shape suffix: N documents in the order of `scores.parquet`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.errors import LadmError
from ladm.runs.columns.by_name import SCORE, score_name
from ladm.runs.columns.joined_columns import JoinedColumns
from ladm.runs.results import Summary
from ladm.selection.evaluation import evaluate
from ladm.selection.manifest import Manifest
from ladm.selection.windows import documents_of
from ladm.settings.expressions import Expression, parse_expression
from ladm.settings.signals import CDS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class RankedValues:
    """Values of all documents, NaN where there is none: (N,)."""

    values_N: Floats
    order_N: Ints
    """Places in `scores.parquet`, the highest value first; documents without one come last."""
    ranks_N: Ints
    """The rank of each document, from 1."""


@dataclass(frozen=True, kw_only=True)
class PageRanking:
    """What the documents of a page are ranked by. By default the score, which `scores.parquet` is in the order of."""

    by: str = SCORE
    """A column or an expression, as the page names it."""
    score_name: str = SCORE
    """What the page calls the run's score: without CDS it is a column of another name."""
    is_cds: bool = True
    """Is it a score of CDS, so that layers and pairs of spans explain it?"""
    is_default: bool = True
    """Was nothing else requested than the score of the run?"""
    with_value: int = 0
    """Documents that have a value."""
    range: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """The highest, the median and the lowest value."""
    ranked: RankedValues | None = None
    """None: the scores, in the order of the file."""

    def name_of(self, by: str) -> str:
        """What the page calls what a subset was ranked by."""
        return self.score_name if by == SCORE else by

    def is_cut_by(self, manifest: Manifest) -> bool:
        """Is the subset a cut of what the page ranks by?"""
        return manifest.is_cut and self.name_of(manifest.by) == self.by


def read_ranking(columns: JoinedColumns, expression: Expression, summary: Summary) -> PageRanking:
    """Rank the documents of a finished run, some of which have a score, by an expression.

    Raises UsageError for a column that there is not, and LadmError where no document has a value.
    """
    run, own = columns.run, score_name(columns.run)
    assert summary.scores is not None
    is_default = expression.text == SCORE
    if is_default and own == SCORE:
        is_cds = CDS in run.identity.signals
        return PageRanking(is_cds=is_cds, with_value=summary.scored, range=summary.scores)
    wanted = parse_expression(own) if is_default else expression
    positions_N, values = columns.read(wanted.names)
    values_N = evaluate(wanted, values, read_documents=lambda: documents_of([columns.rows])[positions_N])
    with_value = int(np.count_nonzero(~np.isnan(values_N)))
    if not with_value:
        raise LadmError(f"{run.folder}: no document has a value of {wanted.text}")
    # Stable, so that equal values keep the order of the run; NaN sorts last.
    order_N = np.argsort(-values_N, kind="stable")
    ranks_N = np.empty(len(order_N), dtype=np.int64)
    ranks_N[order_N] = np.arange(1, len(order_N) + 1)
    known = values_N[order_N[:with_value]]
    return PageRanking(
        by=wanted.text,
        score_name=own,
        is_cds=False,
        is_default=is_default,
        with_value=with_value,
        range=(float(known[0]), float(np.median(known)), float(known[-1])),
        ranked=RankedValues(values_N=values_N, order_N=order_N, ranks_N=ranks_N),
    )
