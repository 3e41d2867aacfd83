"""What `ladm compare` found, as typed values that the command prints and the page shows. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from ladm.comparison.kinds import KindTable
from ladm.runs.columns.quartiles import ColumnSummary


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two columns. NaN where no document has both values, or one of the columns is constant."""

    a: str
    b: str
    spearman: float
    inside_domains: float
    overlap: float
    """Share of the best rows by `a` that are among the best by `b`, all windows of a document counted."""


@dataclass(frozen=True, kw_only=True)
class DifferentDocument:
    """A document that two columns rank differently in its domain: 1 is the highest rank, 0 the lowest."""

    domain: str
    id: str
    name: str
    """As `ladm top` shows it: with its file, where `id` is only a number."""
    rank_a: float
    rank_b: float
    beginning: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `ladm compare` found."""

    runs: list[str]
    documents: int
    correlated: int
    domains: int
    top_percent: float
    columns: list[ColumnSummary]
    domain_documents: dict[str, int]
    """The documents of the domains that the columns are summarised in, in the same order."""
    pairs: list[Pair]
    higher_by_a: list[DifferentDocument]
    """Documents that the first column ranks high and the second low; then the other way round."""
    higher_by_b: list[DifferentDocument]
    kinds: KindTable | None
    note: str | None
    partial: list[str] = field(default_factory=list)
    """A line for each run that scored only the first of its rows."""
    joined: list[str] = field(default_factory=list)
    """A line for each joined file: how many rows have a value."""

    def __repr__(self) -> str:
        names = [column.name for column in self.columns]
        return f"{type(self).__name__}(runs={self.runs}, documents={self.documents}, columns={names})"
