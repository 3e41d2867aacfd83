"""A run -> the data of the page's explorer: histograms by domain, and documents from every part of the ranking.

Its size does not depend on the number of documents: histograms have a fixed number of bins, documents are a sample.
Imports no torch. Shape suffix: N documents in the order of the page's ranking.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.report.document_samples import (
    SampledDocument,
    SelectionCut,
    add_texts,
    as_script_data,
    choose_documents,
    read_documents,
)
from ladm.report.environment import clean
from ladm.report.histograms import OTHER_BINS, SCORE_BINS, ColumnHistogram, column_histogram, rounded
from ladm.report.overview import RunOverview
from ladm.report.ranking import PageRanking
from ladm.report.subset import ReportedSubset
from ladm.runs.columns.by_name import SCORE
from ladm.runs.folder import Run
from ladm.selection.manifest import Manifest

Floats = npt.NDArray[np.float64]

MOST_DOMAINS, MOST_COLUMNS = 24, 24
RANDOM_WITHOUT_SCRIPT, TAKEN_WITHOUT_SCRIPT = 3, 12
OTHER_DOMAINS = "(other domains)"


@dataclass(frozen=True, kw_only=True)
class Explorer:
    """What the explorer shows."""

    domains: list[str]
    """The largest, and perhaps one that holds all others."""
    columns: list[ColumnHistogram]
    flags: Mapping[str, str]
    """How a shell is given a column, where its name alone does not do."""
    documents: list[SampledDocument]
    scored: int
    without_text: str | None
    """Why there are no texts; None where there are."""
    subset: dict[str, Any] | None
    """What the subset took of this run, for the script; None without one."""

    def around_cut(self) -> list[SampledDocument]:
        """The documents next to a cut."""
        return [document for document in self.documents if document.is_around_cut]

    def random_of_domains(self) -> list[SampledDocument]:
        """A few documents of each domain, domain by domain."""
        found = []
        for domain in range(len(self.domains)):
            own = [document for document in self.documents if document.is_random and document.domain == domain]
            # Spread over the ranking, as the whole sample is.
            found += own[:: -(-len(own) // RANDOM_WITHOUT_SCRIPT) or 1]
        return found

    def taken(self) -> list[SampledDocument]:
        """A few documents that the subset took, spread over the ranking."""
        taken = [document for document in self.documents if document.taken]
        return taken[:: -(-len(taken) // TAKEN_WITHOUT_SCRIPT) or 1]

    def texts(self) -> dict[int, str]:
        """The first lines of documents by rank."""
        return {document.rank: document.text for document in self.documents}

    def as_script_data(self, *, arguments: str) -> str:
        """JSON for the inside of a script element that is not run; `arguments` name the run in a command."""
        names = [column.name for column in self.columns]
        # Lists rather than objects: the names of the fields would be a fifth of the page.
        rows = [
            [
                document.rank, document.num_tokens, document.domain, int(document.is_random), document.id,
                document.meta, document.text, [document.values[name] for name in names], document.source,
                0 if document.name == document.id else document.name,
                *([] if document.taken is None else [int(document.taken)]),
            ]
            for document in self.documents
        ]  # fmt: skip
        content = {
            "run": clean(arguments, 4000),
            "scored": self.scored,
            "domains": [clean(name, 60) for name in self.domains],
            "columns": [
                column.as_json() | ({"by": self.flags[column.name]} if column.name in self.flags else {})
                for column in self.columns
            ],
            "documents": rows,
            "subset": self.subset,
        }
        return as_script_data(content).decode()


def explorer_columns(known: Sequence[str], ranking: PageRanking) -> list[str]:
    """The columns that the explorer shows, of those that a run has; what the page ranks by is the first, if it is one.

    A score that repeats a column is left out.
    """
    # `random` has no meaning to look at.
    shown = [name for name in known if name != "random" and (name != SCORE or ranking.score_name == SCORE)]
    first = [ranking.by] if ranking.by in known else []
    return list(dict.fromkeys([*first, *shown]))[:MOST_COLUMNS]


def read_explorer(
    run: Run,
    overview: RunOverview,
    subset: ReportedSubset | None,
    *,
    columns: Mapping[str, Floats],
    names: Sequence[str],
    float32: Collection[str],
    flags: Mapping[str, str],
    rows: str | None,
) -> Explorer:
    """Count those `columns`, in the order of the page's ranking, that `names` has, and read the texts of the sample.

    `float32`: those that are stored in float32. `flags` is as in `Explorer`.

    Raises LadmError for `rows` that are not the run's.
    """
    domains, domains_N = _domains(overview)
    tokens_N = np.frombuffer(overview.num_tokens, dtype=np.int64)
    taken_N = None if subset is None else subset.taken_of(overview.positions)
    cuts = _cuts(overview, None if subset is None else subset.manifest, domains)
    chosen = choose_documents(
        len(tokens_N),
        [columns[name] for name in names],
        domains_N=domains_N,
        cuts=cuts,
        taken_N=taken_N,
        with_value=overview.ranking.with_value,
    )
    documents = read_documents(run, chosen, overview=overview, domains_N=domains_N)
    if taken_N is not None:
        for document, taken in zip(documents, taken_N[chosen.places].tolist(), strict=True):
            document.taken = taken
    histograms = []
    for name in names:
        values_N = columns[name]
        found = column_histogram(
            name, values_N, domains_N=domains_N, tokens_N=tokens_N, num_domains=len(domains),
            bins=SCORE_BINS if name in (SCORE, overview.ranking.by) else OTHER_BINS, is_float32=name in float32,
            taken_N=taken_N,
        )  # fmt: skip
        if found is None:
            continue
        histograms.append(found)
        for document, value in zip(documents, np.array(values_N[chosen.places]).tolist(), strict=True):
            document.values[name] = rounded(value) if np.isfinite(value) else None
    without_text = add_texts(run, documents, rows)
    return Explorer(
        domains=domains,
        columns=histograms,
        flags=flags,
        documents=documents,
        scored=len(tokens_N),
        without_text=without_text,
        subset=None if subset is None else _subset(subset, overview, domains, domains_N),
    )


def _domains(overview: RunOverview) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The names of the largest domains, and for each document the number of its own."""
    names = list(overview.domains)
    largest = overview.largest_domains(MOST_DOMAINS)
    numbers = {name: k for k, name in enumerate(largest)}
    if len(names) > len(largest):
        largest.append(OTHER_DOMAINS)
    # A run may have a hundred thousand domains: the ones that are not shown share the last number.
    of_code = np.array([numbers.get(name, MOST_DOMAINS) for name in names], dtype=np.int64)
    return largest, of_code[np.frombuffer(overview.codes, dtype=np.int32)]


