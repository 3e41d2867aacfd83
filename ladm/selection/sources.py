"""The runs and rows of a selection, opened and checked: the right rows of each run, and runs that were made alike.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.corpus.rows.reading import Rows
from ladm.errors import LadmError
from ladm.runs.columns.added_signals import how_computed
from ladm.runs.columns.joined_columns import JoinedColumns
from ladm.runs.columns.joined_files import open_files
from ladm.runs.columns.sink_layers import SINK_MASS_COLUMN, layers_after_sinks
from ladm.runs.folder import Run
from ladm.runs.results import columns_of, require_finished
from ladm.selection.guarding import resolve_guards
from ladm.settings.guards import Guard
from ladm.settings.layers import spell_layers
from ladm.settings.selection import SelectSettings
from ladm.storage.identity import differences

NOT_COMPARED = ("record",)
"""Settings of a run that add columns and change no score."""
OF_THE_SCORE = ("reduce",)
"""Settings that change the column `score` alone."""
COPY_SHARE = "copy_share"

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SelectionSource:
    """A finished run with the rows that it scored."""

    run: Run
    rows: Rows
    first: int
    """The number of its first row, counted over the rows of all runs."""
    columns: JoinedColumns
    """Its columns, with those of its rows and of joined runs and files."""

    def positions_among(self, rows: Ints) -> Ints:
        """The positions in its data of those of `rows` that are its own: `rows` are sorted numbers over all runs."""
        start, stop = np.searchsorted(rows, (self.first, self.first + len(self.rows)))
        return rows[start:stop] - self.first


def open_sources(settings: SelectSettings) -> list[SelectionSource]:
    """The runs of `settings` with their rows, in that order.

    Raises IncompleteError for an unfinished run, and LadmError for rows that are not a run's, and for several runs of
    different models, methods or scores, or of the same rows.
    """
    runs = [Run.open(name) for name in settings.runs]
    for run in runs:
        require_finished(run)
    places = settings.rows or [None] * len(runs)
    # One for all runs: each is read once, and may be of the rows of several.
    files = open_files(settings.joins)
    joined = [
        JoinedColumns(run, rows=name, joins=settings.joins, files=files) for run, name in zip(runs, places, strict=True)
    ]
    for each in joined:
        each.require(settings.number_names)
        for guard in settings.value_guards:
            each.require_values(guard)
        for cap in settings.caps:
            each.require_keys(cap)
    # A profile's band may bring the copy share with it, which no flag names.
    guards = resolve_guards(settings, runs[0])
    columns = [*settings.number_names, *(guard.column for guard in guards if isinstance(guard, Guard))]
    for each in joined:
        each.require(columns)
    _require_alike(runs, columns)
    firsts = np.cumsum([0, *(run.num_rows for run in runs[:-1])]).tolist()
    return [
        SelectionSource(run=each.run, rows=each.rows, first=first, columns=each)
        for each, first in zip(joined, firsts, strict=True)
    ]


def _require_alike(runs: Sequence[Run], columns: Sequence[str]) -> None:
    """Raise LadmError unless the scores and the named columns of all runs can be compared with each other."""
    first = runs[0]
    # Each run is compared with the first alone: being alike is transitive.
    for k, run in enumerate(runs):
        same = next((other for other in runs[:k] if other.identity.is_of_same_rows(run.identity)), None)
        if same is not None:
            raise LadmError(f"{run.folder} scored the same rows as {same.folder}; give them once")
        words = (f"in {first.folder}", f"in {run.folder}")
        found = list(differences(_compared(first, columns), _compared(run, columns), words=words))
        if found:
            raise LadmError(
                f"{run.folder} was not scored as {first.folder} was, so their scores cannot be ranked together:"
                + "".join(f"\n  {line}" for line in found)
            )
    if COPY_SHARE in columns and len(runs) > 1:
        _require_same_copy_layers(runs)


def _require_same_copy_layers(runs: Sequence[Run]) -> None:
    """Raise LadmError where the copy share is a mean over other layers in one run than in another.

    Each run takes those after its last sink layer, which its own rows decide.
    """
    first, *others = [(run, layers_after_sinks(run)) for run in runs if SINK_MASS_COLUMN in columns_of(run.folder)]
    for run, layers in others:
        if layers != first[1]:
            raise LadmError(
                f"copy_share is the mean over layers {spell_layers(first[1])} in {first[0].folder} and over layers "
                f"{spell_layers(layers)} in {run.folder}, by the sinks in their own rows, so its values cannot be "
                "compared; leave it out, or select from each run alone"
            )


def _compared(run: Run, columns: Sequence[str]) -> dict[str, Any]:
    """What two runs must have in common: all that a manifest repeats but the data, and of signals those in use."""
    content = {name: value for name, value in run.identity.for_manifest().items() if name not in ("data", "part")}
    unused = NOT_COMPARED if "score" in columns else (*NOT_COMPARED, *OF_THE_SCORE)
    settings = {name: value for name, value in content["settings"].items() if name not in unused}
    if "score" not in columns:
        content.pop("score", None)
    # Each run may have counted its tokens on its own rows: two estimates of how common a token is.
    signals = {
        signal: {name: value for name, value in how.items() if name != "unigrams"}
        for signal, how in how_computed(run, columns).items()
    }
    return content | {"settings": settings, "signals": signals}
