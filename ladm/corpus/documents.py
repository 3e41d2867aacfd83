"""A source -> its documents, in order: JSONL (.gz, .zst), Parquet, text, a data set, a Hub id.

Every path may be anything fsspec opens. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from ladm.corpus.data_set import load_train_split
from ladm.corpus.packed import open_unpacked
from ladm.corpus.sources import Source
from ladm.corpus.tables import class_names_of_schema, holds_bytes, rows_of_table
from ladm.errors import LadmError, StorageError, one_line

_BATCH_ROWS = 256
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Document:
    """A record of a source, and where it is. `fields` is None for a line that is not a JSON object.

    `number` counts all documents of all sources, from 0, whatever becomes of them.
    """

    where: str
    fields: dict[str, Any] | None
    number: int = 0


def read_documents(source: Source, *, text_key: str, skip: int = 0) -> Iterator[Document]:
    """The documents of a source, in its order, without the first `skip`, which are not parsed.

    A text file is one document, whose text is under `text_key`. Of tables, columns with bytes (images, sound) are not
    read, unless they hold the text or are `meta`. Raises StorageError for a file that cannot be read to its end.
    """
    try:
        if source.kind == "json":
            yield from _json(source.name, skip)
        elif source.kind == "parquet":
            yield from _parquet(source.name, text_key, skip)
        elif source.kind == "dataset":
            yield from _dataset(source.name, text_key, skip)
        elif skip == 0:
            with open_unpacked(source.name) as file:
                yield Document(source.name, _nested(text_key, file.read().decode("utf-8")))
    except LadmError:
        raise
    except Exception as error:
        # Each of gzip, zstandard, Arrow and the file systems behind fsspec raises exceptions of its own.
        raise StorageError(f"cannot read {source.name}: {one_line(error)}") from None


def require_whole(source: Source, *, text_key: str) -> None:
    """Read a file that can be torn to its end. Raises StorageError where that fails.

    A plain JSONL file is not read: a torn one has a torn last line, which is dropped with its reason.
    """
    if source.kind in ("parquet", "text"):
        for _ in read_documents(source, text_key=text_key):
            pass
    elif source.kind == "json" and source.is_packed:
        try:
            with open_unpacked(source.name) as file:
                while file.read(_CHUNK):
                    pass
        except Exception as error:
            raise StorageError(f"cannot read {source.name}: {one_line(error)}") from None


def value_at(fields: Any, key: str) -> Any:
    """What a key such as `meta.title` leads to, or None; `meta.title` may also be the name of a column itself."""
    if not isinstance(fields, dict):
        return None
    if key in fields:
        return fields[key]
    head, _, rest = key.partition(".")
    while rest:
        found = value_at(fields.get(head), rest)
        if found is not None:
            return found
        more, _, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def _nested(key: str, value: str) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}  # type: ignore[assignment]
    return value  # type: ignore[return-value]


def _json(name: str, skip: int) -> Iterator[Document]:
    with open_unpacked(name) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if skip:
                skip -= 1
            else:
                yield Document(f"{name} line {number}", _json_object(line))


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(line)
    # Objects nested thousands deep are a line's own fault too.
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _parquet(name: str, text_key: str, skip: int) -> Iterator[Document]:
    with fsspec.open(name, "rb") as file:
        table = pq.ParquetFile(file)
        schema = table.schema_arrow
        wanted = _wanted(schema, text_key)
        labels = class_names_of_schema(schema)
        groups, number = _row_groups_from(table.metadata, skip)
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups, columns=wanted):
            before = min(max(skip - number, 0), len(batch))
            number += before
            for fields in rows_of_table(batch.slice(before), labels):
                yield Document(f"{name} row {number}", fields)
                number += 1


def _row_groups_from(metadata: pq.FileMetaData, row: int) -> tuple[list[int], int]:
    """The row groups from the one with that row on, and the number of the first row in them."""
    first = 0
    for group in range(metadata.num_row_groups):
        after = first + metadata.row_group(group).num_rows
        if row < after:
            return list(range(group, metadata.num_row_groups)), first
        first = after
    return [], first


def _wanted(schema: pa.Schema, text_key: str) -> list[str]:
    """All columns but those with bytes, of which only `meta` and the text's are read."""
    needed = ("meta", text_key, text_key.split(".")[0])
    return [field.name for field in schema if field.name in needed or not holds_bytes(field.type)]


def _dataset(name: str, text_key: str, skip: int) -> Iterator[Document]:
    import datasets

    dataset = load_train_split(name).with_format("arrow")
    wanted = _wanted(dataset.features.arrow_schema, text_key)
    labels = {
        name: feature.names for name, feature in dataset.features.items() if isinstance(feature, datasets.ClassLabel)
    }
    if skip >= len(dataset):
        return
    number = skip
    for batch in dataset.select_columns(wanted).select(range(skip, len(dataset))).iter(batch_size=_BATCH_ROWS):
        for fields in rows_of_table(batch, labels):
            yield Document(f"{name} row {number}", fields)
            number += 1
