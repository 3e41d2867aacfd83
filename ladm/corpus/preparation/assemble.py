"""Sealed blocks of prepared documents -> one data set in the published row format. Imports no torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ladm.corpus.rows.reading import COPY_COLUMN
from ladm.storage.checked_parquet import open_parquet, reading_parquet
from ladm.storage.digests import DigestedFile
from ladm.storage.files import arrow_path, data_set_path, io_errors, sync_tree

BLOCK_SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("meta", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("chunked_index", pa.int64()),
        ("id", pa.string()),
        ("domain", pa.string()),
        ("source", pa.string()),
        ("document", pa.int64()),
        ("start_token", pa.int64()),
        ("document_tokens", pa.int64()),
        ("carried", pa.string()),
        ("digest", pa.binary(16)),
    ]
)
"""A block: `meta` and `carried` are JSON texts, because their shape is not known before every block is."""

NO_COPY = -1
BLOCK_REMEDY = "remove it, and run the same command again to recreate it"
_ROWS_AT_A_TIME = 32
_JOINED_ROWS, _JOINED_BYTES = 1000, 1 << 25
"""The most of a batch in the memory-mapped file: as many rows as a batch of the data set has, or fewer long ones."""
_EXACT_IN_FLOAT64 = 2**53
_MOST_FIELD_LEVELS = 40
"""Arrow writes no file with more than 62 levels of nested fields, and reads no Parquet with 58 levels of lists."""


def open_block(path: Path) -> pq.ParquetFile:
    """A sealed block, its checksums verified whenever it is read. Raises StorageError for a damaged one."""
    return open_parquet(path, remedy=BLOCK_REMEDY)


def read_block(path: Path, columns: list[str]) -> pa.Table:
    """Some columns of a sealed block. Raises StorageError for a damaged one."""
    file = open_block(path)
    with reading_parquet(path, remedy=BLOCK_REMEDY):
        return file.read(columns=columns)


@dataclass(frozen=True, kw_only=True)
class BlockRows:
    """A sealed block, and what becomes of each of its rows; both arrays are (rows,)."""

    path: Path
    is_kept: npt.NDArray[np.bool_]
    """False for a copy of an earlier row that is dropped."""
    copy_of: npt.NDArray[np.int64]
    """For a copy that is kept the `index` of the row that it repeats, else NO_COPY."""


def kept_columns(block: BlockRows, names: list[str], *, most: int) -> list[list[Any]]:
    """The values of some columns for the first `most` of the kept rows of a block. Raises as `read_block`."""
    table = read_block(block.path, names)
    return [table[name].to_numpy()[block.is_kept][:most].tolist() for name in names]


def assemble(output: Path, blocks: list[BlockRows], *, rows: int, windows: bool) -> None:
    """Save the first `rows` kept rows of the blocks as a DatasetDict with `train`, `index` counting them.

    `meta` gets Arrow fields that hold every document's; where they disagree it stays JSON text. A carried column gets
    the type that all its values have, else text. Without `windows` there is no `chunked_index`; without an id in
    any row no `id`, without a copy no `copy_of`. What an earlier try left in `output` is replaced.
    """
    import datasets
    from datasets.table import MemoryMappedTable

    paths = [block.path for block in blocks]
    meta = _meta_feature(paths)
    kinds = _carried_kinds(paths)
    columns = ["text", "meta", "input_ids", "index"]
    columns += ["chunked_index"] * windows + ["id"] * _has_ids(paths)
    columns += ["domain", "source", "document", "start_token", "document_tokens"]
    columns += [COPY_COLUMN] * (count_copies(blocks, rows=rows) > 0)
    types = {field.name: field.type for field in BLOCK_SCHEMA} | {"index": pa.int64(), COPY_COLUMN: pa.int64()}
    features = datasets.Features.from_arrow_schema(pa.schema([(name, types[name]) for name in columns]))
    features = datasets.Features(features | {name: datasets.Value(kind) for name, kind in kinds.items()})
    if meta is not None:
        features["meta"] = meta
    schema = features.arrow_schema
    with io_errors(output, "write"):
        # Through a file beside the blocks, which is then mapped, so that memory does not grow with the corpus.
        cache = paths[0].parent / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir()
        whole = cache / "rows.arrow"
        with whole.open("wb") as file:
            digested = DigestedFile(file)
            with pa.ipc.new_stream(digested, schema) as stream:
                for table in _joined(_first_rows(blocks, rows, schema, kinds)):
                    stream.write_table(table)
        # Named by the content, because `datasets` would name it by chance, and the same documents must give the same
        # bytes.
        dataset = datasets.Dataset(
            MemoryMappedTable.from_file(arrow_path(whole)),
            info=datasets.DatasetInfo(features=features),
            split=datasets.NamedSplit("train"),
            fingerprint=digested.digest.hexdigest(),
        )
        shutil.rmtree(output / "train", ignore_errors=True)
        (output / "dataset_dict.json").unlink(missing_ok=True)
        datasets.DatasetDict(train=dataset).save_to_disk(data_set_path(output))
        sync_tree(output)


def count_copies(blocks: Iterable[BlockRows], *, rows: int) -> int:
    """How many of the first `rows` kept rows are copies."""
    kept = np.concatenate([block.copy_of[block.is_kept] for block in blocks])
    return int((kept[:rows] != NO_COPY).sum())


def _kept(blocks: Sequence[BlockRows]) -> Iterator[pa.RecordBatch]:
    for block in blocks:
        first = 0
        for batch in _batches(block.path):
            part = slice(first, first + len(batch))
            first += len(batch)
            copies = pa.array(block.copy_of[part], mask=block.copy_of[part] == NO_COPY)
            batch = batch.append_column(COPY_COLUMN, copies)
            yield batch.filter(pa.array(block.is_kept[part]))


def _first_rows(
    blocks: Sequence[BlockRows], rows: int, schema: pa.Schema, kinds: Mapping[str, str]
) -> Iterator[pa.RecordBatch]:
    written = 0
    for batch in _kept(blocks):
        if written >= rows:
            return
        part = batch.slice(0, rows - written)
        yield _rows(part, schema, kinds, first=written)
        written += len(part)


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The batches, short ones together: whoever maps the file has a description of every batch in memory."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        missing = _JOINED_ROWS - sum(map(len, held))
        if missing <= 0 or sum(each.nbytes for each in held) >= _JOINED_BYTES:
            held[-1:] = [batch.slice(0, len(batch) + min(missing, 0))]
            yield pa.Table.from_batches(held).combine_chunks()
            held = [batch.slice(len(batch) + missing)] if missing < 0 else []
    if held:
        yield pa.Table.from_batches(held).combine_chunks()


def _rows(batch: pa.RecordBatch, schema: pa.Schema, kinds: Mapping[str, str], *, first: int) -> pa.RecordBatch:
    """Rows of a block as those of the data set, `first` of which are before them. Texts and ids stay as they are."""
    carried = [json.loads(text) for text in batch["carried"].to_pylist()]

    def column(name: str, kind: pa.DataType) -> pa.Array:
        if name in kinds:
            return pa.array([_as_kind(each.get(name), kinds[name]) for each in carried], kind)
        if name == "index":
            return pa.array(np.arange(first, first + len(batch)), kind)
        if name == "meta" and not pa.types.is_string(kind):
            return pa.array([json.loads(text) for text in batch["meta"].to_pylist()], kind)
        return batch[name].cast(kind)

    return pa.record_batch([column(field.name, field.type) for field in schema], schema=schema)


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    batches = open_block(path).iter_batches(batch_size=_ROWS_AT_A_TIME)
    while True:
        with reading_parquet(path, remedy=BLOCK_REMEDY):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _has_ids(blocks: list[Path]) -> bool:
    columns = (read_block(path, ["id"])["id"] for path in blocks)
    return any(column.null_count < len(column) for column in columns)


def _carried_kinds(blocks: list[Path]) -> dict[str, str]:
    """The carried columns in the order of their first appearance, each with one type for all its values."""
    kinds: dict[str, set[type]] = {}
    large: set[str] = set()
    for path in blocks:
        for text in read_block(path, ["carried"])["carried"].to_pylist():
            for name, value in json.loads(text).items():
                kinds.setdefault(name, set()).add(type(value))
                if type(value) is int and abs(value) > _EXACT_IN_FLOAT64:
                    large.add(name)
    names = {bool: "bool", int: "int64", float: "float64", str: "string"}
    for name, found in kinds.items():
        # A column of 1 and 1.5 is one of numbers, unless a fraction's type would round them.
        if found == {int, float} and name not in large:
            kinds[name] = {float}
    # Any other mixture is text.
    return {name: names[next(iter(found))] if len(found) == 1 else "string" for name, found in kinds.items()}


def _as_kind(value: Any, kind: str) -> Any:
    return json.dumps(value) if kind == "string" and value is not None and not isinstance(value, str) else value


def _meta_feature(blocks: list[Path]) -> Any:
    """The fields of every document's meta together, or None when a field has two types or is nested too deep."""
    import datasets

    fields: dict[str, pa.DataType] = {}
    for path in blocks:
        metas = [json.loads(text) for text in read_block(path, ["meta"])["meta"].to_pylist()]
        try:
            block = pa.array(metas).type if metas else pa.struct([])
            for field in block:
                if _levels(field.type) > _MOST_FIELD_LEVELS:
                    return None
                # A field that is null in every document so far takes the type of the first value.
                before = fields.setdefault(field.name, field.type)
                if pa.types.is_null(before):
                    fields[field.name] = field.type
                elif before != field.type and not pa.types.is_null(field.type):
                    return None
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            return None
    return datasets.Features.from_arrow_schema(pa.schema([("meta", pa.struct(list(fields.items())))]))["meta"]


def _levels(kind: pa.DataType) -> int:
    """How deep lists and objects are nested."""
    return 1 + max(map(_levels, (kind.field(k).type for k in range(kind.num_fields))), default=-1)
