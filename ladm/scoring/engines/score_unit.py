"""One unit of rows and a scorer -> the unit sealed: what every engine does, whatever it runs on. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from ladm.corpus.rows.reading import Rows
from ladm.corpus.rows.row import Row
from ladm.errors import RowError, StorageError
from ladm.runs.folder import Run
from ladm.runs.records import Record
from ladm.runs.unit_writer import UnitWriter
from ladm.scoring.engines.assignments import Assignment
from ladm.scoring.engines.batch_sizes import BatchSizes
from ladm.scoring.engines.batches import CheckedRow, Pending, checked_row, error_row, start_batch
from ladm.scoring.engines.events import BatchStarted, RowsStored, UnitEvent
from ladm.scoring.engines.input_guard import InputGuard
from ladm.settings.common import TEXT_COLUMN
from ladm.signals.scorer import RowColumnScorer, SignalScorer

# A read of a data set costs a fixed time, which short rows in small batches would pay for each batch.
READ_TOKENS = 1 << 18
"""Tokens that are read at a time, where a batch has fewer."""
WAIT_SHARE = 0.05
"""How long a batch that was just scored is waited for until it is durable, as a share of the time that it took."""


def score_unit(
    run: Run, assignment: Assignment, rows: Rows, scorer: SignalScorer, *, sizes: BatchSizes, guard: InputGuard
) -> Generator[UnitEvent, None, None]:
    """Score the rows of a unit that are not durable yet, batch by batch, and seal it; close it to stop earlier.

    Yields `BatchStarted` before a batch is scored, and `RowsStored` once its records are durable. A row
    of `assignment.alone` starts only when every row before it is durable, and while it is scored nothing
    is read and no other row starts: should the worker be lost then, that row is the cause. `sizes` go on learning from
    unit to unit.
    Raises LadmError before rows are stored that may be of a changed model or of changed rows.
    """
    if run.sealed_path(assignment.unit).exists():
        return
    try:
        yield from _score(run, assignment, rows, scorer, sizes=sizes, guard=guard)
    except StorageError:
        # Another holder has sealed the unit meanwhile and removed this one's file: nothing is lost.
        if not (assignment.holder and run.sealed_path(assignment.unit).exists()):
            raise


# Reading, scoring and storing overlap, so that the device waits for neither the data set nor the disk:
#
#     reader thread    read 1   read 2    read 3   ...
#     this thread               score 1   score 2   score 3   ...
#     writer thread                       store 1   store 2   store 3   ...
#
# One thread each, because the order has to be kept: rows are stored in the order in which they were scored, and the
# supervisor learns of each batch only after the one before is durable. A scorer on a GPU is asynchronous: `score`
# returns when the work is queued, so batch 2 is queued before the scores of batch 1 are waited for. On a CPU a batch is
# scored when `score` returns; where that took much longer than storing it does, it is reported before the next one
# starts, and not only after that.
def _score(
    run: Run, assignment: Assignment, rows: Rows, scorer: SignalScorer, *, sizes: BatchSizes, guard: InputGuard
) -> Iterator[UnitEvent]:
    # Also before the first batch, which may take long: the model may have been changed while it was loaded.
    yield from guard.check()
    writer = UnitWriter(run, assignment.unit, holder=assignment.holder)
    try:
        with _Reader(rows, assignment, scorer, sizes) as reader, _Storage(writer, guard) as storage:
            for length, future in reader.parts(done=writer.done):
                if future.exception() is not None:
                    # Reading has failed; what is being scored is stored before `result` raises.
                    yield from storage.finish()
                part = future.result()
                if part.failed:
                    yield from storage.store(part.failed)
                for batch in _batches(part.checked, length, sizes):
                    alone = batch[0].row.position in assignment.alone
                    if alone:
                        yield from storage.finish()
                    yield BatchStarted([checked.row.position for checked in batch])
                    began = time.monotonic()
                    pending = start_batch(batch, scorer, sizes)
                    yield from storage.collect()
                    storage.pending = pending
                    if alone:
                        yield from storage.finish()
                    elif not scorer.asynchronous:
                        yield from storage.collect()
                        yield from storage.report(within=WAIT_SHARE * (time.monotonic() - began))
            yield from storage.finish()
        writer.seal()
    finally:
        writer.close()


class _Storage:
    """A batch that is being scored, and records that are being written; at most one of each."""

    def __init__(self, writer: UnitWriter, guard: InputGuard) -> None:
        self._writer, self._guard = writer, guard
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[list[Record]] | None = None
        self.pending: Pending | None = None

    def __enter__(self) -> _Storage:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def collect(self) -> Iterator[UnitEvent]:
        """Wait for the scores of the pending batch, and start writing them."""
        if self.pending is not None:
            records, self.pending = self.pending(), None
            yield from self.store(records)

    def store(self, records: list[Record]) -> Iterator[UnitEvent]:
        """Start writing records, once the ones before are durable, if nothing that they were made from has changed."""
        yield from self._wait_until_durable()
        # After the scores are known: a change that came before they were computed is there to be seen.
        yield from self._guard.check()
        self._writing = self._thread.submit(self._append, records)

    def report(self, *, within: float) -> Iterator[UnitEvent]:
        """Report the records that are being written, if they are durable within this many seconds."""
        if self._writing is not None and wait([self._writing], timeout=within).done:
            yield from self._wait_until_durable()

    def finish(self) -> Iterator[UnitEvent]:
        """Wait until everything is durable."""
        yield from self.collect()
        yield from self._wait_until_durable()

    def _wait_until_durable(self) -> Iterator[UnitEvent]:
        if self._writing is not None:
            records, self._writing = self._writing.result(), None
            yield RowsStored(records)

    def _append(self, records: list[Record]) -> list[Record]:
        self._writer.append(records)
        return records


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows that were read together: those that can be scored, and the records of those that cannot."""

    checked: list[CheckedRow]
    failed: list[Record]


