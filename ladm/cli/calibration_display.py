"""The results of `ladm calibrate` and `ladm check` -> the lines and tables that a person reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ladm.calibration.check_result import CheckResult
    from ladm.calibration.estimates import Estimate
    from ladm.calibration.result import CalibrationResult

WIDTH = 26
"""Characters of a value with its interval."""
COLUMNS = 6
"""Scores beside each other; further ones stand in a table below."""


def calibration_report(result: CalibrationResult) -> Iterator[str]:
    """The lines of a calibration: by layer, by cost, by kind of contrast, and what to use."""
    yield "AUC of single layers over the pasted kinds"
    heads = "".join(f"{form!s:<{WIDTH}} " for form in result.layers[0].forms)
    yield f"{'layer':<6} {heads}{'cost of stopping there':>22}"
    for layer in result.layers:
        found = "".join(f"{auc!s:<{WIDTH}} " for auc in layer.forms.values())
        yield f"{layer.name:<6} {found}{layer.cost:>22.2f}"
    yield ""
    yield f"{'cost':>5}  {'AUC of the worst kind':<{WIDTH}} best score at that cost, judged on the other half"
    for point in result.frontier:
        yield f"{point.cost:>5.2f}  {point.auc!s:<{WIDTH}} {point.text}"
    yield ""
    yield from _auc_table(result.kinds)
    yield ""
    for name, text in result.names.items():
        yield f"{name + ':':<9} {text}" + (f", {result.chosen.cost:.2f} of a forward pass" * (name == "profile"))
    for name, gain in result.gains.items():
        yield f"gain of the worst kind over {name:<9} {gain!s}; {_significance(gain)}"
    yield f"worst kind of the profile: {result.worst_kind}"
    if result.recommended is result.chosen:
        yield "recommended: the profile"
    else:
        yield f"recommended: {result.names['robust']}; it is what the profile file contains"
    yield from _not_separated(result)


def _not_separated(result: CalibrationResult) -> Iterator[str]:
    """A line where the recommended score may rank a kind of bad rows no lower than intact documents."""
    # Not imported above, because help needs no numpy.
    from ladm.calibration.result import CHANCE

    kinds = [f"{kind} {auc!s}" for kind, auc in result.not_separated.items()]
    if kinds:
        yield f"not separated by it, because the interval reaches chance ({CHANCE}) or less: {'; '.join(kinds)}"
        yield "remove such rows before you select, drop them with ladm select --within, or use another model"


def _auc_table(kinds: dict[str, dict[str, Estimate]]) -> Iterator[str]:
    names = list(next(iter(kinds.values())))
    for start in range(0, len(names), COLUMNS):
        shown = names[start : start + COLUMNS]
        if start:
            yield ""
        yield (f"{'AUC against':<23} " + " ".join(f"{name:<{WIDTH}}" for name in shown)).rstrip()
        for kind, by_score in kinds.items():
            yield (f"{kind:<23} " + " ".join(f"{by_score[name]!s:<{WIDTH}}" for name in shown)).rstrip()


def _significance(gain: Estimate) -> str:
    if gain.low > 0:
        return "significant"
    return "significantly worse" if gain.high < 0 else "not significant (the 95 % interval contains 0)"


def check_report(result: CheckResult) -> Iterator[str]:
    """The lines of a check: figure 2, sinks, two spans, AUC by kind, the verdict."""
    yield f"{'documents':<12} {'focus at long range':>20}"
    for kind, focus in result.long_range.items():
        yield f"{kind:<12} {focus:>20.3g}"
    yield ""
    yield f"{'layer':<6} {'sink mass':>9}  on the words"
    for layer, mass in result.sink_mass.items():
        yield f"{layer:<6} {mass:>9.2f}  {', '.join(result.sink_words.get(layer, []))}"
    if result.spans is not None:
        yield ""
        yield f"{'score':<24} rank correlation between spans of {result.spans[0]} and of {result.spans[1]} tokens"
        for name, found in result.spearman.items():
            yield f"{name:<24} {found!s}"
    yield ""
    yield from _auc_table(result.kinds)
    yield ""
    # Imported where it is needed: the help of a command needs neither this nor what it imports.
    from ladm.calibration.result import WITHOUT_MODEL

    yield from (f"{name + ':':<9} {text}" for name, text in WITHOUT_MODEL.items())
    yield from result.verdict()
