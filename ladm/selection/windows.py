"""Rows that are windows of one document: which document each is of, and which of one may be chosen. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from ladm.corpus.rows.reading import Rows
from ladm.corpus.rows.window_documents import DOCUMENT_COLUMN
from ladm.errors import LadmError
from ladm.settings.expressions import DOCUMENT_MEAN, Expression

WINDOWS_PER_DOCUMENT = 2
"""Rows of one document at most, where it was cut into windows and --max-per-document is not given."""

MOST_REPEATED = 0.5
"""The part of a window that may be in a better window of its document."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_NO_DOCUMENT = -(1 << 63)
_START = "start_token"
_OF_PREPARE = {"source", _START}
"""Columns that `ladm prepare` writes beside it; a `source` of other rows may be anything."""


def max_per_document(given: int | None, data: Sequence[Rows], *, ranking: Expression) -> int | None:
    """How many rows of a document may be chosen; None where rows do not say which document they are of.

    `given`: as `--max-per-document`; None: two, or all where whole documents are ranked. Raises LadmError where that
    has nothing to count.
    """
    if given is None and ranking.has_document_mean:
        return None
    if given is None:
        return default_windows_per_document(data)
    for rows in data:
        if DOCUMENT_COLUMN not in rows.column_names:
            raise LadmError(f"{rows.name} has no column {DOCUMENT_COLUMN}, so --max-per-document has nothing to count")
    return given


def default_windows_per_document(data: Sequence[Rows]) -> int | None:
    """How many rows of a document are chosen at most without --max-per-document; None: all of them."""
    # In any data set: a corpus without windows beside one with windows is no reason to take more of a book.
    has_windows = any({DOCUMENT_COLUMN, "chunked_index"} <= set(rows.column_names) for rows in data)
    return WINDOWS_PER_DOCUMENT if has_windows else None


@dataclass(frozen=True, kw_only=True)
class Windows:
    """The document of every row, and where in it the row begins. T rows."""

    documents_T: Ints
    starts_T: Floats
    """The first token; NaN where it is not known."""

    def repeating(self, rows_N: Ints, lengths_N: npt.ArrayLike) -> Bools:
        """Which of ranked rows have more than half of their tokens in a better row of their document: (N,).

        The last window of a document ends with it, and may overlap the one before.
        """
        documents_N, starts_N = self.documents_T[rows_N], self.starts_T[rows_N]
        order = np.lexsort((starts_N, documents_N))
        first, second = order[:-1], order[1:]
        lengths_N = np.asarray(lengths_N)
        shared = starts_N[first] + lengths_N[first] - starts_N[second]
        # Nothing is known of a start that is NaN, and a comparison with it is false.
        is_repeated = (documents_N[first] == documents_N[second]) & (shared > MOST_REPEATED * lengths_N[second])
        found = np.zeros(len(documents_N), dtype=np.bool_)
        # The worse one of the two is the later one of the ranked rows.
        found[np.maximum(first, second)[is_repeated]] = True
        return found


def read_windows(data: Sequence[Rows]) -> Windows:
    """The document of every row, numbered as by `read_documents`, and where in it the row begins."""
    starts = []
    for rows in data:
        if not {DOCUMENT_COLUMN, *_OF_PREPARE} <= set(rows.column_names):
            starts.append(np.full(len(rows), np.nan))
            continue
        # A row of a merged subset may come from rows without the column.
        starts += [
            np.array([value if type(value) is int else np.nan for value in batch], dtype=np.float64)
            for batch in rows.column_batches(_START)
        ]
    return Windows(documents_T=read_documents(data), starts_T=np.concatenate(starts))


def first_of_each(keys: Ints, most: int) -> Bools:
    """Which rows are among the first `most` with their key, such as that of a document: (n,).

    Of the keys 7, 7, 3, 7, with `most` 2, these are all but the last.
    """
    order = np.argsort(keys, kind="stable")
    grouped = keys[order]
    starts = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])
    # The place of a row among the rows with its key: its place in the grouped order minus where the group starts.
    places = np.arange(len(grouped)) - np.repeat(starts, np.diff(np.r_[starts, len(grouped)]))
    kept: Bools = np.zeros(len(keys), dtype=np.bool_)
    kept[order[places < most]] = True
    return kept


def document_mean(values_N: Floats, documents_N: Ints) -> Floats:
    """For each row the mean of the values of its document's rows: (N,). NaN are left out; NaN where all are.

    Values 1, 3, 5 of the documents 7, 7, 9 give 2, 2, 5.
    """
    codes_N = np.unique(documents_N, return_inverse=True)[1]
    has_value_N = ~np.isnan(values_N)
    counts = np.bincount(codes_N[has_value_N], minlength=len(values_N))
    sums = np.bincount(codes_N[has_value_N], weights=values_N[has_value_N], minlength=len(values_N))
    # 0 / 0 is the NaN of a document without a value.
    with np.errstate(invalid="ignore"):
        means: Floats = sums / counts
    return means[codes_N]


def documents_of(data: Sequence[Rows]) -> Ints:
    """As `read_documents`, for an expression that needs it. Raises LadmError for rows that do not say it."""
    for rows in data:
        if DOCUMENT_COLUMN not in rows.column_names:
            raise LadmError(f"{rows.name} has no column {DOCUMENT_COLUMN}, so {DOCUMENT_MEAN} has nothing to average")
    return read_documents(data)


def read_documents(data: Sequence[Rows]) -> Ints:
    """The number of every row's document: (T,). Documents of different data sets have different numbers.

    A row that does not name its document counts as a document of its own, as in a subset of several data sets.
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
    """A number for each row: equal for rows of one document, different otherwise; _NO_DOCUMENT where none is named."""
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
