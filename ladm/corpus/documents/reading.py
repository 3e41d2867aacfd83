"""A source -> its documents, in order: JSONL (.gz, .zst), Parquet, text, a data set, a Hub id, Python objects.

Every path may be anything fsspec opens. Imports no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import islice, repeat
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ladm.corpus.documents.sources import Source
from ladm.corpus.files.checked_columns import checked
from ladm.corpus.files.compressed import cut_lines, is_too_long, open_unpacked, read_bounded
from ladm.corpus.files.data_set import load_split
from ladm.corpus.files.hub import open_stream
from ladm.corpus.files.names import partition_of
from ladm.corpus.files.opening import open_bytes
from ladm.corpus.files.saved_shards import load_whole_shards
from ladm.corpus.files.tables import (
    ClassNames,
    class_names_of_features,
    class_names_of_schema,
    parquet_file,
    rows_of_table,
    wanted_columns,
)
from ladm.corpus.files.utf8 import utf8_text
from ladm.errors import LadmError, StorageError, is_out_of_memory, reading_problem

_BATCH_ROWS = 256


@dataclass(frozen=True)
class Document:
    """A record of a source, and where it is. `fields` is None for a line that is not a JSON object.

    `number` counts all documents of all sources, from 0, whatever becomes of them.
    """

    where: str
    fields: dict[str, Any] | None
    number: int = 0
    is_short: bool = False
    """Is it known to be too short from its count of tokens? Then `fields` has no text."""
    is_long_line: bool = False
    """Is it a line longer than a document may be? It is not parsed."""


@dataclass(frozen=True, kw_only=True)
class ShortRule:
    """Documents of Parquet whose column `key`, a count of tokens, is below `length`: their texts are not read."""

    key: str
    length: int


class DamagedFileError(StorageError):
    """A file whose content is damaged, as opposed to one that could not be reached."""


def read_documents(
    source: Source,
    *,
    text_key: str,
    skip: int = 0,
    short: ShortRule | None = None,
    left_out: Collection[str] = (),
) -> Iterator[Document]:
    """The documents of a source, in its order, without the first `skip`, which are not parsed.

    Of Parquet, texts of documents that are `short` are not read; they come as documents that say so. A text file is one
    document, whose text is under `text_key`. What the name of a folder holds, such as `lang=en`, is a field of each
    document. Of tables, columns with bytes (images, sound) are not read, unless they hold the text or are `meta`. Of a
    saved data set, torn shards and those that are `left_out` are not read.
    Raises StorageError for a file that cannot be read to its end, DamagedFileError where its content is the reason.
    """
    if source.documents is not None:
        # What a program's own iterator raises is for the program.
        yield from _in_memory(source, source.documents.records(text_key=text_key, skip=skip), skip)
        return
    try:
        if source.kind == "dataset":
            yield from _dataset(source, text_key, skip, left_out)
        elif source.lines is None and (partition := partition_of(source.name)):
            yield from _with_fields(_of_file(source, text_key, skip, short), partition)
        else:
            yield from _of_file(source, text_key, skip, short)
    except LadmError:
        raise
    except Exception as error:
        # Each of gzip, zstandard, Arrow and the file systems behind fsspec raises exceptions of its own.
        kind = DamagedFileError if _is_damage(error) else StorageError
        # A huge size in a damaged file looks like lack of memory. What is left out must not depend on the machine, so
        # the user decides.
        more = "; leave it out of the sources if it is damaged" if is_out_of_memory(error) else ""
        raise kind(f"cannot read {source.name}: {reading_problem(error)}{more}") from None


def _of_file(source: Source, text_key: str, skip: int, short: ShortRule | None) -> Iterator[Document]:
    if source.kind == "json":
        yield from _json(source, skip)
    elif source.kind == "parquet":
        yield from _parquet(source, text_key, skip, short)
    elif skip == 0:
        with open_unpacked(source.name) as file:
            yield Document(source.name, _nested(text_key, utf8_text(source.name, read_bounded(file))))


def _with_fields(documents: Iterator[Document], more: dict[str, str]) -> Iterator[Document]:
    """The documents with further fields; a field of that name that a document has already stays."""
    for document in documents:
        yield document if document.fields is None else replace(document, fields=more | document.fields)


def _is_damage(error: Exception) -> bool:
    """Could Arrow not parse the bytes? A connection that breaks raises errors of its own, or one with a number."""
    # A file is not left out for lack of memory, which only looks like a damaged size.
    if is_out_of_memory(error):
        return False
    return isinstance(error, pa.ArrowException) or (type(error) is OSError and error.errno is None)


def _nested(key: str, value: str) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}  # type: ignore[assignment]
    return value  # type: ignore[return-value]


def _in_memory(source: Source, records: Iterator[dict[str, Any] | None], skip: int) -> Iterator[Document]:
    for number, fields in enumerate(records, skip):
        yield Document(f"{source.name} number {number}", fields)


def _json(source: Source, skip: int) -> Iterator[Document]:
    lines = contextlib.nullcontext(source.lines) if source.lines is not None else _lines_of_file(source.name)
    name = source.name if source.lines is None else "standard input"
    with lines as numbered:
        for number, line in islice(numbered, skip, None):
            is_long = is_too_long(line)
            yield Document(f"{name} line {number}", None if is_long else _json_object(line), is_long_line=is_long)


@contextlib.contextmanager
def _lines_of_file(name: str) -> Iterator[Iterator[tuple[int, bytes]]]:
    """The lines that are not blank, each with its number from 1."""
    with open_unpacked(name) as file:
        yield ((number, line) for number, line in enumerate(cut_lines(file), 1) if line.strip())


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        # From bytes, json would take two lines of UTF-16 for two encodings.
        fields = json.loads(line.decode("utf-8-sig"))
    # Objects nested thousands deep are a line's own fault too.
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _parquet(source: Source, text_key: str, skip: int, short: ShortRule | None) -> Iterator[Document]:
    with open_bytes(source.name) as file:
        table = parquet_file(file, is_remote=source.is_remote)
        schema = table.schema_arrow
        require_one_text(source.name, schema, text_key)
        wanted = wanted_columns(schema, text_key)
        labels = class_names_of_schema(schema)
        if short is not None and not (short.key in schema.names and pa.types.is_integer(schema.field(short.key).type)):
            short = None
        groups, number = _row_groups_from(table.metadata, skip)
        for group in groups:
            is_short = None if short is None else _short_rows(table, group, short)
            rows = (
                repeat(None, len(is_short))
                if is_short is not None and all(is_short)
                else _rows_of_group(table, group, wanted, labels)
            )
            for k, fields in enumerate(rows):
                if number >= skip:
                    known = is_short is not None and is_short[k]
                    yield Document(f"{source.name} row {number}", {} if known else fields, is_short=known)
                number += 1


def _short_rows(table: pq.ParquetFile, group: int, short: ShortRule) -> list[bool]:
    """For each row of a row group: is its count of tokens below the length? False where it has no count."""
    counts = table.read_row_group(group, columns=[short.key])[short.key].to_pylist()
    return [count is not None and count < short.length for count in counts]


def _rows_of_group(
    table: pq.ParquetFile, group: int, wanted: list[str], labels: ClassNames
) -> Iterator[dict[str, Any]]:
    for batch in table.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=wanted):
        yield from rows_of_table(batch, labels)


def _row_groups_from(metadata: pq.FileMetaData, row: int) -> tuple[list[int], int]:
    """The row groups from the one with that row on, and the number of the first row in them."""
    first = 0
    for group in range(metadata.num_row_groups):
        after = first + metadata.row_group(group).num_rows
        if row < after:
            return list(range(group, metadata.num_row_groups)), first
        first = after
    return [], first


def require_one_text(name: str, schema: pa.Schema, text_key: str) -> None:
    """Raise DamagedFileError for a table of which nobody can say which column has the text."""
    if schema.names.count(text_key) > 1:
        raise DamagedFileError(f"cannot read {name}: it has {schema.names.count(text_key)} columns named {text_key}")


def _dataset(source: Source, text_key: str, skip: int, left_out: Collection[str]) -> Iterator[Document]:
    is_local = os.path.isdir(source.name)
    stream = None if is_local else open_stream(source.name, config=source.config, split=source.split)
    if stream is not None:
        features, tables = stream.features, stream.skip(skip).iter(batch_size=_BATCH_ROWS)
    else:
        dataset = (
            load_whole_shards(source.name, split=source.split, left_out=left_out)
            if is_local
            else load_split(source.name, split=source.split, config=source.config)
        ).with_format("arrow")
        if skip >= len(dataset):
            return
        features = dataset.features
        wanted = wanted_columns(features.arrow_schema, text_key)
        tables = dataset.select_columns(wanted).select(range(skip, len(dataset))).iter(batch_size=_BATCH_ROWS)
    labels = class_names_of_features(features)
    number = skip
    for table in tables:
        for fields in rows_of_table(checked(table.select(wanted_columns(table.schema, text_key))), labels):
            yield Document(f"{source.name} row {number}", fields)
            number += 1
