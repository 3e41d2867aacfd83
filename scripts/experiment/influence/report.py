"""The table of tables.py -> which scores go with the influence of rows on distant-context tokens, Markdown and JSON.

    python scripts/experiment/influence/report.py scripts/experiment/results/influence

For every column: Spearman's correlation with u_D; the same given domain, gzip ratio and u_S (ranks, with those
regressed out), which asks for range rather than for better text; its 95 % interval from drawing packages with
replacement; and the share of permutations inside domains whose correlation is as large (two-sided), corrected by Holm
over the columns. Then twice more: after regressing out also the number of a row's tokens that occur in no row the
preconditioner is computed from; and, instead of that, all other text statistics, which shows what a score adds to
them. Rows that the preconditioner is computed from are left out.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from band import in_band
from outcomes import holm

from ladm.runs.columns.by_name import longattn, standardised
from ladm.runs.columns.sink_layers import first_after_sinks
from ladm.selection.ranks import average_ranks

DRAWS = 2000
PERMUTATIONS = 9_999
"""The smallest p, 1 in 10,000, then outlasts a correction over all columns."""
NULL_COLUMNS = 100
CONTROLS = ("gzip_ratio", "u_S")
TEXT = (
    "repeated_4grams", "repeated_13grams", "unigram_entropy", "far_rare", "characters_per_token", "characters",
    "digits",
)  # fmt: skip
"""The text statistics beside the gzip ratio."""
PLAIN = (
    "gain", "gain_positive", "longfilter", "key_tokens", "gain_no_copy", "gzip_ratio", "far_rare",
    "unigram_entropy", "repeated_4grams", "repeated_13grams", "characters_per_token", "loss", "bigram",
    "characters", "prolong", "prolong_per_pair",
)  # fmt: skip

Array = np.ndarray[Any, Any]
Rows = list[dict[str, Any]]


def correlation(x: Array, y: Array) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / size if size > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Rows, what is regressed out beside their domain, and the draws and permutations that all columns share."""

    rows: Rows
    controls: tuple[str, ...]

    def values(self, name: str) -> Array:
        return np.array([row[name] for row in self.rows])

    @cached_property
    def given(self) -> Array:
        """Domain dummies, and the ranks of the controls."""
        domains = self.values("domain")
        dummies = (domains[:, None] == np.unique(domains)).astype(float)
        found = np.column_stack([dummies, *(average_ranks(self.values(name)) for name in self.controls)])
        if len(self.rows) < 3 * found.shape[1]:
            sys.exit(f"{len(self.rows)} rows are too few for {found.shape[1]} variables to be regressed out")
        return found

    def residual(self, values: Array) -> Array:
        """What a least-squares fit on `given` leaves of the ranks of the values."""
        y = average_ranks(values)
        fit, *_ = np.linalg.lstsq(self.given, y, rcond=None)
        return np.asarray(y - self.given @ fit)

    @cached_property
    def outcome(self) -> Array:
        return self.residual(self.values("u_D"))

    @cached_property
    def draws(self) -> Array:
        """How often every row is in each draw of packages: (DRAWS, rows)."""
        names, of_row = np.unique(self.values("package"), return_inverse=True)
        draw = np.random.default_rng(1)
        times = draw.multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)
        return np.asarray(times[:, of_row], dtype=float)

    @cached_property
    def permutations(self) -> Array:
        """Row numbers in a random order inside each domain: (PERMUTATIONS, rows)."""
        draw = np.random.default_rng(2)
        domains = self.values("domain")
        by_domain = np.argsort(domains, kind="stable")
        found = np.empty((PERMUTATIONS, len(domains)), dtype=np.int64)
        for row in found:
            # Sorted by domain and, inside it, by a random number.
            row[by_domain] = np.lexsort((draw.random(len(domains)), domains))
        return found

    def partial(self, values: Array) -> dict[str, Any]:
        """The correlation with u_D given the controls, its interval and its p."""
        left, u = self.residual(values), self.outcome
        value = correlation(left, u)
        # Regressing out again in each draw would be exact and slow; the fit hardly moves between draws.
        again = weighted_correlations(self.draws, left, u)
        null = standardised(left)[self.permutations] @ standardised(u) / len(u)
        return {
            "partial": value,
            "interval": [float(np.quantile(again, q)) for q in (0.025, 0.975)],
            "p": float((1 + np.count_nonzero(np.abs(null) >= abs(value))) / (1 + len(null))),
        }


