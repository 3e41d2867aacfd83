"""What a run folder contains, and signals written into one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ladm.runs.folder import Run
from support.files import read_lines

RESULTS = ("sorted_by_score.jsonl", "scores.parquet", "errors.jsonl")


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def add_signal(run: Run, name: str, columns: dict[str, dict[int, float]], *, kind: pa.DataType | None = None) -> Path:
    """A finished signal with these values by position, in an order that is not the run's."""
    folder = run.folder / "signals" / name
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("signals"))
    positions = sorted(set().union(*columns.values()), reverse=True)
    values = {key: pa.array([found.get(k) for k in positions], kind) for key, found in columns.items()}
    pq.write_table(
        pa.table({"position": positions, "score": [0.5] * len(positions), **values}), folder / "scores.parquet"
    )
    return folder


def by_index(run: Path) -> dict[int, dict[str, Any]]:
    return {line["index"]: line for line in read_lines(run / "sorted_by_score.jsonl")}
