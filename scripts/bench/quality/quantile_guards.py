"""The committed scores of the judging rows -> what guards let through whose limits are quantiles of the pool itself.

    python scripts/bench/quality/quantile_guards.py --output scripts/bench/results/quality/quantile-guards.json

A pool is made by weights, as in `guarded.py`: every bad kind is 1 % or 5 % of it, the intact documents are the rest.
The limits of the guards are quantiles of that pool, as `ladm select --within copy_share:-95%` takes them, and the best
quarter of what passes is taken, as with `--top 25%`; `of the pool` is about a quarter of the whole pool, or all that
passes. `pure` is the share of intact documents in what is taken, `chance` their share in what passes, which is what a
random choice takes. `passing` is the share of the intact documents that pass, `clean` the same of a pool without a bad
row. Nothing is fitted; which limits the docs recommend was chosen on half 0 at 4,096 tokens, and the other pools judge
them.

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

from ladm.calibration.contrast import INTACT, KINDS
from ladm.calibration.contrast_scores import CHOSEN_ON, JUDGED_ON
from ladm.calibration.estimates import interval
from ladm.method.reduction import Floats

RESULTS = Path(__file__).resolve().parents[1] / "results"
POOLS = {
    "SmolLM2, 4,096 tokens, half 0": ("quality", "4096", CHOSEN_ON),
    "SmolLM2, 4,096 tokens, half 1": ("quality", "4096", JUDGED_ON),
    "SmolLM2, 2,048 tokens, half 1": ("quality", "2048", JUDGED_ON),
    "Gemma, 2,048 tokens, half 1": ("quality-gemma-kinds", "2048", JUDGED_ON),
    "SmolLM2, 4,096 tokens, books": ("quality-books", "4096", JUDGED_ON),
    "SmolLM2, 2,048 tokens, half 0, with near share": ("quality-near", "2048", CHOSEN_ON),
    "SmolLM2, 2,048 tokens, half 1, with near share": ("quality-near", "2048", JUDGED_ON),
    "SmolLM2, 2,048 tokens, books, with near share": ("quality-near-books", "2048", JUDGED_ON),
}
"""The folder of the results, the part and the half of each pool."""
Guard = tuple[str, float, float]
"""A column, and the quantiles between which it is kept."""


def _guards(
    *, robust: float | None = None, near_share: float | None = None, copy_share: float = 0.95, gzip: float = 1.0
) -> tuple[Guard, ...]:
    ceiling = () if robust is None else (("robust", 0.0, robust),)
    floor = () if near_share is None else (("near_share", near_share, 1.0),)
    return (("copy_share", 0.0, copy_share), ("gzip", 0.1, gzip), *ceiling, *floor)


LEVELS: dict[str, tuple[Guard, ...]] = {
    "none": (),
    # Guards that need no model.
    "gzip_ratio:10%-": (("gzip", 0.1, 1.0),),
    **{
        f"far_rare:-{100 * most:.0f}%, gzip_ratio:10%-": (("gzip", 0.1, 1.0), ("F", 0.0, most))
        for most in (0.95, 0.9, 0.85, 0.8, 0.75)
    },
    "copy_share:-95%, gzip_ratio:10%-": _guards(),
    **{
        f"robust:-{100 * most:.0f}%, copy_share:-95%, gzip_ratio:10%-": _guards(robust=most)
        for most in (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
    },
    **{
        f"near_share:{100 * least:.0f}%-, copy_share:-95%, gzip_ratio:10%-": _guards(near_share=least)
        for least in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
    },
    "robust:-80%, copy_share:-95%, gzip_ratio:10%-90%": _guards(robust=0.8, gzip=0.9),
    "robust:-80%, copy_share:-90%, gzip_ratio:10%-": _guards(robust=0.8, copy_share=0.9),
}
BOTH = "rank(robust)+rank(F)"
WITH_MODEL = ("robust", "robust:-80%, copy_share:-95%, gzip_ratio:10%-")
WITHOUT_MODEL = ("F", "far_rare:-80%, gzip_ratio:10%-")
"""What documents are ranked by, and the guards: those of `pool`, and the same limits of columns that need no model."""
RANKED_BY = ("robust", "F", BOTH)
DIFFERENCES = (("robust", "chance"), ("robust", "F"), (BOTH, "robust"), (BOTH, "F"))
SHARES_OF_KIND, TAKEN = (0.01, 0.05), 0.25
DRAWS, SEED = 400, 17


@click.command(help=__doc__.splitlines()[0])
@click.option("--results", default=RESULTS, type=click.Path(path_type=Path, exists=True), help="Folder of the scores.")
@click.option("--output", type=click.Path(path_type=Path))
def main(results: Path, output: Path | None) -> None:
    found, gains = {}, {}
    for name, (folder, part, half) in POOLS.items():
        table = pq.read_table(results / folder / "scores.parquet")
        rows = table.filter(pc.and_(pc.equal(table["part"], part), pc.equal(table["half"], half)))
        found[name] = {
            f"{share:.0%} of each kind": {
                guards: taken_with_intervals(rows, LEVELS[guards], share=share)
                for guards in LEVELS
                if {column for column, _, _ in LEVELS[guards]} <= set(rows.column_names)
            }
            for share in SHARES_OF_KIND
        }
        gains[name] = {f"{share:.0%} of each kind": gain_of_model(rows, share=share) for share in SHARES_OF_KIND}
    write_result(facts("cpu") | {"taken": found, "with a model over without": gains}, output)


def taken_with_intervals(rows: pa.Table, guards: tuple[Guard, ...], *, share: float) -> dict[str, Any]:
    """`pure` by each ranking, and differences in it; `passing` and `clean`; by `robust` what is taken of each kind too.

    Intervals are by bootstrap over packages; those of differences have the same draws for both.
    """
    counts_B = bootstrap_counts(rows)
    found = {
        by: [taken_shares(rows, guards, by=by, share=share, counts_B=each) for each in counts_B] for by in RANKED_BY
    }
    pure = {by: np.array([each["pure"] for each in found[by]]) for by in RANKED_BY}
    pure["chance"] = np.array([pure_of_passing(rows, guards, share=share, counts_B=each) for each in counts_B])
    # Which documents pass does not depend on how they are ranked.
    passing, clean = (
        [passing_intact(rows, guards, share=each, counts_B=of_draw) for of_draw in counts_B] for each in (share, 0.0)
    )
    return {
        "passing": _rounded(np.array(passing)),
        "clean": _rounded(np.array(clean)),
        "chance": {"pure": _rounded(pure["chance"])},
        **{
            by: {kind: _rounded(np.array([each.get(kind, whole[kind]) for each in found[by]])) for kind in shown}
            for by, (whole, *_) in found.items()
            for shown in [[kind for kind in whole if kind != "pure of the pool"] if by == "robust" else ["pure"]]
        },
        "of the pool": {by: _rounded(np.array([each["pure of the pool"] for each in found[by]])) for by in RANKED_BY},
        **{f"pure, {one} over {other}": _rounded(pure[one] - pure[other]) for one, other in DIFFERENCES},
    }


def gain_of_model(rows: pa.Table, *, share: float) -> dict[str, list[float]]:
    """How much purer is what WITH_MODEL takes than what WITHOUT_MODEL takes, of what passes and of the pool."""
    taken = [
        [taken_shares(rows, LEVELS[guards], by=by, share=share, counts_B=each) for each in bootstrap_counts(rows)]
        for by, guards in (WITH_MODEL, WITHOUT_MODEL)
    ]
    return {
        kind: _rounded(np.array([one[kind] - other[kind] for one, other in zip(*taken, strict=True)]))
        for kind in ("pure", "pure of the pool")
    }


def bootstrap_counts(rows: pa.Table) -> list[Floats]:
    """How often each row is there, (B,): once, and then in each draw of packages. The same for every call."""
    names, clusters = np.unique(rows["package"].to_numpy(), return_inverse=True)
    draw = np.random.default_rng(SEED)
    counts = draw.multinomial(len(names), [1 / len(names)] * len(names), size=DRAWS).astype(float)
    return [np.ones(rows.num_rows), *(each[clusters] for each in counts)]


def _rounded(values: Floats) -> list[float]:
    """The first value, and the interval that the others make."""
    return interval(float(values[0]), values[1:]).rounded()


def taken_shares(
    rows: pa.Table, guards: tuple[Guard, ...], *, by: str, share: float, counts_B: Floats
) -> dict[str, float]:
    """Taken share by kind, and `pure`, where every row is there `counts_B` times."""
    kinds_B = rows["kind"].to_numpy()
    weight_B = pool_weights(kinds_B, counts_B, share=share)
    passes_B = _passes(rows, guards, weight_B)
    order = np.argsort(-_values(rows, by, weight_B), kind="stable")
    order = order[passes_B[order]]
    # The row at the limit is taken in part, so that exactly a quarter is.
    before = np.cumsum(weight_B[order]) - weight_B[order]
    taken_B, of_pool_B = np.zeros(len(weight_B)), np.zeros(len(weight_B))
    taken_B[order] = np.clip(TAKEN * weight_B[order].sum() - before, 0, weight_B[order])
    of_pool_B[order] = np.clip(TAKEN - before, 0, weight_B[order])
    shares = {
        kind: float(taken_B[kinds_B == kind].sum() / weight_B[kinds_B == kind].sum())
        for kind in (INTACT, *KINDS)
        if weight_B[kinds_B == kind].sum() > 0
    }
    pure, of_pool = (float(each_B[kinds_B == INTACT].sum() / each_B.sum()) for each_B in (taken_B, of_pool_B))
    return shares | {"pure": pure, "pure of the pool": of_pool}


def pure_of_passing(rows: pa.Table, guards: tuple[Guard, ...], *, share: float, counts_B: Floats) -> float:
    """The share of intact documents in what passes the guards."""
    kinds_B = rows["kind"].to_numpy()
    weight_B = pool_weights(kinds_B, counts_B, share=share)
    passes_B = _passes(rows, guards, weight_B)
    return float(weight_B[passes_B & (kinds_B == INTACT)].sum() / weight_B[passes_B].sum())


def passing_intact(rows: pa.Table, guards: tuple[Guard, ...], *, share: float, counts_B: Floats) -> float:
    """The share of the intact documents that pass the guards."""
    kinds_B = rows["kind"].to_numpy()
    weight_B = pool_weights(kinds_B, counts_B, share=share)
    mine = weight_B * (kinds_B == INTACT)
    return float(mine[_passes(rows, guards, weight_B)].sum() / mine.sum())


def _passes(rows: pa.Table, guards: tuple[Guard, ...], weight_B: Floats) -> np.ndarray:
    passes_B = weight_B > 0
    for column, low, high in guards:
        values_B = rows[column].to_numpy()
        least, most = weighted_quantiles(values_B, weight_B, low, high)
        passes_B &= (values_B >= least) & (values_B <= most)
    return passes_B


def _values(rows: pa.Table, by: str, weight_B: Floats) -> Floats:
    if by != BOTH:
        return np.asarray(rows[by].to_numpy())
    return weighted_ranks(rows["robust"].to_numpy(), weight_B) + weighted_ranks(rows["F"].to_numpy(), weight_B)


def weighted_ranks(values_B: Floats, weight_B: Floats) -> Floats:
    """What share of the pool has at most the row's value, half of those with the same value: (B,), as `rank(x)`."""
    found, places_B = np.unique(values_B, return_inverse=True)
    weight = np.bincount(places_B, weights=weight_B, minlength=len(found))
    return np.asarray((np.cumsum(weight) - weight / 2)[places_B] / weight.sum())


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
