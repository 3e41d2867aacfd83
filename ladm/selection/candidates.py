"""Runs with their rows -> the documents that may be selected, best first, and why the others may not. No torch.

Columns are files of 8 bytes a document, so that what stays in memory is a few arrays of that size at most.
Shape suffixes: N documents with a score, T rows of all runs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ladm.corpus.rows.domains import without_domain_text
from ladm.errors import LadmError, StorageError
from ladm.runs.columns.by_name import fill_columns, longattn
from ladm.runs.columns.derived import LONGATTN
from ladm.runs.columns.joined_files import require_matches
from ladm.runs.results import count_scored
from ladm.selection.copies import find_copies
from ladm.selection.domain_codes import NO_CODE, DomainCodes
from ladm.selection.evaluation import evaluate
from ladm.selection.guarding import GuardManifest, apply_guards, resolve_guards
from ladm.selection.id_lists import MatchedIds
from ladm.selection.inclusion import BATCH_DOCUMENTS, Inclusion, find_included, wanted_rows
from ladm.selection.sampling import gumbel_keys
from ladm.selection.sources import SelectionSource
from ladm.selection.value_columns import naming_values, read_values
from ladm.selection.windows import Windows, documents_of
from ladm.settings.guards import AnyGuard, Guard
from ladm.settings.selection import SelectSettings
from ladm.storage.disk_arrays import array_on_disk

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

    def __len__(self) -> int:
        return len(self.order)

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
    stored, rows_N = _read_with_values(sources, names, guards, seed=settings.draw_seed, work=work)
    codes_N = domains.codes_T[rows_N]
    _require_domains(sources, codes_N, rows_N, settings.domain_key)
    # First, because ranks, quantiles and means are those of the remaining documents.
    inclusion = find_included(codes_N, rows_N, domains, excluded=settings.exclude_domains, ids=ids, sources=sources)
    stored = {name: inclusion.compact(column) for name, column in stored.items()}
    rows_N, codes_N = inclusion.compact(rows_N), inclusion.compact(codes_N)
    columns = _with_relative(stored, names)
    values_N = evaluate(
        expression, columns, read_documents=lambda: documents_of([source.rows for source in sources])[rows_N]
    )
    kept_N = ~np.isnan(values_N)
    without_value = int(np.count_nonzero(~kept_N))
    if not kept_N.any():
        raise LadmError(f"no document has a value of {settings.by}")
    wanted_T = wanted_rows(domains, excluded=settings.exclude_domains, ids=ids)
    is_copy_T = find_copies(sources, _parts(sources), wanted_T=wanted_T, work=work)
    if is_copy_T is not None:
        kept_N &= ~is_copy_T[rows_N]
    if not kept_N.any():
        raise LadmError(
            f"no document with a value of {settings.by} can be selected: each is a copy of a row that is left out too"
        )
    # Runs of an old format have float64 in these columns.
    float32 = set.intersection(*(source.columns.float32(names) for source in sources))
    dropped = apply_guards(guards, columns, kept_N, codes_N=codes_N, names=domains.names, float32=float32)
    order = np.flatnonzero(kept_N)
    keys = values_N[order]
    if settings.sample:
        uniform_N = inclusion.compact(_read_sampling(sources, seed=settings.draw_seed, work=work))
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
        without_value=without_value,
        copies=None if is_copy_T is None else int(is_copy_T.sum()),
        inclusion=inclusion,
    )


def _read_with_values(
    sources: Sequence[SelectionSource],
    names: Iterable[str],
    guards: Sequence[AnyGuard],
    *,
    seed: int,
    work: Path,
) -> tuple[dict[str, Floats], Ints]:
    """`_read`, and the columns of `read_values`. Raises LadmError as `find_candidates` does."""
    with naming_values(guards):
        stored, rows_N = _read(sources, names, seed=seed, work=work)
    if not len(rows_N):
        raise LadmError(f"{_folders(sources)}: no document has a score")
    if "score" in stored:
        _require_sound(sources, stored["score"], rows_N)
    return {**stored, **read_values(sources, guards, rows_N, _parts(sources), work=work)}, rows_N


def _read(
    sources: Sequence[SelectionSource], names: Iterable[str], *, seed: int, work: Path
) -> tuple[Mapping[str, Floats], Ints]:
    """Columns of all documents with a score, and the numbers of their rows, run after run.

    In place of `longattn`, which `_with_relative` makes, the columns that it is made of.
    """
    parts = _parts(sources)
    count = parts[-1].stop
    wanted = list(names)
    relative = "longattn" in wanted
    stored = [name for name in wanted if name != "longattn"] + [n for n in LONGATTN if relative and n not in wanted]
    columns: dict[str, Floats] = {
        name: array_on_disk(work / f"column-{k}", "f8", count) for k, name in enumerate(stored)
    }
    rows_N: Ints = array_on_disk(work / "rows", "i8", count)
    for source, part in zip(sources, parts, strict=True):
        parts_of_columns = {name: column[part] for name, column in columns.items()}
        source.columns.fill(parts_of_columns, rows_N[part], seed=seed, first_row=source.first)
        rows_N[part] += source.first
    # All sources have the same files.
    require_matches(sources[0].columns.files)
    return columns, rows_N


def _with_relative(columns: Mapping[str, Floats], names: Iterable[str]) -> Mapping[str, Floats]:
    """The columns with `longattn`, if it is wanted: relative to all documents that are ranked together, in all runs."""
    if "longattn" not in names:
        return columns
    return {**columns, "longattn": longattn(*(columns[name] for name in LONGATTN))}


def _read_sampling(sources: Sequence[SelectionSource], *, seed: int, work: Path) -> Floats:
    """A random number of each document for the draw; they differ from the column `random` with the same seed."""
    parts = _parts(sources)
    count = parts[-1].stop
    uniform_N: Floats = array_on_disk(work / "uniform", "f8", count)
    positions_N: Ints = array_on_disk(work / "sampled", "i8", count)
    for source, part in zip(sources, parts, strict=True):
        found = {"random": uniform_N[part]}
        fill_columns(source.run, found, positions_N[part], seed=-1 - seed, first_row=source.first)
    return uniform_N


def _parts(sources: Sequence[SelectionSource]) -> list[slice]:
    """Where the documents of each run stand among those of all."""
    counts = [count_scored(source.run.folder) for source in sources]
    stops = np.cumsum(counts).tolist()
    return [slice(stop - count, stop) for count, stop in zip(counts, stops, strict=True)]


def _require_sound(sources: Sequence[SelectionSource], scores_N: Floats, rows_N: Ints) -> None:
    """Raise StorageError for a score that is not finite, or not in the order of the file."""
    for source, part in zip(sources, _parts(sources), strict=True):
        scores, folder = scores_N[part], source.run.folder
        not_finite = np.flatnonzero(~np.isfinite(scores))
        if len(not_finite):
            position = int(rows_N[part][not_finite[0]]) - source.first
            raise StorageError(f"{folder} is damaged: row {position} has the score {scores[not_finite[0]]}")
        if (scores[1:] > scores[:-1]).any():
            raise StorageError(f"{folder} is damaged: its scores are not in order")


def _require_domains(
    sources: Sequence[SelectionSource], codes_N: npt.NDArray[np.int32], rows_N: Ints, domain_key: str
) -> None:
    """Raise LadmError for a document without a domain: the first in the order of the data, to be looked at."""
    row = int(rows_N[codes_N == NO_CODE].min(initial=sys.maxsize))
    if row < sys.maxsize:
        source = next(source for source in reversed(sources) if source.first <= row)
        raise LadmError(without_domain_text(row - source.first, source.rows.name, domain_key))


def _folders(sources: Sequence[SelectionSource]) -> str:
    return ", ".join(str(source.run.folder) for source in sources)
