"""Candidates, best first -> the documents of every domain, best first. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from ladm.corpus.rows import Rows
from ladm.selection.budget import Domains, DomainSelection
from ladm.selection.candidates import Candidates
from ladm.selection.domain_codes import DomainCodes
from ladm.storage.disk_arrays import array_on_disk

DOCUMENT_COLUMN = "document"
"""The number of the document that a row is a window of, in the rows of `ladm prepare`."""
_COLUMNS = (("positions", "i8"), ("num_tokens", "i8"), ("scores", "f8"))

Ints = npt.NDArray[np.int64]

_NO_DOCUMENT = -(1 << 63)
_OF_PREPARE = {"source", "start_token"}
"""Columns that `ladm prepare` writes beside it; a `source` of other rows may be anything."""


def rank_by_domain(
    candidates: Candidates, domains: DomainCodes, *, work: Path, documents_T: Ints | None = None, most: int = 0
) -> Domains:
    """The candidates by domain, in the order of the domains' names, each domain best first.

    With `documents_T`, the document of every row, only the best `most` rows of each document are ranked.
    The columns are files in the folder `work`, 24 bytes a row, so that memory does not grow with the run.
    """
    counts = np.zeros(len(domains.names), dtype=np.int64)
    for rows, _, _ in candidates.batches():
        counts += np.bincount(domains.codes_T[rows], minlength=len(counts))
    positions, tokens, values = _group_by_domain(candidates, domains.codes_T, counts, work)
    stops = np.cumsum(counts).tolist()
    # [0, *stops] is one longer than stops: its last entry, the end of all, starts nothing.
    parts = {name: slice(start, stop) for name, start, stop in zip(domains.names, [0, *stops], stops, strict=False)}
    found = {}
    for name, part in sorted(parts.items()):
        if part.stop > part.start:
            columns = (positions[part], tokens[part], values[part])
            if documents_T is not None:
                kept = best_of_documents(documents_T[columns[0]], most)
                columns = (columns[0][kept], columns[1][kept], columns[2][kept])
            found[name] = DomainSelection(positions=columns[0], num_tokens=columns[1], scores=columns[2])
    return found


def best_of_documents(documents: Ints, most: int) -> npt.NDArray[np.bool_]:
    """Of ranked rows the first `most` of each document: (n,). Documents 7, 7, 3, 7 and 2 rows: all but the last."""
    order = np.argsort(documents, kind="stable")
    grouped = documents[order]
    starts = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])
    # The place of a row among the rows of its document: its place in the grouped order minus where the group starts.
    places = np.arange(len(grouped)) - np.repeat(starts, np.diff(np.r_[starts, len(grouped)]))
    kept = np.zeros(len(documents), dtype=np.bool_)
    kept[order[places < most]] = True
    return kept


def read_documents(data: Sequence[Rows]) -> Ints:
    """The number of every row's document: (T,). Documents of different data sets have different numbers.

    A row that does not say which document it is of is one of its own, as in a subset of several data sets.
    """
    parts: list[Ints] = []
    first = 0
    for rows in data:
        keys = _document_keys(rows)
        own = np.unique(keys, return_inverse=True)[1].astype(np.int64)
        nameless = np.flatnonzero(keys == _NO_DOCUMENT)
        own[nameless] = len(keys) + np.arange(len(nameless))
        parts.append(own + first)
        first += 2 * len(keys)
    return np.concatenate(parts)


def _document_keys(rows: Rows) -> Ints:
    """A number that the rows of a document have in common, and of which others have another; or _NO_DOCUMENT."""
    names = rows.column_names
    if DOCUMENT_COLUMN not in names:
        return np.full(len(rows), _NO_DOCUMENT)
    batches = rows.column_batches(DOCUMENT_COLUMN)
    if not _OF_PREPARE <= set(names):
        return np.concatenate([_keys(batch) for batch in batches])
    # A subset of two data sets has the document 0 of either; what each was read from distinguishes them.
    sources = rows.column_batches("source")
    return np.concatenate([
        _keys([value if value is None else (value, source) for value, source in zip(batch, beside, strict=True)])
        for batch, beside in zip(batches, sources, strict=True)
    ])  # fmt: skip


def _keys(values: list[Any]) -> Ints:
    return np.fromiter(map(_key, values), dtype=np.int64, count=len(values))


def _key(value: Any) -> int:
    """A whole number as it is, and a hash of anything else."""
    if value is None:
        return _NO_DOCUMENT
    if type(value) is int and abs(value) < 1 << 63:
        return value
    # Shifted, because int64 has no room for the last bit.
    return xxhash.xxh3_64_intdigest(repr(value).encode()) >> 1


def _group_by_domain(
    candidates: Candidates, codes_T: npt.NDArray[np.int32], counts: Ints, work: Path
) -> tuple[npt.NDArray[Any], ...]:
    """Row numbers, tokens and values with those of a domain together, domain by domain, still best first inside each.

    A counting sort in two passes over the candidates: it is stable, and needs no memory beyond a batch. With 3 rows of
    domain 0 and 2 of domain 1, domain 0 gets the places 0-2 and domain 1 the places 3-4, so `free` starts as [0, 3].
    A batch with the domains [1, 0, 0] is ordered as [0, 0, 1], goes to the places 0, 1 and 3, and leaves `free` as
    [2, 4], which are the next free places.
    """
    n = int(counts.sum())
    columns = tuple(array_on_disk(work / name, kind, n) for name, kind in _COLUMNS)
    free = np.cumsum(counts) - counts
    for batch in candidates.batches():
        codes = codes_T[batch[0]]
        order = np.argsort(codes, kind="stable")
        in_batch = np.bincount(codes, minlength=len(counts))
        first_in_batch = np.cumsum(in_batch) - in_batch
        # Of a row of the ordered batch: the next free place of its domain, plus its number among the batch's rows of
        # that domain.
        places = free[codes[order]] + np.arange(len(order)) - first_in_batch[codes[order]]
        for column, values in zip(columns, batch, strict=True):
            column[places] = values[order]
        free += in_batch
    return columns
