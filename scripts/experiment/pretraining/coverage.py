"""Sizes of the three variances -> how often a 95 % interval of gate 2's design contains the true difference.

    python scripts/experiment/pretraining/coverage.py

The design: `random`, 2 selections by 2 seeds, against `random x2`, 2 selections with a seed each, on 32 packages.
Effects are normal. Compares Satterthwaite's degrees of freedom, which differences.py uses, with the 2 of the seeds
alone and with the normal distribution.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from outcomes import student_t

Array = np.ndarray[Any, Any]

CASES = {
    "as estimated for D": (0.0008, 0.0049, 0.0047),
    "no variance of selections": (0.0028, 0.0, 0.0039),
    "selections dominate": (0.0008, 0.0049, 0.0014),
    "documents dominate": (0.0008, 0.0020, 0.0055),
}
"""Standard deviations of seeds and selections, and the documents' standard error of the difference."""
FREEDOMS = np.array([2, 1, 31])[:, None]
MANY = 1e4
"""Degrees of freedom at which t is the normal distribution."""


def covered(seeds: float, selections: float, documents: float, *, count: int) -> dict[str, float]:
    draw = np.random.default_rng(0)
    # The error of a mean over selections and seeds: two arms of 2 selections, of 4 students and of 2.
    differences = draw.normal(size=count) * np.sqrt(seeds**2 * (1 / 4 + 1 / 2) + selections**2 + documents**2)
    of_seeds = seeds**2 * draw.chisquare(2, count) / 2
    of_means = (selections**2 + seeds**2 / 2) * draw.chisquare(1, count)
    parts = np.stack(
        [
            of_seeds * (1 / 4 + 1 / 2),
            np.maximum(0, of_means - of_seeds / 2),
            documents**2 * draw.chisquare(31, count) / 31,
        ]
    )
    total = parts.sum(axis=0)
    freedoms = {
        "Satterthwaite": total**2 / (parts**2 / FREEDOMS).sum(axis=0),
        "of the seeds": np.full(count, 2.0), "normal": np.full(count, MANY),
    }  # fmt: skip
    grid = np.geomspace(0.99, 40, 80)
    table = np.array([student_t(0.975, freedom) for freedom in [*grid, MANY]])

    def quantiles(freedom: Array) -> Array:
        return np.interp(np.log(freedom), np.log([*grid, MANY]), table)

    return {
        name: float((np.abs(differences) <= quantiles(freedom) * np.sqrt(total)).mean())
        for name, freedom in freedoms.items()
    }


@click.command(help=__doc__.splitlines()[0])
@click.option("--count", default=200_000, show_default=True, help="Simulated experiments.")
def main(count: int) -> None:
    found = {name: covered(*sizes, count=count) for name, sizes in CASES.items()}
    columns = list(next(iter(found.values())))
    print(f"| variances | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for name, shares in found.items():
        print(f"| {name} | {' | '.join(f'{share:.3f}' for share in shares.values())} |")


if __name__ == "__main__":
    main()
