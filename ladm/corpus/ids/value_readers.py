"""A file with ids and numbers -> its ids and some of its columns, a batch at a time: JSONL, CSV and Parquet. No torch.

Shape suffix: B rows of the file, a batch of them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ladm.corpus.files.meta import is_missing
from ladm.corpus.files.tables import class_names_of_schema
from ladm.corpus.ids.files import id_texts, shown_id
from ladm.corpus.ids.readers import (
    ID,
    Place,
    csv_batches,
    csv_column,
    json_batches,
    named_values,
    parquet_batches,
    parquet_schema,
    require_id_column,
    table_kind,
)
from ladm.corpus.rows.number_columns import is_number
from ladm.errors import UsageError, printable

Floats = npt.NDArray[np.float64]
_SUFFIXES = ".jsonl, .csv (also .gz, .zst) or .parquet"
_WORDS = {"true": 1.0, "false": 0.0}
"""How pandas and others write booleans as text."""


@dataclass(frozen=True, kw_only=True)
class ValueBatch:
    """Some rows of a file."""

    ids: list[str]
    values: dict[str, Floats]
    """(B,) by column; NaN where a row has no number, or one that is not finite."""
    place: Place


def read_values(name: str, keys: Sequence[str]) -> Iterator[ValueBatch]:
    """The ids and the columns `keys` of a file.

    Raises UsageError for a file of another kind, without a column that is needed, with two of that name, with a row
    without an id, and for a value that is no number; StorageError for a damaged file.
    """
    for ids, columns, place in _READERS[_kind(name)](name, keys):
        values = {key: _numbers(column, key, place) for key, column in columns.items()}
        for column in values.values():
            column[~np.isfinite(column)] = np.nan
        yield ValueBatch(ids=id_texts(ids, place), values=values, place=place)


def require_columns(name: str, keys: Iterable[str]) -> None:
    """Raise UsageError for a column that the file does not have, without reading its rows.

    What columns a JSONL file has is known at its end; `read_values` looks for them.
    """
    if _kind(name) != "json":
        # A column that is missing is an error before the first batch.
        next(_READERS[_kind(name)](name, list(keys)), None)


def number_columns(name: str) -> list[str]:
    """The columns in which the first rows of the file have numbers and nothing else."""
    names = _column_names(name)
    keys = [key for key in names if key != ID and names.count(key) == 1]
    if not keys or _kind(name) == "parquet":
        # Column by column, because a reader refuses one that holds no numbers.
        return [key for key in keys if _has_numbers(name, key)]
    with contextlib.suppress(UsageError):
        for _, columns, place in _READERS[_kind(name)](name, keys):
            return [key for key in keys if _are_numbers(columns[key], key, place)]
    return []


def is_float32(name: str, key: str) -> bool:
    """Does the file store the numbers of that column in float32?"""
    return _kind(name) == "parquet" and bool(pa.types.is_float32(parquet_schema(name).field(key).type))


def _column_names(name: str) -> list[str]:
    """The names of all columns; of a JSONL file those in its first rows."""
    kind = _kind(name)
    if kind == "parquet":
        return list(parquet_schema(name).names)
    if kind == "json":
        first = next(json_batches(name), None)
        return list(dict.fromkeys(key for line in first[0] if isinstance(line, dict) for key in line)) if first else []
    found: list[str] = []

    def choose(names: list[str]) -> list[int]:
        found.extend(names)
        return []

    next(csv_batches(name, choose), None)
    return found


def _kind(name: str) -> str:
    kind = table_kind(name)
    if kind not in _READERS:
        raise UsageError(f"the name of a file of values must end in {_SUFFIXES}")
    return str(kind)


def _has_numbers(name: str, key: str) -> bool:
    with contextlib.suppress(UsageError):
        return any(not np.isnan(batch.values[key]).all() for batch in islice(read_values(name, [key]), 1))
    return False


def _are_numbers(values: Any, key: str, place: Place) -> bool:
    with contextlib.suppress(UsageError):
        return bool(np.isfinite(_numbers(values, key, place)).any())
    return False


_Columns = Iterator[tuple[Sequence[Any], Mapping[str, Any], Place]]
"""Ids, and by column its values: a list, or an array of Arrow of numbers."""


def _of_json(name: str, keys: Sequence[str]) -> _Columns:
    known: dict[str, None] = {}
    missing = set(keys)
    for lines, place in json_batches(name):
        for k, line in enumerate(lines):
            if not isinstance(line, dict):
                raise UsageError(f'{place(k)} is not an object such as {{"{ID}": "d17", {_quoted(keys[0])}: 0.5}}')
            if missing:
                known |= dict.fromkeys(line)
        missing -= known.keys()
        yield [line.get(ID) for line in lines], {key: [line.get(key) for line in lines] for key in keys}, place
    # A file without any row has a message of its own.
    if known:
        _choose(keys, list(known))


def _of_csv(name: str, keys: Sequence[str]) -> _Columns:
    def choose(names: list[str]) -> list[int]:
        return [csv_column(names), *map(names.index, _choose(keys, names))]

    for (ids, *columns), place in csv_batches(name, choose):
        yield ids, dict(zip(keys, columns, strict=True)), place


def _of_parquet(name: str, keys: Sequence[str]) -> _Columns:
    def choose(schema: pa.Schema) -> list[str]:
        if ID not in schema.names:
            found = printable(", ".join(schema.names)) or "none"
            raise UsageError(f"it has no column {ID} (it has {found}); rename the column that holds the ids to {ID}")
        require_id_column(schema, ID)
        for key in _choose(keys, schema.names):
            _require_number_type(key, schema.field(key).type)
        return [ID, *keys]

    for batch, place in parquet_batches(name, choose):
        labels = class_names_of_schema(batch.schema)
        columns = {}
        for key in keys:
            column = batch.column(batch.schema.get_field_index(key))
            columns[key] = column if is_number(column.type) and key not in labels else named_values(batch, key)
        yield named_values(batch, ID), columns, place


_READERS = {"json": _of_json, "csv": _of_csv, "parquet": _of_parquet}


def _choose(keys: Sequence[str], names: Sequence[str]) -> Sequence[str]:
    """The keys. Raises UsageError for one that is none of the names of columns, or two of them."""
    for key in keys:
        if key == ID or key not in names:
            known = printable(", ".join(name for name in names if name != ID)) or f"none but {ID}"
            raise UsageError(f"it has no column of values {printable(key)}; its columns are {known}")
        if names.count(key) > 1:
            raise UsageError(f"it has {names.count(key)} columns {printable(key)}; keep one of them")
    return keys


def _require_number_type(key: str, kind: pa.DataType) -> None:
    stored = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (is_number, pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    if not any(test(stored) for test in tests):
        raise UsageError(
            f"its column {printable(key)} is of the type {kind}; values are numbers, so store them as such"
        )


def _numbers(values: Any, key: str, place: Place) -> Floats:
    if isinstance(values, pa.Array):
        # A copy, because what Arrow gives may be read-only.
        return np.array(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    found = [_number(value) for value in values]
    if None in found:
        k = found.index(None)
        shown = shown_id(values[k] if isinstance(values[k], str) else _quoted(values[k]))
        raise UsageError(
            f"{place(k)} has {shown} in {printable(key)}, which is no number; leave out the value of a document that "
            "has none"
        )
    return np.array(found, dtype=np.float64)


def _number(value: Any) -> float | None:
    """NaN for no value; None for what is neither that nor a number."""
    if isinstance(value, str):
        text = value.strip().lower()
        if not text or text in _WORDS:
            return _WORDS.get(text, float("nan"))
        # What separates thousands in a number of Python's may be a mistake here.
        if "_" in text:
            return None
    elif is_missing(value):
        return float("nan")
    elif not isinstance(value, (bool, int, float, Decimal)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
