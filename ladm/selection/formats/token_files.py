"""A subset's content -> token files for trainers: Megatron-LM's `.bin` and `.idx`, or NumPy arrays. Imports no torch.

train.bin, train.idx      Megatron-LM's IndexedDataset, one sequence and one document for each row
tokens.npy, offsets.npy   the ids of all rows, uint32, and where each row starts, int64 (rows + 1,)
rows.parquet              beside either: id, domain, score and rank of each row, in the same order
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ladm.selection.formats.content import SubsetContent
from ladm.storage.files import arrow_path

SIDECAR = "rows.parquet"
MEGATRON_PREFIX = "train"
_SIDECAR_COLUMNS = ("index", "chunked_index", "id", "domain", "source")
_HEADER = b"MMIDIDX\x00\x00"
_VERSION = 1
_UINT16, _INT32 = (np.dtype("<u2"), 8), (np.dtype("<i4"), 4)
"""The types that Megatron-LM's own preprocessing writes, with their codes in the index."""
MOST_OF_UINT16 = 65_500
"""Megatron-LM takes two bytes for a vocabulary below this."""


def write_megatron(content: SubsetContent, folder: Path) -> None:
    """Write `train.bin` and `train.idx`, which Megatron-LM reads under the prefix `FOLDER/train`.

    Two bytes a token where every id allows it, else four. No token is added between rows.
    """
    largest = max(int(ids.max()) for ids in content.token_batches() if len(ids))
    dtype, code = _UINT16 if largest < MOST_OF_UINT16 - 1 else _INT32
    with (folder / f"{MEGATRON_PREFIX}.bin").open("wb") as file:
        for ids in content.token_batches():
            file.write(ids.astype(dtype).tobytes())
    lengths = content.num_tokens
    with (folder / f"{MEGATRON_PREFIX}.idx").open("wb") as file:
        # The count of documents is that of their boundaries, which start with 0: one more than there are documents.
        file.write(_HEADER + struct.pack("<QBQQ", _VERSION, code, len(lengths), len(lengths) + 1))
        file.write(lengths.astype("<i4").tobytes())
        file.write((_starts(lengths)[:-1] * dtype.itemsize).astype("<i8").tobytes())
        file.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())
    _write_sidecar(content, folder)


def write_npy(content: SubsetContent, folder: Path) -> None:
    """Write `tokens.npy` and `offsets.npy`, both of which `np.load` can map into memory."""
    with (folder / "tokens.npy").open("wb") as file:
        # The header says how many tokens follow, so that they can be written batch by batch.
        header = {"descr": "<u4", "fortran_order": False, "shape": (content.total_tokens,)}
        np.lib.format.write_array_header_1_0(file, header)
        for ids in content.token_batches():
            file.write(ids.astype("<u4").tobytes())
    np.save(folder / "offsets.npy", _starts(content.num_tokens))
    _write_sidecar(content, folder)


def _starts(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where each row starts, and at the end where the last one ends: lengths 3, 2 -> 0, 3, 5."""
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def _write_sidecar(content: SubsetContent, folder: Path) -> None:
    columns = [name for name in _SIDECAR_COLUMNS if name in content.column_names]
    writer = None
    for (start, stop), table in zip(content.batches(), content.tables(columns), strict=True):
        table = table.append_column("num_tokens", pa.array(content.num_tokens[start:stop]))
        writer = writer or pq.ParquetWriter(arrow_path(folder / SIDECAR), table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()
