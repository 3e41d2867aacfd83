"""Rows that cost nothing to score -> what a row costs in the store and in the final sort, and the memory it takes.

    python scripts/bench/store.py --rows 1000000 --layers 30 --output scripts/bench/results/store.json
    python scripts/bench/store.py --rows 2000 --burn-ms 5 --workers 2

With --burn-ms N a row costs N milliseconds of CPU time, and the run is timed with one worker and with --workers.
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
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from error_lines import errors_in_a_line

from ladm import __version__
from ladm.corpus.rows.reading import open_rows
from ladm.corpus.rows.row import Row
from ladm.errors import LadmError
from ladm.method.grid import Method
from ladm.runs.finish import finish
from ladm.runs.folder import Run, unit_rows_for
from ladm.runs.identity import FORMAT, RunIdentity
from ladm.scoring.engines.assignments import OwnUnits
from ladm.scoring.engines.job import ScoreJob, WorkerConfig
from ladm.scoring.engines.local import run_units
from ladm.signals.scorer import ScorerOutput
from ladm.storage.locks import locked

COLUMNS = (
    "cds_per_layer", "cds_per_layer_no_std", "value_cds_per_layer", "value_cds_per_layer_no_std",
    "copy_share_per_layer", "sink_mass_per_layer", "near_share_per_layer",
)  # fmt: skip
"""What `ladm score` stores of every layer by default."""


@dataclass
class Cheap:
    """Random values in every column of `layers` layers that a run stores, after `burn_seconds` of CPU time a row."""

    layers: int
    burn_seconds: float
    asynchronous = False

    def check(self, row: Row) -> Any:
        return np.asarray(row.raw_ids, dtype=np.int64)

    def score(self, ids_BT: Any, *, low_memory: bool = False) -> Callable[[], list[ScorerOutput]]:  # noqa: ARG002
        end = time.process_time() + self.burn_seconds * len(ids_BT)
        while time.process_time() < end:
            pass
        draw = np.random.default_rng(int(ids_BT[0, 0]))
        shape = (len(ids_BT), len(COLUMNS), self.layers)
        drawn_BCL = draw.lognormal(size=shape).astype(np.float32).astype(float).tolist()
        scored = [
            ScorerOutput(score=sum(drawn_CL[0]) / self.layers, extras=dict(zip(COLUMNS, drawn_CL, strict=True)))
            for drawn_CL in drawn_BCL
        ]
        return lambda: scored


def make_cheap(_device: str, *, layers: int, burn_seconds: float) -> Cheap:
    return Cheap(layers, burn_seconds)


def whole_units(_num_tokens: int) -> int:
    return 1024


def few_rows(_num_tokens: int) -> int:
    return 8


def run_once(root: Path, name: str, *, rows: int, layers: int, burn_seconds: float, workers: int) -> dict[str, float]:
    """Seconds to score and store, and to sort."""
    data = open_rows(str(root / f"rows{rows}"))
    identity = {
        "format": FORMAT, "settings": Method(span_tokens=16).as_dict() | {"reduce": "mean", "record": "layers"},
        "layers": list(range(layers)), "model": {"type": "none", "sha256": {}},
        "tokenizer": {}, "versions": {"ladm": __version__, "torch": "none", "transformers": "none"},
        "score": {"reduce": "mean", "layers": list(range(layers)), "heads": None, "weights": None},
        "dtype": "float32", "backend": {"device": "cpu", "attention": "none", "focus": "none"},
        "data": data.identity(), "unit_rows": unit_rows_for(rows), "about": {"rows": data.name, "model": "none"},
    }  # fmt: skip
    folder = root / name
    with locked(folder):
        run = Run.create_or_resume(folder, RunIdentity(identity))
        worker = WorkerConfig(
            folder=folder, rows=data.name, limit=None,
            make_scorer=partial(make_cheap, layers=layers, burn_seconds=burn_seconds),
            batch_rows=few_rows if burn_seconds else whole_units,
        )  # fmt: skip
        devices = tuple(f"cpu:{k}" for k in range(workers))
        began: list[float] = []

        def report(_: Any) -> None:
            # The clock starts with the first rows, when the workers have started.
            began.append(time.perf_counter())

        start = time.perf_counter()
        run_units(
            ScoreJob(
                run=run, rows=data, source=OwnUnits(run), worker=worker, devices=devices, report=report,
                supervised=burn_seconds > 0,
            )
        )  # fmt: skip
        stored = time.perf_counter()
        finish(run)
        sorted_at = time.perf_counter()
    return {
        "store": stored - start,
        "steady": stored - began[0],
        "sort": sorted_at - stored,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def make_rows(root: Path, rows: int) -> None:
    from datasets import Dataset

    Dataset.from_dict(
        {
            "input_ids": np.arange(3 * rows, dtype=np.int32).reshape(rows, 3),
            "index": np.arange(rows),
            "meta": [{"pile_set_name": f"domain {k % 22}"} for k in range(rows)],
        }
    ).save_to_disk(str(root / f"rows{rows}"))


@click.command(help=__doc__.splitlines()[0])
@click.option("--rows", default=1_000_000, type=click.IntRange(min=1))
@click.option("--layers", default=30, type=click.IntRange(min=1))
@click.option("--burn-ms", default=0.0)
@click.option("--workers", default=1, type=click.IntRange(min=1))
@click.option("--repeats", default=3, type=click.IntRange(min=1), help="With --burn-ms.")
@click.option("--output", type=click.Path(path_type=Path))
@click.option("--child", hidden=True)
def main(
    rows: int, layers: int, burn_ms: float, workers: int, repeats: int, output: Path | None, child: str | None
) -> None:
    if child is not None:
        found = run_once(
            Path(child), f"run{rows}-{workers}-{os.getpid()}", rows=rows, layers=layers, burn_seconds=burn_ms / 1e3,
            workers=workers,
        )  # fmt: skip
        print(json.dumps(found))
        return
    result: dict[str, Any] = {"rows": rows, "layers": layers}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)

        def measure(count: int, workers: int) -> dict[str, float]:
            # A process of its own, so that its peak memory is its own.
            arguments = {"rows": count, "layers": layers, "burn-ms": burn_ms, "workers": workers, "child": root}
            command = [sys.executable, __file__, *(f"--{name}={value}" for name, value in arguments.items())]
            done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                raise LadmError(f"the process with {count:,} rows ended with {done.returncode}; its error is above")
            found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
            return found

        if burn_ms:
            make_rows(root, rows)
            steady: dict[int, list[float]] = {1: [], workers: []}
            for _ in range(repeats):
                for count in steady:
                    steady[count].append(measure(rows, count)["steady"])
            medians = {count: float(np.median(seconds)) for count, seconds in steady.items()}
            result |= {
                "burn_ms": burn_ms, "workers": workers, "seconds": steady,
                "times_one_worker": round(medians[1] / medians[workers], 3),
            }  # fmt: skip
        else:
            for count in (rows // 4, rows):
                make_rows(root, count)
                found = measure(count, 1)
                a_row = {name: round(found[name] / count * 1e6, 1) for name in ("store", "sort")}
                result[f"{count} rows"] = {"microseconds_a_row": a_row, "peak_mib": round(found["peak_mib"])}
    result |= {
        "ladm": __version__, "machine": platform.processor() or platform.machine(), "cores": os.cpu_count(),
        "command": " ".join(["python", "scripts/bench/store.py", *sys.argv[1:]]),
    }  # fmt: skip
    print(json.dumps(result))
    if output is not None:
        output.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    with errors_in_a_line():
        main()
