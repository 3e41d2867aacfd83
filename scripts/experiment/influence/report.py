"""What measure.py found -> which scores go with the influence of rows on distant-context tokens, Markdown and JSON.

    python scripts/experiment/influence/report.py runs/experiment/influence \
        --output scripts/experiment/results/influence

For every column: Spearman's correlation with u_D; the same given domain, gzip ratio and u_S (ranks, with those
regressed out), which asks for range rather than for better text; its 95 % interval from drawing packages with
replacement; and the share of permutations inside domains whose correlation is as large (two-sided).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

DRAWS = 2000
SINK_MASS = 0.5
"""A layer whose median sink mass is above this share is a sink layer."""

Array = np.ndarray[Any, Any]


def ranks(values: Array) -> Array:
    """Ranks from 0, ties by their mean."""
    order = np.argsort(values, kind="stable")
    _, group, counts = np.unique(values[order], return_inverse=True, return_counts=True)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    mean_rank = first + (counts - 1) / 2
    found = np.empty(len(values))
    found[order] = mean_rank[group]
    return found


def residual(target: Array, given: Array) -> Array:
    """What a least-squares fit on the columns of `given` leaves of the ranks of `target`."""
    y = ranks(target)
    fit, *_ = np.linalg.lstsq(given, y, rcond=None)
    return np.asarray(y - given @ fit)


def standardised(values: Array) -> Array:
    return (values - values.mean()) / max(float(values.std()), 1e-30)


def correlation(x: Array, y: Array) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / size if size > 0 else 0.0


def given_columns(rows: list[dict[str, Any]]) -> Array:
    """Domain dummies, and the ranks of gzip ratio and u_S."""
    domains = sorted({row["domain"] for row in rows})
    dummies = np.array([[row["domain"] == domain for domain in domains] for row in rows], dtype=float)
    controls = [ranks(np.array([row[name] for row in rows])) for name in ("gzip_ratio", "u_S")]
    return np.column_stack([dummies, *controls])


def draw_packages(rows: list[dict[str, Any]], *, seed: int) -> list[Array]:
    """Row numbers of packages drawn with replacement, a draw each."""
    packages = sorted({row["package"] for row in rows})
    of = {package: np.flatnonzero([row["package"] == package for row in rows]) for package in packages}
    draw = np.random.default_rng(seed)
    return [
        np.concatenate([of[packages[k]] for k in draw.integers(0, len(packages), len(packages))]) for _ in range(DRAWS)
    ]


def permuted(rows: list[dict[str, Any]], values: Array, draw: np.random.Generator) -> Array:
    """The values in a random order inside each domain."""
    found = values.copy()
    for domain in sorted({row["domain"] for row in rows}):
        at = np.flatnonzero([row["domain"] == domain for row in rows])
        found[at] = values[draw.permutation(at)]
    return found


def columns_of(rows: list[dict[str, Any]]) -> dict[str, Array]:
    """The scores by name. Layers are averaged; `clean` are those after the last sink layer."""
    sinks_L = np.median([row["sink_mass"] for row in rows], axis=0)
    sink_layers = np.flatnonzero(sinks_L > SINK_MASS)
    clean = slice(int(sink_layers.max()) + 1 if len(sink_layers) else 0, None)
    if len(sinks_L[clean]) == 0:
        clean = slice(0, None)

    def by_layer(name: str, layers: slice, reduce: Callable[..., Any] = np.mean) -> Array:
        return np.asarray(reduce([row[name][layers] for row in rows], axis=1))

    everything = slice(None)
    found = {
        "released": by_layer("cds", everything),
        "median": by_layer("cds", everything, np.median),
        "no sigma": by_layer("cds_no_std", everything),
        "no sigma, clean layers": by_layer("cds_no_std", clean),
        "value-weighted, no sigma": by_layer("value_cds_no_std", everything),
        "value-weighted, no sigma, clean layers": by_layer("value_cds_no_std", clean),
        "copy share": by_layer("copy_share", clean),
    }
    plain = (
        "gain", "gain_positive", "longfilter", "key_tokens", "gain_no_copy", "gzip_ratio", "far_rare",
        "unigram_entropy", "repeated_4grams", "repeated_13grams", "characters_per_token", "loss", "bigram",
    )  # fmt: skip
    plain += tuple(name for name in ("characters", "prolong", "prolong_per_pair") if name in rows[0])
    found |= {name: np.array([row[name] for row in rows]) for name in plain}
    spread, variance = (np.array([row[name] for row in rows]) for name in ("longattn_ds", "longattn_v"))
    found["LongAttn"] = standardised(spread) - 0.5 * standardised(variance)
    return found | {"random": np.random.default_rng(0).random(len(rows))}


def guarded(rows: list[dict[str, Any]], scores: Array) -> Array:
    """A score inside its band: values above the 95th percentile rank last. The band is of the rows without a fault."""
    intact = np.array([row["split"] != "fault" for row in rows])
    return np.where(scores <= np.quantile(scores[intact], 0.95), scores, scores.min() - 1)


def analyse(rows: list[dict[str, Any]]) -> dict[str, Any]:
    columns = columns_of(rows)
    best = "value-weighted, no sigma"
    columns[f"{best}, in its band"] = guarded(rows, columns[best])
    u = np.array([row["u_D"] for row in rows])
    given = given_columns(rows)
    if len(rows) < 3 * given.shape[1]:
        sys.exit(f"{len(rows)} rows are too few for {given.shape[1]} variables to be regressed out; measure more")
    u_left = residual(u, given)
    draws = draw_packages(rows, seed=1)
    # Regressing out again in each draw would be exact and slow; the fit hardly moves between draws.
    table = {}
    for name, values in columns.items():
        left = residual(values, given)
        again = [correlation(left[at], u_left[at]) for at in draws]
        draw = np.random.default_rng(2)
        partial = correlation(left, u_left)
        null = [correlation(permuted(rows, left, draw), u_left) for _ in range(DRAWS // 4)]
        table[name] = {
            "spearman": correlation(ranks(values), ranks(u)),
            "partial": partial,
            "interval": [float(np.quantile(again, q)) for q in (0.025, 0.975)],
            "p": float((1 + sum(abs(x) >= abs(partial) for x in null)) / (1 + len(null))),
        }
    width = float(np.median([entry["interval"][1] - entry["interval"][0] for entry in table.values()]))
    return {
        "rows": len(rows),
        "faults": sum(row["split"] == "fault" for row in rows),
        "packages": len({row["package"] for row in rows}),
        "domains": len({row["domain"] for row in rows}),
        # Power .8 at level .05 needs a true correlation of 2.8 standard errors, of which an interval has 3.92.
        "detectable": 2.8 * width / 3.92,
        "sink_mass_by_layer": np.median([row["sink_mass"] for row in rows], axis=0).tolist(),
        "u_spearman": {
            f"{a} {b}": correlation(*(ranks(np.array([row[f"u_{c}"] for row in rows])) for c in (a, b)))
            for a, b in (("D", "S"), ("D", "C"), ("C", "S"))
        },
        "columns": table,
    }


def as_markdown(found: dict[str, Any]) -> str:
    lines = [
        f"{found['rows']} rows ({found['faults']} with a natural fault) of {found['packages']} packages in "
        f"{found['domains']} domains. Smallest detectable partial correlation: {found['detectable']:.2f}.",
        "",
        "| column | Spearman with u_D | given domain, gzip, u_S | 95 % interval | p, permutation |",
        "|---|---|---|---|---|",
    ]
    for name, entry in sorted(found["columns"].items(), key=lambda item: -item[1]["partial"]):
        low, high = entry["interval"]
        interval = f"{low:+.2f} to {high:+.2f}"
        lines.append(f"| {name} | {entry['spearman']:+.2f} | {entry['partial']:+.2f} | {interval} | {entry['p']:.3f} |")
    pairs = ", ".join(f"{name} {value:+.2f}" for name, value in found["u_spearman"].items())
    return "\n".join([*lines, "", f"Spearman between the influences on the classes: {pairs}."]) + "\n"


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows that every part has measured; ProLong's score is optional."""
    parts = [
        {row["id"]: row for row in map(json.loads, (folder / f"{name}.jsonl").read_text().splitlines())}
        for name in ("influence", "columns", "prolong")
        if name != "prolong" or (folder / "prolong.jsonl").exists()
    ]
    first, *others = parts
    return [
        row | {key: value for part in others for key, value in part[name].items()}
        for name, row in first.items()
        if all(name in part for part in others)
    ]


@click.command(help=__doc__.splitlines()[0])
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(folder: Path, output: Path) -> None:
    rows = read_rows(folder)
    output.mkdir(parents=True, exist_ok=True)
    results = {"all rows": analyse(rows)}
    intact = [row for row in rows if row["split"] != "fault"]
    if len(intact) < len(rows):
        results["rows without a fault"] = analyse(intact)
    (output / "report.json").write_text(json.dumps(results, indent=1) + "\n")
    text = "\n".join(f"## {title[0].upper()}{title[1:]}\n\n{as_markdown(found)}" for title, found in results.items())
    (output / "report.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
