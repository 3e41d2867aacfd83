"""One unit at work: what is read, begun, asked for and made durable, and when."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from fakes import FakeScorer, fake_rows, make_fake
from torture import complete, contents, identity

from ladm.corpus.rows import Rows, open_rows
from ladm.errors import StorageError
from ladm.runs.folder import Run
from ladm.scoring.engines import local, work
from ladm.scoring.engines.units import Assignment, OwnUnits
from ladm.scoring.engines.work import work_unit
from ladm.scoring.engines.worker import Work
from ladm.signals.scorer import Scored

Told = list[tuple[str, list[int]]]


@pytest.fixture
def rows(save_rows: Any) -> Rows:
    data = fake_rows(12)
    for row in data:
        row["input_ids"] = row["input_ids"][:3]
    return open_rows(save_rows(data))


class Telling(FakeScorer):
    """Tells when rows are begun, and when their scores are asked for."""

    told: Told

    def score(self, ids_BT: Any, *, low_memory: bool = False) -> Callable[[], list[Scored]]:
        first = int(ids_BT[0, 0])
        self.told.append(("score", [first]))
        scored = super().score(ids_BT, low_memory=low_memory)

        def asked() -> list[Scored]:
            self.told.append(("asked", [first]))
            return scored()

        return asked


def told_of(folder: Path, rows: Rows, *, asynchronous: bool, alone: tuple[int, ...] = ()) -> Told:
    """What happens to the first unit, in batches of four."""
    run = Run.create_or_resume(folder, identity(rows))
    scorer = Telling(asynchronous=asynchronous)
    scorer.told = []
    assignment = Assignment(unit=run.units[0], alone=frozenset(alone))
    for kind, content in work_unit(run, assignment, rows, scorer, batch_rows=lambda _: 4):
        first = content[0]["position"] if kind == "rows" else content[0]
        scorer.told.append((kind, [first]))
    return scorer.told


def test_the_next_batch_is_begun_before_the_last_one_is_asked_for(tmp_path: Path, rows: Rows) -> None:
    told = told_of(tmp_path / "run", rows, asynchronous=True)
    begun_and_asked = [(kind, first) for kind, (first,) in told if kind in ("score", "asked")]
    assert begun_and_asked == [("score", 0), ("score", 4), ("asked", 0), ("score", 8), ("asked", 4), ("asked", 8)]
    assert [first for kind, (first,) in told if kind == "rows"] == [0, 4, 8]


def test_a_scorer_that_waits_itself_is_asked_at_once(tmp_path: Path, rows: Rows) -> None:
    told = told_of(tmp_path / "run", rows, asynchronous=False)
    begun_and_asked = [(kind, first) for kind, (first,) in told if kind in ("score", "asked")]
    assert begun_and_asked == [(kind, first) for first in (0, 4, 8) for kind in ("score", "asked")]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_came_before_a_suspect_row_is_durable_when_it_begins(
    tmp_path: Path, rows: Rows, asynchronous: bool
) -> None:
    """Or the loss of a worker would be laid to rows that have nothing to do with it."""
    told = told_of(tmp_path / "run", rows, asynchronous=asynchronous, alone=(5, 6))
    for suspect in (5, 6):
        before = told[: told.index(("begin", [suspect]))]
        begun = [first for kind, first in before if kind == "begin"]
        assert begun
        assert begun == [first for kind, first in before if kind == "rows"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_nothing_begins_or_is_read_while_a_suspect_row_is_scored(
    tmp_path: Path, rows: Rows, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "READ_TOKENS", 1)
    told: Told = []

    class Watched(Telling):
        def check(self, row: Any) -> Any:
            told.append(("check", [row.position]))
            return super().check(row)

    run = Run.create_or_resume(tmp_path / "run", identity(rows))
    scorer = Watched(asynchronous=asynchronous)
    scorer.told = told
    assignment = Assignment(unit=run.units[0], alone=frozenset({5}))
    for kind, content in work_unit(run, assignment, rows, scorer, batch_rows=lambda _: 4):
        told.append((kind, [content[0]["position"] if kind == "rows" else content[0]]))
    began = told.index(("begin", [5]))
    assert told[began:][:4] == [("begin", [5]), ("score", [5]), ("asked", [5]), ("rows", [5])]


def test_what_was_begun_is_safe_when_reading_fails(tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "READ_TOKENS", 1)

    class Failing(FakeScorer):
        def check(self, row: Any) -> Any:
            if row.position == 9:
                raise StorageError("the disk is gone")
            return super().check(row)

    run = Run.create_or_resume(tmp_path / "run", identity(rows))
    assignment = Assignment(unit=run.units[0])
    safe: list[int] = []

    def work_on() -> None:
        for kind, content in work_unit(run, assignment, rows, Failing(asynchronous=True), batch_rows=lambda _: 4):
            if kind == "rows":
                safe.extend(record["position"] for record in content)

    with pytest.raises(StorageError, match="the disk is gone"):
        work_on()
    assert safe == list(range(8))


def test_the_bytes_are_the_same(tmp_path: Path, rows: Rows) -> None:
    complete(tmp_path / "waits", rows, batch=4)
    complete(tmp_path / "goes on", rows, batch=4, make_scorer=lambda _: FakeScorer(asynchronous=True))
    assert contents(tmp_path / "goes on") == contents(tmp_path / "waits")


def test_rows_are_read_and_checked_while_others_are_scored(
    tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "READ_TOKENS", 1)
    checked = [threading.Event() for _ in range(12)]
    ahead: list[bool] = []

    class Watching(FakeScorer):
        def check(self, row: Any) -> Any:
            checked[row.position].set()
            return super().check(row)

        def score(self, ids_BT: Any, *, low_memory: bool = False) -> Callable[[], list[Scored]]:
            following = int(ids_BT[-1, 0]) + 1
            ahead.append(following == len(checked) or checked[following].wait(20))
            return super().score(ids_BT, low_memory=low_memory)

    complete(tmp_path / "run", rows, batch=4, make_scorer=lambda _: Watching())
    assert ahead == [True] * 3


def test_a_worker_is_warm_once_it_has_scored_something() -> None:
    """Rows that could not even be begun are no batch; the first one that is may still have kernels to compile."""
    pool = local._Pool(
        Work(folder=Path(), rows="", limit=None, make_scorer=make_fake, batch_rows=lambda _: 4),
        OwnUnits.__new__(OwnUnits), devices=("cpu",), report=lambda _: None, say=lambda _: None,
    )  # fmt: skip
    ours, theirs = multiprocessing.Pipe()
    worker = local._Worker(0, "cpu", cast(Any, None), ours, time.monotonic(), ready=True)
    for message, warm, batch in (
        (("rows", [{"position": 0, "status": "error"}]), False, []),
        (("begin", [1, 2]), False, [1, 2]),
        (("begin", [3]), False, [1, 2, 3]),
        (("rows", [{"position": 4, "status": "error"}]), False, [1, 2, 3]),
        (("rows", [{"position": 1, "status": "ok"}, {"position": 2, "status": "ok"}]), True, [3]),
    ):
        theirs.send(message)
        pool._hear(worker)
        assert (worker.warm, worker.batch) == (warm, batch)
