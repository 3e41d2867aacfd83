"""A finished run and its rows -> the documents of every domain, best first. Imports no torch."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.corpus.rows import Rows, look_up
from ladm.errors import LadmError, StorageError
from ladm.runs.folder import Run
from ladm.runs.results import score_batches
from ladm.selection.budget import Domains, DomainSelection
from ladm.settings.common import NO_DOMAINS, ONE_DOMAIN
from ladm.storage.files import io_errors

ROWS_AT_A_TIME = 10_000
DOCUMENT_COLUMN = "document"
"""The number of the document that a row is a window of, in the rows of `ladm prepare`."""
NO_CODE = -1
"""The number of a row that has no domain."""
_COLUMNS = ["position", "num_tokens", "score"]
_COLUMN_DTYPES = ("i8", "i8", "f8")


def rank_by_domain(
    run: Run, rows: Rows, *, domain_key: str, work: Path, max_per_document: int | None = None
) -> Domains:
    """The scored rows by domain, in the order of the domains' names, each domain best first.

    Rows that `ladm prepare` marked as copies of another are not ranked, and of the rows of one document only the best
    `max_per_document`; None: all.
    The columns are files in the folder `work`, 28 bytes a row, so that memory does not grow with the run.

    Raises LadmError for a row without a domain, StorageError for a score that is not finite or out of order.
    """
    names, codes_T = _domain_codes(rows, domain_key, work)
    counts = _count_by_domain(run, rows, codes_T, num_domains=len(names), domain_key=domain_key)
    if not counts.sum():
        raise LadmError(f"{run.folder}: no document has a score")
    positions, tokens, scores = _group_by_domain(run, codes_T, counts, work)
    stops = np.cumsum(counts).tolist()
    # [0, *stops] is one longer than stops: its last entry, the end of all, starts nothing.
    parts = {name: slice(start, stop) for name, start, stop in zip(names, [0, *stops], stops, strict=False)}
    is_copy_T = rows.copies()
    domains = {}
    for name, part in sorted(parts.items()):
        if part.stop > part.start:
            columns = (positions[part], tokens[part], scores[part])
            if is_copy_T is not None:
                kept = ~is_copy_T[columns[0]]
                columns = (columns[0][kept], columns[1][kept], columns[2][kept])
            if max_per_document is not None:
                kept = best_of_documents(_documents(rows, columns[0]), max_per_document)
                columns = (columns[0][kept], columns[1][kept], columns[2][kept])
            # Every row of a domain may be a copy of one in another.
            if len(columns[0]):
                domains[name] = DomainSelection(positions=columns[0], num_tokens=columns[1], scores=columns[2])
    return domains


def best_of_documents(documents: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.bool_]:
    """Of ranked rows the first `most` of each document: (n,). Documents 7, 7, 3, 7 and 2 rows: all but the last."""
    order = np.argsort(documents, kind="stable")
    grouped = documents[order]
    starts = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])
    # The place of a row among the rows of its document: its place in the grouped order minus where the group starts.
    places = np.arange(len(grouped)) - np.repeat(starts, np.diff(np.r_[starts, len(grouped)]))
    kept = np.zeros(len(documents), dtype=np.bool_)
    kept[order[places < most]] = True
    return kept


def _documents(rows: Rows, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The numbers of the documents of those rows."""
    numbers = [
        rows.column(DOCUMENT_COLUMN, start, min(start + ROWS_AT_A_TIME, len(rows)))
        for start in range(0, len(rows), ROWS_AT_A_TIME)
    ]
    return np.concatenate([np.asarray(part, dtype=np.int64) for part in numbers])[positions]


def _count_by_domain(
    run: Run, rows: Rows, codes_T: npt.NDArray[np.int32], *, num_domains: int, domain_key: str
) -> npt.NDArray[np.int64]:
    """The number of scored rows of each domain, after a check of every score. Raises as `rank_by_domain`."""
    counts = np.zeros(num_domains, dtype=np.int64)
    # The first row without a domain, in the order of the data rather than of the scores, is the one to look at.
    first_without, previous = sys.maxsize, math.inf
    for positions, _, scores in _score_batches(run):
        not_finite = ~np.isfinite(scores)
        if not_finite.any():
            k = int(not_finite.argmax())
            raise StorageError(f"{run.folder} is damaged: row {positions[k]} has the score {scores[k]}")
        if scores[0] > previous or (np.diff(scores) > 0).any():
            raise StorageError(f"{run.folder} is damaged: its scores are not in order")
        previous = scores[-1]
        codes = codes_T[positions]
        first_without = min([first_without, *positions[codes == NO_CODE]])
        counts += np.bincount(codes[codes != NO_CODE], minlength=num_domains)
    if first_without < sys.maxsize:
        raise LadmError(
            f"row {first_without} of {rows.name} has no {domain_key}; give --domain-key the key that it has, or "
            f"{NO_DOMAINS} to rank all documents together"
        )
    return counts


def _domain_codes(rows: Rows, domain_key: str, work: Path) -> tuple[list[str], npt.NDArray[np.int32]]:
    """The names of the domains, and for every row the number of its domain in that list, or NO_CODE."""
    numbers: dict[str, int] = {}
    codes_T = _array_on_disk(work / "domains", "i4", len(rows))
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        stop = min(start + ROWS_AT_A_TIME, len(rows))
        found = _domains(rows, domain_key, start, stop)
        codes_T[start:stop] = [NO_CODE if d is None else numbers.setdefault(d, len(numbers)) for d in found]
    return list(numbers), codes_T


def _domains(rows: Rows, domain_key: str, start: int, stop: int) -> list[str | None]:
    if domain_key == NO_DOMAINS:
        return [ONE_DOMAIN] * (stop - start)
    column, *path = domain_key.split(".")
    return [look_up(value, path) for value in rows.column(column, start, stop)]


def _array_on_disk(path: Path, dtype: str, length: int) -> npt.NDArray[Any]:
    """An array in a new file."""
    with io_errors(path, "write"), path.open("wb") as file:
        size = length * np.dtype(dtype).itemsize
        # A sparse file on a full disk kills the process with SIGBUS when it is written through the map. Reserving
        # the blocks now turns that into an error with a message.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    return np.memmap(path, dtype=dtype, mode="r+", shape=length)


def _score_batches(run: Run) -> Iterator[tuple[npt.NDArray[Any], ...]]:
    """`_COLUMNS` of `scores.parquet`, batch by batch, best first."""
    for batch in score_batches(run.folder, _COLUMNS):
        yield tuple(batch[name].to_numpy(zero_copy_only=False) for name in _COLUMNS)


def _group_by_domain(
    run: Run, codes_T: npt.NDArray[np.int32], counts: npt.NDArray[np.int64], work: Path
) -> tuple[npt.NDArray[Any], ...]:
    """`_COLUMNS` with the rows of a domain together, domain by domain, still best first inside each.

    A counting sort in two passes over the file: it is stable, and needs no memory beyond a batch. With 3 rows of
    domain 0 and 2 of domain 1, domain 0 gets the places 0-2 and domain 1 the places 3-4, so `free` starts as [0, 3].
    A batch with the domains [1, 0, 0] is ordered as [0, 0, 1], goes to the places 0, 1 and 3, and leaves `free` as
    [2, 4], which are the next free places.
    """
    n = int(counts.sum())
    columns = tuple(_array_on_disk(work / name, d, n) for name, d in zip(_COLUMNS, _COLUMN_DTYPES, strict=True))
    free = np.cumsum(counts) - counts
    for batch in _score_batches(run):
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
