"""Checked rows of one length -> their records, in batches that fit the device's memory. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ladm.corpus.rows.row import Ids, Row
from ladm.errors import RowError, is_out_of_memory
from ladm.runs.records import Column, ErrorRow, Record, ScoredRow
from ladm.scoring.engines.batch_sizes import BatchSizes
from ladm.scoring.engines.scorer_results import columns_of, outputs_of, require_function, score_of
from ladm.signals.scorer import RowColumnScorer, ScorerOutput, SignalScorer


@dataclass(frozen=True, slots=True)
class CheckedRow:
    """A row that can be scored, its token ids, and the columns that need no forward pass."""

    row: Row
    ids: Ids
    columns: Mapping[str, float] = field(default_factory=dict)


def checked_row(row: Row, scorer: SignalScorer, *, text: str | None) -> CheckedRow:
    """The row as the scorer takes it. Raises RowError for one that cannot be scored."""
    ids = scorer.check(row)
    return CheckedRow(row, ids, scorer.row_columns(ids, text) if isinstance(scorer, RowColumnScorer) else {})


Pending = Callable[[], list[Record]]
"""A batch that the device is working on: calling it waits for the records."""


def start_batch(
    batch: Sequence[CheckedRow], scorer: SignalScorer, sizes: BatchSizes, *, low_memory: bool = False
) -> Pending:
    """Start scoring a batch of rows of one length.

    A batch that does not fit the device's memory is halved until it does; a single row is tried once
    more with `low_memory`, and is an error row if that fails too.
    """
    pending = None
    try:
        pending = scorer.score(np.stack([checked.ids for checked in batch]), low_memory=low_memory)
        require_function(pending, signal=type(scorer).__name__)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Retried outside the `except`: inside it the traceback still refers to the failed attempt's tensors, and their
    # memory would not be free.
    if pending is not None:
        learning = sizes if scorer.asynchronous else None
        return partial(_records, batch, pending, learning, signal=type(scorer).__name__)
    if len(batch) == 1 and not low_memory:
        return start_batch(batch, scorer, sizes, low_memory=True)
    if len(batch) == 1:
        problem = RowError("out_of_memory", f"{len(batch[0].ids)} tokens do not fit in the device's memory, even alone")
        return lambda: [error_row(batch[0].row, problem, stage="score")]
    middle = len(batch) // 2
    sizes.reduce(len(batch[0].ids), len(batch))
    halves = [start_batch(half, scorer, sizes) for half in (batch[:middle], batch[middle:])]
    return lambda: [record for half in halves for record in half()]


def _records(
    batch: Sequence[CheckedRow], scored: Callable[[], list[ScorerOutput]], sizes: BatchSizes | None, *, signal: str
) -> list[Record]:
    """Wait for the scores of a batch. `sizes` learns from the time; None where nothing overlaps with the scoring."""
    results = outputs_of(scored(), rows=len(batch), signal=signal)
    if sizes is not None:
        sizes.record_finished(len(batch[0].ids), len(batch))
    return [_record(checked, result, signal=signal) for checked, result in zip(batch, results, strict=True)]


def _record(checked: CheckedRow, result: ScorerOutput, *, signal: str) -> Record:
    row = checked.row
    columns = columns_of(result.extras, checked.columns, signal=signal)
    # A run without CDS is ordered by the first number that it has of a row.
    score = score_of(result.score, columns, signal=signal)
    wrong = _first_not_finite(columns, score)
    if wrong is not None:
        return error_row(row, RowError("not_finite", f"{wrong} is NaN or infinite"), stage="score")
    return ScoredRow(
        position=row.position,
        index=row.index,
        chunked_index=row.chunked_index,
        score=score,
        meta=row.meta,
        names=row.names,
        num_tokens=len(checked.ids),
        columns=columns,
    )


def _first_not_finite(columns: Mapping[str, Column], score: float) -> str | None:
    """The name of the first number that is NaN or infinite; those of a layer come before the score made of them."""
    for name, values in [*columns.items(), ("score", score)]:
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            return f"{name}[{wrong[0]}]" if isinstance(values, list) else name
    return None


def error_row(row: Row, error: RowError, *, stage: str) -> ErrorRow:
    """What is stored of a row without a score."""
    return ErrorRow(
        position=row.position,
        index=row.index,
        chunked_index=row.chunked_index,
        meta=row.meta,
        names=row.names,
        num_tokens=row.num_tokens,
        stage=stage,
        error_type=error.kind,
        message=str(error),
    )
