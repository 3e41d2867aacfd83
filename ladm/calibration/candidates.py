"""CDS of a contrast set, by layer or head -> the ways to make a score of them, and the best one. Imports no torch.

Candidates are compared by the AUC of their worst kind on one half of the documents; the other half judges the winner,
because the best of many candidates looks better than it is on the rows that it was chosen on.

Shape suffixes: B rows, P layers or heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ladm.calibration.contrast import INTACT
from ladm.calibration.contrast_scores import CHOSEN_ON, RELEASED, ROBUST, ContrastScores, Form
from ladm.calibration.estimates import auc, estimate_worst
from ladm.calibration.signed_heads import fit_signed_heads, label_rows
from ladm.errors import LadmError
from ladm.method.reduction import Floats, Reduction, reduce_cds
from ladm.settings.calibration import Search
from ladm.settings.named_scores import NAMED_SCORES

HEAD_COUNTS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
SIGNED_STOPS = 4
"""Signed heads are fitted with all layers that the cost allows, and with these parts of all layers."""
SMALLEST = 1e-300
"""Stands for a CDS of 0 where a logarithm or a quotient is needed."""
INTERVAL_IN_ERRORS = 2 * 1.96
"""Width of a 95 % interval in standard errors."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A way to make one score: some columns of a form, reduced. `cost` is the share of a forward pass that it needs."""

    form: Form = RELEASED
    heads: bool = False
    columns: tuple[int, ...]
    how: str
    weights: tuple[float, ...] | None
    cost: float

    def values(self, scores: ContrastScores) -> Floats:
        """Scores of all rows: (B,)."""
        cds_BP = scores.columns(self.form, heads=self.heads)
        return reduce_cds(cds_BP[:, list(self.columns)], self.how, self.weights)

    def reduction(self, scores: ContrastScores) -> Reduction:
        """The same as a profile stores it: layer and head numbers instead of columns."""
        parts = [scores.layer_and_head(column, heads=self.heads) for column in self.columns]
        layers = tuple(sorted({layer for layer, _ in parts}))
        heads = tuple((layer, head or 0) for layer, head in parts) if self.heads else None
        return Reduction(how=self.how, layers=layers, heads=heads, weights=self.weights, focus=self.form.focus)


def all_layers(scores: ContrastScores, how: str, *, form: Form = RELEASED) -> Candidate:
    """The mean or the median over all layers: what every user has without calibration."""
    P = len(scores.layers)
    return Candidate(form=form, columns=tuple(range(P)), how=how, weights=None, cost=scores.cost_of(P - 1, heads=False))


def robust_score(scores: ContrastScores) -> Candidate:
    """`--score robust`: value-weighted, without sigma, the later half of the layers."""
    P = len(scores.layers)
    first = P - len(NAMED_SCORES["robust"].layers_of(scores.layers))
    return Candidate(
        form=ROBUST, columns=tuple(range(first, P)), how="mean", weights=None, cost=scores.cost_of(P - 1, heads=False)
    )


@dataclass(frozen=True, kw_only=True)
class CandidateResult:
    """How well a candidate does on the first half: AUC and effect size of its worst kind."""

    candidate: Candidate
    auc: float
    effect: float


def evaluate_candidates(
    scores: ContrastScores, *, search: Search, most_cost: float = 1.0, seed: int = 0
) -> list[CandidateResult]:
    """Every candidate with the AUC and the effect size of its worst kind on the first half."""
    if search == "signed":
        return list(_signed(scores, most_cost=most_cost, seed=seed))
    masks = [scores.mask(kind, CHOSEN_ON) for kind in (INTACT, *scores.bad)]
    results = []
    for candidate in _candidates(scores, heads=search == "heads"):
        intact_A, *bad = (candidate.values(scores)[mask] for mask in masks)
        results.append(
            CandidateResult(
                candidate=candidate,
                auc=min(auc(intact_A, bad_B) for bad_B in bad),
                effect=min(_effect_size(intact_A, bad_B) for bad_B in bad),
            )
        )
    return results


def choose(scores: ContrastScores, results: list[CandidateResult], *, most_cost: float, seed: int) -> Candidate:
    """The candidate whose worst kind is separated best on the first half, among those that cost at most `most_cost`.

    Among the candidates within one standard error of the best it is the one with the largest effect size.

    Raises LadmError when no candidate is cheap enough.
    """
    # A little more is allowed, because 18 of 30 layers may come out as slightly above 0.6.
    allowed = [each for each in results if each.candidate.cost <= most_cost + 1e-9]
    if not allowed:
        raise LadmError(f"no layer can be reached within {most_cost:g} of a forward pass; raise --max-cost")
    best = max(allowed, key=lambda each: each.auc)
    if best.candidate.how == "signed":
        # Judged on clusters that were held out, so the best needs no further precaution.
        return best.candidate
    found = estimate_worst(scores.wins(best.candidate.values(scores), scores.bad, CHOSEN_ON), seed=seed)
    error = (found.high - found.low) / INTERVAL_IN_ERRORS
    # AUC saturates: on a few dozen documents many candidates reach 1.0, and differ only in how far they separate.
    near = [each for each in allowed if each.auc >= best.auc - error]
    return max(near, key=lambda each: each.effect).candidate


