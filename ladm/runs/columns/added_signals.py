"""A run -> the signals that were added to it: their columns, and how they were computed. Imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from ladm.errors import IncompleteError, LadmError
from ladm.runs.folder import Run
from ladm.runs.identity import Signals
from ladm.runs.layout import IDENTITY_FILE, SIGNALS
from ladm.runs.results import column_types
from ladm.settings.signals import CDS, COLUMNS_OF, LONGATTN, OF_CDS, TEXT
from ladm.settings.signals import SIGNALS as ALL_SIGNALS


def stored_columns(folder: Path) -> list[str]:
    """Numbers in `scores.parquet` that are not lists; `score` is one of them."""
    types = column_types(folder)
    return [name for name, kind in types.items() if pa.types.is_floating(kind)]


def finished_signals(run: Run) -> Iterator[Run]:
    """The signals that were added to a run, in the order of their names."""
    for path in sorted((run.folder / SIGNALS).glob(f"*/{IDENTITY_FILE}")):
        signal = Run.read(path.parent)
        if signal.is_finished:
            yield signal


def replaced_columns(run: Run) -> set[str]:
    """Columns that a run stores and that were computed again as an added signal, whose numbers count instead.

    They do so too where the run has more rows by now, and while they are computed: a column never goes back to other
    numbers by itself.
    """
    # The score is no column of a signal: it stays that of the run, whose results are sorted by it.
    stored = set(stored_columns(run.folder))
    again = (signal for signal in run.identity.signals if (run.folder / SIGNALS / signal / IDENTITY_FILE).is_file())
    return {name for signal in again for name in COLUMNS_OF.get(signal, ()) if name in stored}


def own_columns(run: Run) -> list[str]:
    """The columns that a run stores, without those that were replaced."""
    replaced = replaced_columns(run)
    return [name for name in stored_columns(run.folder) if name not in replaced]


def text_folder(run: Run) -> Path:
    """Where a run has the statistics of its texts that count: its own folder, or that of the added signal."""
    added = run.folder / SIGNALS / TEXT
    if TEXT not in run.identity.signals:
        return added
    return next((signal.folder for signal in finished_signals(run) if signal.folder.name == TEXT), run.folder)


def added_columns(run: Run) -> dict[str, Path]:
    """The columns of the signals that were added for all rows of a run, with the folder of each."""
    own = set(own_columns(run))
    found: dict[str, Path] = {}
    for signal in finished_signals(run):
        # A run that has grown can still be selected from: only a column of such a signal is an error.
        if signal.identity.data == run.identity.data:
            names = stored_columns(signal.folder)
            found |= {name: signal.folder for name in names if name not in own and name not in found}
    return found


def require_rows_of_run(run: Run, name: str) -> None:
    """Raise LadmError where the column is that of an added signal with other rows than the run, or with fewer.

    And IncompleteError where it is one that is computed again and is not finished.
    """
    if name in replaced_columns(run) and name not in added_columns(run):
        folder = run.folder / SIGNALS / str(signal_of(name))
        if not Run.read(folder).is_finished:
            again = shlex.join(["ladm", "annotate", str(run.folder)])
            raise IncompleteError(f"{name} is computed again in {folder}, which is not finished; to finish it: {again}")
    for signal in finished_signals(run):
        if name not in stored_columns(signal.folder) or signal.identity.data == run.identity.data:
            continue
        if signal.num_rows >= run.num_rows:
            raise LadmError(f"{signal.folder} was made from other rows than {run.folder}; remove it")
        raise LadmError(_lacking_rows(run, signal))


def lines_of_lacking_rows(run: Run) -> Iterator[str]:
    """For each added signal that has fewer rows than the run, how many, and the command that adds the others."""
    # Signals are not added to by the command that gives the run more rows, which names none of them.
    for signal in finished_signals(run):
        if signal.num_rows < run.num_rows:
            yield _lacking_rows(run, signal)


def _lacking_rows(run: Run, signal: Run) -> str:
    return (
        f"{signal.folder} has {signal.num_rows:,} of the {run.num_rows:,} rows of {run.folder}; add the others: "
        f"{_adding_command(run, signal.folder.name)}"
    )


def how_to_add(run: Run, name: str) -> str:
    """What gives a run a column that it lacks, behind another text; empty where it is of no signal, or of one it has.

    The signal of a run of some rows so far, or of one without CDS, is computed by the command that made the run.
    """
    of = signal_of(name)
    if of is None or of in run.identity.signals or (run.folder / SIGNALS / of).exists():
        return ""
    if of != TEXT and (CDS not in run.identity.signals or run.identity.part is not None):
        signals = ",".join(each for each in ALL_SIGNALS if each == of or each in run.identity.signals)
        return f", which is of the signal {of}; score the rows with --signals {signals} and another --output"
    return f"; to compute it: {_adding_command(run, of)}"


def _adding_command(run: Run, signal: str) -> str:
    """The command that adds a signal to a run."""
    if signal == TEXT:
        return shlex.join(["ladm", "annotate", str(run.folder)])
    rows, model = (str(run.identity.about.get(key, key.upper())) for key in ("rows", "model"))
    return shlex.join(["ladm", "score", rows, "--model", model, "--signals", signal, "-o", str(run.folder)])


def how_computed(run: Run, names: Iterable[str]) -> Signals:
    """The signals, own and added, that the named columns belong to, each with how it was computed."""
    own, replaced = run.identity.signals, replaced_columns(run)
    added = {signal.folder.name: signal.identity.signals for signal in finished_signals(run)}
    found: Signals = {}
    for name in names:
        # Without CDS the score is the first column of the first signal.
        of = next(iter(own)) if name == "score" else signal_of(name)
        if of is None or of == CDS:
            continue
        is_own = of in own and name not in replaced
        # Where one column was computed again and another was not, the former says how: the latter is as it was.
        if not is_own or of not in found:
            found[of] = own[of] if is_own else added.get(of, {}).get(of, {})
    return found


def signal_of(column: str) -> str | None:
    """The signal that a column belongs to; None for any other column, and for the score."""
    # The column that is derived from both of LongAttn's has the name of the signal.
    if column == LONGATTN:
        return column
    if column in OF_CDS:
        return CDS
    return next((signal for signal, columns in COLUMNS_OF.items() if column in columns), None)
