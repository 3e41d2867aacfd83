"""A data set of token ids -> rows, read a block at a time, and the identity of their content.

Reads what `datasets` saved to disk, or a Hub id. Columns: `input_ids`, and `meta`, `index`,
`chunked_index` where present. Imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ladm.corpus.files.checked_columns import CheckedColumns
from ladm.corpus.files.data_set import (
    is_name,
    is_whole_number,
    load_split,
    no_such_data_set,
    reading_rows,
    require_token_ids,
)
from ladm.corpus.files.id_columns import lengths_of, split_ids
from ladm.corpus.files.meta import jsonable
from ladm.corpus.files.other_stages import require_finished_rows
from ladm.corpus.files.tables import class_name
from ladm.corpus.rows.identity import RowDigests, columns_digest, require_as_prepared, require_as_selected
from ladm.corpus.rows.known_digests import Digests, KnownDigests
from ladm.corpus.rows.row import Ids, Row, token_ids
from ladm.errors import LadmError, RowError
from ladm.settings.common import NAME_COLUMNS
from ladm.storage.file_states import file_states

IDENTITY_BLOCK_ROWS = 1024
ROWS_AT_A_TIME = 10_000
COPY_COLUMN = "copy_of"
"""The column that names the earlier row with the same ids; only where there is such a row."""
_CARRIED = ("index", "chunked_index", "meta")


class Rows:
    """The rows of a data set, all or the first `limit`; made by `open_rows`."""

    def __init__(self, dataset: Any, *, name: str, limit: int | None, remember: bool = True) -> None:
        self.name = name
        dataset = dataset.with_format(None)
        names = set(dataset.column_names)
        if "input_ids" not in names:
            raise LadmError(
                f"{name} has no column input_ids (it has {', '.join(sorted(names)) or 'none'}); "
                "tokenise it first: ladm prepare"
            )
        self._ids = CheckedColumns(dataset, ["input_ids"])
        carried = [column for column in _CARRIED if column in names]
        self._whole_numbers = {
            column: column in names and is_whole_number(dataset, column) for column in ("index", "chunked_index")
        }
        self._carried = CheckedColumns(dataset, carried) if carried else None
        self._dataset = dataset
        # `datasets` copies the description of all columns for each use of it.
        self._features = dataset.features
        named = [column for column in NAME_COLUMNS if column in names and is_name(dataset, column)]
        self._named = CheckedColumns(dataset, named) if named else None
        self._digested: dict[int, Digests] = {}
        self._remember = remember
        self.files = file_states(each["filename"] for each in dataset.cache_files)
        """The state of its files when it was opened."""
        self._count = len(dataset) if limit is None else min(limit, len(dataset))
        if self._count == 0:
            raise LadmError(f"{name} has no rows")
        require_token_ids(dataset, name)

    def __len__(self) -> int:
        return self._count

    @property
    def total(self) -> int:
        """Rows of the data set, also those beyond `limit`."""
        return len(self._dataset)

    def read(self, start: int, stop: int) -> list[Row]:
        """Rows `start` to `stop - 1`, as far as there are any."""
        stop = min(stop, self._count)
        with reading_rows(self.name):
            carried = {} if self._carried is None else self._carried.values(slice(start, stop))
            named = self._names(start, stop)
            raw = split_ids(self._ids.table(slice(start, stop))["input_ids"].combine_chunks())
        absent = [None] * (stop - start)
        index, chunk, meta = (carried.get(column, absent) for column in _CARRIED)
        return [
            Row(
                position=start + k,
                index=start + k if "index" not in carried else self._label("index", index[k], start + k),
                chunked_index=None if chunk[k] is None else self._label("chunked_index", chunk[k], 0),
                meta=jsonable(meta[k]),
                raw_ids=raw[k],
                names=named[k],
            )
            for k in range(stop - start)
        ]

    def _names(self, start: int, stop: int) -> list[dict[str, str | None]]:
        """`id`, `domain` and `source` as text, whatever type they have in the data set."""
        if self._named is None:
            return [{} for _ in range(start, stop)]
        columns = {
            name: self._labelled(name, values) for name, values in self._named.values(slice(start, stop)).items()
        }
        return [
            {name: None if values[k] is None else str(values[k]) for name, values in columns.items()}
            for k in range(stop - start)
        ]

    def _labelled(self, name: str, values: list[Any]) -> list[Any]:
        """The values; for a column of class labels the names of the classes."""
        names = getattr(self._features[name], "names", None)
        return values if names is None else [class_name(names, value) for value in values]

    def ids_at(self, position: int, *, vocab_size: int) -> Ids:
        """The ids of a row that must be valid. Raises LadmError, which names the row, where it is not."""
        (row,) = self.read(position, position + 1)
        try:
            return token_ids(row, vocab_size=vocab_size)
        except RowError as error:
            raise LadmError(f"row {position} of {self.name}: {error}") from None

    def lengths(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.int64]:
        """Tokens of rows `start` to `stop - 1`, or of every row; 0 where there is no list."""
        stop = self._count if stop is None else min(stop, self._count)
        kept: list[npt.NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
        for first in range(start, stop, IDENTITY_BLOCK_ROWS):
            with reading_rows(self.name):
                part = slice(first, min(first + IDENTITY_BLOCK_ROWS, stop))
                chunks = self._ids.table(part)["input_ids"].chunks
            # Chunk by chunk: to combine them copies all ids, and so reads the whole corpus from the disk.
            kept += map(lengths_of, chunks)
        return np.concatenate(kept)

    def _label(self, column: str, value: Any, default: int) -> int | str:
        """One type for a whole column: whole numbers where it holds only such, else text."""
        value = default if value is None else value
        return int(value) if self._whole_numbers[column] else str(value)

    @property
    def column_names(self) -> list[str]:
        """All columns of the data set."""
        return list(self._dataset.column_names)

    def column(self, name: str, start: int, stop: int) -> list[Any]:
        """A column of rows `start` to `stop - 1`. Raises LadmError where there is no such column."""
        if name not in self._dataset.column_names:
            raise LadmError(
                f"{self.name} has no column {name} (it has {', '.join(sorted(self._dataset.column_names))})"
            )
        with reading_rows(self.name):
            values = CheckedColumns(self._dataset, [name]).values(slice(start, min(stop, self._count)))[name]
        return self._labelled(name, values)

    def type_of(self, name: str) -> pa.DataType:
        """The Arrow type of a column; null for class labels, whose numbers stand for their names."""
        kind = self._features.arrow_schema.field(name).type
        return pa.null() if getattr(self._features[name], "names", None) is not None else kind

    def stored(self, name: str, start: int, stop: int) -> pa.ChunkedArray:
        """A column of rows `start` to `stop - 1` as it is stored; no other column is read."""
        with reading_rows(self.name):
            return CheckedColumns(self._dataset, [name]).table(slice(start, min(stop, self._count)))[name]

    def batches(self) -> Iterator[tuple[int, int]]:
        """The first row and the row after the last of each batch that is read at once."""
        for start in range(0, len(self), ROWS_AT_A_TIME):
            yield start, min(start + ROWS_AT_A_TIME, len(self))

    def column_batches(self, name: str) -> Iterator[list[Any]]:
        """A column, a batch of rows at a time. Raises LadmError where there is no such column."""
        for start, stop in self.batches():
            yield self.column(name, start, stop)

    def copies(self) -> npt.NDArray[np.bool_] | None:
        """Which rows `ladm prepare` marked as copies of an earlier one: (rows,); None where it marked none."""
        if COPY_COLUMN not in self._dataset.column_names:
            return None
        column = self.stored(COPY_COLUMN, 0, self._count)
        return np.asarray(pc.is_valid(column).to_numpy(zero_copy_only=False))

    def select(self, positions: npt.NDArray[np.int64] | range) -> Any:
        """Those rows as a `datasets.Dataset`, all their columns kept; a range takes no time."""
        return self._dataset.select(positions)

    def identity(self) -> dict[str, Any]:
        """Number of rows and a digest of their ids, indices and meta, in order."""
        return {"rows": self._count, "xxh3_128": self._digests(self._count).rows}

    def content(self) -> str:
        """A digest of the same that does not change when rows with other keys of `meta` are added to the data set."""
        return self._digests(self._count).content

    def columns_digest(self) -> str:
        """A digest of the columns of all rows that `identity` does not cover, the texts among them."""
        names = sorted(set(self._dataset.column_names) - {"input_ids", *_CARRIED})
        return columns_digest(self._column_tables(names), names)

    def _column_tables(self, names: list[str]) -> Iterator[pa.Table]:
        others = CheckedColumns(self._dataset, names)
        # Without a column `datasets` has no rows either.
        for start in range(0, len(self._dataset) if names else 0, IDENTITY_BLOCK_ROWS):
            with reading_rows(self.name):
                yield others.table(slice(start, start + IDENTITY_BLOCK_ROWS))

    def begin_with(self, data: Mapping[str, Any], *, content: str | None) -> bool:
        """Are the first rows, or all, those that once had the identity `data`, or the digest `content`?"""
        count = data.get("rows")
        if not isinstance(count, int) or count > self._count:
            return False
        digests = self._digests(count)
        return digests.rows == data.get("xxh3_128") or digests.content == content

    def _digests(self, count: int) -> Digests:
        """The digests of the first `count` rows; what was computed is remembered, since it reads all of them."""
        if count not in self._digested:
            known = KnownDigests(self.name, count=count, files=self.files)
            known_ones = known.read() if self._remember else None
            self._digested[count] = known_ones or known.write(self._compute_digests(count))
        return self._digested[count]

    def _compute_digests(self, count: int) -> Digests:
        digests = RowDigests(_CARRIED)
        for start in range(0, count, IDENTITY_BLOCK_ROWS):
            with reading_rows(self.name):
                part = slice(start, min(start + IDENTITY_BLOCK_ROWS, count))
                carried = {} if self._carried is None else self._carried.values(part)
                digests.add(carried, self._ids.table(part)["input_ids"].combine_chunks())
        # Where the files were replaced since they were opened, what is written beside them is not about these.
        if count == len(self._dataset) and file_states(self.files) == self.files:
            require_as_prepared(self.name, digests.rows, self.columns_digest)
            require_as_selected(self.name)
        return Digests(rows=digests.rows, content=digests.content)


def open_rows(source: str | os.PathLike[str], *, limit: int | None = None, remember: bool = True) -> Rows:
    """Open a folder written by `save_to_disk` (a Dataset, or a DatasetDict with `train`) or a Hub id.

    `limit`: how many rows, from the first; None: all. `remember`: believe the note of an earlier command about the
    digests of files that have not changed. Raises LadmError with one line when it is neither, or holds no
    token ids; where it is what another command reads or wrote, that line says which.
    """
    name = os.fspath(source)
    # A mistyped folder is far commoner than rows on the Hub without an owner, and asking there takes half a minute.
    if "/" not in name and not Path(name).exists():
        raise no_such_data_set(name)
    require_finished_rows(name)
    with reading_rows(name):
        return Rows(load_split(name), name=name, limit=limit, remember=remember)
