"""Scores of the pool's rows -> the rows that each arm trains on, and the order in which students are trained.

Every arm takes a quarter of the rows of every domain, as `ladm select` does. Arms whose name begins with `B` choose
from pool B, which has natural faults as well.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from band import BAND_QUANTILE, in_band

Array = np.ndarray[Any, Any]

GZIP_QUANTILES = (0.05, 0.95)
UNTRAINED = "untrained"

RANKED = {
    "guarded": "robust", "guarded, lowest": "robust", "text": "far_rare", "gain": "gain",
    "B guarded": "robust", "B text": "far_rare", "B gain": "gain", "repetition": "repeated_4grams",
}  # fmt: skip
"""The column that each ranking arm ranks by."""
TEXT_COLUMNS = ("far_rare", "gzip_ratio", "repeated_4grams")
"""Columns of the pack, which need no model."""
CONTRASTS = (
    ("guarded", "random"), ("guarded", "text"), ("gain", "guarded"), ("guarded", "guarded, lowest"),
)  # fmt: skip
"""Fixed before anything was trained; a negative difference in loss means that the first is better."""
CONTRASTS_B = (("B guarded", "B random"), ("B guards, random", "B random"), ("B gain", "B random"))
CONTRASTS_LATER = (("repetition", "random"), ("repetition", "text"))
"""Added when gate 1 was known, before any ranking arm was trained; not among those that Holm's correction counts."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A student: an arm, which of its random selections, and the seed of the order of its rows."""

    arm: str
    draw: int = 0
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.arm}/{self.draw}/{self.seed}"

    @property
    def pool(self) -> str:
        return "B" if self.arm.startswith("B ") else "A"

    @property
    def ranks(self) -> bool:
        """Does the arm need scores by a model?"""
        return self.arm == "B guards, random" or RANKED.get(self.arm, TEXT_COLUMNS[0]) not in TEXT_COLUMNS


def jobs() -> Iterator[Job]:
    """All students in the order of what they are worth: gate 2, the contrasts, pool B, more seeds, what was added."""
    # Two draws by two seeds: so the variance of a selection is estimated apart from that of a seed.
    for draw, seed in ((0, 0), (1, 1), (0, 1), (1, 0)):
        yield Job(arm="random", draw=draw, seed=seed)
    yield Job(arm="random x2")
    yield Job(arm="random x2", draw=1, seed=1)
    yield Job(arm=UNTRAINED)
    for seed in range(2):
        for arm in ("guarded", "text", "gain", "guarded, lowest"):
            yield Job(arm=arm, seed=seed)
    for seed in range(2):
        yield Job(arm="B random", draw=seed, seed=seed)
        for arm in ("B guarded", "B guards, random", "B gain", "B text"):
            yield Job(arm=arm, draw=seed if "random" in arm else 0, seed=seed)
    for seed in range(2, 8):
        for arm in ("guarded", "text", "gain", "guarded, lowest"):
            yield Job(arm=arm, seed=seed)
        yield Job(arm="random", draw=seed, seed=seed)
    for seed in range(2):
        yield Job(arm="repetition", seed=seed)


def quotas(domains: Sequence[str], total: int) -> dict[str, int]:
    """Rows of each domain, in proportion, `total` in all: whole parts first, then the largest remainders."""
    exact = {domain: domains.count(domain) * total / len(domains) for domain in sorted(set(domains))}
    found = {domain: int(share) for domain, share in exact.items()}
    by_remainder = sorted(exact, key=lambda domain: found[domain] - exact[domain])
    for domain in by_remainder[: total - sum(found.values())]:
        found[domain] += 1
    return found


def order_of(job: Job, scores: Mapping[str, Array], count: int) -> Array:
    """Places of the candidate rows, the first to be taken first."""
    # The same draw for both budgets, so that `random x2` has the rows of `random` and as many more.
    tie = np.random.default_rng([job.draw, 1]).permutation(count)
    if job.arm == "B guards, random":
        low, high = np.quantile(scores["gzip_ratio"], GZIP_QUANTILES)
        # Percentiles of all candidates, here and in `in_band`, faults included, as those of `ladm select --within` are:
        # a corpus does not label its faults. The influence report, which selects nothing, takes them of intact rows.
        passes = (scores["gzip_ratio"] >= low) & (scores["gzip_ratio"] <= high)
        passes &= scores["robust"] <= np.quantile(scores["robust"], BAND_QUANTILE)
        return np.lexsort((tie, ~passes))
    if job.arm not in RANKED:
        return np.argsort(tie)
    values = scores[RANKED[job.arm]]
    if job.arm == "guarded, lowest":
        return np.lexsort((tie, values))
    # The gain has no band: the contrast is with the score as LongFilter ranks by it.
    return np.lexsort((tie, -(values if RANKED[job.arm] == "gain" else in_band(values))))


def rows_of(job: Job, scores: Mapping[str, Array], domains: Sequence[str], student_rows: int) -> list[int]:
    """Places of the rows that the arm takes among the candidates."""
    if job.arm == UNTRAINED:
        return []
    total = student_rows * (2 if job.arm == "random x2" else 1)
    left = quotas(list(domains), total)
    taken = []
    for row in map(int, order_of(job, scores, len(domains))):
        if left[domains[row]]:
            left[domains[row]] -= 1
            taken.append(row)
    return taken
