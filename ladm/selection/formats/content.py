"""Rows and a selection -> Arrow tables of the chosen rows, with their score, rank, domain and id. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ladm.corpus.files.checked_columns import checked
from ladm.corpus.files.data_set import reading_rows
from ladm.corpus.files.tables import class_name
from ladm.selection.budget import Domains, Floats, Ints, taken_rows
from ladm.selection.domain_codes import DomainCodes
from ladm.selection.formats.joined_rows import JoinedRows, join_rows
from ladm.selection.sources import SelectionSource
from ladm.settings.subset import TAKEN_COLUMN

BATCH_TOKENS = 1 << 21
"""Token ids of one table: 8 MB of int32, and about as much text again."""
MOST_ROWS = 10_000


@dataclass(frozen=True, kw_only=True)
class AllRows:
    """What the selection knows of every row, ranked or not. Shape suffixes: N documents with a score, T rows."""

    rows_N: Ints
    """The number of each document's row over all runs."""
    values_N: Floats
    """What documents are ranked by; NaN where there is no value."""
    domains: DomainCodes


@dataclass(frozen=True, kw_only=True)
class SubsetContent:
    """What is written: rows in the order of the data, and what the selection knows of each. Arrays are (n,).

    The selection adds `id` and `domain` where the rows have none, `score`, `rank`, and with `keep_all` `taken`. A
    column of the rows by such a name gets `original_` in front.
    """

    data: Any
    """The rows of all runs: a `datasets.Dataset` or `JoinedRows`."""
    place: str
    """Where they are, for messages."""
    positions: Ints
    num_tokens: Ints
    scores: Floats
    """What was ranked by; NaN for a row without, which `keep_all` alone has."""
    ranks: Ints
    """The place among the ranked rows of the domain, best first, from 1; 0 for a row that was not ranked."""
    domains: npt.NDArray[np.int32]
    """Numbers into `domain_names`; -1 for a row that has no domain."""
    domain_names: list[str]
    taken: npt.NDArray[np.bool_]
    keep_all: bool

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def total_tokens(self) -> int:
        return int(self.num_tokens.sum(dtype=np.int64))

    @property
    def column_names(self) -> list[str]:
        """The columns of the rows."""
        names: list[str] = self.data.column_names
        return names

    @property
    def names(self) -> dict[str, str]:
        """The columns of the rows, and what each is called in the subset, where the selection adds columns."""
        names = {}
        for name in self.column_names:
            new = name
            while new in self._added_names or (new != name and new in self.column_names):
                new = f"original_{new}"
            names[name] = new
        return names

    @property
    def _added_names(self) -> list[str]:
        # What prepare wrote about a row stays as it is.
        own = [name for name in ("id", "domain") if name not in self.column_names]
        return [*own, "score", "rank", *([TAKEN_COLUMN] if self.keep_all else [])]

    def features(self) -> dict[str, Any]:
        """The features of `datasets` for all columns; those that Arrow cannot express, as class labels, stay."""
        import datasets

        kinds = {"id": "string", "domain": "string", "score": "float64", "rank": "int64", TAKEN_COLUMN: "bool"}
        own = self.data.features
        return {new: own[name] for name, new in self.names.items()} | {
            name: datasets.Value(kinds[name]) for name in self._added_names
        }

    def tables(self, columns: list[str] | None = None, *, as_features: bool = False) -> Iterator[pa.Table]:
        """All rows, a bounded number of tokens at a time; `columns` of the data set alone, or all of them.

        A class label is the name of its class, or with `as_features` its number, which only `features` can explain.
        """
        chosen = self.column_names if columns is None else columns
        names = self.names
        for start, stop in self.batches():
            # Without a column `datasets` has no rows either.
            own = self._stored(slice(start, stop), chosen) if chosen else {}
            stored = {names[name]: own[name] if as_features else self._named(name, own[name]) for name in chosen}
            yield pa.table(stored | self._added(slice(start, stop)))

    def token_batches(self) -> Iterator[npt.NDArray[Any]]:
        """The token ids of the rows, joined, a bounded number at a time."""
        for start, stop in self.batches():
            ids = self._stored(slice(start, stop), ["input_ids"])["input_ids"].combine_chunks()
            yield ids.flatten().to_numpy(zero_copy_only=False)

    def _stored(self, part: slice, columns: list[str]) -> pa.Table:
        with reading_rows(self.place):
            if isinstance(self.data, JoinedRows):
                return self.data.read(columns, self.positions[part])
            positions = self.positions[part].tolist()
            table: pa.Table = checked(self.data.select_columns(columns).with_format("arrow")[positions])
            # `datasets` gives each row as a piece of its own. Written like that, each would be a batch of the file, and
            # kilobytes of memory for whoever opens it.
            return table.combine_chunks()

    def _named(self, column: str, values: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
        """The values of a column; of one of class labels the names of the classes."""
        names = getattr(self.data.features[column], "names", None)
        if names is None:
            return values
        found = (class_name(names, value) for value in values.to_pylist())
        return pa.array((None if name is None else str(name) for name in found), pa.string())

    def batches(self) -> Iterator[tuple[int, int]]:
        """First row, and the row after the last, of each table."""
        start = 0
        while start < len(self):
            upto = np.cumsum(self.num_tokens[start : start + MOST_ROWS])
            # At least one row, however long it is.
            stop = start + max(1, int(np.searchsorted(upto, BATCH_TOKENS)))
            yield start, min(stop, len(self))
            start = stop

    def _added(self, part: slice) -> dict[str, pa.Array]:
        """The columns that the selection adds."""
        ranks, scores = self.ranks[part], self.scores[part]
        make: dict[str, Callable[[], pa.Array]] = {
            "id": lambda: self._labels(part),
            "domain": lambda: self._domain_column(part),
            "score": lambda: pa.array(scores, mask=np.isnan(scores)),
            "rank": lambda: pa.array(ranks, mask=ranks == 0),
            TAKEN_COLUMN: lambda: pa.array(self.taken[part]),
        }
        # Only those: of rows with ids and domains of their own, every text would be made for nothing.
        return {name: make[name]() for name in self._added_names}

    def _domain_column(self, part: slice) -> pa.Array:
        names = [self.domain_names[code] if code >= 0 else None for code in self.domains[part].tolist()]
        return pa.array(names, pa.string())

    def _labels(self, part: slice) -> pa.Array:
        """The index of each row as text, which names it in the results of a run too."""
        positions = pa.array(map(str, self.positions[part].tolist()), pa.string())
        if "index" not in self.column_names:
            return positions
        index = self._stored(part, ["index"])["index"]
        if pa.types.is_integer(index.type) or pa.types.is_string(index.type):
            text = index.cast(pa.string())
        else:
            # As Python spells it, like the results: Arrow has another text for 1.0 and True, and none for a list.
            found = (None if value is None else str(value) for value in index.to_pylist())
            text = pa.chunked_array([pa.array(found, pa.string())])
        return pc.coalesce(text.combine_chunks(), positions)


def subset_content(
    sources: Sequence[SelectionSource], domains: Domains, *, every: AllRows | None = None
) -> SubsetContent:
    """The rows that were taken, or those of `every`, in the order of the data, run after run.

    Raises LadmError where the rows of several runs have columns of different types.
    """
    if every is None:
        positions = taken_rows(domains)
    else:
        positions = np.arange(sum(len(source.rows) for source in sources), dtype=np.int64)
    count = len(positions)
    scores, ranks = np.full(count, np.nan), np.zeros(count, dtype=np.int64)
    codes, taken = np.full(count, -1, dtype=np.int32), np.zeros(count, dtype=np.bool_)
    lengths = np.zeros(count, dtype=np.int64)
    for code, domain in enumerate(domains.values()):
        places = domain.taken_places if every is None else np.arange(len(domain))
        at = np.searchsorted(positions, domain.positions[places])
        scores[at], ranks[at], codes[at] = domain.scores[places], places + 1, code
        lengths[at] = domain.num_tokens[places]
        taken[np.searchsorted(positions, domain.taken_positions)] = True
    names = list(domains)
    if every is not None:
        # Rows outside of the ranking have these too, such as those that a guard dropped.
        lengths = np.concatenate([source.rows.lengths() for source in sources])
        scores[every.rows_N] = every.values_N
        codes, names = every.domains.codes_T, every.domains.names
    data, positions = join_rows(sources, positions)
    return SubsetContent(
        data=data, place=" and ".join(source.rows.name for source in sources),
        positions=positions, num_tokens=lengths, scores=scores, ranks=ranks, domains=codes,
        domain_names=names, taken=taken, keep_all=every is not None,
    )  # fmt: skip
