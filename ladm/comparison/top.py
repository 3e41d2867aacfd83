"""A run and a column -> the documents at the top of it, or at the bottom, as a person recognises them. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.errors import LadmError
from ladm.runs.columns.joined_columns import JoinedColumns
from ladm.runs.columns.joined_files import joined_lines
from ladm.runs.columns.labels import domain_batches, read_labels
from ladm.runs.columns.text_beginnings import BEGINNING_CHARACTERS, TextBeginnings, first_line, one_line
from ladm.runs.folder import Run
from ladm.runs.results import require_any_score, require_finished
from ladm.runs.rows_of_run import partial_coverage
from ladm.selection.evaluation import evaluate
from ladm.selection.windows import documents_of
from ladm.settings.comparison import TopSettings

LINE_CHARACTERS = 100


@dataclass(frozen=True, kw_only=True)
class TopDocument:
    """A document of the list. `rank` is its place among all documents with a value, 1 for the highest.

    `name`: its own id; where it has none, and `id` is its index, that and the file that it is from.
    """

    rank: int
    value: float
    domain: str
    id: str
    name: str
    position: int
    first_line: str
    """The first line of the text that is not blank."""
    beginning: str
    """The first 240 characters of the text as one line."""


@dataclass(frozen=True, kw_only=True)
class TopList:
    """The documents, from the end that was requested; `note` says why there are no texts.

    `partial` says that the run scored only the first of its rows, and `joined`, of each file, how many have a value.
    """

    by: str
    documents: list[TopDocument]
    note: str | None
    partial: str | None = None
    joined: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        documents = [vars(document) for document in self.documents]
        return {"by": self.by, "documents": documents, "partial": self.partial, "joined": self.joined}


def top_documents(settings: TopSettings) -> TopList:
    """The documents with the highest values, or the lowest.

    Raises LadmError for an unfinished run, one without a value, and a domain that no document has; UsageError for a
    column that the run does not have.
    """
    run, expression = Run.open(settings.run), settings.ranking
    require_finished(run)
    require_any_score(run)
    joined = JoinedColumns(run, rows=settings.rows, joins=settings.joins)
    positions_N, columns = joined.read(expression.names)
    values_N = evaluate(expression, columns, read_documents=lambda: documents_of([joined.rows])[positions_N])
    # Stable, so that equal values keep the order of the run: by score, then by id.
    order = np.argsort(-values_N, kind="stable")
    order = order[: np.count_nonzero(~np.isnan(values_N))]
    # Ranks are those among all documents, also where only one domain is shown.
    ranks = np.arange(1, len(order) + 1)
    if settings.domain is not None:
        inside_N = _in_domain(run, settings)
        ranks, order = ranks[inside_N[order]], order[inside_N[order]]
    if not len(order):
        inside = "" if settings.domain is None else f" of the domain {settings.domain}"
        raise LadmError(f"{run.folder}: no document{inside} has a value of {settings.by}")
    # From the end that was requested: the worst document comes first in its list.
    shown = slice(-1, -settings.number - 1, -1) if settings.worst else slice(0, settings.number)
    labels = read_labels(run, positions_N[order[shown]].tolist(), settings.domain_key)
    beginnings = TextBeginnings(run, settings.rows)
    listed = [labels[int(position)] for position in positions_N[order[shown]]]
    # All of them first: rows that turn out to be others at the last one must not show the texts of the first.
    texts = beginnings.of(listed)
    documents = []
    places = zip(ranks[shown].tolist(), order[shown].tolist(), strict=True)
    for (rank, k), label, text in zip(places, listed, texts, strict=True):
        documents.append(
            TopDocument(
                rank=rank,
                value=float(values_N[k]),
                domain=label.domain,
                id=label.row_id,
                name=label.name,
                position=label.position,
                first_line=first_line(text, most=LINE_CHARACTERS),
                beginning=one_line(text, most=BEGINNING_CHARACTERS),
            )
        )
    return TopList(
        by=expression.text, documents=documents, note=beginnings.missing,
        partial=partial_coverage(run, settings.rows), joined=joined_lines(joined.files),
    )  # fmt: skip


def _in_domain(run: Any, settings: TopSettings) -> npt.NDArray[np.bool_]:
    """Which documents are of the domain, in the order of `scores.parquet`."""
    batches = domain_batches(run, settings.domain_key)
    is_inside = [domain == settings.domain for batch in batches for domain in batch]
    if not any(is_inside):
        found = sorted({domain for batch in domain_batches(run, settings.domain_key) for domain in batch})
        raise LadmError(
            f"no document of {run.folder} has the domain {settings.domain}; the domains are {', '.join(found[:20])}"
        )
    return np.array(is_inside, dtype=np.bool_)
