"""Losses of students by document -> the difference between two arms with its interval.

Differences are paired by token: both arms are judged on the same held-out tokens. Their variance is the sum of three:
of the seeds (pooled over all arms), of the random selections, and of the documents (clusters are packages). p is from
Student's t with Satterthwaite's degrees of freedom of that sum, and corrected by Holm over the four contrasts.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from outcomes import student_t

quantile = cache(student_t)

Array = np.ndarray[Any, Any]
Runs = dict[tuple[str, int, int], Array]

POWER = 0.8
"""How often a difference of the detectable size is found at level .05."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Sums of every student by document, and what they are divided by. `clusters` names each document's package."""

    sums: Runs
    weights: Array
    clusters: Array
    minus: Outcome | None = None
    """An outcome of the same documents and students that is subtracted: does the first move more than this one?"""

    def value(self, key: tuple[str, int, int]) -> float:
        ratio = float(self.sums[key].sum() / self.weights.sum())
        return ratio - (self.minus.value(key) if self.minus else 0.0)

    def keys(self, arm: str) -> list[tuple[str, int, int]]:
        return [key for key in self.sums if key[0] == arm]

    def difference(self, arm: str, other: str) -> tuple[float, Array]:
        """The difference in loss of two arms, and the part of its error that comes from each document."""
        means = [np.mean([self.sums[key] for key in self.keys(name)], axis=0) for name in (arm, other)]
        by_document = means[0] - means[1]
        total = self.weights.sum()
        value = float(by_document.sum() / total)
        # A ratio of sums, linearised: a document with many tokens counts for more.
        errors = (by_document - value * self.weights) / total
        if self.minus is None:
            return value, errors
        value_of_minus, errors_of_minus = self.minus.difference(arm, other)
        return value - value_of_minus, errors - errors_of_minus


def seed_variance(outcome: Outcome) -> tuple[float, int]:
    """Variance between students of one selection, pooled over all selections, and its degrees of freedom."""
    cells: dict[tuple[str, int], list[float]] = defaultdict(list)
    for arm, draw, seed in outcome.sums:
        cells[arm, draw].append(outcome.value((arm, draw, seed)))
    squares = sum(float(np.square(np.array(values) - np.mean(values)).sum()) for values in cells.values())
    freedom = sum(len(values) - 1 for values in cells.values())
    return (squares / freedom if freedom else math.nan), freedom


def draw_variance(outcome: Outcome, of_seeds: float) -> float:
    """Variance between random selections beyond that of their seeds; 0 where it is no larger."""
    cells: dict[int, list[float]] = defaultdict(list)
    for _, draw, seed in outcome.keys("random"):
        cells[draw].append(outcome.value(("random", draw, seed)))
    if len(cells) < 2:
        return 0.0
    means = np.array([np.mean(values) for values in cells.values()])
    of_means = float(np.mean([of_seeds / len(values) for values in cells.values()]))
    return max(0.0, float(means.var(ddof=1)) - of_means)


def satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of independent variances, from pairs of a variance and its own freedom.

    Variances of 0.0001 with 1 degree of freedom and 0.0003 with 30 have
    0.0004^2 / (0.0001^2 / 1 + 0.0003^2 / 30) = 12.3.
    """
    found = sum(variance**2 / freedom for variance, freedom in parts if variance)
    return sum(variance for variance, _ in parts) ** 2 / found if found else math.nan


def document_error(errors: Array, clusters: Array) -> float:
    """Standard error from the parts of the documents, with packages as clusters."""
    by_cluster = np.array([errors[clusters == name].sum() for name in np.unique(clusters)])
    count = len(by_cluster)
    return math.sqrt(np.square(by_cluster).sum() * count / (count - 1)) if count > 1 else math.nan


def p_value(t: float, freedom: float) -> float:
    """Two-sided, by integrating the density of Student's t beyond `t`."""
    x = np.sinh(np.linspace(math.asinh(abs(t)), 12.0, 20_001))
    log = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    density = np.exp(log - (freedom + 1) / 2 * np.log1p(x**2 / freedom))
    return float(min(1.0, 2 * np.sum((density[1:] + density[:-1]) / 2 * np.diff(x))))


def compare(outcome: Outcome, arm: str, other: str) -> dict[str, Any] | None:
    """The difference in loss of two arms; None where one of them has no student yet."""
    keys = [outcome.keys(arm), outcome.keys(other)]
    of_seeds, freedom_of_seeds = seed_variance(outcome)
    if not all(keys) or not freedom_of_seeds:
        return None
    value, errors = outcome.difference(arm, other)
    draws = [len({draw for _, draw, _ in of_arm}) for of_arm in keys]
    parts = {
        "seeds": of_seeds * sum(1 / len(of_arm) for of_arm in keys),
        "selections": draw_variance(outcome, of_seeds) * sum(1 / count for count in draws),
        "documents": document_error(errors, outcome.clusters) ** 2,
    }
    freedoms = {
        "seeds": freedom_of_seeds,
        "selections": len({draw for _, draw, _ in outcome.keys("random")}) - 1,
        "documents": len(np.unique(outcome.clusters)) - 1,
    }
    freedom = satterthwaite([(parts[name], freedoms[name]) for name in parts])
    error = math.sqrt(sum(parts.values()))
    half = quantile(0.975, freedom) * error
    return {
        "difference": value, "interval": [value - half, value + half], "error": error,
        # With few degrees of freedom 2.8 standard errors, which is the usual rule, would promise too much.
        "detectable": (quantile(0.975, freedom) + quantile(POWER, freedom)) * error,
        "p": p_value(value / error, freedom), "students": [len(of_arm) for of_arm in keys],
        "variances": parts, "freedoms": freedoms, "freedom": freedom,
    }  # fmt: skip
