"""A column of rows, or a key inside one -> its numbers, which need neither the token ids nor the texts. No torch.

Shape suffix: T rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ladm.corpus.files.data_set import reading_rows
from ladm.corpus.files.meta import value_at
from ladm.corpus.rows.reading import Rows
from ladm.errors import LadmError, UsageError
from ladm.settings.expressions import spell_column
from ladm.settings.fields import nearest
from ladm.settings.joins import ROWS

Floats = npt.NDArray[np.float64]

LONGEST_NUMBER = 64
"""Bytes of a text that may be a number; longer ones, such as documents, are not read."""


class NoNumbersError(LadmError):
    """The column `key` of the rows has no number."""

    def __init__(self, message: str, *, key: str) -> None:
        super().__init__(message)
        self.key = key


def require_column(rows: Rows, key: str) -> None:
    """Raise UsageError unless `key` is a column that may hold numbers, or leads into one that may have keys."""
    _place(rows, key)


def read_numbers(rows: Rows, key: str) -> Floats:
    """The numbers of a column, or of a key inside one such as `meta.quality`: (T,).

    NaN where a row has none: nothing, a list, or a text that is no number; true is 1 and false 0. Objects may be JSON
    text. Memory: 8 bytes a row, and a batch of that column.
    Raises UsageError where there is no such column, or one of lists; NoNumbersError where no row has a number.
    """
    column, path = _place(rows, key)
    values_T = np.empty(len(rows))
    for start, stop in rows.batches():
        with reading_rows(rows.name):
            values_T[start:stop] = _numbers(rows, column, path, start, stop)
    values_T[~np.isfinite(values_T)] = np.nan
    if np.isnan(values_T).all():
        raise NoNumbersError(f"no row of {rows.name} has a number in {key}", key=key)
    return values_T


def number_names(rows: Rows) -> list[str]:
    """The columns of numbers, and the keys with numbers inside others; texts and JSON may hold numbers too."""
    return [name for column in rows.column_names for name in _named(rows.type_of(column), column) if name]


def is_float32(rows: Rows, key: str) -> bool:
    """Are the numbers stored in float32?"""
    return bool(pa.types.is_float32(kind_at(rows, *_place(rows, key))))


def find_place(rows: Rows, key: str) -> tuple[str, str] | None:
    """The column that a key is in, and its path inside that column; None without such a column."""
    # A column's own name may have dots.
    names = [name for name in rows.column_names if key == name or key.startswith(f"{name}.")]
    column = max(names, key=len, default=None)
    return None if column is None else (column, key[len(column) + 1 :])


def kind_at(rows: Rows, column: str, path: str) -> pa.DataType:
    """The Arrow type of a column or of a field inside it; null for class labels and what is inside of JSON text."""
    kind = rows.type_of(column)
    for part in path.split(".") if path else ():
        place = kind.get_field_index(part) if pa.types.is_struct(kind) else -1
        kind = kind.field(place).type if place >= 0 else pa.null()
    return kind


def is_number(kind: pa.DataType) -> bool:
    """Are these numbers? True and false are, as 1 and 0."""
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def values_at(rows: Rows, column: str, path: str, start: int, stop: int) -> Iterator[Any]:
    """The values of rows `start` to `stop - 1` as Python objects; a column with a path inside may be JSON text."""
    for value in rows.column(column, start, stop):
        yield value_at(_parsed(value), path) if path else value


def stored_at(rows: Rows, column: str, path: str, start: int, stop: int) -> pa.ChunkedArray:
    """The values of rows `start` to `stop - 1` as they are stored, in a column or in a field inside one."""
    values = rows.stored(column, start, stop)
    with reading_rows(rows.name):
        return pc.struct_field(values, path.split(".")) if path else values


def _place(rows: Rows, key: str) -> tuple[str, str]:
    found = find_place(rows, key)
    if found is None:
        known = number_names(rows)
        hint = _minus_hint(key, known) or nearest(key, known) or f"; it has numbers in {', '.join(known) or 'none'}"
        raise UsageError(f"{rows.name} has no column {key}{hint}")
    column = found[0]
    kind = rows.type_of(column)
    if key == column and (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        what = "objects; give a key inside, such as" if pa.types.is_struct(kind) else "no numbers, but"
        shown = f"{column}.NAME" if pa.types.is_struct(kind) else f"{kind}"
        raise UsageError(f"{column} of {rows.name} holds {what} {shown}")
    return found


def _minus_hint(key: str, known: Iterable[str]) -> str:
    """A hint where an expression such as `rows.language-score` was read as a difference; else no text."""
    found = next((name for name in known if name.startswith(f"{key}-")), None) if key else None
    return "" if found is None else f"; in an expression, the column {found} is {spell_column(f'{ROWS}.{found}')}"


def _numbers(rows: Rows, column: str, path: str, start: int, stop: int) -> Any:
    kind = rows.type_of(column)
    if not path and is_number(kind):
        return rows.stored(column, start, stop).cast(pa.float64(), safe=False).to_numpy()
    if not path and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        texts = rows.stored(column, start, stop)
        # A document is no number, and ten thousand of them are a gigabyte.
        is_short = pc.less_equal(pc.binary_length(texts), LONGEST_NUMBER)
        return list(map(_number, pc.if_else(is_short, texts, None).to_pylist()))
    return list(map(_number, values_at(rows, column, path, start, stop)))


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _named(kind: pa.DataType, name: str) -> Iterator[str]:
    if is_number(kind):
        yield name
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _named(field.type, f"{name}.{field.name}")
