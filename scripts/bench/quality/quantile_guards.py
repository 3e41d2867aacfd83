"""The committed scores of the judging rows -> what guards let through whose limits are quantiles of the pool itself.

    python scripts/bench/quality/quantile_guards.py --output scripts/bench/results/quality/quantile-guards.json

A pool is made by weights, as in `guarded.py`: every bad kind is 1 % or 5 % of it, the intact documents are the rest.
The limits of the guards are quantiles of that pool, as `ladm select --within copy_share:-95%` takes them, and the best
quarter of what passes is taken, as with `--top 25%`. Rows are those of half 1; nothing is fitted. `pure` is the share
of intact documents in what is taken.

Shape suffixes: B rows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from machine import facts, write_result

from ladm.calibration.contrast import INTACT, KINDS
from ladm.calibration.contrast_scores import JUDGED_ON
from ladm.calibration.estimates import interval
from ladm.method.reduction import Floats

RESULTS = Path(__file__).resolve().parents[1] / "results" / "quality" / "scores.parquet"
Guard = tuple[str, float, float]
"""A column, and the quantiles between which it is kept."""
COPIES: tuple[Guard, ...] = (("copy_share", 0.0, 0.95), ("gzip", 0.1, 0.9))
LEVELS: dict[str, tuple[Guard, ...]] = {
    "none": (),
    "copy_share:-95%, gzip_ratio:10%-90%": COPIES,
    "copy_share:-95%, gzip_ratio:10%-90%, robust:-95%": (*COPIES, ("robust", 0.0, 0.95)),
}
RANKED_BY = ("robust", "F", "random")
SHARES_OF_KIND, TAKEN = (0.01, 0.05), 0.25
DRAWS, SEED = 400, 17


@click.command(help=__doc__.splitlines()[0])
@click.option("--scores", default=RESULTS, type=click.Path(path_type=Path, exists=True))
@click.option("--output", type=click.Path(path_type=Path))
def main(scores: Path, output: Path | None) -> None:
    table = pq.read_table(scores)
    of_part = pc.and_(pc.equal(table["part"], "4096"), pc.equal(table["half"], JUDGED_ON))
    rows = table.filter(of_part)
    found = {
        f"{share:.0%} of each kind": {
            name: {by: taken_with_intervals(rows, guards, by=by, share=share) for by in RANKED_BY}
            for name, guards in LEVELS.items()
        }
        for share in SHARES_OF_KIND
    }
    write_result(facts("cpu") | {"part": "4096", "taken": found}, output)


def taken_with_intervals(rows: pa.Table, guards: tuple[Guard, ...], *, by: str, share: float) -> dict[str, list[float]]:
    """For each kind the share of its rows that is taken, and `pure`, with intervals by bootstrap over packages."""
    names, clusters = np.unique(rows["package"].to_numpy(), return_inverse=True)
    draw = np.random.default_rng(SEED)
    counts = draw.multinomial(len(names), [1 / len(names)] * len(names), size=DRAWS).astype(float)
    whole = taken_shares(rows, guards, by=by, share=share, counts_B=np.ones(rows.num_rows))
    draws = [taken_shares(rows, guards, by=by, share=share, counts_B=each[clusters]) for each in counts]
    return {
        kind: interval(value, np.array([each.get(kind, value) for each in draws])).rounded()
        for kind, value in whole.items()
    }


def taken_shares(
    rows: pa.Table, guards: tuple[Guard, ...], *, by: str, share: float, counts_B: Floats
) -> dict[str, float]:
    """Taken share by kind, and `pure`, where every row is there `counts_B` times."""
    kinds_B = rows["kind"].to_numpy()
    weight_B = pool_weights(kinds_B, counts_B, share=share)
    passes_B = weight_B > 0
    for column, low, high in guards:
        values_B = rows[column].to_numpy()
        least, most = weighted_quantiles(values_B, weight_B, low, high)
        passes_B &= (values_B >= least) & (values_B <= most)
    order = np.argsort(-rows[by].to_numpy(), kind="stable")
    order = order[passes_B[order]]
    # The row at the limit is taken in part, so that exactly a quarter is.
    room = TAKEN * weight_B[order].sum() - (np.cumsum(weight_B[order]) - weight_B[order])
    taken_B = np.zeros(len(weight_B))
    taken_B[order] = np.clip(room, 0, weight_B[order])
    shares = {
        kind: float(taken_B[kinds_B == kind].sum() / weight_B[kinds_B == kind].sum())
        for kind in (INTACT, *KINDS)
        if weight_B[kinds_B == kind].sum() > 0
    }
    return shares | {"pure": float(taken_B[kinds_B == INTACT].sum() / taken_B.sum())}


def pool_weights(kinds_B: np.ndarray, counts_B: Floats, *, share: float) -> Floats:
    """What part of the pool each row is: (B,), in all 1."""
    present = [kind for kind in (INTACT, *KINDS) if counts_B[kinds_B == kind].sum() > 0]
    weight_B = np.zeros(len(kinds_B))
    for kind in present:
        of_kind = 1 - share * (len(present) - 1) if kind == INTACT else share
        mine = kinds_B == kind
        weight_B[mine] = of_kind * counts_B[mine] / counts_B[mine].sum()
    return weight_B


def weighted_quantiles(values_B: Floats, weight_B: Floats, *levels: float) -> Floats:
    """The values below or at which these shares of the pool are."""
    order = np.argsort(values_B, kind="stable")
    below = np.cumsum(weight_B[order]) / weight_B.sum()
    # Rounding may leave the last sum a little below 1.
    places = np.minimum(np.searchsorted(below, levels), len(order) - 1)
    return np.asarray(values_B[order][places])


if __name__ == "__main__":
    main()