def weighted_correlations(weights: Array, x: Array, y: Array) -> Array:
    """The correlation of x and y under each row of weights."""
    total = weights.sum(axis=1)
    mean_x, mean_y, xx, yy, xy = ((weights @ each) / total for each in (x, y, x * x, y * y, x * y))
    return np.asarray((xy - mean_x * mean_y) / np.sqrt((xx - mean_x**2) * (yy - mean_y**2)))


def attention_columns(rows: Rows) -> dict[str, Array]:
    """The scores from attention by name, averaged over layers; `robust` as `ladm score --score robust`.

    `clean` are the layers after the last sink layer.
    """
    sinks_L = np.median([row["sink_mass"] for row in rows], axis=0)
    clean = slice(first_after_sinks(sinks_L), None)

    def by_layer(name: str, layers: slice, reduce: Callable[..., Any] = np.mean) -> Array:
        return np.asarray(reduce([row[name][layers] for row in rows], axis=1))

    everything = slice(None)
    later_half = slice(len(sinks_L) // 2, None)
    spread, variance = (np.array([row[name] for row in rows]) for name in ("longattn_ds", "longattn_v"))
    # Rows with a fault do not widen the band.
    intact = np.array([row["split"] != "fault" for row in rows])
    found = {
        "released": by_layer("cds", everything),
        "median": by_layer("cds", everything, np.median),
        "no sigma": by_layer("cds_no_std", everything),
        "no sigma, clean layers": by_layer("cds_no_std", clean),
        "robust": by_layer("value_cds_no_std", later_half),
        "robust, all layers": by_layer("value_cds_no_std", everything),
        "copy share": by_layer("copy_share", clean),
        "LongAttn": longattn(spread, variance),
    }
    return found | {"robust, in its band": in_band(found["robust"], of=found["robust"][intact])}


def columns_of(rows: Rows) -> dict[str, Array]:
    """Every score that all of the rows have."""
    has = {name for name in rows[0] if all(row[name] is not None for row in rows)}
    found = attention_columns(rows) if {"cds", "longattn_ds"} <= has else {}
    found |= {name: np.array([row[name] for row in rows]) for name in PLAIN if name in has}
    return found | {"random": np.random.default_rng(0).random(len(rows))}


def analyse(rows: Rows) -> dict[str, Any]:
    columns = columns_of(rows)
    sample = Sample(rows=rows, controls=CONTROLS)
    given = {
        "given_unseen": Sample(rows=rows, controls=(*CONTROLS, "unseen")),
        "given_text": Sample(rows=rows, controls=(*CONTROLS, *TEXT)),
    }
    u = sample.values("u_D")
    table: dict[str, dict[str, Any]] = {
        name: {"spearman": correlation(average_ranks(values), average_ranks(u))} for name, values in columns.items()
    }
    # Nothing but rounding is left of a control once it is regressed out, so a control has no partial correlation.
    judged = [name for name in columns if name not in CONTROLS]
    for name in judged:
        values = columns[name]
        table[name] |= sample.partial(values)
        table[name] |= {more: each.partial(values) for more, each in given.items() if name not in each.controls}
    holm([table[name] for name in judged], family=len(judged))
    width = float(np.median([table[name]["interval"][1] - table[name]["interval"][0] for name in judged]))
    draw = np.random.default_rng(3)
    null = [sample.partial(draw.random(len(rows))) for _ in range(NULL_COLUMNS)]
    return {
        "rows": len(rows),
        "faults": sum(row["split"] == "fault" for row in rows),
        "packages": len({row["package"] for row in rows}),
        "domains": len({row["domain"] for row in rows}),
        # Power .8 at level .05 needs a true correlation of 2.8 standard errors, of which an interval has 3.92.
        "detectable": 2.8 * width / 3.92,
        "null": {
            "columns": NULL_COLUMNS,
            "p below .05": float(np.mean([each["p"] < 0.05 for each in null])),
            "interval without 0": float(np.mean([each["interval"][0] * each["interval"][1] > 0 for each in null])),
        },
        "u_D with": {
            name: correlation(average_ranks(sample.values(name)), average_ranks(u)) for name in ("u_S", "u_C", "unseen")
        },
        "columns": table,
    }


def preconditioner_effect(rows: Rows) -> dict[str, Any]:
    """The median influence of the rows that the preconditioner is computed from, and of the others of the pool."""
    of = {name: [row["u_D"] for row in rows if row["of_adam"] == flag and row["split"] == "pool"]
          for name, flag in (("rows of v", True), ("others", False))}  # fmt: skip
    return {name: {"rows": len(values), "median u_D": float(np.median(values))} for name, values in of.items()}


def as_markdown(found: dict[str, Any]) -> str:
    null = found["null"]
    lines = [
        f"{found['rows']} rows ({found['faults']} with a natural fault) of {found['packages']} packages in "
        f"{found['domains']} domains. Smallest detectable partial correlation: {found['detectable']:.2f}. Of "
        f"{null['columns']} random columns {null['p below .05']:.1%} have p below .05, and "
        f"{null['interval without 0']:.1%} an interval without 0.",
        "",
        "| column | Spearman with u_D | given domain, gzip, u_S | 95 % interval | p, permutation | p, Holm | "
        "given unseen tokens too | 95 % interval | given all text statistics | 95 % interval |",
        "|---|---:|---:|---|---:|---:|---:|---|---:|---|",
    ]
    for name, entry in sorted(found["columns"].items(), key=lambda item: -item[1].get("partial", -math.inf)):
        if name in CONTROLS:
            lines.append(f"| {name} | {entry['spearman']:+.2f} | a control | | | | | | | |")
            continue
        parts = [_with_interval(entry), f"{entry['p']:.4f} | {entry['p_holm']:.3f}"]
        parts += [_with_interval(entry[more]) if more in entry else " | " for more in ("given_unseen", "given_text")]
        lines.append(f"| {name} | {entry['spearman']:+.2f} | {' | '.join(parts)} |")
    pairs = ", ".join(f"{name} {value:+.2f}" for name, value in found["u_D with"].items())
    return "\n".join([*lines, "", f"Spearman of u_D with: {pairs}."]) + "\n"


def _with_interval(entry: dict[str, Any]) -> str:
    low, high = entry["interval"]
    return f"{entry['partial']:+.2f} | {low:+.2f} to {high:+.2f}"


def report(rows: Rows) -> tuple[dict[str, Any], str]:
    """All results, and the page."""
    measured = [row for row in rows if row.get("u_D") is not None]
    others = [row for row in measured if not row["of_adam"]]
    complete = [row for row in others if row.get("cds") is not None]
    samples = {"rows with every score": complete}
    if len(others) > len(complete):
        samples["all rows, scores without attention"] = others
    intact = [row for row in complete if row["split"] != "fault"]
    if len(intact) < len(complete):
        samples["rows with every score and no fault"] = intact
    results: dict[str, Any] = {title: analyse(sample) for title, sample in samples.items()}
    text = "\n".join(f"## {title[0].upper()}{title[1:]}\n\n{as_markdown(found)}" for title, found in results.items())
    effect = results["preconditioner"] = preconditioner_effect(measured)
    medians = ", ".join(f"{each['median u_D']:.2f} of {each['rows']} {name}" for name, each in effect.items())
    products = results["products"] = sorted({row.get("products", "float32") for row in measured})
    how = f"Matrix products of the gradients in {' and '.join(products)}."
    return results, f"{text}\nMedian u_D in the pool: {medians}. {how}\n"


@click.command(help=__doc__.splitlines()[0])
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
def main(folder: Path) -> None:
    results, text = report(pq.read_table(folder / "rows.parquet").to_pylist())
    (folder / "report.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "report.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