class _Reader:
    """Reads and checks the rows of a unit, one part ahead of the scoring."""

    def __init__(self, rows: Rows, assignment: Assignment, scorer: SignalScorer, sizes: BatchSizes) -> None:
        self._rows, self._assignment, self._scorer, self._sizes = rows, assignment, scorer, sizes
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def parts(self, *, done: set[int]) -> Iterator[tuple[int, Future[_Part]]]:
        """The rows still to score, in parts of one length each."""
        # While a row is scored alone nothing else may run that could be the cause of a loss, reading included.
        ahead_parts = 1 if self._assignment.alone else 2
        ahead: list[tuple[int, Future[_Part]]] = []
        for length, positions in self._cut(self._by_length(done)):
            ahead.append((length, self._thread.submit(self._read, positions)))
            if len(ahead) == ahead_parts:
                yield ahead.pop(0)
        yield from ahead

    def _by_length(self, done: set[int]) -> list[tuple[int, list[int]]]:
        """Lengths in tokens and the positions that may share a batch: rows are never padded."""
        unit, alone = self._assignment.unit, self._assignment.alone
        lengths = self._rows.lengths(unit.start, unit.stop).tolist()
        groups: dict[tuple[int, int | None], list[int]] = {}
        for position, length in zip(range(unit.start, unit.stop), lengths, strict=True):
            if position not in done:
                # A row that is scored alone has a group of its own.
                groups.setdefault((length, position if position in alone else None), []).append(position)
        return [(length, positions) for (length, _), positions in groups.items()]

    def _cut(self, groups: list[tuple[int, list[int]]]) -> Iterator[tuple[int, list[int]]]:
        """Groups in parts that are read at once: a batch, or several where batches are small."""
        for length, positions in groups:
            start = 0
            while start < len(positions):
                size = self._sizes(max(1, length))
                count = size * max(1, READ_TOKENS // (size * max(1, length)))
                yield length, positions[start : start + count]
                start += count

    def _read(self, positions: Sequence[int]) -> _Part:
        checked: list[CheckedRow] = []
        failed: list[Record] = []
        for row, text in self._rows_with_text(positions):
            try:
                one = checked_row(row, self._scorer, text=text)
            except RowError as error:
                failed.append(error_row(row, error, stage="check"))
                continue
            if row.position in self._assignment.quarantined:
                problem = RowError("worker_lost", self._assignment.quarantined[row.position])
                failed.append(error_row(row, problem, stage="score"))
            else:
                checked.append(one)
        return _Part(checked, failed)

    def _rows_with_text(self, positions: Sequence[int]) -> Iterator[tuple[Row, str | None]]:
        """The rows and their texts, where the scorer has a use for them and the data has any."""
        wants_text = isinstance(self._scorer, RowColumnScorer) and self._scorer.wants_text
        has_text = wants_text and TEXT_COLUMN in self._rows.column_names
        for start, stop in _stretches(positions):
            texts = self._rows.column(TEXT_COLUMN, start, stop) if has_text else [None] * (stop - start)
            for row, text in zip(self._rows.read(start, stop), texts, strict=True):
                yield row, text if isinstance(text, str) else None


def _batches(checked: list[CheckedRow], length: int, sizes: BatchSizes) -> Iterator[list[CheckedRow]]:
    while checked:
        # Looked up for each batch, because the device may have refused the size of the last one.
        size = sizes(length)
        yield checked[:size]
        checked = checked[size:]


def _stretches(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending positions as ranges without a gap: [4, 5, 6, 9] -> (4, 7), (9, 10)."""
    start = 0
    for k in range(1, len(positions) + 1):
        if k == len(positions) or positions[k] != positions[k - 1] + 1:
            yield positions[start], positions[k - 1] + 1
            start = k
