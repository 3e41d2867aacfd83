"""One unit being scored: what is read, started, collected and made durable, and in which order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ladm.corpus.rows.reading import Rows, open_rows
from ladm.errors import StorageError
from ladm.runs.folder import Run
from ladm.runs.records import ErrorRow, Record
from ladm.scoring.engines import score_unit as module
from ladm.scoring.engines.assignments import Assignment, OwnUnits
from ladm.scoring.engines.batch_sizes import BatchSizes
from ladm.scoring.engines.events import BatchStarted, ProgressEvent, RowsStored, UnitEvent, UnitSealed
from ladm.scoring.engines.input_guard import InputGuard
from ladm.scoring.engines.score_unit import score_unit
from ladm.scoring.engines.tracker import TrackedWorker, UnitQueue, WorkerTracker
from ladm.signals.scorer import ScorerOutput
from support.crashes import complete, contents, identity, job_of
from support.fakes import FakeScorer, fake_rows

Log = list[tuple[str, int]]
"""What happened, and the first row that it happened to."""


def first_row(event: UnitEvent) -> tuple[str, int]:
    if isinstance(event, BatchStarted):
        return "started", event.positions[0]
    return "stored", event.records[0].position


@pytest.fixture
def rows(save_rows: Any) -> Rows:
    data = fake_rows(12)
    for row in data:
        row["input_ids"] = row["input_ids"][:3]
    return open_rows(save_rows(data))


class LoggingScorer(FakeScorer):
    """Logs when rows start to be scored, and when their scores are collected."""

    log: Log

    def score(self, ids_BT: Any, *, low_memory: bool = False) -> Callable[[], list[ScorerOutput]]:
        first = int(ids_BT[0, 0])
        self.log.append(("score", first))
        scored = super().score(ids_BT, low_memory=low_memory)

        def collect() -> list[ScorerOutput]:
            self.log.append(("collected", first))
            return scored()

        return collect


def log_of(folder: Path, rows: Rows, *, asynchronous: bool, alone: tuple[int, ...] = ()) -> Log:
    """What happens to the first unit, in batches of four."""
    run = Run.create_or_resume(folder, identity(rows))
    scorer = LoggingScorer(asynchronous=asynchronous)
    scorer.log = []
    assignment = Assignment(unit=run.units[0], alone=frozenset(alone))
    for event in score_unit(run, assignment, rows, scorer, sizes=BatchSizes(lambda _: 4), guard=InputGuard()):
        scorer.log.append(first_row(event))
    return scorer.log


def test_the_next_batch_starts_before_the_last_one_is_collected(tmp_path: Path, rows: Rows) -> None:
    log = log_of(tmp_path / "run", rows, asynchronous=True)
    assert [(kind, first) for kind, first in log if kind in ("score", "collected")] == [
        ("score", 0), ("score", 4), ("collected", 0), ("score", 8), ("collected", 4), ("collected", 8),
    ]  # fmt: skip
    assert [first for kind, first in log if kind == "stored"] == [0, 4, 8]


def test_a_synchronous_scorer_is_collected_at_once(tmp_path: Path, rows: Rows) -> None:
    log = log_of(tmp_path / "run", rows, asynchronous=False)
    assert [(kind, first) for kind, first in log if kind in ("score", "collected")] == [
        (kind, first) for first in (0, 4, 8) for kind in ("score", "collected")
    ]


def test_a_batch_that_took_long_on_a_cpu_is_reported_before_the_next_one_starts(
    tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if every batch took so long that storing it is short beside it.
    monkeypatch.setattr(module, "WAIT_SHARE", 1e9)
    log = log_of(tmp_path / "run", rows, asynchronous=False)
    assert [(kind, first) for kind, first in log if kind in ("score", "stored")] == [
        ("score", 0), ("stored", 0), ("score", 4), ("stored", 4), ("score", 8), ("stored", 8),
    ]  # fmt: skip


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_rows_before_a_suspect_row_are_durable_when_it_starts(
    tmp_path: Path, rows: Rows, asynchronous: bool
) -> None:
    """Or rows that have nothing to do with the loss of a worker would be blamed for it."""
    log = log_of(tmp_path / "run", rows, asynchronous=asynchronous, alone=(5, 6))
    for suspect in (5, 6):
        before = log[: log.index(("started", suspect))]
        started = [first for kind, first in before if kind == "started"]
        assert started
        assert started == [first for kind, first in before if kind == "stored"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_nothing_starts_or_is_read_while_a_suspect_row_is_scored(
    tmp_path: Path, rows: Rows, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_TOKENS", 1)
    log: Log = []

    class CheckLoggingScorer(LoggingScorer):
        def check(self, row: Any) -> Any:
            log.append(("check", row.position))
            return super().check(row)

    run = Run.create_or_resume(tmp_path / "run", identity(rows))
    scorer = CheckLoggingScorer(asynchronous=asynchronous)
    scorer.log = log
    assignment = Assignment(unit=run.units[0], alone=frozenset({5}))
    for event in score_unit(run, assignment, rows, scorer, sizes=BatchSizes(lambda _: 4), guard=InputGuard()):
        log.append(first_row(event))
    start = log.index(("started", 5))
    assert log[start:][:4] == [("started", 5), ("score", 5), ("collected", 5), ("stored", 5)]


def test_what_was_started_is_stored_when_reading_fails(
    tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_TOKENS", 1)

    class FailingScorer(FakeScorer):
        def check(self, row: Any) -> Any:
            if row.position == 9:
                raise StorageError("the disk is gone")
            return super().check(row)

    run = Run.create_or_resume(tmp_path / "run", identity(rows))
    assignment = Assignment(unit=run.units[0])
    safe: list[int] = []

    def score_all() -> None:
        scorer = FailingScorer(asynchronous=True)
        for event in score_unit(run, assignment, rows, scorer, sizes=BatchSizes(lambda _: 4), guard=InputGuard()):
            if isinstance(event, RowsStored):
                safe.extend(record.position for record in event.records)

    with pytest.raises(StorageError, match="the disk is gone"):
        score_all()
    assert safe == list(range(8))


def test_the_bytes_are_the_same(tmp_path: Path, rows: Rows) -> None:
    complete(tmp_path / "waits", rows, batch=4)
    complete(tmp_path / "goes on", rows, batch=4, make_scorer=lambda _: FakeScorer(asynchronous=True))
    assert contents(tmp_path / "goes on") == contents(tmp_path / "waits")


def test_rows_are_read_and_checked_while_others_are_scored(
    tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_TOKENS", 1)
    checked = [threading.Event() for _ in range(12)]
    ahead: list[bool] = []

    class WaitingScorer(FakeScorer):
        def check(self, row: Any) -> Any:
            checked[row.position].set()
            return super().check(row)

        def score(self, ids_BT: Any, *, low_memory: bool = False) -> Callable[[], list[ScorerOutput]]:
            following = int(ids_BT[-1, 0]) + 1
            ahead.append(following == len(checked) or checked[following].wait())
            return super().score(ids_BT, low_memory=low_memory)

    complete(tmp_path / "run", rows, batch=4, make_scorer=lambda _: WaitingScorer())
    assert ahead == [True] * 3


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tracker(tmp_path: Path, rows: Rows, clock: Clock) -> WorkerTracker:
    run = Run.create_or_resume(tmp_path / "run", identity(rows))
    job = job_of(run, rows, OwnUnits(run), hang_seconds=10.0, first_batch_seconds=100.0)
    return WorkerTracker(job, clock=clock)


def failed(position: int) -> Record:
    return ErrorRow(
        position=position, index=position, chunked_index=None, meta=None, num_tokens=1, stage="check",
        error_type="too_short", message="",
    )  # fmt: skip


def test_a_worker_is_warm_once_it_has_scored_something(tracker: WorkerTracker) -> None:
    """Rows that failed their check are no batch; the first batch may still have kernels to compile."""
    worker = TrackedWorker(place=0, last_heard=0.0)
    steps: list[tuple[ProgressEvent, bool, list[int]]] = [
        (RowsStored([failed(0)]), False, []),
        (BatchStarted([1, 2]), False, [1, 2]),
        (BatchStarted([3]), False, [1, 2, 3]),
        (RowsStored([failed(4)]), False, [1, 2, 3]),
        (RowsStored([failed(1), failed(2)]), True, [3]),
    ]
    for event, warm, batch in steps:
        tracker.handle(worker, event)
        assert (worker.warm, worker.batch) == (warm, batch)


def test_silence_counts_as_a_hang_after_the_limit(tracker: WorkerTracker, clock: Clock) -> None:
    worker = TrackedWorker(place=0, last_heard=0.0)
    clock.now = 100.0
    assert tracker.hung_for(worker) is None
    clock.now = 101.0
    assert tracker.hung_for(worker) == 100.0
    # Ten times the slowest batch, which took 3 seconds.
    tracker.handle(worker, BatchStarted([1]))
    clock.now += 3.0
    tracker.handle(worker, RowsStored([failed(1)]))
    clock.now += 30.0
    assert tracker.hung_for(worker) is None
    clock.now += 1.0
    assert tracker.hung_for(worker) == 30.0
    # A row that a worker was lost with may only be slow.
    tracker.failures.record_loss(0, [2])
    tracker.handle(worker, BatchStarted([2]))
    clock.now += 120.0
    assert tracker.hung_for(worker) is None
    clock.now += 1.0
    assert tracker.hung_for(worker) == 120.0
    # The worker that takes over has it as its first batch, and longer for it where that is more than for a first one.
    successor = TrackedWorker(place=0, last_heard=clock.now, batch=[2])
    clock.now += 120.0
    assert tracker.hung_for(successor) is None
    clock.now += 1.0
    assert tracker.hung_for(successor) == 120.0


def test_a_lost_unit_is_for_another_place_while_there_is_one(tmp_path: Path, rows: Rows, clock: Clock) -> None:
    queue = UnitQueue(OwnUnits(Run.create_or_resume(tmp_path / "run", identity(rows))), clock)
    lost = queue.take(0, others=True)
    assert lost is not None
    queue.put_back(lost, 0)
    assert queue.take(0, others=True) is None
    assert not queue.finished()
    assert queue.take(0, others=False) == lost
    queue.put_back(lost, 0)
    assert queue.take(1, others=True) == lost
    assert queue.finished()


def test_a_sealed_unit_leaves_its_worker_idle(tracker: WorkerTracker) -> None:
    worker = TrackedWorker(place=0, last_heard=0.0)
    assignment = tracker.take(0, others=False)
    assert assignment is not None
    tracker.assign(worker, assignment)
    assert not tracker.all_done([worker])
    tracker.handle(worker, UnitSealed())
    assert worker.assignment is None
    assert tracker.all_done([worker])
