"""A synthetic run with a given number of rows -> the time that `ladm select` takes with it under a limit of memory.

    python scripts/bench/selection.py --rows 10000000 --limit-mib 2048
    python scripts/bench/selection.py --rows 10000000 --flags "--by rank(score)+rank(-length) --within score:5%-95%"

The limit is on what a process may allocate (RLIMIT_DATA); files mapped into memory do not count, nor do they hold it.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from error_lines import errors_in_a_line

from ladm import __version__
from ladm.corpus.rows.reading import open_rows
from ladm.runs.folder import Run, unit_rows_for
from ladm.runs.identity import FORMAT, RunIdentity
from ladm.runs.layout import ERRORS_FILE, PARQUET_FILE, SORTED_FILE

BLOCK = 100_000
DOMAINS = 22
TOKENS = 32_768


def make(root: Path, rows: int) -> None:
    """Rows of one id each in 22 domains, and a finished run with random scores of them."""
    from datasets import Dataset

    names = pa.array([f"domain {k}" for k in range(DOMAINS)])
    draw = np.random.default_rng(0)
    chosen = pa.array(draw.integers(0, DOMAINS, rows).astype(np.int32))
    ids = pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32), np.zeros(rows, dtype=np.int32))
    meta = pa.StructArray.from_arrays([names.take(chosen)], names=["pile_set_name"])
    Dataset(pa.table({"input_ids": ids, "index": np.arange(rows), "meta": meta})).save_to_disk(str(root / "rows"))
    identity = {
        "format": FORMAT, "settings": {}, "layers": [0], "score": {}, "model": {}, "dtype": "float32",
        "data": open_rows(str(root / "rows")).identity(), "unit_rows": unit_rows_for(rows), "about": {},
    }  # fmt: skip
    Run.create_or_resume(root / "run", RunIdentity(identity))
    schema = pa.schema([("position", pa.int64()), ("num_tokens", pa.int64()), ("score", pa.float64())])
    order = draw.permutation(rows)
    with pq.ParquetWriter(root / "run" / PARQUET_FILE, schema, write_page_checksum=True) as writer:
        for start in range(0, rows, BLOCK):
            part = order[start : start + BLOCK]
            scores = 1.0 - (start + np.arange(len(part))) / rows
            writer.write_table(pa.table([part, np.full(len(part), TOKENS), scores], schema=schema))
    for name in (ERRORS_FILE, SORTED_FILE):
        (root / "run" / name).write_text("")


@click.command(help=__doc__.splitlines()[0])
@click.option("--rows", default=10_000_000, type=click.IntRange(min=1))
@click.option("--limit-mib", default=2048, type=click.IntRange(min=1))
@click.option("--flags", default="", help="More flags of ladm select.")
@click.option("--output", type=click.Path(path_type=Path))
def main(rows: int, limit_mib: int, flags: str, output: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root, rows)
        limit = limit_mib << 20
        budget = rows * TOKENS // 10
        command = [sys.executable, "-m", "ladm", "select", root / "run", "--rows", root / "rows", "--dry-run"]
        command += ["--tokens", budget, "--output", root / "subset", *flags.split()]
        began = time.perf_counter()
        done = subprocess.run(
            list(map(str, command)), check=False, capture_output=True, text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
            env=os.environ | {"OPENBLAS_NUM_THREADS": "2"},
        )  # fmt: skip
        seconds = time.perf_counter() - began
    print(done.stdout[-600:], done.stderr[-600:])
    total = next((line for line in done.stdout.splitlines() if line.startswith("total")), "")
    result = {
        "rows": rows, "limit_mib": limit_mib, "seconds": round(seconds, 1),
        "microseconds_a_row": round(seconds / rows * 1e6, 2), "total": total.split(), "ladm": __version__,
        "machine": platform.processor() or platform.machine(),
        "command": " ".join(["python", "scripts/bench/selection.py", *sys.argv[1:]]),
    }  # fmt: skip
    print(json.dumps(result))
    if done.returncode:
        sys.exit(f"ladm select ended with {done.returncode}")
    if output is not None:
        output.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    with errors_in_a_line():
        main()
