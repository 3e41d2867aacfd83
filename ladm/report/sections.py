"""`RUN/inspected` -> the sections of a page that show where single scores come from. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ladm.errors import LadmError, StorageError
from ladm.explain.inspected_document import InspectedDocument, SpanPair, SpanText, read_inspected
from ladm.report.charts import HeatMap, brightest, heat_map, shares_by_distance
from ladm.report.overview import ResultRow, RunOverview
from ladm.runs.folder import Run
from ladm.runs.layout import INSPECTED

MOST_SHOWN = 50
SAME_SCORE = 1e-3
"""A score of the inspection that differs by less, relatively, is not shown beside the run's."""


@dataclass(frozen=True, kw_only=True)
class ShownSpan:
    """A span's text. `words` are its tokens, each with its weight; the heaviest has the weight 1."""

    first_token: int
    last_token: int
    words: list[tuple[str, float]]
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class ShownPair:
    """A pair of spans, with its share of the score and its distance."""

    number: int
    share: float
    distance_tokens: int
    earlier: ShownSpan
    later: ShownSpan


@dataclass(frozen=True, kw_only=True)
class DocumentSection:
    """One explained score."""

    row: ResultRow
    excerpt: str
    map: HeatMap
    distances: list[tuple[str, float]]
    """Ranges of distances and their shares of the score."""
    pairs: list[ShownPair]
    columns: list[str]
    """Layers or heads that the score is computed from."""
    score_here: float | None
    """The score that the inspection computed, where it differs visibly from the run's."""

    @property
    def pairs_share(self) -> float:
        """What the shown pairs make up of the score."""
        return sum(pair.share for pair in self.pairs)


def read_all_inspected(run: Run) -> dict[int, InspectedDocument]:
    """What `ladm inspect` wrote, by position. Raises LadmError for another version's file, or a damaged one."""
    folder = run.folder / INSPECTED
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder} is a file; move it away")
    documents = [read_inspected(path) for path in sorted(folder.glob("*.json"))]
    return {document.position: document for document in documents}


def document_sections(
    documents: dict[int, InspectedDocument], overview: RunOverview, run: Run
) -> list[DocumentSection]:
    """A section for each of the best by rank. Raises LadmError for a document whose score the run contradicts."""
    for position, document in documents.items():
        row = overview.rows.get(position)
        if row is None or row.score != document.score:
            raise LadmError(
                f"{run.folder / INSPECTED} explains row {position}, but the run has another score for it; remove that "
                "folder, or run ladm inspect again"
            )
    shown = sorted(documents.values(), key=lambda document: overview.rows[document.position].rank)[:MOST_SHOWN]
    # One scale for all maps, so that their brightness can be compared.
    most = brightest(shown)
    return [_section(document, overview.rows[document.position], most) for document in shown]


def _section(document: InspectedDocument, row: ResultRow, most: float) -> DocumentSection:
    total = sum(map(sum, document.part)) or 1.0
    differs = abs(document.score_here - document.score) > SAME_SCORE * abs(document.score)
    return DocumentSection(
        row=row,
        excerpt=document.excerpt,
        map=heat_map(document, most),
        distances=shares_by_distance(document),
        pairs=[_pair(pair, k, total, document.span_tokens) for k, pair in enumerate(document.pairs, 1)],
        # Of a median only the columns in the middle have a weight.
        columns=[column.name for column in document.columns if column.weight],
        score_here=document.score_here if differs else None,
    )


def _pair(pair: SpanPair, number: int, total: float, span_tokens: int) -> ShownPair:
    return ShownPair(
        number=number,
        share=pair.part / total,
        distance_tokens=(pair.j - pair.i) * span_tokens,
        earlier=_span(pair.earlier),
        later=_span(pair.later),
    )


def _span(span: SpanText) -> ShownSpan:
    most = max(span.weights, default=0.0) or 1.0
    return ShownSpan(
        first_token=span.first_token,
        last_token=span.first_token + len(span.weights) - 1,
        # Without a tokenizer there are weights and no texts.
        words=[(text, round(weight / most, 2)) for text, weight in zip(span.tokens, span.weights, strict=False)],
        before=span.before,
        after=span.after,
    )
