"""What a job would take: its documents, rows, tokens, hours and sizes, and whether they fill its budget. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ladm.corpus.preparation.prepare import PreparedRows
from ladm.scoring.dry_run import DryRun


@dataclass(frozen=True, kw_only=True)
class Documents:
    """The documents of a job, and how they were counted."""

    number: int | None
    """None: they cannot be counted beforehand."""
    uncounted: str | None
    """The source that cannot be counted."""
    looked_at: int
    sources: int
    sources_looked_at: int
    prepared: PreparedRows
    """The rows of those that were looked at; their folder is gone."""
    without_domain: int
    """Of those that were looked at: the job stops at the first of them; 0 where they get a domain."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a job would take."""

    is_exact: bool
    """Was every document read? Otherwise all numbers are estimates."""
    documents: Documents | None
    """None: the source is a data set of token ids, which is scored as it is."""
    length: int | None
    """Tokens of every row; None for rows of a data set."""
    rows: int | None
    tokens: int | None
    """Of all rows."""
    selectable_rows: int | None
    """Rows that the selection may choose from: of one document, and where `is_exact` of one value, perhaps not all."""
    selectable_tokens: int | None
    rows_bytes: int | None
    """What the rows take on the disk; 0 where none are written, None where their number is not known."""
    rows_hours: float | None
    """What making the rows takes on this machine; 0 and None as for `rows_bytes`."""
    scoring: DryRun
    """Of all rows, or where their number is not known of those of the sample."""
    most_per_document: int | None = None
    """Rows of a document that a subset may have; None: all of them."""
    fills_budget: bool | None = None
    """Do they, before `--within` (and in an estimate `--max-per`) drops any? Not with a budget below the shortest row.

    None for a share or a threshold, and where their number is not known.
    """

    @property
    def hours(self) -> dict[int, float] | None:
        """Hours to make the rows and score them, by the number of devices; None where there is no number of rows."""
        if self.rows_hours is None:
            return None
        return {count: self.rows_hours + hours for count, hours in self.scoring.hours.items()}

    def __repr__(self) -> str:
        hours = self.hours and {count: float(f"{hours:.3g}") for count, hours in self.hours.items()}
        return (
            f"{type(self).__name__}(is_exact={self.is_exact}, rows={self.rows}, tokens={self.tokens}, "
            f"fills_budget={self.fills_budget}, hours={hours})"
        )


def wanted_and_there(found: Forecast, job: Any) -> tuple[str, int, int | None]:
    """The unit of a budget that is a number of tokens or documents, its size, and how many there are."""
    if job.documents is not None:
        return "document", job.documents, found.selectable_rows
    return "token", job.tokens, found.selectable_tokens


def shortest_beyond_budget(found: Forecast, job: Any) -> int | None:
    """The tokens of the shortest row, where no row fits the budget of `job`; None where one does."""
    # The percent rule exceeds its budget, so that a row always fits.
    if not isinstance(job.tokens, int) or job.rule == "percent":
        return None
    shortest = min((length for length in found.scoring.rows_by_length if length), default=0)
    return shortest if shortest > job.tokens else None


def fills_budget(found: Forecast, job: Any) -> bool | None:
    """Do the documents fill the budget of `job`? None where that is not known."""
    if job.documents is None and not isinstance(job.tokens, int):
        return None
    if shortest_beyond_budget(found, job) is not None:
        return False
    _, wanted, there = wanted_and_there(found, job)
    return None if there is None else there >= wanted
