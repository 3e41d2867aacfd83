"""One unit at work: what is read, begun, asked for and made durable, and when."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeScorer, fake_rows
from torture import complete, contents, identity

from ladm.engines import work
from ladm.engines.units import Assignment
from ladm.engines.work import work_unit
from ladm.rows import Rows, open_rows
from ladm.runs import Run
from ladm.scorers import Scored

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

    def score(self, ids_BT: Any, *, sparing: bool = False) -> Callable[[], list[Scored]]:
        first = int(ids_BT[0, 0])
        self.told.append(("score", [first]))
        scored = super().score(ids_BT, sparing=sparing)

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

        def score(self, ids_BT: Any, *, sparing: bool = False) -> Callable[[], list[Scored]]:
            following = int(ids_BT[-1, 0]) + 1
            ahead.append(following == len(checked) or checked[following].wait(20))
            return super().score(ids_BT, sparing=sparing)

    complete(tmp_path / "run", rows, batch=4, make_scorer=lambda _: Watching())
    assert ahead == [True] * 3