def _effect_size(intact_A: Floats, bad_B: Floats) -> float:
    """(mean log score of the intact - of the bad rows) / pooled standard deviation of the log scores."""
    # CDS are closer to log-normal than to normal, and a logarithm makes the effect independent of their scale.
    a, b = (np.log(np.maximum(values, SMALLEST)) for values in (intact_A, bad_B))
    spread = np.sqrt((a.var() + b.var()) / 2)
    return float((a.mean() - b.mean()) / max(spread, 1e-12))


def _candidates(scores: ContrastScores, *, heads: bool) -> Iterator[Candidate]:
    """Windows of layers, or the heads that do best alone, in every form and reduced in every way."""
    for form in scores.by_head if heads else scores.cds:
        for columns in _best_heads(scores, form) if heads else _windows(scores):
            cost = scores.cost_of(max(columns), heads=heads)
            weights = _equalising_weights(scores, columns, form, heads=heads)
            ways = [("mean", None), ("mean", weights), ("median", None), ("geometric", None)]
            # Of a single column all reductions are the same score.
            for how, w in ways if len(columns) > 1 else ways[:1]:
                yield Candidate(form=form, heads=heads, columns=columns, how=how, weights=w, cost=cost)


def _signed(scores: ContrastScores, *, most_cost: float, seed: int) -> Iterator[CandidateResult]:
    """Signed weights for all heads up to a layer, for a few such layers and for every form of the heads.

    Their AUC is that of clusters that were held out, because weights for hundreds of heads fit any rows they have seen.
    """
    L, H = len(scores.layers), scores.num_heads or 1
    allowed = sum(scores.cost_of(k * H, heads=True) <= most_cost + 1e-9 for k in range(L))
    # No stop beyond what the cost allows; at least the first layer, whose cost `choose` then judges.
    stops = sorted({min(max(allowed, 1), math.ceil(L * part / SIGNED_STOPS)) for part in range(1, SIGNED_STOPS + 1)})
    first = np.isin(scores.kinds, (INTACT, *scores.bad)) & (scores.halves == CHOSEN_ON)
    for form, cds_BP in scores.by_head.items():
        for stop in stops:
            columns = tuple(range(stop * H))
            rows = label_rows(
                cds_BP[first][:, list(columns)], scores.kinds[first], scores.clusters[first], intact=INTACT
            )
            fit = fit_signed_heads(rows, seed=seed)
            # Six digits, which a profile stores without loss.
            weights = tuple(float(f"{w:.6g}") for w in fit.weights_P)
            yield CandidateResult(
                candidate=Candidate(
                    form=form, heads=True, columns=columns, how="signed", weights=weights,
                    cost=scores.cost_of(columns[-1], heads=True),
                ),
                auc=fit.worst_auc,
                effect=fit.worst_auc,
            )  # fmt: skip


def _windows(scores: ContrastScores) -> Iterator[tuple[int, ...]]:
    """Every run of neighbouring layers: P (P + 1) / 2 of them. All subsets would be 2^P, far more than rows."""
    P = len(scores.layers)
    yield from (tuple(range(first, last + 1)) for first in range(P) for last in range(first, P))


def _best_heads(scores: ContrastScores, form: Form) -> Iterator[tuple[int, ...]]:
    """For each layer to stop at, the k heads up to it with the best worst kind of their own on the first half."""
    cds_BP, heads_per_layer = scores.columns(form, heads=True), scores.num_heads or 1
    P = cds_BP.shape[1]
    intact, *bad = (scores.mask(kind, CHOSEN_ON) for kind in (INTACT, *scores.bad))
    auc_P = np.array([min(auc(cds_BP[intact, k], cds_BP[mask, k]) for mask in bad) for k in range(P)])
    for stop in range(heads_per_layer, P + 1, heads_per_layer):
        # Stable, so that heads of equal AUC are taken in the order of the layers, the same on every machine.
        order = np.argsort(-auc_P[:stop], kind="stable")
        yield from (tuple(sorted(int(k) for k in order[:count])) for count in HEAD_COUNTS if count <= stop)


def _equalising_weights(
    scores: ContrastScores, columns: tuple[int, ...], form: Form, *, heads: bool
) -> tuple[float, ...]:
    """Weights that give every column the same median over the intact documents of the first half.

    CDS of layers differ by orders of magnitude, so a plain mean is little more than its largest layer. The weights
    sum to 1 and have six digits, which a profile stores without loss.
    """
    medians = np.median(scores.columns(form, heads=heads)[scores.mask(INTACT, CHOSEN_ON)][:, list(columns)], axis=0)
    weights = 1 / np.maximum(medians, SMALLEST)
    return tuple(float(f"{w:.6g}") for w in weights / weights.sum())
