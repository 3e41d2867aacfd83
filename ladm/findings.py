"""CDS of a contrast set -> what calibration says of it: by layer, by cost, against mean and median, and what to use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ladm.calibration import (
    JUDGED_ON,
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
from ladm.contrast import LIST, REPEATED, SHUFFLED
from ladm.errors import LadmError
from ladm.settings import spell_layers


@dataclass(frozen=True, kw_only=True)
class LayerFinding:
    """One layer, or the best head of it: AUC over the pasted kinds, and the cost of stopping there."""

    name: str
    auc: Estimate
    cost: float


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
    objective: str

    @property
    def separated(self) -> bool:
        """Is the gain over the median told from 0 by its interval?"""
        return self.gains["median"].low > 0

    def summary(self) -> dict[str, Any]:
        """For the profile: numbers with their intervals, rounded."""
        return {
            "chosen": self.names["profile"],
            "cost": round(self.chosen.cost, 4),
            "recommended": "profile" if self.recommended is self.chosen else "median",
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
    chosen = choose(measured, tried, most_cost=max_cost if objective == "cost" else 1.0, seed=seed)
    mean, median = everything(measured, "mean"), everything(measured, "median")
    gains = {
        name: gain(measured, chosen, over, measured.pasted, half=JUDGED_ON, seed=seed)
        for name, over in (("mean", mean), ("median", median))
    }
    good = gains["median"].low > 0 if objective == "auc" else gains["median"].high >= 0
    scores = {"profile": chosen, "mean": mean, "median": median}
    return Findings(
        layers=list(_by_layer(measured, seed=seed)),
        frontier=list(_frontier(measured, tried, seed=seed)),
        chosen=chosen,
        recommended=chosen if good else median,
        names={name: spell(measured, candidate) for name, candidate in scores.items()},
        kinds={
            kind: {
                name: judge(measured, candidate, (kind,), half=JUDGED_ON, seed=seed)
                for name, candidate in scores.items()
            }
            for kind in (*measured.pasted, SHUFFLED, REPEATED, LIST)
            if len(measured.of(kind, JUDGED_ON))
        },
        overall={
            name: judge(measured, candidate, measured.pasted, half=JUDGED_ON, seed=seed)
            for name, candidate in scores.items()
        },
        gains=gains,
        objective=objective,
    )


def _by_layer(measured: Measured, *, seed: int) -> Iterator[LayerFinding]:
    """Nothing is chosen here, so both halves count; of a layer's heads the one that does best on the first half."""
    for layer in measured.layers:
        columns = [k for k in range(measured.cds.shape[1]) if measured.part(k)[0] == layer]
        found = [Candidate(columns=(k,), how="mean", weights=None, cost=cost_of(measured, k)) for k in columns]
        if measured.num_heads is None:
            yield LayerFinding(
                name=f"{layer}",
                auc=judge(measured, found[0], measured.pasted, half=None, seed=seed),
                cost=found[0].cost,
            )
        else:
            best = max(found, key=lambda c: judge(measured, c, measured.pasted, half=1 - JUDGED_ON, seed=seed).value)
            _, head = measured.part(best.columns[0])
            judged = judge(measured, best, measured.pasted, half=JUDGED_ON, seed=seed)
            yield LayerFinding(name=f"{layer} head {head}", auc=judged, cost=best.cost)


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
    layers = f"layer{'s' if len(reduction.layers) > 1 else ''} {spell_layers(reduction.layers)}"
    if reduction.heads is None:
        return f"{how} of {layers}"
    count = len(reduction.heads)
    return f"{how} of {count} head{'s' if count > 1 else ''} in {layers}"
