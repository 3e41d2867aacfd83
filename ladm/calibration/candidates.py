"""CDS of a contrast set, by layer or head -> the ways to make a score of them, and the best one. Imports no torch.

Candidates are compared on one half of the documents; the other half judges the winner, because the best of many
candidates looks better on the rows that it was picked by than it is.

Shape suffixes: A intact documents, B pasted rows, P layers or heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ladm.calibration.contrast import INTACT
from ladm.calibration.contrast_scores import WITH_SIGMA, ContrastScores
from ladm.calibration.estimates import Estimate, Wins, auc, estimate, estimate_auc, wins
from ladm.errors import LadmError
from ladm.method.grid import Ablation
from ladm.method.reduction import Floats, Reduction, reduce_cds

CHOSEN_ON, JUDGED_ON = 0, 1
"""The half of the documents that candidates are compared on, and the half that the chosen one is judged on."""
HEAD_COUNTS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
SMALLEST = 1e-300
"""Stands for a CDS of 0 where a logarithm or a quotient is needed."""
INTERVAL_IN_ERRORS = 2 * 1.96
"""Width of a 95 % interval in standard errors."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A way to make one score: some columns of a form, reduced. `cost` is the share of a forward pass that it needs."""

    form: Ablation = WITH_SIGMA
    heads: bool = False
    columns: tuple[int, ...]
    how: str
    weights: tuple[float, ...] | None
    cost: float

    def score(self, scores: ContrastScores, kind: str, half: int | None) -> Floats:
        """Scores of the rows of a kind: (B,)."""
        cds_BP = scores.rows(kind, half, self.form, heads=self.heads)
        return reduce_cds(cds_BP[:, list(self.columns)], self.how, self.weights)

    def reduction(self, scores: ContrastScores) -> Reduction:
        """The same as a profile stores it: layer and head numbers instead of columns."""
        parts = [scores.layer_and_head(column, heads=self.heads) for column in self.columns]
        layers = tuple(sorted({layer for layer, _ in parts}))
        heads = tuple((layer, head or 0) for layer, head in parts) if self.heads else None
        return Reduction(how=self.how, layers=layers, heads=heads, weights=self.weights)


def all_layers(scores: ContrastScores, how: str) -> Candidate:
    """The mean or the median over all layers: what every user has without calibration."""
    P = len(scores.layers)
    return Candidate(columns=tuple(range(P)), how=how, weights=None, cost=scores.cost_of(P - 1, heads=False))


def wins_of(scores: ContrastScores, candidate: Candidate, kinds: tuple[str, ...], half: int | None) -> list[Wins]:
    """Intact documents against the rows of each kind, scored by the candidate."""
    intact_A, documents_A = candidate.score(scores, INTACT, half), scores.documents_of(INTACT, half)
    return [
        Wins(
            wins_AB=wins(intact_A, candidate.score(scores, kind, half)),
            intact_A=documents_A,
            rows_B=scores.documents_of(kind, half),
        )
        for kind in kinds
    ]


def judge(
    scores: ContrastScores, candidate: Candidate, kinds: tuple[str, ...], *, half: int | None, seed: int
) -> Estimate:
    """The candidate's AUC, averaged over `kinds`, with its interval."""
    return estimate_auc(wins_of(scores, candidate, kinds, half), seed=seed)


def gain(
    scores: ContrastScores,
    candidate: Candidate,
    over: Candidate,
    kinds: tuple[str, ...],
    *,
    half: int | None,
    seed: int,
) -> Estimate:
    """How much higher the AUC of `candidate` is than that of `over` on the same documents, with the paired interval."""
    ours, theirs = wins_of(scores, candidate, kinds, half), wins_of(scores, over, kinds, half)
    return estimate([a - b for a, b in zip(ours, theirs, strict=True)], seed=seed)


@dataclass(frozen=True, kw_only=True)
class CandidateResult:
    """How well a candidate does on the first half: AUC averaged over the pasted kinds, and effect size."""

    candidate: Candidate
    auc: float
    effect: float


def evaluate_candidates(scores: ContrastScores) -> list[CandidateResult]:
    """Every candidate with its AUC and effect size on the first half."""
    results = []
    for candidate in _candidates(scores):
        intact_A = candidate.score(scores, INTACT, CHOSEN_ON)
        pasted = [candidate.score(scores, kind, CHOSEN_ON) for kind in scores.pasted]
        mean = float(np.mean([auc(intact_A, pasted_B) for pasted_B in pasted]))
        effect = float(np.mean([_effect_size(intact_A, pasted_B) for pasted_B in pasted]))
        results.append(CandidateResult(candidate=candidate, auc=mean, effect=effect))
    return results


