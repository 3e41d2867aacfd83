"""What `ladm check` measured on a model -> the judgement in words, `check.json` and the picture `check.png`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ladm.calibration.contrast import PASTED, SAME_PACKAGE
from ladm.calibration.contrast_scores import RELEASED, ROBUST
from ladm.calibration.estimates import Estimate
from ladm.calibration.result import WORST, LayerResult
from ladm.method.reduction import Floats
from ladm.modeling.facts import ModelFacts
from ladm.runs.columns.sink_layers import HIGH_SINK_MASS
from ladm.settings.layers import spell_layers
from ladm.storage.files import io_errors, replacing

GOOD_AUC, FAIR_AUC = 0.8, 0.6
"""A model whose best score has a lower bound of its AUC above the first is fit, above the second weak."""
STABLE_RANKS = 0.6
"""A rank correlation between two spans below it means that the span, and not the document, decides the score."""
ADVICE = {
    "released": "score as released",
    "median": "score with --reduce median",
    "robust": "score with --score robust",
}
"""The scores that the verdict may recommend."""
Fitness = Literal["fit", "weak", "unfit", "undecided"]
BAR_COLOURS = ("#1b6e9c", "#6aa5c4", "#a5c8da", "#d3e3ec")
FORM_COLOURS = ("#1b6e9c", "#c0392b")
MOST_LABELS = 30


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
    sink_mass: dict[int, float]
    """By layer the share of distant attention that falls on the strongest 6 of every 1,024 keys."""
    sink_words: dict[int, list[str]]
    """By layer the words that those keys are."""
    spans: tuple[int, int] | None
    """Tokens of the two spans that were compared; None where only one leaves anything to score."""
    spearman: dict[str, Estimate]
    """For each score the rank correlation of the intact documents between the two spans."""
    layers: list[LayerResult]
    kinds: dict[str, dict[str, Estimate]]
    """By kind of contrast, and for the worst kind, the AUC of each score and of the counts without a model."""

    def verdict(self) -> Iterator[str]:
        """The judgement, a line for each aspect."""
        yield self._positions()
        yield self._figure_2()
        yield self._sinks()
        if self.spans is not None:
            yield self._two_spans(*self.spans)
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

    def _sinks(self) -> str:
        high = [layer for layer, mass in self.sink_mass.items() if mass > HIGH_SINK_MASS]
        if not high:
            return f"sinks: none; no layer has a sink mass above {max(self.sink_mass.values()):.2f}"
        strongest = max(high, key=lambda layer: self.sink_mass[layer])
        words = ", ".join(self.sink_words.get(strongest, []))
        return (
            f"sinks: layer{'s' if len(high) > 1 else ''} {spell_layers(high)}, up to {self.sink_mass[strongest]:.0%} "
            f"of the distant attention on 6 of 1,024 tokens, such as {words}"
        )

    def _two_spans(self, span: int, other: int) -> str:
        unstable = [name for name, found in self.spearman.items() if found.value < STABLE_RANKS]
        between = f"spans of {span} and of {other} tokens"
        if not unstable:
            return f"spans: every score ranks the documents alike with {between}"
        listed = ", ".join(f"{name} {self.spearman[name].value:.2f}" for name in unstable)
        return f"spans: with {between} the ranks differ, so they depend on the span length: {listed}"

    @property
    def recommended(self) -> str:
        """The score to use: `released`, `median` or `robust`, the one that separates its worst pasted kind best."""
        # Lower bounds, so that a score that few rows make look good does not win.
        worst = self._worst_pasted
        return max(worst, key=lambda name: worst[name].low)

    @property
    def fitness(self) -> Fitness:
        """The verdict in a word, which is about the recommended score and the pasted kinds."""
        worst = self._worst_pasted
        lowest = worst[self.recommended].low
        if lowest >= GOOD_AUC:
            return "fit"
        if lowest >= FAIR_AUC:
            return "weak"
        return "unfit" if max(found.high for found in worst.values()) < FAIR_AUC else "undecided"

    @property
    def _worst_pasted(self) -> dict[str, Estimate]:
        """For each score that the verdict may recommend the AUC of the pasted kind that it separates least."""
        names = [name for name in self.kinds[WORST] if name in ADVICE]
        of_kinds = {name: [self.kinds[kind][name] for kind in self._pasted] for name in names}
        return {name: min(found, key=lambda each: each.value) for name, found in of_kinds.items()}

    @property
    def _pasted(self) -> list[str]:
        return [kind for kind in self.kinds if kind in (*PASTED, SAME_PACKAGE)]

    def _by_score(self) -> Iterator[str]:
        worst, best = self._worst_pasted, self.recommended
        yield f"verdict: {self._judgement(ADVICE[best])}"
        if best != "released" and worst["released"].high < worst[best].low:
            yield "warning: the released score, the mean over layers, is significantly worse"
        counted = min(self.kinds[kind]["F"].value for kind in self._pasted)
        if counted >= worst[best].value:
            yield (
                f"warning: counting rare words without a model (F) separates the pasted rows as well: {counted:.2f} "
                f"against {worst[best].value:.2f} for the worst of them"
            )
        yield self._worst_kind(best)

    def _judgement(self, advice: str) -> str:
        # Of the rows that are given a sample is checked, by default a small one.
        remedy = "give more with --rows" if self.rows is None else "raise --documents, or give --rows that have more"
        texts = {
            "fit": f"fit to be a calculator; {advice}",
            "weak": f"weak: it separates intact from pasted documents, but not reliably; {advice}",
            "unfit": "unfit: no score separates intact from pasted documents",
            "undecided": f"undecided: {self.documents} documents are too few to decide; {remedy}",
        }
        return texts[self.fitness]

    def _worst_kind(self, name: str) -> str:
        kind = min((kind for kind in self.kinds if kind != WORST), key=lambda kind: self.kinds[kind][name].value)
        found = self.kinds[kind][name]
        line = f"worst kind: {kind}, AUC {found.value:.2f} with the {name} score"
        if found.value < FAIR_AUC:
            line += "; guard the selection (ladm select --within), or calibrate signed heads (ladm calibrate)"
        return line

    def to_json(self) -> dict[str, Any]:
        """The content of `check.json`."""
        return {
            "model": self.facts.name,
            "rows": self.rows,
            "length_tokens": self.length_tokens,
            "documents": self.documents,
            "long_range": self.long_range,
            "sink_mass": {str(layer): round(mass, 4) for layer, mass in self.sink_mass.items()},
            "sink_words": {str(layer): words for layer, words in self.sink_words.items()},
            "spans": self.spans,
            "spearman": {name: found.rounded() for name, found in self.spearman.items()},
            "auc": {
                kind: {name: found.rounded() for name, found in by_score.items()}
                for kind, by_score in self.kinds.items()
            },
            "verdict": list(self.verdict()),
        }


def draw_check(result: CheckResult, path: Path) -> None:
    """Two panels: the focus at long range by kind, and for every layer its AUC in two forms and its sink mass.

    Raises StorageError where the picture cannot be written.
    """
    # Not pyplot: it may need a display, and its backend and open figures are those of the program that calls this.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    left.bar(list(result.long_range), list(result.long_range.values()), color=BAR_COLOURS)
    left.set_ylabel("median focus, half the document or more apart")
    left.set_title("Figure 2 of the paper, for this model")
    layers = result.layers
    x = np.arange(len(layers))
    forms = [form for form in (RELEASED, ROBUST) if form in layers[0].forms]
    # Beside each other, because the intervals overlap.
    for form, colour, aside in zip(forms, FORM_COLOURS, (-0.15, 0.15), strict=False):
        found = [layer.forms[form] for layer in layers]
        right.errorbar(
            x + aside, [each.value for each in found], yerr=_error_bars(found), fmt="o", color=colour, ms=4, lw=1,
            label=f"AUC {form}",
        )  # fmt: skip
    right.bar(x, list(result.sink_mass.values()), color="#f0d9b5", zorder=0, label="sink mass")
    right.axhline(0.5, color="#bbbbbb", lw=1)
    labelled = slice(None, None, -(-len(layers) // MOST_LABELS))
    right.set_xticks(x[labelled], [layer.name for layer in layers[labelled]], fontsize=7)
    # Room for the legend above what is drawn.
    right.set_ylim(0, 1.15)
    right.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    right.set_xlabel("layer")
    right.set_ylabel("AUC, intact against pasted; sink mass")
    right.set_title(f"{len(layers)} layers, {result.documents} documents of {result.length_tokens:,} tokens")
    right.legend(loc="upper center", ncols=3, fontsize=8)
    with io_errors(path, "write"), replacing(path) as partial:
        figure.savefig(partial, dpi=130, format="png")


def _error_bars(found: list[Estimate]) -> Floats:
    """Distances of the bounds from the value, as matplotlib wants them: first those below, then those above."""
    below = [each.value - each.low for each in found]
    above = [each.high - each.value for each in found]
    # A value may lie a rounding error outside its interval, and matplotlib refuses a negative distance.
    return np.abs([below, above])
