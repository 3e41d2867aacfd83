"""What `ladm check` measured on a model -> the judgement in words, `check.json` and the picture `check.png`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ladm.calibration.estimates import Estimate
from ladm.calibration.result import LayerResult
from ladm.method.reduction import Floats
from ladm.modeling.facts import ModelFacts

GOOD_AUC, FAIR_AUC = 0.8, 0.6
"""A model whose best score has a lower bound of its AUC above the first is fit, above the second weak."""
BAR_COLOURS = ("#1b6e9c", "#6aa5c4", "#a5c8da", "#d3e3ec")


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What `ladm check` found out about a model."""

    facts: ModelFacts
    rows: str | None
    """None: the documents that come with ladm."""
    length_tokens: int
    documents: int
    long_range: dict[str, float]
    """The median focus at long range by kind of document, over layers and documents."""
    layers: list[LayerResult]
    scores: dict[str, Estimate]
    """AUC over the pasted kinds of the three scores: `profile`, `mean` and `median`."""
    score_names: dict[str, str]

    def verdict(self) -> Iterator[str]:
        """The judgement, a line for each aspect."""
        yield self._positions()
        yield self._figure_2()
        yield from self._by_score()

    def _positions(self) -> str:
        limit, tested = self.facts.max_tokens, self.length_tokens
        if limit is None:
            return f"positions: the model sets no limit; tested with {tested:,} tokens"
        # A test with half of the positions or more is taken to cover them all.
        if 2 * tested < limit:
            return f"positions: made for {limit:,} tokens, tested with {tested:,}; longer rows are not tested"
        return f"positions: made for {limit:,} tokens, tested with {tested:,}; longer rows are refused"

    def _figure_2(self) -> str:
        # From whole documents to ever smaller pieces, so that the values should fall.
        values = list(self.long_range.values())
        if all(longer > shorter for longer, shorter in itertools.pairwise(values)):
            return "figure 2: long-range attention falls each time the pieces are halved, as expected"
        if values[0] > max(values[1:]):
            return "figure 2: intact documents have the most long-range attention, but the pieces are out of order"
        return "figure 2: pasted documents have as much long-range attention as intact ones, so structure is not seen"

    def _by_score(self) -> Iterator[str]:
        # Lower bounds, so that a score that few rows make look good by chance does not win.
        best = max(self.scores, key=lambda name: self.scores[name].low)
        low = self.scores[best].low
        advice = {
            "mean": "score as released",
            "median": "score with --reduce median",
            "profile": "calibrate it on more documents (ladm calibrate) and score with the profile",
        }[best]
        if low >= GOOD_AUC:
            yield f"verdict: fit to be a calculator; {advice}"
        elif low >= FAIR_AUC:
            yield f"verdict: weak: it separates intact from pasted documents, but not reliably; {advice}"
        elif max(found.high for found in self.scores.values()) < FAIR_AUC:
            yield "verdict: unfit: no score separates intact from pasted documents"
        else:
            yield f"verdict: undecided: {self.documents} documents are too few to decide; give more with --rows"
        if best != "mean" and self.scores["mean"].high < self.scores[best].low:
            yield "warning: the released score, the mean over layers, is significantly worse"

    def to_json(self) -> dict[str, Any]:
        """The content of `check.json`."""
        return {
            "model": self.facts.name,
            "rows": self.rows,
            "length_tokens": self.length_tokens,
            "documents": self.documents,
            "long_range": self.long_range,
            "auc": {name: [found.value, found.low, found.high] for name, found in self.scores.items()},
            "verdict": list(self.verdict()),
        }


def draw_check(result: CheckResult, path: Path) -> None:
    """Two panels: the focus at long range by kind, and the AUC of every layer beside those of the three scores."""
    import matplotlib

    # A backend without a display: the command runs on servers.
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(2, 3), layout="constrained")
    left.bar(list(result.long_range), list(result.long_range.values()), color=BAR_COLOURS)
    left.set_ylabel("median focus at long range (half the document or more)")
    left.set_title("Figure 2 of the paper, for this model")
    layers = result.layers
    x = np.arange(len(layers))
    values = [layer.auc.value for layer in layers]
    right.errorbar(x, values, yerr=_error_bars(layers), fmt="o", color=BAR_COLOURS[0], ms=4, lw=1)
    for (name, found), style in zip(result.scores.items(), ("-", "--", ":"), strict=True):
        right.axhline(found.value, color="#333333", lw=1, ls=style, label=f"{name}: {found.value:.2f}")
    right.axhline(0.5, color="#bbbbbb", lw=1)
    right.set_xticks(x, [layer.name for layer in layers], fontsize=7)
    right.set_xlabel("layer")
    right.set_ylabel("AUC, intact against pasted")
    right.set_title(f"{len(layers)} layers, {result.documents} documents of {result.length_tokens:,} tokens")
    right.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _error_bars(layers: list[LayerResult]) -> Floats:
    """Distances of the bounds from the value, as matplotlib wants them: first those below, then those above."""
    below = [layer.auc.value - layer.auc.low for layer in layers]
    above = [layer.auc.high - layer.auc.value for layer in layers]
    # A value may lie a rounding error outside its interval, and matplotlib refuses a negative distance.
    return np.abs([below, above])
