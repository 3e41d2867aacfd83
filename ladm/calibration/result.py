"""CDS of a contrast set -> what calibration concludes: by layer, by cost, against mean and median, and what to use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ladm.calibration.candidates import (
    CHOSEN_ON,
    JUDGED_ON,
    Candidate,
    CandidateResult,
    all_layers,
    choose,
    evaluate_candidates,
    gain,
    judge,
)
from ladm.calibration.contrast import LIST, REPEATED, SHUFFLED
from ladm.calibration.contrast_scores import WITH_SIGMA, ContrastScores
from ladm.calibration.estimates import Estimate
from ladm.method.grid import Ablation
from ladm.method.reduction import Reduction
from ladm.settings.layers import spell_layers


@dataclass(frozen=True, kw_only=True)
class LayerResult:
    """One layer, or its best head: AUC over the pasted kinds for each form, and the cost of stopping there."""

    name: str
    forms: dict[Ablation, Estimate]
    cost: float

    @property
    def auc(self) -> Estimate:
        """That of the form with sigma."""
        return self.forms[WITH_SIGMA]


@dataclass(frozen=True, kw_only=True)
class FrontierPoint:
    """The best score that a cost allows, chosen on one half and judged on the other."""

    cost: float
    text: str
    auc: Estimate


@dataclass(frozen=True, kw_only=True)
class CalibrationResult:
    """What `ladm calibrate` prints and writes into the profile.

    The scores compared are called `profile`, `mean` and `median`; `names` describes each. `kinds` is the AUC of
    each by kind of contrast, `overall` over the pasted kinds together, `gains` that of the profile over the others.
    """

    layers: list[LayerResult]
    frontier: list[FrontierPoint]
    chosen: Candidate
    recommended: Candidate
    names: dict[str, str]
    kinds: dict[str, dict[str, Estimate]]
    overall: dict[str, Estimate]
    gains: dict[str, Estimate]
    reduction: Reduction
    """The recommended candidate, as the profile stores it."""
    objective: Literal["auc", "cost"]

    def summary(self) -> dict[str, Any]:
        """The part of a profile that is for people: numbers with their intervals, rounded."""
        return {
            "calibrated": self.names["profile"],
            "calibrated_cost": round(self.chosen.cost, 4),
            "recommended": "the calibrated score" if self.recommended is self.chosen else "the median over all layers",
            "cost": round(self.recommended.cost, 4),
            "auc": {
                kind: {name: found.rounded() for name, found in by_score.items()}
                for kind, by_score in self.kinds.items()
            },
            "gain": {name: found.rounded() for name, found in self.gains.items()},
        }


def analyse(
    scores: ContrastScores, *, objective: Literal["auc", "cost"], max_cost: float, seed: int
) -> CalibrationResult:
    """Choose a score on one half of the documents and judge it on the other.

    With the objective `auc` the median over all layers is recommended unless the gain over it is significant; with
    `cost` the chosen score is recommended unless it is significantly worse.
    """
    results = evaluate_candidates(scores)
    chosen = choose(scores, results, most_cost=max_cost, seed=seed)
    mean, median = all_layers(scores, "mean"), all_layers(scores, "median")
    compared = {"profile": chosen, "mean": mean, "median": median}
    gains = {
        name: gain(scores, chosen, compared[name], scores.pasted, half=JUDGED_ON, seed=seed)
        for name in ("mean", "median")
    }
    # Without a limit on cost the median is the safer choice, being picked by no data. With one, the profile is cheaper.
    good_enough = gains["median"].low > 0 if objective == "auc" else gains["median"].high >= 0
    recommended = chosen if good_enough else median
    return CalibrationResult(
        layers=list(_layer_results(scores, seed=seed)),
        frontier=list(_frontier(scores, results, seed=seed)),
        chosen=chosen,
        recommended=recommended,
        names={name: describe(scores, candidate) for name, candidate in compared.items()},
        kinds={
            kind: {
                name: judge(scores, candidate, (kind,), half=JUDGED_ON, seed=seed)
                for name, candidate in compared.items()
            }
            # A check has no degraded rows, and of a small set none may be in this half.
            for kind in (*scores.pasted, SHUFFLED, REPEATED, LIST)
            if len(scores.rows(kind, JUDGED_ON, WITH_SIGMA))
        },
        overall={
            name: judge(scores, candidate, scores.pasted, half=JUDGED_ON, seed=seed)
            for name, candidate in compared.items()
        },
        gains=gains,
        reduction=recommended.reduction(scores),
        objective=objective,
    )


def _layer_results(scores: ContrastScores, *, seed: int) -> Iterator[LayerResult]:
    """The layers one by one, or the best head of each.

    A layer is not chosen, so both halves may judge it; a head is, on the first half, so only the second may.
    """
    heads = scores.has_heads
    half = JUDGED_ON if heads else None
    for layer in scores.layers:
        columns = [
            column
            for column in range(scores.num_columns(heads=heads))
            if scores.layer_and_head(column, heads=heads)[0] == layer
        ]
        if heads:
            columns = [
                max(columns, key=lambda k: _judge_column(scores, k, WITH_SIGMA, half=CHOSEN_ON, seed=seed).value)
            ]
        (column,) = columns
        _, head = scores.layer_and_head(column, heads=heads)
        yield LayerResult(
            name=f"{layer}" if head is None else f"{layer} head {head}",
            forms={form: _judge_column(scores, column, form, half=half, seed=seed) for form in scores.cds},
            cost=scores.cost_of(column, heads=heads),
        )


def _judge_column(scores: ContrastScores, column: int, form: Ablation, *, half: int | None, seed: int) -> Estimate:
    candidate = Candidate(form=form, heads=scores.has_heads, columns=(column,), how="mean", weights=None, cost=1.0)
    return judge(scores, candidate, scores.pasted, half=half, seed=seed)


def _frontier(scores: ContrastScores, results: list[CandidateResult], *, seed: int) -> Iterator[FrontierPoint]:
    """A point for every cost at which the choice changes."""
    before = None
    for last_layer in scores.layers:
        # Never too little: stopping at a layer always allows that layer, or its best head, alone.
        best = choose(scores, results, most_cost=(last_layer + 1) / scores.num_layers, seed=seed)
        if best != before:
            judged = judge(scores, best, scores.pasted, half=JUDGED_ON, seed=seed)
            yield FrontierPoint(cost=best.cost, text=describe(scores, best), auc=judged)
        before = best


def describe(scores: ContrastScores, candidate: Candidate) -> str:
    """Such as `median of layers 14-26` or `weighted mean of 12 heads in layers 9-18`."""
    reduction = candidate.reduction(scores)
    how = {"mean": "mean", "median": "median", "geometric": "geometric mean"}[candidate.how]
    how = how if candidate.weights is None else f"weighted {how}"
    how = how if candidate.form == WITH_SIGMA else f"{how}, without sigma,"
    layers = f"layer{'s' if len(reduction.layers) > 1 else ''} {spell_layers(reduction.layers)}"
    if reduction.heads is None:
        return f"{how} of {layers}"
    count = len(reduction.heads)
    return f"{how} of {count} head{'s' if count > 1 else ''} in {layers}"
