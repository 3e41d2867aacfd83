"""Rows of a run -> what a person recognises them by: domain and id. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ladm.corpus.files.meta import look_up
from ladm.errors import UsageError
from ladm.runs.folder import Run
from ladm.runs.results import columns_of, score_batches
from ladm.settings.common import DOMAIN_COLUMN, DOMAIN_KEY, NO_DOMAINS, ONE_DOMAIN

NO_DOMAIN = "(none)"
ID_COLUMNS = ("id", "index", "chunked_index")
"""What `label_id` makes a row's name from."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a document is called: `row_id` as in `label_id`, `name` as in `shown_name`."""

    position: int
    domain: str
    row_id: str
    name: str
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
    names = [name for name in (*ID_COLUMNS, "source") if name in present]
    # All batches are read for a few rows, because the file is in the order of the scores and has no index.
    wanted = pa.array(sorted(positions), pa.int64())
    found: dict[int, Label] = {}
    for whole in score_batches(run.folder, sorted({"position", "num_tokens", *names, *reader.columns})):
        batch = whole.filter(pc.is_in(whole["position"], value_set=wanted))
        rows = batch.select(["position", "num_tokens", *names]).to_pylist()
        for row, domain in zip(rows, reader.read(batch), strict=True):
            position = row["position"]
            found[position] = Label(
                position=position, domain=domain, row_id=label_id(row, position), name=shown_name(row, position),
                num_tokens=row["num_tokens"],
            )  # fmt: skip
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


def shown_name(named: Mapping[str, Any], position: int) -> str:
    """What a list shows of a document: its own id; or its index, with the file and line that it is from."""
    name, source = label_id(named, position), named.get("source")
    if named.get("id") is not None or not source:
        return name
    # Text files have no ids, and a number alone does not show which file it is. Nor does the name of the file alone:
    # another folder may have a file of that name, and rows of other origin may call anything their source.
    return f"{name} {source.rsplit('/', 1)[-1]}"


class DomainReader:
    """Reads the domain of rows from their `meta`, or from a column that the run repeats.

    `columns` are those that `read` needs in a batch, `domain` the domain of rows without one. Raises UsageError for a
    key in any other column.
    """

    def __init__(self, run: Run, domain_key: str, *, domain: str = NO_DOMAIN) -> None:
        self._domain = domain
        column, *self._path = domain_key.split(".")
        self.columns: list[str] = []
        self._is_one = domain_key == NO_DOMAINS
        if self._is_one:
            return
        if column not in columns_of(run.folder):
            raise UsageError(
                f"--domain-key {domain_key}: {run.folder} stores only meta, id, domain and source of the rows; give "
                f"one of them, or {NO_DOMAINS}"
            )
        self.columns = [column]
        self._column = column
        # As in `corpus.rows.domains`: rows that ladm did not prepare may have a plain column of that name.
        self._has_own = domain_key == DOMAIN_KEY and DOMAIN_COLUMN in columns_of(run.folder)
        self.columns += [DOMAIN_COLUMN] if self._has_own else []

    def read(self, batch: pa.RecordBatch) -> list[str]:
        """The domain of every row of a batch of `scores.parquet`."""
        if self._is_one:
            return [ONE_DOMAIN] * len(batch)
        values = batch[self._column].to_pylist()
        if self._column == "meta":
            values = [json.loads(value) for value in values]
        found = [look_up(value, self._path) for value in values]
        if self._has_own:
            own = batch[DOMAIN_COLUMN].to_pylist()
            found = [other if domain is None else domain for domain, other in zip(found, own, strict=True)]
        return [self._domain if domain is None else domain for domain in found]
