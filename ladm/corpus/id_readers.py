"""A file -> the values of its ids, some at a time, and the place of each: text, JSONL, CSV and Parquet. No torch."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from ladm.corpus.compressed_files import MOST_DOCUMENT_BYTES, bounded_lines, unpacked
from ladm.corpus.file_names import kind_of, without_packing
from ladm.corpus.file_opening import open_bytes
from ladm.corpus.tables import class_name, class_names_of_schema, column_values, parquet_file
from ladm.corpus.utf8 import utf8_text
from ladm.errors import StorageError, UsageError, count_of, printable

ID = "id"
BATCH_IDS = 8_192
Batches = Iterator[tuple[Sequence[Any], Callable[[int], str]]]
"""Some values, and what says where in the file the k-th of them is, as `line 7`."""
_SUFFIXES = ".txt, .jsonl, .csv (also .gz, .zst) or .parquet"


def values_of_file(name: str) -> Batches:
    """The values of a file. Raises UsageError for one of another kind, or without a column of ids."""
    readers: dict[str, Callable[[str], Batches]] = {
        "csv": _of_csv, "json": _of_json, "parquet": _of_parquet, "text": _of_text,
    }  # fmt: skip
    kind = "csv" if without_packing(name).endswith(".csv") else kind_of(name)
    if kind is None:
        raise UsageError(f"the name of a file of ids must end in {_SUFFIXES}")
    return readers[kind](name)


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
        yield lines, _place("line", numbers)


def _of_json(name: str) -> Batches:
    for numbers, lines in _lines(name):
        values = []
        for number, line in zip(numbers, lines, strict=True):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                raise StorageError(f"cannot read {name}: line {number} is not JSON") from None
            values.append(value.get(ID) if isinstance(value, dict) else value)
        yield values, _place("line", numbers)


def _of_csv(name: str) -> Batches:
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
        column = _csv_column(names)
        while batch := [(records.line_num, each) for each in islice(records, BATCH_IDS)]:
            filled = [(number, each) for number, each in batch if each]
            for number, each in filled:
                if len(each) != len(names):
                    problem = f"line {number} ends a record of {count_of(len(each), 'value')}, not {len(names)}"
                    raise StorageError(f"cannot read {name}: {problem} as in the first line")
            yield [each[column] for _, each in filled], _place("line", [number for number, _ in filled])


def _csv_column(names: list[str]) -> int:
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
    with open_bytes(name) as file:
        table = parquet_file(file, is_remote=False)
        names = table.schema_arrow.names
        if names.count(ID) > 1:
            raise UsageError(f"it has {names.count(ID)} columns {ID}; keep one of them")
        if ID not in names and len(names) != 1:
            raise UsageError(
                f"it has no column {ID} (it has {', '.join(names) or 'none'}); call the column of ids {ID}, or give a "
                "file with that column alone"
            )
        column = ID if ID in names else names[0]
        labels = class_names_of_schema(table.schema_arrow).get(column)
        if labels is None:
            require_id_type(table.schema_arrow.field(column).type)
        first = 0
        for batch in table.iter_batches(batch_size=BATCH_IDS, columns=[column]):
            values = column_values(batch.column(0))
            values = values if labels is None else [class_name(labels, value) for value in values]
            yield values, _place("row", range(first, first + len(values)))
            first += len(values)


def _place(word: str, numbers: Sequence[int]) -> Callable[[int], str]:
    return lambda k: f"{word} {numbers[k]}"
