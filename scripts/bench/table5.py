"""Rows and a model -> the paper's Table 5: seconds and correlation of CDS by strides, with and without sink layers.

    python scripts/bench/quality/rows.py make documents.parquet --model runs/toy/model --length 4096 --half 1 \
        -o runs/quality/rows-4096
    python scripts/bench/table5.py runs/quality/rows-4096 --model runs/toy/model --documents 24 \
        --output scripts/bench/results/table5-4096.json

The paper reports Pearson correlations with the default strides of .719 (d_afs = 2), .721 (d_cds = 2) and .719 (both).
Attention sinks whose span falls on the grid or beside it would explain why they are so low. So every correlation is
also taken over the layers after the last sink layer, of CDS without sigma over these, and of the robust score. Rows
with a column `kind` count if they are intact. Intervals are from drawing documents with replacement.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from error_lines import errors_in_a_line
from machine import facts, synchronised, write_result

from ladm.calibration.contrast import INTACT
from ladm.method.grid import Method
from ladm.modeling.facts import model_facts
from ladm.modeling.observer import load_observer
from ladm.runs.columns.sink_layers import first_after_sinks
from ladm.signals.layer_cds import layer_cds

Array = np.ndarray[Any, Any]

STRIDES = {"default": (4, 4), "d_afs 2": (2, 4), "d_cds 2": (4, 2), "both 2": (2, 2)}
"""d_afs and d_cds; in the released code the nearest span compared with is d_afs back."""
DRAWS = 2000


def scores(columns: dict[str, Array], clean: slice) -> dict[str, Array]:
    """Scores of every document from what is stored by layer (documents, layers)."""
    later_half = slice(columns["cds_per_layer"].shape[1] // 2, None)
    return {
        "released": columns["cds_per_layer"].mean(axis=1),
        "released, clean layers": columns["cds_per_layer"][:, clean].mean(axis=1),
        "no sigma, clean layers": columns["cds_per_layer_no_std"][:, clean].mean(axis=1),
        "robust": columns["value_cds_per_layer_no_std"][:, later_half].mean(axis=1),
    }


def pearson(a: Array, b: Array) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def with_interval(a: Array, b: Array) -> dict[str, float]:
    """Pearson's correlation and its 95 % interval."""
    draw = np.random.default_rng(0)
    again = []
    for _ in range(DRAWS):
        at = draw.integers(0, len(a), len(a))
        # A draw of one document alone has no correlation.
        if len(set(at.tolist())) > 2:
            again.append(pearson(a[at], b[at]))
    low, high = np.quantile(again, (0.025, 0.975))
    return {"pearson": pearson(a, b), "low": float(low), "high": float(high)}


def intact_rows(folder: Path, documents: int) -> Array:
    from datasets import load_from_disk

    rows = load_from_disk(str(folder))
    kinds = rows["kind"] if "kind" in rows.column_names else [INTACT] * len(rows)
    at = [k for k, kind in enumerate(kinds) if kind == INTACT][:documents]
    return np.array(rows.select(at)["input_ids"], dtype=np.int64)


@click.command(help=__doc__.splitlines()[0])
@click.argument("rows", type=click.Path(path_type=Path, exists=True))
@click.option("--model", "model_folder", required=True)
@click.option("--documents", default=24, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option("--backend", type=click.Choice(["torch", "triton"]), default="torch", show_default=True)
@click.option("--minutes", type=float, help="Take no further document after so long.")
@click.option("--output", type=click.Path(path_type=Path))
def main(
    rows: Path, model_folder: str, documents: int, device: str, dtype: str, backend: str, minutes: float | None,
    output: Path | None,
) -> None:  # fmt: skip
    until = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    ids_NT = torch.from_numpy(intact_rows(rows, documents))
    tokens = ids_NT.shape[1]
    of_model = model_facts(model_folder)
    observer = load_observer(
        of_model, layers=tuple(range(of_model.num_layers)), dtype=getattr(torch, dtype), device=torch.device(device)
    )
    wait = synchronised(device)
    method = Method(span_tokens=max(1, tokens // 256))
    grids = {
        name: replace(method, d_afs=d_afs, n=d_afs, d_cds=d_cds).grid(tokens)
        for name, (d_afs, d_cds) in STRIDES.items()
    }
    columns: dict[str, dict[str, list[Array]]] = {name: {} for name in grids}
    seconds: dict[str, list[float]] = {name: [] for name in grids}
    # All strides of one document before the next, so that what else the machine does falls on all alike.
    for ids_T in ids_NT:
        if time.monotonic() > until:
            break
        for name, grid in grids.items():
            started = time.process_time() if device == "cpu" else time.monotonic()
            found = layer_cds(observer, ids_T[None], grid, ablation="none", backend=backend)
            wait()
            seconds[name].append((time.process_time() if device == "cpu" else time.monotonic()) - started)
            for column, values in found.items():
                columns[name].setdefault(column, []).append(values[0].numpy())
    stacked = {name: {column: np.stack(parts) for column, parts in of.items()} for name, of in columns.items()}
    clean = slice(first_after_sinks(np.median(stacked["default"]["sink_mass_per_layer"], axis=0)), None)
    by_strides = {name: scores(of, clean) for name, of in stacked.items()}
    table = {
        name: {"seconds": float(np.median(seconds[name]))}
        | {score: with_interval(values, by_strides["default"][score]) for score, values in of.items()}
        for name, of in by_strides.items()
    }
    write_result(
        facts(device)
        | {"model": Path(model_folder).name, "documents": len(seconds["default"]), "tokens": tokens, "dtype": dtype}
        | {"seconds_are": "CPU time" if device == "cpu" else "wall time", "first_clean_layer": clean.start}
        | {"table": table},
        output,
    )


if __name__ == "__main__":
    with errors_in_a_line():
        main()
