"""Runs with their rows -> the documents that may be selected, best first, and why the others may not. No torch.

Columns are files of 8 bytes a document, so that what stays in memory is a few arrays of that size at most.
Shape suffixes: N documents with a score, T rows of all runs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ladm.corpus.rows.domains import without_domain_text
from ladm.errors import LadmError
from ladm.selection.budget import BATCH_DOCUMENTS
from ladm.selection.candidate_columns import parts_of, read_columns, read_sampling, with_relative
from ladm.selection.copies import find_copies
from ladm.selection.domain_codes import NO_CODE, DomainCodes
from ladm.selection.evaluation import evaluate
from ladm.selection.guarding import GuardManifest, apply_guards, resolve_guards
from ladm.selection.id_lists import MatchedIds
from ladm.selection.inclusion import Inclusion, find_included, wanted_rows
from ladm.selection.sampling import gumbel_keys
from ladm.selection.sources import SelectionSource
from ladm.selection.windows import Windows, documents_of
from ladm.settings.guards import Guard
from ladm.settings.selection import SelectSettings

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Batch = tuple[Ints, Ints, Floats]
"""Row numbers, tokens and values of some documents."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The documents that may be selected. `order` has their places in the arrays, best first."""

    rows_N: Ints
    """The number of each document's row, counted over the rows of all runs."""
    tokens_N: Floats
    values_N: Floats
    """What documents are ranked by; NaN where there is no value."""
    are_float32: bool
    """Are the values those of a column that is stored in float32?"""
    order: Ints
    guards: list[GuardManifest]
    without_value: int
    """Documents with a score that have no value to be ranked by."""
    copies: int | None
    """Rows that are copies as `find_copies` finds them; None where it finds none."""
    inclusion: Inclusion
    """What excluded domains and lists of ids left out, which is in none of the arrays."""

    @property
    def ranked_rows(self) -> Ints:
        """The number of each candidate's row, best first."""
        return self.rows_N[self.order]

    def only(self, kept: npt.NDArray[np.bool_]) -> Candidates:
        """The candidates for which `kept` is true, which is in the order of `order`."""
        return replace(self, order=self.order[kept])

    def without_repeating(self, windows: Windows) -> Candidates:
        """The candidates without windows of which more than half is in a better window of the same document."""
        return self.only(~windows.repeating(self.ranked_rows, self.tokens_N[self.order]))

    def batches(self) -> Iterator[Batch]:
        """The candidates, best first, some at a time."""
        for start in range(0, len(self.order), BATCH_DOCUMENTS):
            part = self.order[start : start + BATCH_DOCUMENTS]
            yield self.rows_N[part], self.tokens_N[part].astype(np.int64), self.values_N[part]


def find_candidates(
    sources: Sequence[SelectionSource],
    settings: SelectSettings,
    domains: DomainCodes,
    *,
    ids: MatchedIds | None,
    work: Path,
) -> Candidates:
    """Rank the documents of the runs by what `settings` say, without those that a guard drops.

    Equal values are ranked by score, then by the order of their run: that of ids. `ids`: what the lists of ids leave;
    None: everything. The columns are files in `work`.
    Raises LadmError where no document has a score, a domain or a value, or is left by the guards; UsageError for a
    column that a run does not have; StorageError for a score that is not finite or out of order.
    """
    expression = settings.ranking
    guards = resolve_guards(settings, sources[0].run)
    guarded = (guard.column for guard in guards if isinstance(guard, Guard))
    names = dict.fromkeys(["length", *expression.names, *guarded])
    stored, rows_N = read_columns(sources, names, guards, seed=settings.draw_seed, work=work)
    codes_N = domains.codes_T[rows_N]
    _require_domains(sources, codes_N, rows_N, settings.domain_key)
    # First, because ranks, quantiles and means are those of the remaining documents.
    inclusion = find_included(codes_N, rows_N, domains, excluded=settings.exclude_domains, ids=ids, sources=sources)
    stored = {name: inclusion.compact(column) for name, column in stored.items()}
    rows_N, codes_N = inclusion.compact(rows_N), inclusion.compact(codes_N)
    columns = with_relative(stored, names)
    values_N = evaluate(
        expression, columns, read_documents=lambda: documents_of([source.rows for source in sources])[rows_N]
    )
    kept_N, copies = _without_copies(sources, values_N, rows_N, settings, domains, ids=ids, work=work)
    # Runs of an old format have float64 in these columns.
    float32 = set.intersection(*(source.columns.float32(names) for source in sources))
    dropped = apply_guards(guards, columns, kept_N, codes_N=codes_N, names=domains.names, float32=float32)
    order = np.flatnonzero(kept_N)
    keys = values_N[order]
    if settings.sample:
        uniform_N = inclusion.compact(read_sampling(sources, seed=settings.draw_seed, work=work))
        keys = gumbel_keys(keys, uniform_N[order], codes_N[order], temperature=settings.draw_temperature)
    # A run's file is in the order of its scores already.
    if settings.sample or settings.by != "score" or len(sources) > 1:
        order = order[np.argsort(-keys, kind="stable")]
    return Candidates(
        rows_N=rows_N,
        tokens_N=columns["length"],
        values_N=values_N,
        are_float32=expression.is_column and float32.issuperset(expression.names),
        order=order,
        guards=dropped,
        without_value=int(np.count_nonzero(np.isnan(values_N))),
        copies=copies,
        inclusion=inclusion,
    )


def _without_copies(
    sources: Sequence[SelectionSource],
    values_N: Floats,
    rows_N: Ints,
    settings: SelectSettings,
    domains: DomainCodes,
    *,
    ids: MatchedIds | None,
    work: Path,
) -> tuple[npt.NDArray[np.bool_], int | None]:
    """Which documents have a value and are no copies, and how many copies there are; None: none were looked for.

    Raises LadmError where no document is left.
    """
    kept_N = ~np.isnan(values_N)
    if not kept_N.any():
        raise LadmError(f"no document has a value of {settings.by}")
    wanted_T = wanted_rows(domains, excluded=settings.exclude_domains, ids=ids)
    is_copy_T = find_copies(sources, parts_of(sources), wanted_T=wanted_T, work=work)
    if is_copy_T is None:
        return kept_N, None
    kept_N &= ~is_copy_T[rows_N]
    if not kept_N.any():
        raise LadmError(
            f"no document with a value of {settings.by} can be selected: each is a copy of a row that is left out too"
        )
    return kept_N, int(is_copy_T.sum())


def _require_domains(
    sources: Sequence[SelectionSource], codes_N: npt.NDArray[np.int32], rows_N: Ints, domain_key: str
) -> None:
    """Raise LadmError for a document without a domain: the first in the order of the data, to be looked at."""
    row = int(rows_N[codes_N == NO_CODE].min(initial=sys.maxsize))
    if row < sys.maxsize:
        source = next(source for source in reversed(sources) if source.first <= row)
        raise LadmError(without_domain_text(row - source.first, source.rows.name, domain_key))
