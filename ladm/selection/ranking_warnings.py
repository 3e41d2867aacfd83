"""What documents are ranked by -> a warning where the ranking by itself is known to mislead. Imports no torch."""

from __future__ import annotations

from ladm.runs.folder import Run
from ladm.runs.results import columns_of
from ladm.runs.sink_layers import SINK_MASS_COLUMN, median_sink_mass, robust_command, robust_has_sinks, sinks_in_mean
from ladm.settings.guards import POOL, POOL_GUARDS
from ladm.settings.named_scores import NAMED_SCORES
from ladm.settings.selection import SelectSettings
from ladm.settings.signals import CDS, TEXT


def unguarded_warning(settings: SelectSettings, run: Run) -> str | None:
    """A warning where documents are ranked by `robust` alone, with no guard at all; None otherwise.

    `run`: the first of those selected from.
    """
    # A language or a date is no guard against any of these.
    is_guarded = len(settings.guards) > len(settings.value_guards)
    if is_guarded or not (settings.by == "robust" or (settings.by == "score" and is_robust(run))):
        return None
    return (
        "robust ranks shuffled text, repeated text and lists above real documents, and no guard drops any: try "
        f"{_guards_of(run)} (docs/selection.md)"
    )


def sink_ranking_warning(settings: SelectSettings, run: Run) -> str | None:
    """A warning where documents are ranked by a plain mean over layers of which some have attention sinks.

    `run`: the first of those selected from.
    """
    layers = _layers_of_plain_mean(settings.by, run)
    if layers is None or SINK_MASS_COLUMN not in columns_of(run.folder):
        return None
    median_of = median_sink_mass(run)
    problem = sinks_in_mean(layers, median_of, is_weighted=False)
    if problem is None:
        return None
    if robust_has_sinks(run.identity.layers, median_of):
        return f"{problem}: try {robust_command(run, median_of)}"
    # A guard may be there already, and a second one of the same kind drops nothing more.
    guards = "" if len(settings.guards) > len(settings.value_guards) else f" {_guards_of(run)}"
    return f"{problem}: try --by robust{guards} (docs/selection.md)"


def _layers_of_plain_mean(column: str, run: Run) -> tuple[int, ...] | None:
    """The layers that a column is the mean of, where it is `released`, `paper` or a score of that kind."""
    if CDS not in run.identity.signals:
        return None
    if column in NAMED_SCORES and NAMED_SCORES[column].focus == "plain":
        return run.identity.layers
    made = run.identity.reduction
    is_plain = made.how == "mean" and made.focus == "plain" and made.heads is None and made.weights is None
    return made.layers if column == "score" and is_plain else None


def _guards_of(run: Run) -> str:
    # A run without the statistics of texts has no gzip ratio.
    guards = (POOL,) if TEXT in run.identity.signals else POOL_GUARDS[:2]
    return " ".join(f"--within {guard}" for guard in guards)


def is_robust(run: Run) -> bool:
    """Is the run's own score `robust`, or one of the same kind over other layers?"""
    # Empty in a run of other signals alone.
    if not run.identity.content.get("score"):
        return False
    made, robust = run.identity.reduction, NAMED_SCORES["robust"]
    is_mean = made.how == "mean" and made.heads is None and made.weights is None
    return is_mean and (made.focus, run.identity.score_form) == (robust.focus, robust.form)
