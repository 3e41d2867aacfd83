"""One unit of rows and a scorer -> the unit sealed: what every engine does, whatever it runs on."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ladm.engines.units import Assignment
from ladm.errors import RowError, StorageError
from ladm.rows import Ids, Row, Rows
from ladm.runs import Run, UnitWriter
from ladm.scorers import Scored, Scorer

Record = dict[str, Any]
Report = Callable[[list[Record]], None]
Event = tuple[str, list[Any]]
"""`begin` and positions, or `rows` and records."""
Batch = list[tuple[Row, Ids]]

_OUT_OF_MEMORY = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "can't allocate memory",
    "not enough memory",
)


BatchRule = Callable[[int], int]
"""Number of tokens of a row -> how many such rows go into one step."""


class BatchSizes:
    """A batch rule that has learnt from the device: what did not fit is not tried again."""

    def __init__(self, rule: BatchRule) -> None:
        self._rule = rule
        self._most: dict[int, int] = {}

    def __call__(self, num_tokens: int) -> int:
        return min([self._rule(num_tokens), *(rows for tokens, rows in self._most.items() if tokens <= num_tokens)])

    def too_many(self, num_tokens: int, rows: int) -> None:
        """So many rows of this length, and as many of longer ones, are too many."""
        self._most[num_tokens] = min(self._most.get(num_tokens, rows), max(1, rows // 2))


def work_unit(
    run: Run, assignment: Assignment, rows: Rows, scorer: Scorer, *, batch_rows: BatchRule
) -> Generator[Event, None, None]:
    """Score the rows of a unit that are not safe yet, batch by batch, and seal it; close it to stop earlier.

    Yields `begin` with the positions of a batch before it is scored, and `rows` with its records once
    they are durable. A batch is made durable while the next one is scored, so that the device does not
    wait for the disk.
    """
    if run.sealed_path(assignment.unit).exists():
        return
    try:
        yield from _work(run, assignment, rows, scorer, batch_rows=batch_rows)
    except StorageError:
        # Another holder sealed it meanwhile, and took our file away.
        if not (assignment.holder and run.sealed_path(assignment.unit).exists()):
            raise


def _work(run: Run, assignment: Assignment, rows: Rows, scorer: Scorer, *, batch_rows: BatchRule) -> Iterator[Event]:
    writer = UnitWriter(run, assignment.unit, holder=assignment.holder)
    try:
        sizes = batch_rows if isinstance(batch_rows, BatchSizes) else BatchSizes(batch_rows)
        failed, batches = _sort_out(rows, assignment, scorer, done=set(writer.done), sizes=sizes)
        with ThreadPoolExecutor(1) as background:
            writing = background.submit(_append, writer, failed) if failed else None
            for batch in batches:
                yield "begin", [row.position for row, _ in batch]
                records = _score_batch(batch, scorer, sizes)
                if writing is not None:
                    yield "rows", writing.result()
                writing = background.submit(_append, writer, records)
            if writing is not None:
                yield "rows", writing.result()
        writer.seal()
    finally:
        writer.close()


def _append(writer: UnitWriter, records: list[Record]) -> list[Record]:
    writer.append(records)
    return records


def _sort_out(
    rows: Rows, assignment: Assignment, scorer: Scorer, *, done: set[int], sizes: BatchSizes
) -> tuple[list[Record], Iterator[Batch]]:
    """The rows still to do: records of those without a score, and batches of equal length of the others."""
    failed: list[Record] = []
    by_length: dict[tuple[int, int | None], Batch] = {}
    for row in rows.read(assignment.unit.start, assignment.unit.stop):
        if row.position in done:
            continue
        try:
            ids = scorer.check(row)
        except RowError as error:
            failed.append(error_record(row, error, stage="check"))
            continue
        if row.position in assignment.poisoned:
            problem = RowError("worker_lost", assignment.poisoned[row.position])
            failed.append(error_record(row, problem, stage="score"))
        else:
            alone = row.position if row.position in assignment.alone else None
            by_length.setdefault((len(ids), alone), []).append((row, ids))
    return failed, _cut(by_length, sizes)


def _cut(by_length: dict[tuple[int, int | None], Batch], sizes: BatchSizes) -> Iterator[Batch]:
    for (num_tokens, _), group in by_length.items():
        start = 0
        while start < len(group):
            size = sizes(num_tokens)
            yield group[start : start + size]
            start += size


def _score_batch(batch: Batch, scorer: Scorer, sizes: BatchSizes, *, sparing: bool = False) -> list[Record]:
    """Score a batch; one that does not fit the device's memory is halved until it does, a row alone tried once more."""
    scored = None
    try:
        scored = scorer.score(np.stack([ids for _, ids in batch]), sparing=sparing)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Halved outside the `except`, where the failed attempt's tensors are no longer referenced.
    if scored is not None:
        return [_record(row, ids, result) for (row, ids), result in zip(batch, scored, strict=True)]
    if len(batch) == 1 and not sparing:
        return _score_batch(batch, scorer, sizes, sparing=True)
    if len(batch) == 1:
        row, ids = batch[0]
        problem = RowError("out_of_memory", f"{len(ids)} tokens do not fit the device's memory, even alone")
        return [error_record(row, problem, stage="score")]
    middle = len(batch) // 2
    sizes.too_many(len(batch[0][1]), len(batch))
    return _score_batch(batch[:middle], scorer, sizes) + _score_batch(batch[middle:], scorer, sizes)


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
