"""A run's scores against a file of expected ones: exit 1 with the rows that differ.

python scripts/compare_scores.py runs/toy/scores toy_scores.json --relative 1e-3 --same-order
python scripts/compare_scores.py RUN tests/data/published_toy_scores.jsonl --relative 2e-2 --spearman 0.99
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

Key = tuple[Any, Any]


def read(path: Path) -> dict[Key, float]:
    """Scores by (index, chunked_index)."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        scores = {(line["index"], line["chunked_index"]): float(line["score"]) for line in lines}
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path} does not hold one score a line: {error!r}")
    # Counted, because one of two rows with the same key would hide what the other one has.
    if len(scores) < len(lines):
        sys.exit(f"{path} has {len(lines)} scores of {len(scores)} rows")
    return scores


def relative_difference(ours: float, expected: float) -> float:
    """The difference relative to the expected score; from 0 nothing but 0 has a finite one."""
    if ours == expected:
        return 0.0
    return abs(ours - expected) / abs(expected) if expected else math.inf


def out_of_order(ours: dict[Key, float], expected: dict[Key, float], relative: float) -> list[str]:
    """Neighbours in our order that are in the opposite order in the expected scores, by more than a tie."""
    order = sorted(ours, key=lambda key: -ours[key])
    wrong = []
    lowest = order[0]
    for key in order[1:]:
        if expected[key] > expected[lowest] * (1 + relative):
            wrong.append(f"row {key[0]} is ranked below row {lowest[0]}, expected above")
        if expected[key] < expected[lowest]:
            lowest = key
    return wrong


def spearman(ours: dict[Key, float], expected: dict[Key, float]) -> float:
    """Rank correlation, ties sharing their mean rank."""

    def ranks(values: list[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
        array = np.array(values)
        return np.array([(array < value).sum() + ((array == value).sum() - 1) / 2 for value in array])

    keys = list(expected)
    return float(np.corrcoef(ranks([ours[key] for key in keys]), ranks([expected[key] for key in keys]))[0, 1])


@click.command(help=__doc__.splitlines()[0])
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("reference", type=click.Path(path_type=Path))
@click.option("--relative", type=float, required=True, help="Largest relative difference of a score.")
@click.option("--same-order", is_flag=True, help="The ranking must be the same, except for ties within --relative.")
@click.option("--spearman", "least", type=float, help="Least rank correlation.")
def main(run: Path, reference: Path, relative: float, same_order: bool, least: float | None) -> None:
    ours, expected = read(run / "sorted_by_score.jsonl"), read(reference)
    if set(ours) != set(expected):
        missing, extra = len(set(expected) - set(ours)), len(set(ours) - set(expected))
        sys.exit(f"not the same rows: {missing} of the {len(expected)} expected are missing, {extra} are not expected")
    apart = {key: relative_difference(ours[key], score) for key, score in expected.items()}
    faults = [
        f"row {key[0]}: {ours[key]:.8g}, expected {expected[key]:.8g} (relative {difference:.2g})"
        for key, difference in apart.items()
        if not difference <= relative
    ]
    if same_order:
        faults += out_of_order(ours, expected, relative)
    correlation = spearman(ours, expected)
    if least is not None and not correlation >= least:
        faults.append(f"rank correlation {correlation:.4f}, expected at least {least}")
    for fault in faults:
        print(f"DIFFERS  {fault}")
    print(
        f"{len(expected)} scores against {reference}: largest relative difference {max(apart.values()):.2g} "
        f"(allowed {relative:g}), rank correlation {correlation:.4f}"
    )
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
