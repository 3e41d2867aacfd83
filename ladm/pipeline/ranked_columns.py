"""The columns that a job selects by, of its run and of its rows -> checked before hours of scoring. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ladm.corpus.rows.number_columns import read_numbers
from ladm.corpus.rows.reading import Rows
from ladm.corpus.rows.value_keys import read_value_keys
from ladm.corpus.rows.values import match_rows, require_occurring
from ladm.errors import UsageError
from ladm.runs.columns.added_signals import signal_of
from ladm.runs.columns.derived import possible_columns
from ladm.runs.folder import Run
from ladm.runs.layout import IDENTITY_FILE
from ladm.scoring.signal_choice import choose_signals
from ladm.selection.value_columns import naming_values
from ladm.settings.fields import nearest
from ladm.settings.joins import ROWS, split_name
from ladm.settings.pipeline import select_settings
from ladm.settings.score import ScoreSettings
from ladm.settings.selection import SelectSettings
from ladm.settings.signals import SIGNALS


def require_signals(job: Any, scoring: ScoreSettings) -> None:
    """Raise UsageError for signals that cannot be computed, and for a column to select by that is of none of them.

    `scoring`: the settings that `job` scores with.
    """
    choice = choose_signals(scoring)
    folder = Path(scoring.output)
    # Signals that were added to a finished run since then are read by the selection, which looks again.
    if (folder / IDENTITY_FILE).is_file() and Run.read(folder).is_finished:
        return
    signals = (*choice.own, *choice.added)
    known = possible_columns(signals)
    for of, column in map(split_name, selection_of(job).column_names):
        if not of and column not in known:
            signal = signal_of(column)
            hint = nearest(column, known) or f"; it has {', '.join(known)}, and a column of the corpus is {ROWS}.NAME"
            if signal is not None and signal not in signals:
                hint = f"; to compute it: --signals {','.join(each for each in SIGNALS if each in (*signals, signal))}"
            raise UsageError(f"a run of the signals {', '.join(signals)} has no column {column}{hint}")


def require_row_columns(rows: Rows, job: Any) -> None:
    """Raise LadmError for a column of the rows to select by that they do not have, or that has no number.

    And for one of a guard of texts or dates that has none of its values.
    """
    chosen = selection_of(job)
    with naming_values(chosen.guards):
        for of, column in map(split_name, chosen.number_names):
            if of == ROWS:
                read_numbers(rows, column)
    for guard in chosen.value_guards:
        require_occurring(guard, [rows], [match_rows(rows, guard)])
    for cap in chosen.caps:
        read_value_keys(rows, cap.key, of_host=cap.of_host)


def selection_of(job: Any) -> SelectSettings:
    """What a job ranks, guards and takes by; the places, which are not known yet, are empty."""
    return select_settings(job, run="", rows="", output="", domain_key="")
