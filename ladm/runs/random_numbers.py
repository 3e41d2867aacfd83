"""A finished run -> the column `random`: a number from 0 to 1 for each row, of a seed and of what names the row.

Imports no torch. Shape suffixes: B rows of a batch, N rows without an id, T rows of the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from ladm.runs.folder import Run
from ladm.runs.results import score_batches

LABELS = ("id", "index", "chunked_index")
"""Columns that name a row."""


class RandomNumbers:
    """The numbers of the rows of a run. `labels` are those of LABELS that it has.

    A row with an id has the same number in any data and any order. Rows without one may have one index, as where
    shards were put together, so the n-th of them counts as another row. Rows of several runs that are ranked
    together differ by `first_row`, the number of the run's first row among those of all.
    """

    def __init__(self, run: Run, labels: Sequence[str], *, seed: int, first_row: int = 0) -> None:
        self.columns = ("position", *labels)
        self._run, self._labels = run, labels
        self._seed, self._first_row = seed, first_row

    def compute(self, batch: pa.RecordBatch) -> npt.NDArray[np.float64]:
        """The numbers of a batch with `columns`: (B,)."""
        keys = []
        for position, has_id, names in self._named(batch):
            earlier = 0 if has_id else int(self._earlier_T[position])
            # What the only row of its name has does not depend on the others.
            more = (self._first_row, earlier) if not has_id and (self._first_row or earlier) else ()
            keys.append((self._seed, *names, *more))
        # A hash rather than a generator: a document has its number whatever else is in the data, and in whatever order.
        return np.array([_hash(key) / 2**64 for key in keys])

    def _named(self, batch: pa.RecordBatch) -> Iterator[tuple[int, bool, tuple[Any, ...]]]:
        """Of every row its position, whether it has an id, and its labels."""
        positions, *columns = (batch[name].to_pylist() for name in self.columns)
        ids = columns[self._labels.index("id")] if "id" in self._labels else [None] * len(positions)
        names = zip(*columns, strict=True)
        for position, own, labels in zip(positions, ids, names, strict=True):
            yield position, own is not None, labels

    @cached_property
    def _earlier_T(self) -> npt.NDArray[np.int32]:
        """How many earlier rows of the data have the name of a row without an id: (T,)."""
        places: list[int] = []
        hashes: list[int] = []
        for batch in score_batches(self._run.folder, list(self.columns)):
            for position, has_id, names in self._named(batch):
                if not has_id:
                    places.append(position)
                    hashes.append(_hash(names))
        places_N, hashes_N = np.array(places, dtype=np.int64), np.array(hashes, dtype=np.uint64)
        order = np.lexsort((places_N, hashes_N))
        is_first = np.ones(len(order), dtype=np.bool_)
        is_first[1:] = hashes_N[order][1:] != hashes_N[order][:-1]
        # Of 5 5 5 8, sorted, the firsts are at 0 0 0 3.
        numbers = np.arange(len(order))
        firsts = np.maximum.accumulate(np.where(is_first, numbers, 0))
        earlier_T = np.zeros(self._run.num_rows, dtype=np.int32)
        earlier_T[places_N[order]] = numbers - firsts
        return earlier_T


def _hash(key: tuple[Any, ...]) -> int:
    return xxhash.xxh3_64_intdigest(repr(key).encode())
