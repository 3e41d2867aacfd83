"""`scores.parquet` of a run -> what a page shows of all its documents, in one pass. Imports no torch."""

from __future__ import annotations

import contextlib
import json
import math
from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ladm.errors import LadmError
from ladm.report.charts import Scale
from ladm.report.layer_shares import layer_columns
from ladm.report.ranking import PageRanking, RankedValues
from ladm.report.subset import ReportedSubset
from ladm.runs.columns.labels import NO_DOMAIN, DomainReader
from ladm.runs.folder import Run
from ladm.runs.results import columns_of, score_batches
from ladm.selection.manifest import DomainManifest
from ladm.settings.common import NO_DOMAINS

MOST_DOMAINS, MOST_DOTS = 40, 150
MOST_DOMAINS_COUNTED = 100_000
BEST, WORST = 25, 10
LAYER_ROWS = 2000
"""Documents whose CDS by layer are averaged."""
_COLUMNS = ["rank", "score", "meta", "num_tokens", "position", "index", "chunked_index"]


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """A scored document as a page shows it."""

    rank: int
    score: float
    meta: str
    """Readable, such as `title Acts · year 1611`."""
    num_tokens: int
    position: int
    index: int | str
    chunked_index: int | str | None
    domain: str
    id: str | None = None
    """The document's own id, and where it comes from; None in runs on rows without them."""
    source: str | None = None


@dataclass(kw_only=True)
class RunOverview:
    """What a page shows of all scores."""

    domains: dict[str, array[float]] = field(default_factory=dict)
    """The values that the page ranks by of each domain, best first, without missing ones; eight bytes a document."""
    rows: dict[int, ResultRow] = field(default_factory=dict)
    """The best, the worst and the inspected documents, by position, in the order of their ranks."""
    positions: array[int] = field(default_factory=lambda: array("q"))
    num_tokens: array[int] = field(default_factory=lambda: array("q"))
    codes: array[int] = field(default_factory=lambda: array("i"))
    """Position, tokens and domain of each document in the order of the ranks; twenty bytes a document."""
    cds: list[list[float]] = field(default_factory=list)
    """CDS by layer of documents at evenly spaced ranks."""
    ranking: PageRanking = field(default_factory=PageRanking)
    """What the ranks are by."""

    def documents_of_domains(self) -> dict[str, int]:
        """The number of documents of each domain, also of those without a value."""
        counts = np.bincount(np.frombuffer(self.codes, dtype=np.int32), minlength=len(self.domains))
        return dict(zip(self.domains, counts.tolist(), strict=True))

    def largest_domains(self, most: int) -> list[str]:
        """The domains with the most documents, the largest first; ties by name."""
        counts = self.documents_of_domains()
        return sorted(counts, key=lambda name: (-counts[name], name))[:most]

    def best(self) -> list[ResultRow]:
        """The best documents that have a value, best first."""
        return [row for row in self.rows.values() if row.rank <= min(BEST, self.ranking.with_value)]

    def worst(self) -> list[ResultRow]:
        """The worst documents that have a value and are not among the best."""
        last = self.ranking.with_value
        return [row for row in self.rows.values() if max(BEST, last - WORST) < row.rank <= last]


