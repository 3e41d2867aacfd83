"""One unit of rows and a scorer -> the unit sealed: what every engine does, whatever it runs on."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from ladm.corpus.rows import Ids, Row, Rows
from ladm.errors import RowError, StorageError
from ladm.runs.folder import Run, UnitWriter
from ladm.scoring.engines.units import Assignment
from ladm.signals.scorer import Scored, Scorer

Record = dict[str, Any]
Report = Callable[[list[Record]], None]
Event = tuple[str, list[Any]]
"""`begin` and positions, or `rows` and records."""
Batch = list[tuple[Row, Ids]]
Read = tuple[Batch, list[Record]]
"""Rows that can be scored, and records of those that cannot."""

READ_TOKENS = 1 << 18
"""Read at a time where a batch is smaller."""
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
    they are durable. While a batch is scored the next one is read and checked, and the one before is
    made durable, so that the device waits for neither. A row of `assignment.alone` begins only when
    every row before is durable, and while it is scored nothing is read and no other begins.
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
        groups = _groups(rows, assignment, done=set(writer.done))
        with ThreadPoolExecutor(1) as reading, _Safe(writer) as safe:
            for length, read in _reads(rows, groups, assignment, scorer, sizes, reading):
                if read.exception() is not None:
                    yield from safe.finish()
                several, failed = read.result()
                if failed:
                    yield from safe.write(failed)
                for batch in _split(several, length, sizes):
                    alone = batch[0][0].position in assignment.alone
                    if alone:
                        yield from safe.finish()
                    yield "begin", [row.position for row, _ in batch]
                    scored = _begin(batch, scorer, sizes)
                    yield from safe.ask()
                    safe.begun = scored
                    if alone:
                        yield from safe.finish()
                    elif not scorer.asynchronous:
                        yield from safe.ask()
            yield from safe.finish()
        writer.seal()
    finally:
        writer.close()


class _Safe:
    """What is on its way to the disk: a batch that is being scored, and records that are being written."""

    def __init__(self, writer: UnitWriter) -> None:
        self._writer = writer
        self._background = ThreadPoolExecutor(1)
        self._writing: Future[list[Record]] | None = None
        self.begun: Callable[[], list[Record]] | None = None

    def __enter__(self) -> _Safe:
        return self

    def __exit__(self, *_: object) -> None:
        self._background.shutdown()

    def ask(self) -> Iterator[Event]:
        """Wait for the scores of the batch that was begun, and have them written."""
        if self.begun is not None:
            records, self.begun = self.begun(), None
            yield from self.write(records)

    def write(self, records: list[Record]) -> Iterator[Event]:
        """Have records written, once those before are durable."""
        yield from self._durable()
        self._writing = self._background.submit(self._append, records)

    def finish(self) -> Iterator[Event]:
        """Wait until everything is durable."""
        yield from self.ask()
        yield from self._durable()

    def _durable(self) -> Iterator[Event]:
        if self._writing is not None:
            records, self._writing = self._writing.result(), None
            yield "rows", records

    def _append(self, records: list[Record]) -> list[Record]:
        self._writer.append(records)
        return records


def _groups(rows: Rows, assignment: Assignment, *, done: set[int]) -> list[tuple[int, list[int]]]:
    """The rows still to do: numbers of tokens, and the positions that go together."""
    start, stop = assignment.unit.start, assignment.unit.stop
    groups: dict[tuple[int, int | None], list[int]] = {}
    for position, length in zip(range(start, stop), rows.lengths(start, stop).tolist(), strict=True):
        if position not in done:
            alone = position if position in assignment.alone else None
            groups.setdefault((length, alone), []).append(position)
    return [(length, positions) for (length, _), positions in groups.items()]


def _reads(
    rows: Rows,
    groups: list[tuple[int, list[int]]],
    assignment: Assignment,
    scorer: Scorer,
    sizes: BatchSizes,
    reading: ThreadPoolExecutor,
) -> Iterator[tuple[int, Future[Read]]]:
    """Rows of a length as they are read and checked, one part ahead where no row is under suspicion."""
    ahead: list[tuple[int, Future[Read]]] = []
    most = 1 if assignment.alone else 2
    for length, positions in _cut(groups, sizes):
        ahead.append((length, reading.submit(_read, rows, positions, assignment, scorer)))
        if len(ahead) == most:
            yield ahead.pop(0)
    yield from ahead


def _cut(groups: list[tuple[int, list[int]]], sizes: BatchSizes) -> Iterator[tuple[int, list[int]]]:
    """Groups in parts that are read at once: a batch, or several where they are small."""
    for length, positions in groups:
        start = 0
        while start < len(positions):
            size = sizes(max(1, length))
            several = size * max(1, READ_TOKENS // (size * max(1, length)))
            yield length, positions[start : start + several]
            start += several


def _split(several: Batch, length: int, sizes: BatchSizes) -> Iterator[Batch]:
    while several:
        size = sizes(length)
        yield several[:size]
        several = several[size:]


def _read(rows: Rows, positions: list[int], assignment: Assignment, scorer: Scorer) -> Read:
    """Rows that can be scored, and records of those that cannot."""
    batch: Batch = []
    failed: list[Record] = []
    for row in (row for start, stop in _runs(positions) for row in rows.read(start, stop)):
        try:
            ids = scorer.check(row)
        except RowError as error:
            failed.append(error_record(row, error, stage="check"))
            continue
        if row.position in assignment.poisoned:
            problem = RowError("worker_lost", assignment.poisoned[row.position])
            failed.append(error_record(row, problem, stage="score"))
        else:
            batch.append((row, ids))
    return batch, failed


def _runs(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending positions as stretches without a gap: first, and one behind the last."""
    start = 0
    for k in range(1, len(positions) + 1):
        if k == len(positions) or positions[k] != positions[k - 1] + 1:
            yield positions[start], positions[k - 1] + 1
            start = k


def _begin(batch: Batch, scorer: Scorer, sizes: BatchSizes, *, low_memory: bool = False) -> Callable[[], list[Record]]:
    """Begin to score a batch; what is returned waits for its records.

    One that does not fit the device's memory is halved until it does, a row alone tried once more.
    """
    scored = None
    try:
        scored = scorer.score(np.stack([ids for _, ids in batch]), low_memory=low_memory)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Halved outside the `except`, where the failed attempt's tensors are no longer referenced.
    if scored is not None:
        return partial(_records, batch, scored)
    if len(batch) == 1 and not low_memory:
        return _begin(batch, scorer, sizes, low_memory=True)
    if len(batch) == 1:
        row, ids = batch[0]
        problem = RowError("out_of_memory", f"{len(ids)} tokens do not fit the device's memory, even alone")
        return lambda: [error_record(row, problem, stage="score")]
    middle = len(batch) // 2
    sizes.too_many(len(batch[0][1]), len(batch))
    halves = [_begin(half, scorer, sizes) for half in (batch[:middle], batch[middle:])]
    return lambda: [record for half in halves for record in half()]


def _records(batch: Batch, scored: Callable[[], list[Scored]]) -> list[Record]:
    return [_record(row, ids, result) for (row, ids), result in zip(batch, scored(), strict=True)]


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
