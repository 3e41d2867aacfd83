"""What documents are ranked by -> a warning where the ranking by itself is known to mislead. Imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ladm.runs.columns.added_signals import how_computed, text_folder
from ladm.runs.columns.by_name import score_name
from ladm.runs.columns.sink_layers import (
    SINK_MASS_COLUMN,
    median_sink_mass,
    robust_command,
    robust_has_sinks,
    sinks_in_mean,
)
from ladm.runs.folder import Run
from ladm.runs.layout import UNIGRAMS_FILE
from ladm.runs.results import columns_of
from ladm.runs.unigrams import CountsError, read_counts
from ladm.settings.guards import POOL, POOL_GUARDS, TEXT_GUARDS
from ladm.settings.named_scores import NAMED_SCORES
from ladm.settings.selection import SelectSettings
from ladm.settings.signals import CDS, COLUMNS_OF, FAR_RARE, TEXT


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


def text_ranking_warning(settings: SelectSettings, run: Run) -> str | None:
    """A warning where documents are ranked by the score of a run of text statistics alone; None otherwise.

    `run`: the first of those selected from.
    """
    column = score_name(run)
    if settings.by != "score" or column != COLUMNS_OF[TEXT][0]:
        return None
    return (
        f"the score of this run is {column}, which ranks random characters and tables of numbers first: try "
        f"{' '.join(text_ranking())} (docs/selection.md)"
    )


def text_ranking() -> list[str]:
    """The flags of `ladm select` that rank a run of text statistics alone."""
    return ["--by", FAR_RARE, *(word for guard in TEXT_GUARDS for word in ("--within", guard))]


def unigrams_warning(settings: SelectSettings, runs: Sequence[Run]) -> str | None:
    """A warning where `far_rare` is used of runs that counted how common a token is on different rows; None otherwise.

    The table that it names can replace that of every other run; the commands are those of the runs with another one.
    """
    if FAR_RARE not in settings.column_names:
        return None
    digests = [how_computed(run, [FAR_RARE])[TEXT].get("unigrams") for run in runs]
    if len(set(digests)) == 1:
        return None
    # A table of `ladm annotate` ends with the highest id of its rows, and so may lack ids of other rows. Of those that
    # serve, the one that most runs have already: the fewest are computed again.
    best = max(range(len(runs)), key=lambda k: (_table_length(runs[k]), digests.count(digests[k]), -k))
    table = str(text_folder(runs[best]) / UNIGRAMS_FILE)
    places = settings.rows or [None] * len(runs)
    remedies = [
        shlex.join(["ladm", "annotate", str(run.folder), *(["--rows", rows] if rows else []), "--unigrams", table])
        for run, rows, digest in zip(runs, places, digests, strict=True) if digest != digests[best]
    ]  # fmt: skip
    return (
        f"{FAR_RARE} depends on how often each token occurs, which these runs counted on different rows, so its values "
        f"in one run cannot be compared with those in another. To use the counts of {runs[best].folder} for all, "
        "which needs no model: "
        f"{' && '.join(remedies)} (docs/selection.md)"
    )


def _table_length(run: Run) -> int:
    path = text_folder(run) / UNIGRAMS_FILE
    try:
        return len(read_counts(path)) if path.exists() else 0
    except CountsError:
        return 0


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
