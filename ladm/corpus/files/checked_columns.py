"""Columns of a data set -> their values, checked before any of them is touched. Imports no torch.

Where a text or a list begins and ends is a number in the file. Arrow trusts these numbers: with one flipped bit, it
reads memory that is not the file's, and the process dies without a word.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa


class CheckedColumns:
    """Some columns of a `datasets.Dataset`."""

    def __init__(self, dataset: Any, names: Sequence[str]) -> None:
        self._dataset, self._columns = dataset, list(names)

    # Each is made when it is first read: for each choice and each format `datasets` copies the description of all
    # columns, which takes longer than reading a few rows.
    @cached_property
    def _chosen(self) -> Any:
        return self._dataset.select_columns(self._columns)

    @cached_property
    def _tables(self) -> Any:
        return _formatted(self._chosen, "arrow")

    @cached_property
    def _values(self) -> Any:
        return _formatted(self._chosen, None)

    def table(self, rows: slice | list[int]) -> pa.Table:
        """The columns of some rows as they are stored. Raises pyarrow.ArrowInvalid for damaged ones."""
        return checked(self._tables[rows])

    def values(self, rows: slice) -> dict[str, list[Any]]:
        """The same as Python objects, by column."""
        self.table(rows)
        found: dict[str, list[Any]] = self._values[rows]
        return found


def _formatted(dataset: Any, kind: str | None) -> Any:
    # `with_format` copies the description of all columns, which the two can share: nobody changes it.
    formatted = copy.copy(dataset)
    formatted.set_format(kind)
    return formatted


def checked(table: pa.Table) -> pa.Table:
    """The table. Raises pyarrow.ArrowInvalid where a text or a list of it is not inside of it."""
    # One call for all chunks, of which there may be as many as rows.
    with contextlib.suppress(pa.ArrowInvalid):
        table.validate(full=True)
        return table
    for column in table.columns:
        for chunk in column.chunks:
            stored = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
            # As bytes: texts that are no UTF-8 are for whoever reads them, who may leave out that document alone.
            stored.view(_as_bytes(stored.type)).validate(full=True)
    return table


def _as_bytes(kind: pa.DataType) -> pa.DataType:
    """The type with bytes in place of texts, at any depth of lists and structs."""
    if pa.types.is_string(kind):
        return pa.binary()
    if pa.types.is_large_string(kind):
        return pa.large_binary()
    if pa.types.is_list(kind):
        return pa.list_(_field_as_bytes(kind.value_field))
    if pa.types.is_large_list(kind):
        return pa.large_list(_field_as_bytes(kind.value_field))
    if pa.types.is_struct(kind):
        return pa.struct([_field_as_bytes(kind.field(k)) for k in range(kind.num_fields)])
    return kind


def _field_as_bytes(field: pa.Field) -> pa.Field:
    return field.with_type(_as_bytes(field.type))
