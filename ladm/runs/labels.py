"""Rows of a run -> what a person recognises them by: domain, id, the beginning of the text. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ladm.corpus.checked_columns import CheckedColumns
from ladm.corpus.data_set import reading_rows
from ladm.corpus.meta import look_up
from ladm.corpus.row import split_ids
from ladm.corpus.rows import Rows, open_rows
from ladm.errors import LadmError, UsageError
from ladm.runs.folder import Run
from ladm.runs.results import columns_of, score_batches
from ladm.settings.common import DOMAIN_COLUMN, DOMAIN_KEY, NO_DOMAINS, ONE_DOMAIN, TEXT_COLUMN

NO_DOMAIN = "(none)"
MOST_CHARACTERS = 2000
"""Of a text that are looked at for its beginning."""


class RowLabel(Protocol):
    """What says which row a document is, and whether it is still the same."""

    @property
    def position(self) -> int: ...
    @property
    def num_tokens(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a document is called. `id` is its own id, or its index where it has none."""

    position: int
    domain: str
    id: str
    num_tokens: int


def domain_batches(run: Run, domain_key: str) -> Iterator[list[str]]:
    """The domain of every row with a score, a batch at a time, in the order of `scores.parquet`."""
    reader = DomainReader(run, domain_key)
    for batch in score_batches(run.folder, ["position", *reader.columns]):
        yield reader.read(batch)


def read_labels(run: Run, positions: Collection[int], domain_key: str) -> dict[int, Label]:
    """The labels of some rows, by position."""
    reader = DomainReader(run, domain_key)
    present = columns_of(run.folder)
    names = [name for name in ("id", "index", "chunked_index") if name in present]
    # All batches are read for a few rows, because the file is in the order of the scores and has no index.
    wanted = pa.array(sorted(positions), pa.int64())
    found: dict[int, Label] = {}
    for whole in score_batches(run.folder, sorted({"position", "num_tokens", *names, *reader.columns})):
        batch = whole.filter(pc.is_in(whole["position"], value_set=wanted))
        parts = zip(*(batch[name].to_pylist() for name in ("position", "num_tokens")), reader.read(batch), strict=True)
        ids: list[dict[str, Any]] = [{name: batch[name][k].as_py() for name in names} for k in range(len(batch))]
        for (position, num_tokens, domain), named in zip(parts, ids, strict=True):
            label = Label(position=position, domain=domain, id=label_id(named, position), num_tokens=num_tokens)
            found[position] = label
    return found


def label_id(named: Mapping[str, Any], position: int) -> str:
    """A document's own id, or its index where it has none; with its part, where it is cut into windows.

    Among documents with ids an index is written #7, because it may be the id of another.
    """
    own = named.get("id")
    if own is None:
        own = f"{'#' if 'id' in named else ''}{named.get('index', position)}"
    chunk = named.get("chunked_index")
    return str(own) if chunk is None else f"{own}/{chunk}"


class DomainReader:
    """Reads the domain of rows from their `meta`, or from a column that the run repeats.

    `columns` are those that `read` needs in a batch. Raises UsageError for a key in any other column.
    """

    def __init__(self, run: Run, domain_key: str) -> None:
        column, *self._path = domain_key.split(".")
        self.columns: list[str] = []
        self._is_one = domain_key == NO_DOMAINS
        if self._is_one:
            return
        if column not in columns_of(run.folder):
            raise UsageError(
                f"--domain-key {domain_key}: {run.folder} repeats meta, id, domain and source of the rows; give one of "
                f"them, or {NO_DOMAINS}"
            )
        self.columns = [column]
        self._column = column
        # As `Rows.domains` does: rows of somebody else have a plain column of that name.
        self._has_own = domain_key == DOMAIN_KEY and DOMAIN_COLUMN in columns_of(run.folder)
        self.columns += [DOMAIN_COLUMN] if self._has_own else []

    def read(self, batch: pa.RecordBatch) -> list[str]:
        """The domain of every row of a batch of `scores.parquet`; NO_DOMAIN for a row without one."""
        if self._is_one:
            return [ONE_DOMAIN] * len(batch)
        values = batch[self._column].to_pylist()
        if self._column == "meta":
            values = [json.loads(value) for value in values]
        found = [look_up(value, self._path) for value in values]
        if self._has_own:
            own = batch[DOMAIN_COLUMN].to_pylist()
            found = [other if domain is None else domain for domain, other in zip(found, own, strict=True)]
        return [NO_DOMAIN if domain is None else domain for domain in found]


class Beginnings:
    """The beginnings of some rows' texts, from the data set called `name`, or the one that the run found.

    `missing` says why there are none: the data set is gone, or has no texts. Raises LadmError for a data set that was
    given and cannot be read.
    """

    def __init__(self, run: Run, name: str | None) -> None:
        self.missing: str | None = None
        self._run = run
        self._rows: Rows | None = None
        place = name or run.identity.about.get("rows", "")
        try:
            rows = open_rows(str(place), limit=run.num_rows)
        except LadmError as error:
            if name is not None:
                raise
            self.missing = f"{error}; give --rows where they are now, for the texts"
            return
        if TEXT_COLUMN not in rows.column_names:
            self.missing = f"{rows.name} has no column {TEXT_COLUMN}, so no texts are shown"
            return
        self._rows = rows

    def of(self, documents: Sequence[RowLabel]) -> list[str]:
        """The first 2,000 characters of the texts of some rows, empty where there are none.

        Raises LadmError for other rows than the run's.
        """
        if self._rows is None:
            return [""] * len(documents)
        others = f"{self._rows.name} are not the rows of {self._run.folder}"
        if len(self._rows) != self._run.num_rows:
            raise LadmError(f"{others}: there are {len(self._rows):,}, not {self._run.num_rows:,}")
        lengths, texts = _read_beginnings(self._rows, [document.position for document in documents])
        for document, length in zip(documents, lengths, strict=True):
            # The digest of all rows would be certain and takes minutes; other rows are nearly always of another length.
            if length != document.num_tokens:
                raise LadmError(f"{others}: row {document.position} has another length")
        return texts

    def one_line(self, label: Label, *, most: int) -> str:
        """The first `most` characters of a text, as one line."""
        (text,) = self.of([label])
        return " ".join(text.split())[:most]

    def first_line(self, label: Label, *, most: int) -> str:
        """The first line of a text that is not blank, cut to `most` characters."""
        (text,) = self.of([label])
        lines = (line.strip() for line in text.splitlines())
        return next((line for line in lines if line), "")[:most]


def _read_beginnings(rows: Rows, positions: list[int]) -> tuple[list[int], list[str]]:
    """The number of tokens and the beginning of the text of the rows at some positions."""
    with reading_rows(rows.name):
        columns = CheckedColumns(rows.select(np.array(positions)), ["input_ids", TEXT_COLUMN])
        table = columns.table(slice(0, len(positions)))
        ids, texts = table["input_ids"].combine_chunks(), table[TEXT_COLUMN].combine_chunks()
        lengths = [0 if ids is None else len(ids) for ids in split_ids(ids)]
        # Cut inside Arrow: a text may be a book, and hundreds of them are read.
        if pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type):
            texts = pc.utf8_slice_codeunits(texts, 0, MOST_CHARACTERS)
        return lengths, [str(text or "")[:MOST_CHARACTERS] for text in texts.to_pylist()]