def read_overview(
    run: Run, ranking: PageRanking, *, domain_key: str, domain: str = NO_DOMAIN, inspected: set[int], scored: int
) -> RunOverview:
    """Read all `scored` rows once. `domain`: that of rows without one. `inspected`: positions of inspected documents.

    Raises UsageError for a `domain_key` in a column that the run does not repeat, and LadmError for too many domains.
    """
    overview, codes = RunOverview(ranking=ranking), dict[str, int]()
    reader = DomainReader(run, domain_key, domain=domain)
    layers = layer_columns(run, ranking)
    every = max(1, scored // LAYER_ROWS)
    last, ranked = ranking.with_value, ranking.ranked
    shown_columns = [*_COLUMNS, *(name for name in ("id", "source") if name in columns_of(run.folder))]
    for batch in score_batches(run.folder, list(dict.fromkeys([*shown_columns, *reader.columns, *layers]))):
        columns = [batch[name].to_pylist() for name in shown_columns]
        cds = batch[layers[0]] if layers else None
        domains = reader.read(batch)
        if ranked is not None:
            part = slice(len(overview.positions), len(overview.positions) + len(batch))
            # In place of the rank and the score that the run has.
            columns[:2] = ranked.ranks_N[part].tolist(), ranked.values_N[part].tolist()
        for k, (domain, *values) in enumerate(zip(domains, *columns, strict=True)):
            rank, score, text, num_tokens, position, *_ = values
            values_of_domain = overview.domains.setdefault(domain, array("d"))
            # NaN, the only number that differs from itself, is no value.
            if score == score:
                values_of_domain.append(score)
            overview.codes.append(codes.setdefault(domain, len(codes)))
            overview.positions.append(position)
            overview.num_tokens.append(num_tokens)
            # Of all other rows only the score stays in memory.
            if rank <= BEST or last - WORST < rank <= last or position in inspected:
                shown = dict(zip(shown_columns, values, strict=True))
                meta = readable_meta(json.loads(text))
                overview.rows[position] = ResultRow(**shown | {"domain": domain, "meta": meta})
            # Lists of a thousand head values are costly to turn into Python objects, so only of the rows needed.
            if cds is not None and rank % every == 0:
                overview.cds.append(cds[k].as_py())
        # Such as a title taken for a domain: a dictionary of arrays would outgrow the memory.
        if len(overview.domains) > MOST_DOMAINS_COUNTED:
            raise LadmError(
                f"{run.folder} has more than {MOST_DOMAINS_COUNTED:,} domains by {domain_key}; give a coarser "
                f"--domain-key, or {NO_DOMAINS}"
            )
    if ranked is not None:
        _put_in_order(overview, ranked)
    return overview


def _put_in_order(overview: RunOverview, ranked: RankedValues) -> None:
    """Sort what was read in the order of the run by the values that the page ranks by."""
    for name in ("positions", "num_tokens", "codes"):
        read = getattr(overview, name)
        setattr(overview, name, array(read.typecode, np.array(read)[ranked.order_N].tobytes()))
    for name, values in overview.domains.items():
        overview.domains[name] = array("d", np.sort(np.array(values))[::-1].tobytes())
    overview.rows = dict(sorted(overview.rows.items(), key=lambda item: item[1].rank))


def readable_meta(meta: Any) -> str:
    """In words: `{"title": "Acts", "year": 1611}`, or JSON text of it -> `title Acts · year 1611`."""
    if isinstance(meta, str):
        with contextlib.suppress(ValueError, RecursionError):
            meta = json.loads(meta)
    if meta is None:
        return ""
    return (
        " · ".join(f"{key} {_as_text(value)}" for key, value in meta.items())
        if isinstance(meta, dict)
        else _as_text(meta)
    )


def _as_text(value: Any) -> str:
    """A text as it is, and anything else as JSON, which it was read from."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


@dataclass(frozen=True, kw_only=True)
class DocumentDot:
    """A document, as a dot on the line of its domain."""

    at: float
    selected: bool
    """Without a subset, every document is."""


@dataclass(frozen=True, kw_only=True)
class DomainRow:
    """A line of the table of domains. `at` values are places on the line of scores."""

    name: str
    documents: int
    median: float | None
    """None where no document of the domain has a value."""
    median_at: float
    dots: list[DocumentDot]
    taken: int
    """Documents of this run that the subset took; 0 without a subset."""
    selected: DomainManifest | None
    """The domain in the manifest, over all runs of the subset; None without a subset, or where it has none such."""


def domain_rows(overview: RunOverview, line: Scale, subset: ReportedSubset | None) -> list[DomainRow]:
    """The largest domains, the one with the highest median first."""
    taken_N = None if subset is None else subset.taken_of(overview.positions)
    codes_N = np.frombuffer(overview.codes, dtype=np.int32)
    code_of = {name: k for k, name in enumerate(overview.domains)}
    documents = overview.documents_of_domains()
    rows = []
    for name in overview.largest_domains(MOST_DOMAINS):
        scores = overview.domains[name]
        # Evenly spaced ranks; the set removes the repeats of a domain with fewer documents than dots.
        shown = sorted({round(k * (len(scores) - 1) / (MOST_DOTS - 1)) for k in range(MOST_DOTS)}) if scores else []
        # In the order of the ranks, as the domain's scores are.
        taken = None if taken_N is None else taken_N[codes_N == code_of[name]]
        median = float(np.median(scores)) if scores else None
        rows.append(
            DomainRow(
                name=name,
                documents=documents[name],
                median=median,
                median_at=0.0 if median is None else line.place(median),
                dots=[DocumentDot(at=line.place(scores[k]), selected=taken is None or bool(taken[k])) for k in shown],
                taken=0 if taken is None else int(taken.sum()),
                selected=None if subset is None else subset.manifest.domains.get(name),
            )
        )
    return sorted(rows, key=lambda row: math.inf if row.median is None else -row.median)
