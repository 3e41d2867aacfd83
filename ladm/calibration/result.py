"""CDS of a contrast set -> what calibration concludes: by layer, by cost, against other scores, and what to use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ladm.calibration.candidates import (
    Candidate,
    CandidateResult,
    all_layers,
    choose,
    evaluate_candidates,
    robust_score,
)
from ladm.calibration.contrast_scores import (
    JUDGED_ON,
    ROBUST,
    WITH_SIGMA,
    WITHOUT_SIGMA,
    ContrastScores,
    Form,
)
from ladm.calibration.estimates import Estimate, estimate_auc, estimate_worst, estimate_worst_gain
from ladm.errors import count_of
from ladm.method.reduction import Floats, Reduction
from ladm.settings.calibration import Search
from ladm.settings.layers import spell_layers

WORST = "worst kind"
CHANCE = 0.5
"""The AUC of a score that does not separate."""
WITHOUT_MODEL = {"F": "share of rare words that occurred far back, no model", "gzip": "gzip ratio, no model"}
"""Counts that stand beside the scores, and what they are."""


@dataclass(frozen=True, kw_only=True)
class LayerResult:
    """One layer: AUC over the pasted kinds for each form, and the cost of stopping there."""

    name: str
    forms: dict[Form, Estimate]
    cost: float


@dataclass(frozen=True, kw_only=True)
class FrontierPoint:
    """The best score that a cost allows, chosen on one half and its worst kind judged on the other."""

    cost: float
    text: str
    auc: Estimate


@dataclass(frozen=True, kw_only=True)
class CalibrationResult:
    """What `ladm calibrate` prints and writes into the profile.

    The scores compared are `profile`, the chosen one, and those that need no calibration or no model: `released`,
    `median`, `robust`, `F` and `gzip`; `names` describes each. `kinds` is the AUC of each by kind of contrast and of
    the worst kind, `gains` how much better the worst kind of the profile is than that of each other score.
    """

    layers: list[LayerResult]
    frontier: list[FrontierPoint]
    chosen: Candidate
    recommended: Candidate
    names: dict[str, str]
    kinds: dict[str, dict[str, Estimate]]
    gains: dict[str, Estimate]
    reduction: Reduction
    """The recommended candidate, as the profile stores it."""
    objective: Literal["auc", "cost"]

    @property
    def worst_kind(self) -> str:
        """The kind that the profile separates least."""
        return min((kind for kind in self.kinds if kind != WORST), key=lambda kind: self.kinds[kind]["profile"].value)

    @property
    def not_separated(self) -> dict[str, Estimate]:
        """The kinds of bad rows that the recommended score may rank no lower than intact documents, with their AUC."""
        name = "profile" if self.recommended is self.chosen else "robust"
        found = {kind: by_score[name] for kind, by_score in self.kinds.items() if kind != WORST}
        return {kind: auc for kind, auc in found.items() if auc.low <= CHANCE}

    def summary(self) -> dict[str, Any]:
        """The part of a profile that only people read: numbers with their intervals, rounded."""
        return {
            "calibrated": self.names["profile"],
            "calibrated_cost": round(self.chosen.cost, 4),
            "recommended": "the calibrated score" if self.recommended is self.chosen else self.names["robust"],
            "cost": round(self.recommended.cost, 4),
            "worst_kind": self.worst_kind,
            "auc": {
                kind: {name: found.rounded() for name, found in by_score.items()}
                for kind, by_score in self.kinds.items()
            },
            "gain_of_worst_kind": {name: found.rounded() for name, found in self.gains.items()},
        }


def uncalibrated(scores: ContrastScores) -> dict[str, Candidate]:
    """The scores that every user has without calibration, as far as their forms were stored."""
    found = {"released": all_layers(scores, "mean"), "median": all_layers(scores, "median")}
    return found | ({"robust": robust_score(scores)} if ROBUST in scores.cds else {})


def every_form(scores: ContrastScores) -> dict[str, Candidate]:
    """The same, and the mean over all layers of each stored form, which shows what sigma and the values do."""
    others = {
        "no sigma": Form(ablation=WITHOUT_SIGMA), "value-weighted": Form(focus="value"),
        "value-weighted, no sigma": ROBUST,
    }  # fmt: skip
    found = {name: all_layers(scores, "mean", form=form) for name, form in others.items() if form in scores.cds}
    return uncalibrated(scores) | found


def analyse(
    scores: ContrastScores, *, search: Search, objective: Literal["auc", "cost"], max_cost: float, seed: int
) -> CalibrationResult:
    """Choose a score on one half of the documents and judge it on the other.

    With the objective `auc` the robust score is recommended unless the gain over it is significant; with `cost` the
    chosen score is recommended unless it is significantly worse.
    """
    results = evaluate_candidates(scores, search=search, most_cost=max_cost, seed=seed)
    chosen = choose(scores, results, most_cost=max_cost, seed=seed)
    compared = {"profile": chosen, **uncalibrated(scores)}
    values = {name: candidate.values(scores) for name, candidate in compared.items()} | scores.counts
    ours = scores.wins(values["profile"], scores.bad, JUDGED_ON)
    gains = {
        name: estimate_worst_gain(ours, scores.wins(values_B, scores.bad, JUDGED_ON), seed=seed)
        for name, values_B in values.items()
        if name != "profile"
    }
    robust = compared.get("robust", compared["median"])
    over_robust = gains["robust" if "robust" in gains else "median"]
    # Without a limit on cost the robust score is the safer choice, being picked by no data. With one, the profile is
    # cheaper.
    good_enough = over_robust.low > 0 if objective == "auc" else over_robust.high >= 0
    recommended = chosen if good_enough else robust
    names = {name: describe(scores, candidate) for name, candidate in compared.items()}
    return CalibrationResult(
        layers=list(layer_results(scores, seed=seed)),
        frontier=list(_frontier(scores, results, seed=seed)),
        chosen=chosen,
        recommended=recommended,
        names=names | WITHOUT_MODEL,
        kinds=by_kind(scores, values, half=JUDGED_ON, seed=seed),
        gains=gains,
        reduction=recommended.reduction(scores),
        objective=objective,
    )


def by_kind(
    scores: ContrastScores, values: dict[str, Floats], *, half: int | None, seed: int
) -> dict[str, dict[str, Estimate]]:
    """For each kind, and for the worst one, the AUC of each score."""
    kinds = scores.kinds_in(half)
    found: dict[str, dict[str, Estimate]] = {kind: {} for kind in (*kinds, WORST)}
    for name, values_B in values.items():
        wins = scores.wins(values_B, kinds, half)
        for kind, each in zip(kinds, wins, strict=True):
            found[kind][name] = estimate_auc([each], seed=seed)
        found[WORST][name] = estimate_worst(wins, seed=seed)
    return found


def layer_results(scores: ContrastScores, *, seed: int) -> Iterator[LayerResult]:
    """The layers one by one. None is chosen here, so both halves may judge."""
    for column, layer in enumerate(scores.layers):
        yield LayerResult(
            name=f"{layer}",
            forms={
                form: estimate_auc(scores.wins(cds_BP[:, column], scores.pasted, None), seed=seed)
                for form, cds_BP in scores.cds.items()
            },
            cost=scores.cost_of(column, heads=False),
        )


def _frontier(scores: ContrastScores, results: list[CandidateResult], *, seed: int) -> Iterator[FrontierPoint]:
    """A point for every cost at which the choice changes."""
    before = None
    cheapest = min(each.candidate.cost for each in results)
    for last_layer in scores.layers:
        cost = (last_layer + 1) / scores.num_layers
        if cost < cheapest:
            continue
        best = choose(scores, results, most_cost=cost, seed=seed)
        if best != before:
            wins = scores.wins(best.values(scores), scores.bad, JUDGED_ON)
            yield FrontierPoint(cost=best.cost, text=describe(scores, best), auc=estimate_worst(wins, seed=seed))
        before = best


def describe(scores: ContrastScores, candidate: Candidate) -> str:
    """Such as `median of layers 14-26` or `signed sum of 270 heads in layers 0-29`."""
    reduction = candidate.reduction(scores)
    how = {"mean": "mean", "median": "median", "geometric": "geometric mean", "signed": "signed sum"}[candidate.how]
    how = how if candidate.weights is None or candidate.how == "signed" else f"weighted {how}"
    form = candidate.form
    how = how if form.ablation == WITH_SIGMA else f"{how}, without sigma,"
    weighted = "value-weighted " if form.focus == "value" else ""
    layers = f"{weighted}layer{'s' if len(reduction.layers) > 1 else ''} {spell_layers(reduction.layers)}"
    if reduction.heads is None:
        return f"{how} of {layers}"
    return f"{how} of {count_of(len(reduction.heads), 'head')} in {layers}"
