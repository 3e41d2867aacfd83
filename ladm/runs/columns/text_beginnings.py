"""A run -> the beginnings of some rows' texts, from the rows that it scored and from no others. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ladm.corpus.files.checked_columns import CheckedColumns
from ladm.corpus.files.data_set import reading_rows
from ladm.corpus.files.id_columns import split_ids
from ladm.corpus.rows.identity import PREPARED, PREPARED_DIGEST
from ladm.corpus.rows.reading import Rows, open_rows
from ladm.errors import LadmError
from ladm.runs.columns.labels import ID_COLUMNS, label_id
from ladm.runs.folder import Run
from ladm.runs.results import columns_of
from ladm.runs.rows_of_run import place_of_rows
from ladm.settings.common import TEXT_COLUMN
from ladm.storage.json_object import read_json_object

MOST_CHARACTERS = 2000
"""The characters of a text that are read for its beginning."""
MOST_BYTES_READ = 1 << 28
"""The largest data set that is read to compare its content, which takes about a second."""
BEGINNING_CHARACTERS = 240
"""Those that lists of documents show."""
_ROWS_AT_A_TIME = 32


class RowLabel(Protocol):
    """What identifies the row of a document, and shows whether it is still the same. `row_id` is that of `label_id`."""

    @property
    def position(self) -> int: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def row_id(self) -> str: ...


class OtherRowsError(LadmError):
    """The rows are not those that the run scored."""


class TextBeginnings:
    """The beginnings of some rows' texts, from the data set called `name`, or that of `place_of_rows`.

    `missing` says why there are none: the data set is gone, has no texts, or is another one. Raises LadmError for a
    data set that was given and cannot be read, or is another one.
    """

    def __init__(self, run: Run, name: str | None) -> None:
        self.missing: str | None = None
        self._run, self._name = run, name
        self._rows: Rows | None = None
        place = name or (place_of_rows(run) if run.identity.about.get("rows") else "")
        try:
            rows = open_rows(str(place), limit=run.num_rows)
        except LadmError as error:
            if name is not None:
                raise
            self.missing = f"{error}; to show their texts, give their new path with --rows"
            return
        if TEXT_COLUMN not in rows.column_names:
            self.missing = f"{rows.name} has no column {TEXT_COLUMN}, so no texts are shown"
            return
        self._rows = rows

    def of(self, documents: Sequence[RowLabel]) -> list[str]:
        """The first 2,000 characters of the texts of some rows; all empty where there are none.

        Raises StorageError for damaged rows, and LadmError for other rows than the run's where they were given.
        """
        if self._rows is None:
            return [""] * len(documents)
        try:
            if len(self._rows) != self._run.num_rows:
                raise _other(self._run, self._rows, f"there are {len(self._rows):,}, not {self._run.num_rows:,}")
            texts: list[str] = []
            for start in range(0, len(documents), _ROWS_AT_A_TIME):
                texts += self._read(self._rows, documents[start : start + _ROWS_AT_A_TIME])
            # Last, because an error that names the row that differs says more.
            _require_content_of(self._run, self._rows)
        except OtherRowsError as error:
            if self._name is not None:
                raise
            self.missing = f"{error}; to show texts, give --rows the rows that it scored"
            self._rows = None
            return [""] * len(documents)
        return texts

    def _read(self, rows: Rows, documents: Sequence[RowLabel]) -> list[str]:
        names = [name for name in ID_COLUMNS if name in columns_of(self._run.folder)]
        lengths, labels, texts = _read_beginnings(rows, [document.position for document in documents], names)
        for document, length, label in zip(documents, lengths, labels, strict=True):
            if length != document.num_tokens:
                raise _other(self._run, rows, f"row {document.position} has another length")
            if label is not None and label != document.row_id:
                raise _other(self._run, rows, f"row {document.position} is {label}, not {document.row_id}")
        return texts


def _other(run: Run, rows: Rows, difference: str) -> OtherRowsError:
    return OtherRowsError(f"{rows.name} are not the rows of {run.folder}: {difference}")


def _require_content_of(run: Run, rows: Rows) -> None:
    """Raise OtherRowsError for other rows than the run's, as far as that is known in a second.

    A digest of hundreds of gigabytes takes minutes. `ladm prepare` recorded it beside its rows. Where it did not, or
    the run is of the first rows alone, the length and the id of each row that is shown must do.
    """
    record = Path(rows.name) / PREPARED
    recorded = read_json_object(record).get(PREPARED_DIGEST) if record.is_file() and rows.total == len(rows) else None
    is_small = sum(size for _, size, _, _ in rows.files.values()) <= MOST_BYTES_READ
    # Another digest alone does not show other rows: keys that later rows brought into meta change it too.
    is_doubtful = recorded is not None and recorded != run.identity.data.get("xxh3_128")
    if (is_small or is_doubtful) and not run.identity.has_rows(rows):
        raise _other(run, rows, "they have other contents")


def _read_beginnings(
    rows: Rows, positions: list[int], names: list[str]
) -> tuple[list[int], list[str | None], list[str]]:
    """Of the rows at some positions the number of tokens, the id (None: not comparable) and the beginning of the text.

    `names` are the columns of ids that the run repeats.
    """
    with reading_rows(rows.name):
        present = [name for name in names if name in rows.column_names]
        columns = CheckedColumns(rows.select(np.array(positions)), ["input_ids", TEXT_COLUMN, *present])
        table = columns.table(slice(0, len(positions)))
        ids, texts = table["input_ids"].combine_chunks(), table[TEXT_COLUMN].combine_chunks()
        lengths = [0 if ids is None else len(ids) for ids in split_ids(ids)]
        # Cut inside Arrow: a text may be a book, and hundreds of them are read.
        if pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type):
            texts = pc.utf8_slice_codeunits(texts, 0, MOST_CHARACTERS)
        named = table.select(present).to_pylist()
    # Without a number of their own rows have their positions; class labels and the like are repeated by their names.
    is_plain = all(isinstance(value, (int, str, type(None))) for row in named for value in row.values())
    labels: list[str | None] = [None] * len(positions)
    if is_plain and "id" in present:
        labels = [label_id(row, position) for row, position in zip(named, positions, strict=True)]
    return lengths, labels, [str(text or "")[:MOST_CHARACTERS] for text in texts.to_pylist()]


def one_line(text: str, *, most: int) -> str:
    """The first `most` characters of a text, as one line."""
    return " ".join(text.split())[:most]


def first_line(text: str, *, most: int) -> str:
    """The first line of a text that is not blank, cut to `most` characters."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line), "")[:most]