def _cuts(overview: RunOverview, manifest: Manifest | None, domains: list[str]) -> list[SelectionCut]:
    """Where the subset ends in each domain; without one, or where it is no cut of the ranking, the middle."""
    found = []
    if manifest is not None and overview.ranking.is_cut_by(manifest):
        # All values, best first, from those of the domains; as many bytes as the overview holds already.
        scores_N = np.sort(-np.concatenate([np.frombuffer(scores) for scores in overview.domains.values()]))
        for number, name in enumerate(domains):
            domain = manifest.domains.get(name)
            if domain is not None and domain.lowest_score_taken is not None:
                place = int(np.searchsorted(scores_N, -domain.lowest_score_taken, side="right"))
                found.append(SelectionCut(place=place, domain=number))
    return found or [SelectionCut(place=overview.ranking.with_value // 2, domain=None)]


def _subset(
    subset: ReportedSubset, overview: RunOverview, domains: list[str], domains_N: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """What was taken of each domain, and from which value on, where such a value decides it."""
    manifest, taken_N = subset.manifest, subset.taken_of(overview.positions)
    tokens_N = np.frombuffer(overview.num_tokens, dtype=np.int64)[taken_N]
    # With guards, or drawn by chance, documents below others are taken, and no line separates the two.
    shown = [manifest.domains.get(name) if manifest.is_cut else None for name in domains]
    return {
        "by": overview.ranking.name_of(manifest.by),
        "cut": manifest.is_cut,
        "lowest": [None if domain is None or domain.lowest_score_taken is None else rounded(domain.lowest_score_taken)
                   for domain in shown],
        # Counted here, because the manifest of a subset of several runs has the sums over all of them.
        "documents": np.bincount(domains_N[taken_N], minlength=len(domains)).tolist(),
        # Sums of whole numbers below 2^53, which float64 has exactly.
        "tokens": np.bincount(domains_N[taken_N], weights=tokens_N, minlength=len(domains)).astype(np.int64).tolist(),
    }  # fmt: skip


@cache
def script() -> str:
    """The script of the page."""
    return (files("ladm.report") / "templates" / "explorer.js").read_text(encoding="utf-8").strip()


def script_hash() -> str:
    """What the page's policy names the script by: nothing else can run."""
    return base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()
