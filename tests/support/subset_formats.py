"""Subsets of every format: the rows they are selected from, and readers written from the formats' descriptions."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import Result

from support.commands import Command
from support.rows import topical_rows

LENGTHS = [512, 400, 450, 512, 700, 480, 512, 490]
NPY_FILES = {"tokens.npy", "offsets.npy", "rows.parquet"}


def rows_with_ids(golden: Any) -> list[dict[str, Any]]:
    """Eight rows with ids and a column `score` of their own; the fourth is too short for a score."""
    rows = topical_rows(golden, LENGTHS)
    rows[3]["input_ids"] = rows[3]["input_ids"][:90]
    return [row | {"id": f"doc-{row['index']}", "score": "own"} for row in rows]


def read_megatron(prefix: Path) -> list[np.ndarray[Any, Any]]:
    """The sequences of a Megatron-LM data set, from the description of its index."""
    content = prefix.with_suffix(".idx").read_bytes()
    magic, version, code, sequences, boundaries = struct.unpack_from("<9sQBQQ", content)
    assert (magic, version) == (b"MMIDIDX\x00\x00", 1)
    dtype = {4: np.int32, 8: np.uint16}[code]
    at = 34
    lengths = np.frombuffer(content, np.int32, sequences, at)
    at += lengths.nbytes
    pointers = np.frombuffer(content, np.int64, sequences, at)
    at += pointers.nbytes
    documents = np.frombuffer(content, np.int64, boundaries, at)
    assert at + documents.nbytes == len(content)
    assert documents.tolist() == list(range(sequences + 1))
    data = prefix.with_suffix(".bin").read_bytes()
    assert len(data) == lengths.sum() * np.dtype(dtype).itemsize
    return [np.frombuffer(data, dtype, n, start) for n, start in zip(lengths, pointers, strict=True)]


def select(ladm: Command, scored: tuple[str, Path], output: Any, *more: Any) -> Result:
    return ladm("select", scored[1], "--rows", scored[0], "--tokens", "2k", "-o", output, *more)


def files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]
