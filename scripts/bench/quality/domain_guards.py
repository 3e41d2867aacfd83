"""Guards with quantiles of the whole pool, and of each domain, in pools of two domains: software and books.

    python scripts/bench/quality/domain_guards.py --output scripts/bench/results/quality/domain-guards.json

The pools are made by weights from the committed scores, as in `quantile_guards.py`: in each domain every bad kind is
1 % or 5 %, and the intact documents are the rest. As `ladm select --top 25%` does, the best quarter of what passes is
taken of each domain. `pure` is the share of intact documents in what is taken; `passing` the share of the intact
documents of a domain that pass; `books taken` the share of books in what is taken. `gain` is `pure` with the quantiles
of each domain minus `pure` with those of the pool. Nothing is fitted or chosen; no row is of a package that limits were
chosen on. Intervals are by bootstrap over packages, drawn for each domain by itself.

Shape suffix: B rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from quantile_guards import (
    LEVELS,
    RESULTS,
    SEED,
    SHARES_OF_KIND,
    TAKEN,
    WITH_MODEL,
    WITHOUT_MODEL,
    Guard,
    facts,
    pool_weights,
    weighted_quantiles,
    write_result,
)

from ladm.calibration.contrast import INTACT
from ladm.calibration.contrast_scores import JUDGED_ON
from ladm.calibration.estimates import interval
from ladm.method.reduction import Floats

DOMAINS = ("software", "books")
POOLS = {
    "SmolLM2, 4,096 tokens": ("4096", ("quality", "quality-books")),
    "SmolLM2, 2,048 tokens": ("2048", ("quality-near", "quality-near-books")),
}
"""The part of the results, and the folder of each domain."""
SHARES_OF_BOOKS = (0.1, 0.5)
RANKED_AND_GUARDED = {
    "robust, guards of pool": WITH_MODEL,
    "far_rare, guards of pool": ("F", WITH_MODEL[1]),
    "far_rare, guards without a model": WITHOUT_MODEL,
}
COLUMNS = ("kind", "package", "robust", "copy_share", "gzip", "F")
DRAWS = 4_000
"""With 400 the end of an interval varies by 0.005 from seed to seed, enough to move it across 0."""


@click.command(help=__doc__.splitlines()[0])
@click.option("--results", default=RESULTS, type=click.Path(path_type=Path, exists=True), help="Folder of the scores.")
@click.option("--output", type=click.Path(path_type=Path))
def main(results: Path, output: Path | None) -> None:
    found: dict[str, Any] = {}
    for name, (part, folders) in POOLS.items():
        tables = [read(results / folder / "scores.parquet", part) for folder in folders]
        for books in SHARES_OF_BOOKS:
            for share in SHARES_OF_KIND:
                pool = f"{name}, {books:.0%} books, {share:.0%} of each bad kind"
                found[pool] = {
                    what: compare(tables, LEVELS[guards], by=by, books=books, share=share)
                    for what, (by, guards) in RANKED_AND_GUARDED.items()
                }
    write_result(facts("cpu") | {"pools": found}, output)


def read(path: Path, part: str) -> pa.Table:
    """The rows of one length, of packages that nothing was chosen on."""
    table = pq.read_table(path)
    mine = pc.and_(pc.equal(table["part"], part), pc.equal(table["half"], JUDGED_ON))
    return table.filter(mine).select(list(COLUMNS))


def compare(
    tables: list[pa.Table], guards: tuple[Guard, ...], *, by: str, books: float, share: float
) -> dict[str, dict[str, list[float]]]:
    """Each figure of `taken_of`, with the quantiles of the pool and of each domain, and the gain, with intervals."""
    rows = pa.concat_tables(tables)
    domain_B = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    kinds = [table["kind"].to_numpy() for table in tables]
    draws = zip(*(draw_counts(table, seed=[SEED, number]) for number, table in enumerate(tables)), strict=True)
    found: dict[str, list[dict[str, float]]] = {"of the pool": [], "of each domain": []}
    for counts in draws:
        weight_B = np.concatenate([
            of_domain * pool_weights(kinds_B, counts_B, share=share)
            for of_domain, kinds_B, counts_B in zip((1 - books, books), kinds, counts, strict=True)
        ])  # fmt: skip
        for name, by_domain in (("of the pool", False), ("of each domain", True)):
            found[name].append(taken_of(rows, domain_B, weight_B, guards, by=by, by_domain=by_domain))
    figures = {
        name: {key: _rounded([each[key] for each in every]) for key in every[0]} for name, every in found.items()
    }
    pure = [np.array([each["pure"] for each in found[name]]) for name in ("of each domain", "of the pool")]
    return figures | {"gain": {"pure": _rounded((pure[0] - pure[1]).tolist())}}


def draw_counts(rows: pa.Table, *, seed: list[int]) -> list[Floats]:
    """How often each row is there, (B,): once, and then in each draw of packages."""
    names, clusters = np.unique(rows["package"].to_numpy(), return_inverse=True)
    counts = np.random.default_rng(seed).multinomial(len(names), [1 / len(names)] * len(names), size=DRAWS)
    return [np.ones(rows.num_rows), *(each.astype(float)[clusters] for each in counts)]


def taken_of(
    rows: pa.Table, domain_B: np.ndarray, weight_B: Floats, guards: tuple[Guard, ...], *, by: str, by_domain: bool
) -> dict[str, float]:
    """What the best quarter of each domain is made of, and what passes."""
    groups = [domain_B == number for number in range(len(DOMAINS))] if by_domain else [domain_B >= 0]
    passes_B = weight_B > 0
    for column, low, high in guards:
        values_B = rows[column].to_numpy()
        for mine in groups:
            least, most = weighted_quantiles(values_B[mine], weight_B[mine], low, high)
            passes_B[mine] &= (values_B[mine] >= least) & (values_B[mine] <= most)
    intact_B = rows["kind"].to_numpy() == INTACT
    taken_B = np.zeros(len(weight_B))
    found = {}
    for number, domain in enumerate(DOMAINS):
        mine = domain_B == number
        places = np.flatnonzero(mine & passes_B)
        order = places[np.argsort(-rows[by].to_numpy()[places], kind="stable")]
        # The row at the limit is taken in part, so that exactly a quarter is.
        before = np.cumsum(weight_B[order]) - weight_B[order]
        taken_B[order] = np.clip(TAKEN * weight_B[order].sum() - before, 0, weight_B[order])
        found[f"passing, {domain}"] = _share(weight_B[mine & intact_B], passes_B[mine & intact_B])
        found[f"pure, {domain}"] = _share(taken_B[mine], intact_B[mine])
    return found | {"pure": _share(taken_B, intact_B), "books taken": _share(taken_B, domain_B == 1)}


def _share(weight_B: Floats, is_part_B: np.ndarray) -> float:
    """What share of the weight is that part; 0 where there is no weight."""
    whole = float(weight_B.sum())
    return float(weight_B[is_part_B].sum()) / whole if whole else 0.0


def _rounded(values: list[float]) -> list[float]:
    """The first value, and the interval that the others make."""
    return interval(values[0], np.array(values[1:])).rounded()


if __name__ == "__main__":
    main()
