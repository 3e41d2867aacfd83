"""One unit of rows and a scorer -> the unit sealed: what every engine does, whatever it runs on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ladm.errors import RowError
from ladm.rows import Ids, Row, Rows
from ladm.runs import Run, Unit, UnitWriter
from ladm.scorers import Scored, Scorer

Record = dict[str, Any]
Report = Callable[[list[Record]], None]

_OUT_OF_MEMORY = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "can't allocate memory",
    "not enough memory",
)


BatchRule = Callable[[int], int]
"""Number of tokens of a row -> how many such rows go into one step."""


def work_unit(run: Run, unit: Unit, rows: Rows, scorer: Scorer, *, batch_rows: BatchRule, report: Report) -> None:
    """Score the rows of a unit that are not safe yet, batch by batch, and seal it.

    `report` is given each batch of records once it is durable; what it raises stops the work there.
    """
    writer = UnitWriter(run, unit)
    try:
        for records in _batches(rows, unit, scorer, done=set(writer.done), batch_rows=batch_rows):
            writer.append(records)
            report(records)
        writer.seal()
    finally:
        writer.close()


def _batches(
    rows: Rows, unit: Unit, scorer: Scorer, *, done: set[int], batch_rows: BatchRule
) -> Iterator[list[Record]]:
    """Records of the rows still to do: first those without a score, then scored rows by length."""
    failed: list[Record] = []
    by_length: dict[int, list[tuple[Row, Ids]]] = {}
    for row in rows.read(unit.start, unit.stop):
        if row.position in done:
            continue
        try:
            ids = scorer.check(row)
        except RowError as error:
            failed.append(error_record(row, error, stage="check"))
        else:
            by_length.setdefault(len(ids), []).append((row, ids))
    if failed:
        yield failed
    for num_tokens, group in by_length.items():
        size = batch_rows(num_tokens)
        for start in range(0, len(group), size):
            yield _score_batch(group[start : start + size], scorer)


def _score_batch(batch: list[tuple[Row, Ids]], scorer: Scorer) -> list[Record]:
    """Score a batch; one that does not fit the device's memory is halved until it does."""
    scored = None
    try:
        scored = scorer.score(np.stack([ids for _, ids in batch]))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Halved outside the `except`, where the failed attempt's tensors are no longer referenced.
    if scored is not None:
        return [_record(row, ids, result) for (row, ids), result in zip(batch, scored, strict=True)]
    if len(batch) == 1:
        row, ids = batch[0]
        problem = RowError("out_of_memory", f"{len(ids)} tokens do not fit the device's memory, even alone")
        return [error_record(row, problem, stage="score")]
    middle = len(batch) // 2
    return _score_batch(batch[:middle], scorer) + _score_batch(batch[middle:], scorer)


def is_out_of_memory(error: BaseException) -> bool:
    """Is it one of the many ways in which a device says that its memory is full?"""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY)


def _record(row: Row, ids: Ids, result: Scored) -> Record:
    wrong = _not_finite(result)
    if wrong is not None:
        return error_record(row, RowError("not_finite", f"{wrong} is NaN or infinite"), stage="score")
    return {
        "position": row.position,
        "status": "ok",
        "index": row.index,
        "chunked_index": row.chunked_index,
        "score": result.score,
        "meta": row.meta,
        "num_tokens": len(ids),
        **result.extras,
    }


def _not_finite(result: Scored) -> str | None:
    """The name of the first number that is NaN or infinite; those of a layer come before the score made of them."""
    for name, kept in [*result.extras.items(), ("score", result.score)]:
        numbers = kept if isinstance(kept, list) else [kept]
        if not all(map(math.isfinite, numbers)):
            wrong = next(k for k, number in enumerate(numbers) if not math.isfinite(number))
            return f"{name}[{wrong}]" if isinstance(kept, list) else name
    return None


def error_record(row: Row, error: RowError, *, stage: str) -> Record:
    """What is kept of a row without a score."""
    return {
        "position": row.position,
        "status": "error",
        "index": row.index,
        "chunked_index": row.chunked_index,
        "meta": row.meta,
        "num_tokens": row.num_tokens,
        "stage": stage,
        "error_type": error.kind,
        "message": str(error),
    }
