"""A file -> the values of its ids, some at a time, and the place of each: text, JSONL, CSV and Parquet. No torch.

`csv_batches`, `json_batches` and `parquet_batches` also read the other columns of such a file, for `value_readers`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal

import pyarrow as pa

from ladm.corpus.files.compressed import MOST_DOCUMENT_BYTES, bounded_lines, unpacked
from ladm.corpus.files.names import kind_of, without_packing
from ladm.corpus.files.opening import open_bytes
from ladm.corpus.files.tables import class_name, class_names_of_schema, column_values, parquet_file
from ladm.corpus.files.utf8 import utf8_text
from ladm.errors import StorageError, UsageError, count_of, printable

ID = "id"
BATCH_IDS = 8_192
Place = Callable[[int], str]
"""What says where in the file the k-th of some values is, as `line 7`."""
Batches = Iterator[tuple[Sequence[Any], Place]]
"""Some values, and their places."""
_SUFFIXES = ".txt, .jsonl, .csv (also .gz, .zst) or .parquet"


def values_of_file(name: str) -> Batches:
    """The values of a file. Raises UsageError for one of another kind, or without a column of ids."""
    readers: dict[str, Callable[[str], Batches]] = {
        "csv": _of_csv, "json": _of_json, "parquet": _of_parquet, "text": _of_text,
    }  # fmt: skip
    kind = table_kind(name)
    if kind is None:
        raise UsageError(f"the name of a file of ids must end in {_SUFFIXES}")
    return readers[kind](name)


def table_kind(name: str) -> Literal["csv", "json", "parquet", "text"] | None:
    """The kind of a file of ids, as its name says; None: none that is read."""
    return "csv" if without_packing(name).endswith(".csv") else kind_of(name)


def require_id_type(kind: pa.DataType) -> None:
    """Raise UsageError for a column of Arrow whose values cannot be ids, such as one of lists."""
    stored = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_uuid = isinstance(stored, pa.BaseExtensionType) and stored.extension_name == "arrow.uuid"
    tests = (
        pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer,
        pa.types.is_floating, pa.types.is_decimal, pa.types.is_null,
    )  # fmt: skip
    if not is_uuid and not any(test(stored) for test in tests):
        raise UsageError(f"its ids are of the type {kind}; ids are texts or whole numbers, so store them as texts")


def _of_text(name: str) -> Batches:
    for numbers, lines in _lines(name):
        yield lines, places("line", numbers)


def _of_json(name: str) -> Batches:
    for values, place in json_batches(name):
        yield [value.get(ID) if isinstance(value, dict) else value for value in values], place


def json_batches(name: str) -> Batches:
    """The values of the lines of a JSONL file. Raises StorageError for a line that is not JSON."""
    for numbers, lines in _lines(name):
        values = []
        for number, line in zip(numbers, lines, strict=True):
            try:
                values.append(json.loads(line))
            except (ValueError, RecursionError):
                raise StorageError(f"cannot read {name}: line {number} is not JSON") from None
        yield values, places("line", numbers)


def _of_csv(name: str) -> Batches:
    for (ids,), place in csv_batches(name, lambda names: [csv_column(names)]):
        yield ids, place


def csv_batches(name: str, choose: Callable[[list[str]], list[int]]) -> Iterator[tuple[list[list[str]], Place]]:
    """The values of some columns of a CSV file, column by column. `choose`: names in the first line -> their numbers.

    Raises what `choose` raises, and StorageError for a record of another number of values than the first line.
    """
    # Never lowered: the limit is one for the whole process. By default a text of 131,073 characters is an error.
    csv.field_size_limit(max(csv.field_size_limit(), MOST_DOCUMENT_BYTES))
    with open(name, "rb") as packed:
        numbered = enumerate(bounded_lines(unpacked(packed)), 1)
        lines = (_decoded(name, number, line) for number, line in numbered)
        # Strict: a quote without an end would hide all lines behind it.
        records = csv.reader(lines, strict=True)
        names = [each.strip() for each in next(filter(None, records), [])]
        if not names:
            return
        columns = choose(names)
        while batch := [(records.line_num, each) for each in islice(records, BATCH_IDS)]:
            filled = [(number, each) for number, each in batch if each]
            for number, each in filled:
                if len(each) != len(names):
                    problem = f"line {number} ends a record of {count_of(len(each), 'value')}, not {len(names)}"
                    raise StorageError(f"cannot read {name}: {problem} as in the first line")
            found = [[each[column] for _, each in filled] for column in columns]
            yield found, places("line", [number for number, _ in filled])


def csv_column(names: list[str]) -> int:
    """The number of the column of ids. Raises UsageError where there is none."""
    if names.count(ID) == 1:
        return names.index(ID)
    if ID in names:
        raise UsageError(f"its first line names {names.count(ID)} columns {ID}; keep one of them")
    found = printable(", ".join(names))
    remedy = f"rename the column that holds the ids to {ID}"
    if len(names) == 1:
        # Its first line may as well be an id, which must not be lost.
        remedy += f", or if {found} is an id, let the name of the file end in .txt"
    raise UsageError(f"its first line names no column {ID} (it has {found}); {remedy}")


def _lines(name: str) -> Iterator[tuple[list[int], list[str]]]:
    """The lines that are not blank, without the spaces at their ends, and their numbers from 1: some at a time."""
    # Not by fsspec: a file of this machine, whose lines Python finds five times faster.
    with open(name, "rb") as packed:
        numbered = enumerate(bounded_lines(unpacked(packed)), 1)
        while batch := list(islice(numbered, BATCH_IDS)):
            found = [(number, text) for number, line in batch if (text := _decoded(name, number, line).strip())]
            if found:
                yield [number for number, _ in found], [text for _, text in found]


def _decoded(name: str, number: int, line: bytes) -> str:
    # Only the first line may begin with a mark, and only a broken one needs a message.
    return line.decode() if number > 1 and line.isascii() else utf8_text(name, line)


def _of_parquet(name: str) -> Batches:
    for batch, place in parquet_batches(name, _id_columns):
        yield named_values(batch, batch.schema.names[0]), place


def parquet_batches(name: str, choose: Callable[[pa.Schema], list[str]]) -> Iterator[tuple[pa.RecordBatch, Place]]:
    """Some columns of a Parquet file. `choose`: the schema -> their names; raises what it raises."""
    with open_bytes(name) as file:
        table = parquet_file(file, is_remote=False)
        first = 0
        schema = table.schema_arrow
        for batch in table.iter_batches(batch_size=BATCH_IDS, columns=choose(schema)):
            yield batch.replace_schema_metadata(schema.metadata), places("row", range(first, first + len(batch)))
            first += len(batch)


def parquet_schema(name: str) -> pa.Schema:
    """The columns of a Parquet file and their types."""
    with open_bytes(name) as file:
        return parquet_file(file, is_remote=False).schema_arrow


def _id_columns(schema: pa.Schema) -> list[str]:
    """The column of ids, or the only column. Raises UsageError for neither."""
    names = schema.names
    if ID not in names and len(names) != 1:
        raise UsageError(
            f"it has no column {ID} (it has {', '.join(names) or 'none'}); call the column of ids {ID}, or give a "
            "file with that column alone"
        )
    column = ID if ID in names else names[0]
    require_id_column(schema, column)
    return [column]


def require_id_column(schema: pa.Schema, column: str) -> None:
    """Raise UsageError for several columns of that name, and for one whose values cannot be ids."""
    if schema.names.count(column) > 1:
        raise UsageError(f"it has {schema.names.count(column)} columns {column}; keep one of them")
    if column not in class_names_of_schema(schema):
        require_id_type(schema.field(column).type)


def named_values(batch: pa.RecordBatch, column: str) -> list[Any]:
    """The values of a column, of class labels the names."""
    values = column_values(batch.column(batch.schema.get_field_index(column)))
    labels = class_names_of_schema(batch.schema).get(column)
    return values if labels is None else [class_name(labels, value) for value in values]


def places(word: str, numbers: Sequence[int]) -> Place:
    """The places of values by their numbers, such as `line 7`."""
    return lambda k: f"{word} {numbers[k]}"
