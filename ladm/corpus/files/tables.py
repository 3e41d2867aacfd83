"""Tables -> one dictionary a row; a value that Python cannot hold costs that value alone. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_BUFFER_BYTES = 1 << 20
ClassNames = Mapping[str, Sequence[str]]
"""For each column that stores the number of a class, the names of the classes."""


def parquet_file(file: Any, *, is_remote: bool) -> pq.ParquetFile:
    """An open file as Parquet. Of one of this machine no more than a megabyte of each column is in memory at a time.

    Arrow would hold a row group, or all of them; what pandas writes is often one row group.
    """
    # Over a network a request for each megabyte would take longer than to fetch a row group at once.
    return pq.ParquetFile(file) if is_remote else pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)


def rows_of_table(table: pa.Table | pa.RecordBatch, class_names: ClassNames) -> list[dict[str, Any]]:
    """The rows of a table; a class label becomes its name, and of columns of one name the first counts."""
    columns: dict[str, list[Any]] = {}
    for number, name in enumerate(table.schema.names):
        if name in columns:
            continue
        values = column_values(table.column(number))
        names = class_names.get(name)
        if names is not None:
            values = [class_name(names, value) for value in values]
        columns[name] = values
    if not columns:
        # Of a table of images alone no column is read, and its rows are documents without a text.
        return [{} for _ in range(table.num_rows)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def class_name(names: Sequence[str], value: Any) -> Any:
    """The name of a class by its number; the value itself where it is no number of a class."""
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def class_names_of_schema(schema: pa.Schema) -> ClassNames:
    """The class labels that the metadata of a Parquet file by `datasets` names."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: kind["names"] for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def class_names_of_features(features: Any) -> ClassNames:
    """The class labels among the features of a data set, which may be None."""
    import datasets

    return {name: kind.names for name, kind in (features or {}).items() if isinstance(kind, datasets.ClassLabel)}


def holds_bytes(kind: pa.DataType) -> bool:
    """Are there bytes at any depth, as an Image or Audio column stores them?"""
    if isinstance(kind, pa.BaseExtensionType):
        # Stored as 16 bytes, but a name, which DuckDB and others write for documents.
        if kind.extension_name == "arrow.uuid":
            return False
        return holds_bytes(kind.storage_type)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    return any(holds_bytes(kind.field(k).type) for k in range(kind.num_fields))


def wanted_columns(schema: pa.Schema, text_key: str) -> list[str]:
    """All columns but those with bytes, of which only `meta` and the text's are read, and ids that are not carried."""
    needed = ("meta", text_key, text_key.split(".")[0])
    return [
        field.name
        for field in schema
        if field.name in needed or not (field.name == "input_ids" or holds_bytes(field.type))
    ]


def column_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The values of a column; one that Python cannot represent comes as text, or else as None."""
    try:
        return list(column.to_pylist())
    # Broken UTF-8, a time beyond the year 9999: then each value for itself.
    except (ValueError, OverflowError, pa.ArrowException):
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        pass
    if pa.types.is_string(scalar.type) or pa.types.is_large_string(scalar.type):
        # The broken bytes stay visible as lone surrogates, so that such a text is dropped with its reason.
        return scalar.as_buffer().to_pybytes().decode("utf-8", "surrogateescape")
    return str(scalar.value) if hasattr(scalar, "value") and isinstance(scalar.value, int) else None
