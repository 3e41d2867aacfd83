"""`scores.parquet` of a run -> what a page shows of all its documents, in one pass. Imports no torch."""

from __future__ import annotations

import contextlib
import json
from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ladm.errors import LadmError
from ladm.report.charts import Scale
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
    """The scores of each domain, best first; eight bytes a document."""
    rows: dict[int, ResultRow] = field(default_factory=dict)
    """The best, the worst and the inspected documents, by position, in the order of their ranks."""
    positions: array[int] = field(default_factory=lambda: array("q"))
    num_tokens: array[int] = field(default_factory=lambda: array("q"))
    codes: array[int] = field(default_factory=lambda: array("i"))
    """Position, tokens and domain of each document in the order of the ranks; twenty bytes a document."""
    cds: list[list[float]] = field(default_factory=list)
    """CDS by layer of documents at evenly spaced ranks."""

    def largest_domains(self, most: int) -> list[str]:
        """The domains with the most documents, the largest first; ties by name."""
        return sorted(self.domains, key=lambda name: (-len(self.domains[name]), name))[:most]

    def best(self) -> list[ResultRow]:
        """The best documents, best first."""
        return [row for row in self.rows.values() if row.rank <= BEST]

    def worst(self, *, scored: int) -> list[ResultRow]:
        """The worst of `scored` documents that are not among the best."""
        return [row for row in self.rows.values() if row.rank > max(BEST, scored - WORST)]


def read_overview(
    run: Run, *, domain_key: str, domain: str = NO_DOMAIN, inspected: set[int], scored: int
) -> RunOverview:
    """Read all `scored` rows once. `domain`: that of rows without one. `inspected`: positions of inspected documents.

    Raises UsageError for a `domain_key` in a column that the run does not repeat, and LadmError for too many domains.
    """
    overview, codes = RunOverview(), dict[str, int]()
    reader = DomainReader(run, domain_key, domain=domain)
    column = run.identity.cds_column(run.identity.score_form, heads=False, focus=run.identity.reduction.focus)
    layers = [column] if column in columns_of(run.folder) else []
    every = max(1, scored // LAYER_ROWS)
    shown_columns = [*_COLUMNS, *(name for name in ("id", "source") if name in columns_of(run.folder))]
    for batch in score_batches(run.folder, list(dict.fromkeys([*shown_columns, *reader.columns, *layers]))):
        columns = [batch[name].to_pylist() for name in shown_columns]
        cds = batch[layers[0]] if layers else None
        domains = reader.read(batch)
        for k, (domain, *values) in enumerate(zip(domains, *columns, strict=True)):
            rank, score, text, num_tokens, position, *_ = values
            overview.domains.setdefault(domain, array("d")).append(score)
            overview.codes.append(codes.setdefault(domain, len(codes)))
            overview.positions.append(position)
            overview.num_tokens.append(num_tokens)
            # Of all other rows only the score stays in memory.
            if rank <= BEST or rank > scored - WORST or position in inspected:
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
    return overview


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
    median: float
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
    rows = []
    for name in overview.largest_domains(MOST_DOMAINS):
        scores = overview.domains[name]
        # Evenly spaced ranks; the set removes the repeats of a domain with fewer documents than dots.
        shown = sorted({round(k * (len(scores) - 1) / (MOST_DOTS - 1)) for k in range(MOST_DOTS)})
        # In the order of the ranks, as the domain's scores are.
        taken = None if taken_N is None else taken_N[codes_N == code_of[name]]
        median = float(np.median(scores))
        rows.append(
            DomainRow(
                name=name,
                documents=len(scores),
                median=median,
                median_at=line.place(median),
                dots=[DocumentDot(at=line.place(scores[k]), selected=taken is None or bool(taken[k])) for k in shown],
                taken=0 if taken is None else int(taken.sum()),
                selected=None if subset is None else subset.manifest.domains.get(name),
            )
        )
    return sorted(rows, key=lambda row: -row.median)


@dataclass(frozen=True, kw_only=True)
class LayerShare:
    """A layer's share of the mean over all stored layers."""

    layer: int
    share: float
    of_largest: float
    """The share relative to that of the largest layer."""
    counted: bool
    """Is the layer part of the run's score?"""


def layer_shares(run: Run, cds: list[list[float]]) -> list[LayerShare]:
    """The share of each stored layer, averaged over documents; none where the run stores no CDS."""
    if not cds:
        return []
    cds_BL = np.array(cds)
    # Shares within each document first, so that a document with a high score counts no more than another.
    total_B1 = cds_BL.sum(axis=1, keepdims=True)
    shares_L = np.divide(cds_BL, total_B1, out=np.zeros_like(cds_BL), where=total_B1 > 0).mean(axis=0)
    largest = max(float(shares_L.max()), 1e-300)
    counted = set(run.identity.reduction.layers)
    return [
        LayerShare(layer=layer, share=float(share), of_largest=float(share) / largest, counted=layer in counted)
        for layer, share in zip(run.identity.layers, shares_L, strict=True)
    ]
