"""A subset's content -> Arrow, Parquet or JSONL files of all its columns, in shards. Imports no torch."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from ladm.corpus.files.meta import whole_text
from ladm.corpus.files.tables import rows_of_table
from ladm.selection.formats.content import SubsetContent
from ladm.storage.files import arrow_path, data_set_path

SHARD_BYTES = 100_000_000
DATA_FOLDER = "data"


class _Shard(Protocol):
    def write(self, table: pa.Table) -> None: ...
    def close(self) -> None: ...


class _ParquetShard:
    """A Parquet file, a row group for each table; a column with an object that never has a key is JSON text."""

    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        known = inspect.signature(pq.ParquetWriter.__init__).parameters
        # With content-defined chunks, storage that keeps equal blocks once (such as the Hub's) stores and transfers
        # only what changed between two subsets. Older pyarrow has neither option.
        options = {name: True for name in ("use_content_defined_chunking", "write_page_index") if name in known}
        self._texts = [field.name for field in schema if _has_empty_object(field.type)]
        kept = pa.schema([pa.field(f.name, pa.string()) if f.name in self._texts else f for f in schema])
        self._writer = pq.ParquetWriter(file, kept, compression="zstd", **options)

    def write(self, table: pa.Table) -> None:
        for name in self._texts:
            values = (row[name] for row in rows_of_table(table.select([name]), {}))
            texts = pa.array((None if value is None else _json_text(value) for value in values), pa.string())
            table = table.set_column(table.schema.get_field_index(name), name, texts)
        self._writer.write_table(table, row_group_size=max(1, len(table)))

    def close(self) -> None:
        self._writer.close()


class _JsonShard:
    """A file with one JSON object a line; dates become text, NaN and bytes null, because JSON has none of them.

    What is no UTF-8 in a text becomes U+FFFD.
    """

    def __init__(self, file: BinaryIO, _schema: pa.Schema) -> None:
        self._file = file

    def write(self, table: pa.Table) -> None:
        for row in rows_of_table(table, {}):
            self._file.write(_json_text(row).encode() + b"\n")

    def close(self) -> None:
        """Nothing to add at the end of the file."""


def _has_empty_object(kind: pa.DataType) -> bool:
    """Is there a `{}` without fields in the type, which Parquet has no place for?"""
    parts = [kind.field(k).type for k in range(kind.num_fields)]
    return (pa.types.is_struct(kind) and not parts) or any(map(_has_empty_object, parts))


def _json_text(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_in_json)
    except ValueError:
        plain = json.loads(json.dumps(value, default=_in_json), parse_constant=lambda _: None)
        text = json.dumps(plain, ensure_ascii=False)
    return whole_text(text)


def _in_json(value: Any) -> str | None:
    # Images and sound as Python spells bytes would be many times their size, and nothing could read them.
    return None if isinstance(value, bytes) else str(value)


_KINDS: dict[str, Any] = {"parquet": _ParquetShard, "jsonl": _JsonShard}


def write_shards(content: SubsetContent, folder: Path, *, kind: str, shard_bytes: int = SHARD_BYTES) -> list[str]:
    """Write `data/train-00000-of-00002.KIND` and so on below `folder`; returns the names.

    A shard ends with the table that takes it to `shard_bytes`.
    """
    (folder / DATA_FOLDER).mkdir(parents=True)
    paths: list[Path] = []
    tables = content.tables()
    table = next(tables, None)
    while table is not None:
        paths.append(folder / DATA_FOLDER / f"{len(paths):05d}.{kind}")
        with paths[-1].open("wb") as file:
            shard: _Shard = _KINDS[kind](file, table.schema)
            is_full = False
            # At least one table: a Parquet file has bytes before its first row.
            while table is not None and not is_full:
                shard.write(table)
                is_full = file.tell() >= shard_bytes
                table = next(tables, None)
            shard.close()
    names = []
    # Only now is their number known, which the names contain as those on the Hub do.
    for number, path in enumerate(paths):
        names.append(f"{DATA_FOLDER}/train-{number:05d}-of-{len(paths):05d}.{kind}")
        path.rename(folder / names[-1])
    return names


def write_arrow(content: SubsetContent, folder: Path) -> None:
    """Save the rows as `save_to_disk` does: a DatasetDict with `train`."""
    import datasets
    from datasets.table import MemoryMappedTable

    # A file of our own first: `datasets` would read the rows one by one as Python objects, and keep them in its cache.
    place = data_set_path(folder)
    whole = folder / "whole.arrow"
    features = datasets.Features(content.features())
    with whole.open("wb") as file, pa.ipc.new_stream(file, features.arrow_schema) as stream:
        for table in content.tables(as_features=True):
            stream.write_table(table.cast(features.arrow_schema))
    # Named by the content, because `datasets` would name it by chance, and the same command must write the same bytes.
    digest = xxhash.xxh3_64(content.positions.tobytes() + content.scores.tobytes()).hexdigest()
    dataset = datasets.Dataset(
        MemoryMappedTable.from_file(arrow_path(whole)),
        info=datasets.DatasetInfo(features=features),
        split=datasets.NamedSplit("train"),
        fingerprint=digest,
    )
    datasets.DatasetDict(train=dataset).save_to_disk(place)
    whole.unlink()
