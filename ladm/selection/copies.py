"""Runs with their rows -> which rows repeat another one and cannot be selected. Imports no torch.

In one data set `ladm prepare` has dropped or marked copies. Here the rows of a later run are compared with those of
earlier runs, in two steps: first a key of 8 bytes for each document, which is equal where the ids are; then the ids
themselves, but only of documents whose key also occurs in another run.
Shape suffixes: N documents with a score, T rows of all runs, C of them whose ids are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from ladm.corpus.files.checked_columns import CheckedColumns
from ladm.corpus.files.data_set import reading_rows
from ladm.corpus.files.id_columns import split_ids
from ladm.corpus.rows.reading import Rows
from ladm.runs.columns.by_name import column_names, fill_columns
from ladm.selection.budget import BATCH_DOCUMENTS
from ladm.selection.sources import SelectionSource
from ladm.storage.disk_arrays import array_on_disk

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

LENGTH = "length"
COLUMNS_OF_IDS = ("unigram_entropy", "repeated_4grams", "repeated_13grams")
"""Text statistics that depend on the ids of a row alone. A score computed on a GPU also depends on the batch."""
PIECES, PIECE_TOKENS = 4, 8
"""How many ids make the key of a row without text statistics: pieces evenly spaced from its start to its end."""
ROWS_AT_A_TIME = 1024
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def find_copies(
    sources: Sequence[SelectionSource], parts: Sequence[slice], *, wanted_T: Bools | None, work: Path
) -> Bools | None:
    """Which of all rows are copies: (T,); None where none are, and `ladm prepare` looked for none or found none.

    Copies are the rows that `ladm prepare` marked, and rows with a score that have the ids of such a row of an earlier
    run. `parts`: where the documents of each run stand among those of all. `wanted_T`: the rows that count in this
    comparison; None: all. The keys are files in `work`.
    """
    found = [source.rows.copies() for source in sources]
    repeated = repeated_rows(sources, parts, wanted_T=wanted_T, work=work) if len(sources) > 1 else ()
    if all(part is None for part in found) and not len(repeated):
        return None
    marked = [np.zeros(len(s.rows), dtype=np.bool_) if p is None else p for s, p in zip(sources, found, strict=True)]
    is_copy_T = np.concatenate(marked)
    is_copy_T[np.asarray(repeated, dtype=np.int64)] = True
    return is_copy_T


def repeated_rows(
    sources: Sequence[SelectionSource], parts: Sequence[slice], *, wanted_T: Bools | None = None, work: Path
) -> Ints:
    """The numbers of the rows, counted over all runs, that have the ids of a row of an earlier run; both are wanted."""
    keys_N, rows_N = _read_keys(sources, parts, work)
    rows_C = np.sort(_sharing_rows(keys_N, rows_N, _shared_keys(keys_N, parts)))
    if wanted_T is not None:
        rows_C = rows_C[wanted_T[rows_C]]
    if not len(rows_C):
        return rows_C
    digests_C = np.concatenate([_digests(source.rows, source.positions_among(rows_C)) for source in sources])
    # Rows of equal ids together, those of the first run first, because the sort is stable.
    order = np.lexsort((digests_C[:, 1], digests_C[:, 0]))
    ordered = digests_C[order]
    is_first = np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)]
    firsts = order[is_first][np.cumsum(is_first) - 1]
    runs_C = np.searchsorted([source.first for source in sources], rows_C, side="right")
    repeated: Ints = rows_C[order[runs_C[order] > runs_C[firsts]]]
    return repeated


def _read_keys(sources: Sequence[SelectionSource], parts: Sequence[slice], work: Path) -> tuple[Keys, Ints]:
    """A key of every document, and the number of its row: arrays in files, (N,)."""
    count = parts[-1].stop
    keys_N: Keys = array_on_disk(work / "copy-keys", "u8", count)
    rows_N: Ints = array_on_disk(work / "copy-rows", "i8", count)
    values_N = array_on_disk(work / "copy-values", "f8", count)
    keys_N[:] = 0
    known = [set(column_names(source.run)) for source in sources]
    has_columns = all(known_of_run.issuperset(COLUMNS_OF_IDS) for known_of_run in known)
    # One column at a time, because one of an added signal is in memory while it is read.
    for name in (LENGTH, *(COLUMNS_OF_IDS if has_columns else ())):
        for source, part in zip(sources, parts, strict=True):
            fill_columns(source.run, {name: values_N[part]}, rows_N[part], seed=0)
        for batch in _batches(count):
            # As results are stored, except by old runs; the last bit of a logarithm in float64 depends on the CPU.
            _mix(keys_N[batch], values_N[batch].astype(np.float32).view(np.uint32))
    for source, part in zip(sources, parts, strict=True):
        if not has_columns:
            pieces_T = np.concatenate([_keys_of_pieces(source.rows, *bounds) for bounds in source.rows.batches()])
            _mix(keys_N[part], pieces_T[rows_N[part]])
        rows_N[part] += source.first
    return keys_N, rows_N


def _mix(keys: Keys, values: npt.NDArray[Any]) -> None:
    """Replace the keys by a hash of themselves and the values."""
    keys += values.astype(np.uint64) + np.uint64(1)
    keys *= _MULTIPLIER
    keys ^= keys >> np.uint64(29)


def _batches(count: int) -> Iterator[slice]:
    for start in range(0, count, BATCH_DOCUMENTS):
        yield slice(start, min(start + BATCH_DOCUMENTS, count))


def _shared_keys(keys_N: Keys, parts: Sequence[slice]) -> Keys:
    """The keys that documents of several runs have, ascending."""
    keys = np.concatenate([_distinct(np.sort(keys_N[part])) for part in parts])
    keys.sort()
    return _distinct(keys[1:][keys[1:] == keys[:-1]])


def _distinct(keys: Keys) -> Keys:
    """Sorted keys, each once."""
    # Several times as fast as np.unique, which builds a hash table.
    return keys[np.r_[True, keys[1:] != keys[:-1]]] if len(keys) else keys


def _sharing_rows(keys_N: Keys, rows_N: Ints, shared: Keys) -> Ints:
    """The rows of the documents whose key is one of `shared`."""
    found = [np.empty(0, dtype=np.int64)]
    for batch in _batches(len(keys_N) if len(shared) else 0):
        keys_B = keys_N[batch]
        at_B = np.minimum(np.searchsorted(shared, keys_B), len(shared) - 1)
        found.append(rows_N[batch][shared[at_B] == keys_B])
    return np.concatenate(found)


def _digests(rows: Rows, positions: Ints) -> Keys:
    """The XXH3-128 of the ids of some rows, in two halves: (rows, 2)."""
    chosen = CheckedColumns(rows.select(positions), ["input_ids"])
    digests = np.empty((len(positions), 2), dtype=np.uint64)
    for start in range(0, len(positions), ROWS_AT_A_TIME):
        part = slice(start, min(start + ROWS_AT_A_TIME, len(positions)))
        with reading_rows(rows.name):
            column = chosen.table(part)["input_ids"]
        found = (xxhash.xxh3_128_digest(_bytes(ids)) for chunk in column.chunks for ids in split_ids(chunk))
        digests[part] = np.frombuffer(b"".join(found), dtype=np.uint64).reshape(-1, 2)
    return digests


def _keys_of_pieces(rows: Rows, start: int, stop: int) -> Keys:
    """For each row a hash of a few of its ids; 0 for one that has no score, because it has no ids."""
    with reading_rows(rows.name):
        column = rows.stored("input_ids", start, stop)
    found = (_key_of_pieces(ids) for chunk in column.chunks for ids in split_ids(chunk))
    return np.fromiter(found, dtype=np.uint64, count=stop - start)


def _key_of_pieces(ids: Any) -> int:
    if not isinstance(ids, (list, np.ndarray)):
        return 0
    last = max(len(ids) - PIECE_TOKENS, 0)
    starts = (last * k // (PIECES - 1) for k in range(PIECES))
    return xxhash.xxh3_64_intdigest(b"".join(_bytes(ids[first : first + PIECE_TOKENS]) for first in starts))


def _bytes(ids: Any) -> bytes:
    """The ids in a width that does not depend on how they are stored."""
    try:
        return np.asarray(ids, dtype="<i8").tobytes()
    except (ValueError, TypeError, OverflowError):
        # No list of ids, and so without a score.
        return b""
