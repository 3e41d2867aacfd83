"""What `score` and `rescore` return. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ladm.runs.folder import Run
from ladm.runs.results import Summary


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """A finished run, what became of its rows, and whether it had been finished before."""

    run: Run
    summary: Summary
    already_finished: bool = False
