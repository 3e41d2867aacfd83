"""A synthetic run of given size -> the time that `ladm rescore` takes with it, and its peak memory.

python scripts/bench/rescore.py --rows 1000000 --layers 30
"""

from __future__ import annotations

import json
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
from ladm.errors import LadmError
from ladm.runs.folder import Run, unit_rows_for
from ladm.runs.identity import FORMAT, RunIdentity
from ladm.runs.layout import ERRORS_FILE
from ladm.runs.records import float32_column
from ladm.runs.sorting import staged_schema, write_sorted

BLOCK = 50_000


def make_run(folder: Path, *, rows: int, layers: int) -> None:
    """A finished run of random CDS, written by the same code as a real one's results."""
    score = {"reduce": "mean", "layers": list(range(layers)), "heads": None, "weights": None}
    identity = {
        "format": FORMAT,
        "settings": {"method": "ladm", "reduce": "mean", "ablation": "none", "record": "layers"},
        "layers": list(range(layers)),
        "score": score,
        "model": {"type": "none", "sha256": {}},
        "data": {"rows": rows, "xxh3_128": "0"},
        "unit_rows": unit_rows_for(rows),
        "about": {},
    }
    Run.create_or_resume(folder, RunIdentity(identity))
    staged = folder / "staged.parquet"
    schema = staged_schema([("cds_per_layer", pa.list_(pa.float32()))])
    draw = np.random.default_rng(0)
    with pq.ParquetWriter(staged, schema) as writer:
        for start in range(0, rows, BLOCK):
            count = min(BLOCK, rows - start)
            writer.write_table(block(start, draw.lognormal(size=(count, layers)).astype(np.float32), schema))
    (folder / ERRORS_FILE).write_text("")
    write_sorted(folder, staged)


def block(start: int, cds_BL: np.ndarray, schema: pa.Schema) -> pa.Table:
    cds = cds_BL.astype(np.float64).tolist()
    meta = '{"pile_set_name": "made up"}'
    rows = []
    for k, layers in enumerate(cds, start):
        score = sum(layers) / len(layers)
        shown = {"index": k, "chunked_index": None, "score": score, "meta": json.loads(meta), "num_tokens": 32768}
        rows.append(
            {
                "index_number": k,
                "position": k,
                "score": score,
                "meta": meta,
                "num_tokens": 32768,
                "cds_per_layer": layers,
                "line": json.dumps(shown | {"cds_per_layer": float32_column(layers)})[1:],
            }
        )
    return pa.Table.from_pylist(rows, schema=schema)


@click.command(help=__doc__.splitlines()[0])
@click.option("--rows", default=1_000_000, type=click.IntRange(min=1))
@click.option("--layers", default=30, type=click.IntRange(min=1))
@click.option("--output", type=click.Path(path_type=Path))
def main(rows: int, layers: int, output: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        make_run(run, rows=rows, layers=layers)
        seconds = {}
        for how in ("median", "geometric", "mean"):
            began = time.perf_counter()
            command = [sys.executable, "-m", "ladm", "rescore", run, "--reduce", how, "--output", f"{folder}/{how}"]
            done = subprocess.run(list(map(str, command)), check=False, stdout=subprocess.DEVNULL)
            if done.returncode:
                raise LadmError(f"ladm rescore ended with {done.returncode}; its error is above")
            seconds[how] = round(time.perf_counter() - began, 2)
            print(f"{how:10} {seconds[how]:6.1f} s, {seconds[how] / rows * 1e6:5.1f} microseconds a row")
        same = (run / "sorted_by_score.jsonl").read_bytes() == (
            Path(folder) / "mean/sorted_by_score.jsonl"
        ).read_bytes()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"the mean again gives the same file: {same}; peak memory {peak:,.0f} MiB")
    result = {
        "rows": rows, "layers": layers, "seconds": seconds, "peak_mib": round(peak), "same_bytes": same,
        "ladm": __version__, "machine": platform.processor() or platform.machine(),
        "command": " ".join(["python", "scripts/bench/rescore.py", *sys.argv[1:]]),
    }  # fmt: skip
    print(json.dumps(result))
    if output is not None:
        output.write_text(json.dumps(result) + "\n")
    if not same:
        sys.exit("rescoring changed a file that it should not have")


if __name__ == "__main__":
    with errors_in_a_line():
        main()
