"""Sealed blocks of prepared documents -> one data set in the published row format. Imports no torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ladm.storage.files import io_errors, sync_tree

BLOCK_SCHEMA = pa.schema([("text", pa.string()), ("meta", pa.string()), ("input_ids", pa.list_(pa.int32()))])
"""A block: `meta` is JSON text, because its shape is not known before every block is."""

_ROWS_AT_A_TIME = 32


def assemble(output: Path, blocks: list[Path], *, rows: int) -> None:
    """Save the first `rows` rows of the blocks as a DatasetDict with `train`: text, meta, input_ids, index.

    `meta` gets Arrow fields that hold every document's; where they disagree it stays JSON text.
    What an earlier try left in `output` is replaced.
    """
    import datasets

    meta = _meta_feature(blocks)
    features = datasets.Features(
        text=datasets.Value("string"),
        meta=meta or datasets.Value("string"),
        input_ids=datasets.List(datasets.Value("int32")),
        index=datasets.Value("int64"),
    )

    def generate() -> Iterator[dict[str, Any]]:
        for index, row in enumerate(islice(_rows(blocks), rows)):
            yield row | {"meta": row["meta"] if meta is None else json.loads(row["meta"]), "index": index}

    with io_errors(output, "write"):
        # The rows go through a generator and a cache beside the blocks, so that memory does not grow with the corpus.
        cache = blocks[0].parent / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        dataset = datasets.Dataset.from_generator(generate, features=features, cache_dir=str(cache))
        shutil.rmtree(output / "train", ignore_errors=True)
        (output / "dataset_dict.json").unlink(missing_ok=True)
        datasets.DatasetDict(train=dataset).save_to_disk(str(output))
        sync_tree(output)


def _rows(blocks: list[Path]) -> Iterator[dict[str, Any]]:
    for path in blocks:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=_ROWS_AT_A_TIME):
            yield from batch.to_pylist()


def _meta_feature(blocks: list[Path]) -> Any:
    """The fields of every document's meta together, or None when a field has two types."""
    import datasets

    fields: dict[str, pa.DataType] = {}
    for path in blocks:
        metas = [json.loads(text) for text in pq.read_table(path, columns=["meta"])["meta"].to_pylist()]
        try:
            block = pa.array(metas).type if metas else pa.struct([])
            for field in block:
                # A field that is null in every document so far takes the type of the first value.
                before = fields.setdefault(field.name, field.type)
                if pa.types.is_null(before):
                    fields[field.name] = field.type
                elif before != field.type and not pa.types.is_null(field.type):
                    return None
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return None
    return datasets.Features.from_arrow_schema(pa.schema([("meta", pa.struct(list(fields.items())))]))["meta"]
