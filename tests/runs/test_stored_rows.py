"""How many rows a run has stored, as a resume and `ladm status` count them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ladm.corpus.rows.reading import Rows, open_rows
from ladm.errors import LadmError, StorageError
from ladm.progress import NoProgress
from ladm.runs import lines
from ladm.runs.folder import Run
from ladm.runs.layout import RESULT_FILES
from ladm.runs.stored_rows import count_stored_rows
from ladm.scoring import scoring_pass
from ladm.scoring.engines.job import WorkerConfig
from ladm.scoring.scoring_pass import ScoringPass
from support import fakes
from support.crashes import Batch, complete


@pytest.fixture
def rows(save_rows: Any) -> Rows:
    """100 rows in 7 units; the first and the last row have no score."""
    data = fakes.fake_rows(100)
    data[0]["input_ids"] = data[99]["input_ids"] = [1]
    return open_rows(save_rows(data))


@pytest.fixture
def unfinished(tmp_path: Path, rows: Rows) -> Run:
    """A run with 95 of the rows: its last unit has none, and of the one before 15 are stored."""
    run = complete(tmp_path / "run", rows)
    for name in RESULT_FILES:
        (run.folder / name).unlink()
    run.sealed_path(run.units[6]).unlink()
    path = run.open_path(run.units[5])
    run.sealed_path(run.units[5]).rename(path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:15]) + b'{"position": 95, "sta')
    return run


def pass_over(run: Run, rows: Rows, **more: Any) -> ScoringPass:
    worker = WorkerConfig(
        folder=run.folder, rows=rows.name, limit=None, make_scorer=fakes.make_fake, batch_rows=Batch(5)
    )
    return ScoringPass(
        run=run, rows=rows, worker=worker, devices=("fake",), echo=print, signals=[], **{"progress": Recorded()} | more
    )


class Recorded(NoProgress):
    """Remembers how far the run was at its start."""

    done = 0

    def start(self, *, total: int, done: int, launches: int = 1) -> None:  # noqa: ARG002 - the interface
        self.done = done


def test_a_resume_decodes_no_row_that_is_stored(rows: Rows, unfinished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring_pass, "run_units", lambda _: None)
    monkeypatch.setattr(scoring_pass, "finish", lambda _: None)

    def decode(_: dict[str, Any]) -> None:
        raise AssertionError("a row is decoded")

    monkeypatch.setattr(lines, "record_from_json", decode)
    progress = Recorded()
    pass_over(unfinished, rows, progress=progress).finish_run()
    assert progress.done == 95
    with pytest.raises(LadmError, match="^1 row has no score; stopped by --max-errors or --fail-fast"):
        pass_over(unfinished, rows, most_errors=0).finish_run()


def test_a_damaged_unit_ends_a_resume_before_a_row_is_scored(rows: Rows, unfinished: Run) -> None:
    path = unfinished.sealed_path(unfinished.units[1])
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match=f"^{path} is damaged at byte 0"):
        pass_over(unfinished, rows).finish_run()


def test_launches_that_shared_a_unit_are_not_added_up(unfinished: Run) -> None:
    first = unfinished.open_path(unfinished.units[5]).read_bytes().splitlines(keepends=True)
    unfinished.open_path(unfinished.units[5], "0-abc").write_bytes(b"".join(first[:4]))
    found = count_stored_rows(unfinished)
    assert (found.done, dict(found.errors), len(found.sealed_at)) == (95, {"too_short": 1}, 5)
