"""The committed scores of the judging rows -> which kinds stay within limits from intact documents of other packages.

    python scripts/bench/quality/fixed_limits.py --output scripts/bench/results/quality-near/fixed-limits.json

The limits of a column are the 5th and the 95th percentile of the intact documents of half 0. `inside` is the share of
the rows of half 1, and of books, within them, by kind; `intact` should be near 0.9, every other kind near 0. Intervals
are by bootstrap over packages; the limits stay as they are.

Shape suffixes: B rows.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from machine import facts, write_result

from ladm.calibration.band import QUANTILES
from ladm.calibration.contrast import INTACT, KINDS
from ladm.calibration.contrast_scores import CHOSEN_ON, JUDGED_ON
from ladm.calibration.estimates import interval

RESULTS = Path(__file__).resolve().parents[1] / "results"
LIMITS_FROM = ("quality-near", CHOSEN_ON)
JUDGED = {"half 1": ("quality-near", JUDGED_ON), "books": ("quality-near-books", JUDGED_ON)}
COLUMNS = ("near_share", "robust", "copy_share", "gzip")
PART = "2048"
DRAWS, SEED = 400, 17


@click.command(help=__doc__.splitlines()[0])
@click.option("--results", default=RESULTS, type=click.Path(path_type=Path, exists=True), help="Folder of the scores.")
@click.option("--output", type=click.Path(path_type=Path))
def main(results: Path, output: Path | None) -> None:
    chosen = rows_of(results, *LIMITS_FROM)
    intact = chosen.filter(pc.equal(chosen["kind"], INTACT))
    found: dict[str, Any] = {}
    for column in COLUMNS:
        low, _, high = (float(each) for each in np.quantile(intact[column].to_numpy(), QUANTILES))
        judged = {
            name: inside_by_kind(rows_of(results, folder, half), column, low, high)
            for name, (folder, half) in JUDGED.items()
        }
        found[column] = {"limits": [round(low, 4), round(high, 4)], "inside": judged}
    write_result(facts("cpu") | {"columns": found}, output)


def rows_of(results: Path, folder: str, half: int) -> pa.Table:
    """The committed scores of one half."""
    table = pq.read_table(results / folder / "scores.parquet")
    return table.filter(pc.and_(pc.equal(table["part"], PART), pc.equal(table["half"], half)))


def inside_by_kind(rows: pa.Table, column: str, low: float, high: float) -> dict[str, list[float]]:
    """The share of each kind within the limits, with its interval."""
    kinds_B, values_B = rows["kind"].to_numpy(), rows[column].to_numpy()
    inside_B = ((values_B >= low) & (values_B <= high)).astype(float)
    names, clusters_B = np.unique(rows["package"].to_numpy(), return_inverse=True)
    draw = np.random.default_rng(SEED)
    counts = draw.multinomial(len(names), [1 / len(names)] * len(names), size=DRAWS)
    found = {}
    for kind in (INTACT, *KINDS):
        mine = kinds_B == kind
        if mine.any():
            weights = counts[:, clusters_B[mine]].astype(float)
            # A draw without any package of the kind says nothing about it.
            weights = weights[weights.sum(axis=1) > 0]
            draws = (weights * inside_B[mine]).sum(axis=1) / weights.sum(axis=1)
            found[kind] = interval(float(inside_B[mine].mean()), draws).rounded()
    return found


if __name__ == "__main__":
    main()
