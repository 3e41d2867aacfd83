"""CDS of a contrast set -> what calibration says of it: by layer, by cost, against mean and median, and what to use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ladm.calibration.candidates import (
    JUDGED_ON,
    WITH_SIGMA,
    Candidate,
    Estimate,
    Measured,
    Tried,
    choose,
    cost_of,
    everything,
    gain,
    judge,
    reduction_of,
    try_all,
)
from ladm.calibration.contrast import LIST, REPEATED, SHUFFLED
from ladm.errors import LadmError
from ladm.method.grid import Ablation
from ladm.method.reduction import Reduction
from ladm.settings.score import spell_layers


@dataclass(frozen=True, kw_only=True)
class LayerFinding:
    """One layer, or the best head of it: AUC over the pasted kinds by form, and the cost of stopping there."""

    name: str
    forms: dict[Ablation, Estimate]
    cost: float

    @property
    def auc(self) -> Estimate:
        """That of the form with sigma."""
        return self.forms[WITH_SIGMA]


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """The best that a cost allows, chosen on one half and judged on the other."""

    cost: float
    text: str
    auc: Estimate


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that `ladm calibrate` prints.

    AUC of each score by kind of contrast in `kinds`, over the pasted kinds together in `overall`;
    `gains` are over the mean and over the median.
    """

    layers: list[LayerFinding]
    frontier: list[Frontier]
    chosen: Candidate
    recommended: Candidate
    names: dict[str, str]
    kinds: dict[str, dict[str, Estimate]]
    overall: dict[str, Estimate]
    gains: dict[str, Estimate]
    reduction: Reduction
    objective: str

    def summary(self) -> dict[str, Any]:
        """For the profile: numbers with their intervals, rounded."""
        return {
            "calibrated": self.names["profile"],
            "calibrated_cost": round(self.chosen.cost, 4),
            "recommended": "the calibrated score" if self.recommended is self.chosen else "the median over all layers",
            "cost": round(self.recommended.cost, 4),
            "auc": {
                kind: {name: _rounded(found) for name, found in by_score.items()}
                for kind, by_score in self.kinds.items()
            },
            "gain": {name: _rounded(found) for name, found in self.gains.items()},
        }


def _rounded(found: Estimate) -> list[float]:
    return [round(number, 4) for number in (found.value, found.low, found.high)]


def find(measured: Measured, *, objective: str, max_cost: float, seed: int) -> Findings:
    """Choose on one half, judge on the other.

    With `auc` a gain over the median that is not told from 0 leads to the median; with `cost` the
    profile is kept unless it is told to be worse.
    """
    tried = try_all(measured)
    chosen = choose(measured, tried, most_cost=max_cost, seed=seed)
    mean, median = everything(measured, "mean"), everything(measured, "median")
    gains = {
        name: gain(measured, chosen, over, measured.pasted, half=JUDGED_ON, seed=seed)
        for name, over in (("mean", mean), ("median", median))
    }
    good = gains["median"].low > 0 if objective == "auc" else gains["median"].high >= 0
    recommended = chosen if good else median
    scores = {"profile": chosen, "mean": mean, "median": median}
    return Findings(
        layers=list(_by_layer(measured, seed=seed)),
        frontier=list(_frontier(measured, tried, seed=seed)),
        chosen=chosen,
        recommended=recommended,
        names={name: spell(measured, candidate) for name, candidate in scores.items()},
        kinds={
            kind: {
                name: judge(measured, candidate, (kind,), half=JUDGED_ON, seed=seed)
                for name, candidate in scores.items()
            }
            for kind in (*measured.pasted, SHUFFLED, REPEATED, LIST)
            if len(measured.of(kind, JUDGED_ON, WITH_SIGMA))
        },
        reduction=reduction_of(measured, recommended),
        overall={
            name: judge(measured, candidate, measured.pasted, half=JUDGED_ON, seed=seed)
            for name, candidate in scores.items()
        },
        gains=gains,
        objective=objective,
    )


def _by_layer(measured: Measured, *, seed: int) -> Iterator[LayerFinding]:
    """Nothing is chosen here, so both halves count; of a layer's heads the one that does best on the first half."""
    heads = measured.num_heads is not None
    for layer in measured.layers:
        columns = [k for k in range(measured.num_columns(heads=heads)) if measured.part(k, heads=heads)[0] == layer]
        cost = cost_of(measured, columns[0], heads=heads)
        if heads:
            columns = [max(columns, key=lambda k: _single(measured, k, WITH_SIGMA, 1 - JUDGED_ON, seed).value)]
        half = JUDGED_ON if heads else None
        forms = {form: _single(measured, columns[0], form, half, seed) for form in measured.cds}
        _, head = measured.part(columns[0], heads=heads)
        yield LayerFinding(name=f"{layer}" if head is None else f"{layer} head {head}", forms=forms, cost=cost)


def _single(measured: Measured, column: int, form: Ablation, half: int | None, seed: int) -> Estimate:
    heads = measured.num_heads is not None
    candidate = Candidate(form=form, heads=heads, columns=(column,), how="mean", weights=None, cost=1.0)
    return judge(measured, candidate, measured.pasted, half=half, seed=seed)


def _frontier(measured: Measured, tried: list[Tried], *, seed: int) -> Iterator[Frontier]:
    """One point for every cost at which the choice changes."""
    before = None
    for stop in measured.layers:
        cost = (stop + 1) / measured.num_layers
        try:
            best = choose(measured, tried, most_cost=cost, seed=seed)
        except LadmError:
            continue
        if best != before:
            judged = judge(measured, best, measured.pasted, half=JUDGED_ON, seed=seed)
            yield Frontier(cost=best.cost, text=spell(measured, best), auc=judged)
        before = best


def spell(measured: Measured, candidate: Candidate) -> str:
    """Such as `median of layers 14-26` or `weighted mean of 12 heads in layers 9-18`."""
    reduction = reduction_of(measured, candidate)
    how = {"mean": "mean", "median": "median", "geometric": "geometric mean"}[candidate.how]
    how = how if candidate.weights is None else f"weighted {how}"
    how = how if candidate.form == WITH_SIGMA else f"{how}, without sigma,"
    layers = f"layer{'s' if len(reduction.layers) > 1 else ''} {spell_layers(reduction.layers)}"
    if reduction.heads is None:
        return f"{how} of {layers}"
    count = len(reduction.heads)
    return f"{how} of {count} head{'s' if count > 1 else ''} in {layers}"