def choose(scores: ContrastScores, results: list[CandidateResult], *, most_cost: float, seed: int) -> Candidate:
    """The candidate that separates best on the first half, among those that cost at most `most_cost`.

    Of the candidates whose AUC is within one standard error of the best, the one with the largest effect size.

    Raises LadmError when no candidate is cheap enough.
    """
    # A little more is allowed, because 18 of 30 layers may come out as slightly above 0.6.
    allowed = [each for each in results if each.candidate.cost <= most_cost + 1e-9]
    if not allowed:
        raise LadmError(f"no layer ends within {most_cost:g} of a forward pass; allow more with --max-cost")
    best = max(allowed, key=lambda each: each.auc)
    found = judge(scores, best.candidate, scores.pasted, half=CHOSEN_ON, seed=seed)
    error = (found.high - found.low) / INTERVAL_IN_ERRORS
    # AUC saturates: on a few dozen documents many candidates reach 1.0, and differ only in how far they separate.
    near = [each for each in allowed if each.auc >= best.auc - error]
    return max(near, key=lambda each: each.effect).candidate


def _effect_size(intact_A: Floats, pasted_B: Floats) -> float:
    """(mean log score of the intact - of the pasted) / pooled standard deviation of the log scores."""
    # CDS are closer to log-normal than to normal, and a logarithm makes the effect independent of their scale.
    a, b = (np.log(np.maximum(values, SMALLEST)) for values in (intact_A, pasted_B))
    spread = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    return float((a.mean() - b.mean()) / max(spread, 1e-12))


def _candidates(scores: ContrastScores) -> Iterator[Candidate]:
    """Windows of layers, or the heads that do best alone, in every form and reduced in every way."""
    heads = scores.has_heads
    for form in scores.cds:
        for columns in _best_heads(scores, form) if heads else _windows(scores):
            cost = scores.cost_of(max(columns), heads=heads)
            weights = _equalising_weights(scores, columns, form, heads=heads)
            ways = [("mean", None), ("mean", weights), ("median", None), ("geometric", None)]
            # Of a single column all reductions are the same score.
            for how, w in ways if len(columns) > 1 else ways[:1]:
                yield Candidate(form=form, heads=heads, columns=columns, how=how, weights=w, cost=cost)


def _windows(scores: ContrastScores) -> Iterator[tuple[int, ...]]:
    """Every run of neighbouring layers: P (P + 1) / 2 of them. All subsets would be 2^P, far more than rows."""
    P = len(scores.layers)
    yield from (tuple(range(first, last + 1)) for first in range(P) for last in range(first, P))


def _best_heads(scores: ContrastScores, form: Ablation) -> Iterator[tuple[int, ...]]:
    """For each layer to stop at, the k heads up to it with the best AUC of their own on the first half; several k."""
    P, heads_per_layer = scores.num_columns(heads=True), scores.num_heads or 1
    singles = [Candidate(form=form, heads=True, columns=(k,), how="mean", weights=None, cost=0.0) for k in range(P)]
    auc_P = np.array(
        [np.mean([w.wins_AB.mean() for w in wins_of(scores, c, scores.pasted, CHOSEN_ON)]) for c in singles]
    )
    for stop in range(heads_per_layer, P + 1, heads_per_layer):
        # Stable, so that heads of equal AUC are taken in the order of the layers, the same on every machine.
        order = np.argsort(-auc_P[:stop], kind="stable")
        yield from (tuple(sorted(int(k) for k in order[:count])) for count in HEAD_COUNTS if count <= stop)


def _equalising_weights(
    scores: ContrastScores, columns: tuple[int, ...], form: Ablation, *, heads: bool
) -> tuple[float, ...]:
    """Weights that give every column the same median over the intact documents of the first half.

    CDS of layers differ by orders of magnitude, so a plain mean is little more than its largest layer. The weights
    sum to 1 and have six digits, which a profile stores without loss.
    """
    medians = np.median(scores.rows(INTACT, CHOSEN_ON, form, heads=heads)[:, list(columns)], axis=0)
    weights = 1 / np.maximum(medians, SMALLEST)
    return tuple(float(f"{w:.6g}") for w in weights / weights.sum())
