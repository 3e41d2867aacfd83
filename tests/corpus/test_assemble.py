"""Blocks of prepared documents become one data set, through a file that is mapped into memory."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ladm.corpus.preparation.assemble import BLOCK_SCHEMA, NO_COPY, BlockRows, assemble
from ladm.storage.checked_parquet import add_checksum


def _block(path: Path, first: int, rows: int) -> BlockRows:
    numbers = range(first, first + rows)
    columns = {
        "text": [f"text {k}" for k in numbers], "meta": ['{"pile_set_name": "d"}'] * rows,
        "input_ids": [[k, k + 1, k + 2] for k in numbers], "chunked_index": [0] * rows, "id": [None] * rows,
        "domain": ["d"] * rows, "source": ["f"] * rows, "document": list(numbers), "start_token": [0] * rows,
        "document_tokens": [3] * rows, "carried": ['{"a": 1}'] * rows, "digest": [bytes(16)] * rows,
    }  # fmt: skip
    pq.write_table(pa.table(columns, schema=BLOCK_SCHEMA), path, write_page_checksum=True)
    add_checksum(path)
    is_kept = np.arange(rows) % 10 > 0
    return BlockRows(path=path, is_kept=is_kept, copy_of=np.full(rows, NO_COPY))


@pytest.mark.parametrize(("most_bytes", "sizes"), [(1 << 25, [1000, 1000, 400]), (10_000, None)])
def test_short_batches_are_joined(
    most_bytes: int, sizes: list[int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A description of every batch is in memory: in batches of 32 short rows, ten million rows took gigabytes."""
    monkeypatch.setattr("ladm.corpus.preparation.assemble._JOINED_BYTES", most_bytes)
    work = tmp_path / "out" / "work"
    work.mkdir(parents=True)
    blocks = [_block(work / f"{k}.parquet", 1500 * k, 1500) for k in range(2)]
    assemble(tmp_path / "out", blocks, rows=2400, windows=False)
    found = datasets.load_from_disk(tmp_path / "out")["train"]
    kept = [k for k in range(3000) if k % 1500 % 10][:2400]
    assert found["document"][:] == kept
    assert found["input_ids"][:] == [[k, k + 1, k + 2] for k in kept]
    assert found["index"][:] == list(range(2400))
    with pa.OSFile(str(work / "cache" / "rows.arrow")) as file:
        found_sizes = [len(batch) for batch in pa.ipc.open_stream(file)]
    assert sum(found_sizes) == 2400
    # Rows of many tokens fill a batch sooner; of 32 of them a tenth is dropped.
    assert found_sizes == sizes if sizes else 32 < max(found_sizes) < 400
