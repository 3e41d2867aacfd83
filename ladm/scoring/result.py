"""What `score` and `rescore` return. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ladm.runs.columns.added_signals import stored_columns
from ladm.runs.folder import Run
from ladm.runs.results import Summary, summarise
from ladm.settings.signals import COLUMNS_OF


@dataclass(frozen=True, kw_only=True)
class AddedSignal:
    """A signal that was added to a run: its folder, its columns, and the rows with and without them."""

    name: str
    folder: str
    columns: list[str]
    rows: int
    failed: int


def added_signal(name: str, run: Run) -> AddedSignal:
    """The result of a finished signal; `run` is that of the signal itself."""
    summary = summarise(run)
    # Without its score, which repeats the first column and would be confused with that of the run.
    columns = [column for column in stored_columns(run.folder) if column in COLUMNS_OF[name]]
    return AddedSignal(
        name=name, folder=str(run.folder), columns=columns, rows=summary.scored, failed=summary.failed
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """A finished run, what became of its rows, and whether it had been finished before."""

    run: Run
    summary: Summary
    already_finished: bool = False
    added: tuple[AddedSignal, ...] = ()
    """The signals that the command was to add to the run, whether they were finished before or not."""
