"""A run that is not finished -> a finished run of the rows that it has so far, in a folder of its own. No torch.

Only sealed units are read, without a lock, so that launches on any machine may go on scoring meanwhile. They may lie
anywhere in the data, because launches that share a run begin at different places. So what is made has the data of the
run, and `part` in its identity says how much of it: every row keeps its position, and no row has to be read.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from ladm.errors import IncompleteError, LadmError, UsageError
from ladm.progress import Echo
from ladm.runs.derived_identity import identity_so_far
from ladm.runs.finish import write_results
from ladm.runs.folder import Run, Unit, require_own_or_empty
from ladm.runs.reset import forget_earlier_rows, undone_on_error
from ladm.runs.results import summarise
from ladm.runs.rows_of_run import partial_coverage
from ladm.runs.status import require_whole_if_rescored
from ladm.runs.unigrams import copy_counts
from ladm.scoring.result import ScoreResult
from ladm.settings.runs import RescoreSettings
from ladm.storage.locks import locked

_REMEDY = "give another --output, or remove it"


def keep_so_far(settings: RescoreSettings, *, echo: Echo) -> ScoreResult:
    """Make a finished run of the sealed units of `settings.run`, or bring an earlier one up to date.

    `echo` is called with a warning of how many rows are missing. Raises IncompleteError where no unit is sealed,
    UsageError where the output is the run, StorageError for a damaged unit, and LadmError for a finished run, for an
    output of another run, and where the run is started again meanwhile.
    """
    run, output = Run.open(settings.run), Path(settings.output)
    units = _sealed_units(run)
    if output.resolve() == run.folder.resolve():
        raise UsageError(f"--output {output} is RUN itself; give another folder")
    require_own_or_empty(output)
    rows = sum(unit.stop - unit.start for unit in units)
    identity = identity_so_far(run.identity, rows=rows, units=len(units), source=str(run.folder))
    with locked(output):
        forget_earlier_rows(output, identity)
        made = Run.create_or_resume(output, identity, remedy=_REMEDY)
        with undone_on_error(made):
            copy_counts(run, output)
            write_results(run, units, output)
            # Units of both would be rows that no run has.
            if Run.read(run.folder).identity != run.identity:
                raise LadmError(f"{run.folder} was started with something else meanwhile; run the same command again")
        partial = partial_coverage(made)
        if partial is not None:
            echo(f"warning   {partial}")
        return ScoreResult(run=made, summary=summarise(made))


def _sealed_units(run: Run) -> list[Unit]:
    """The units of which every row is stored by now. Raises as `keep_so_far`."""
    require_whole_if_rescored(run)
    if run.is_finished:
        has = f"is finished, and has {'' if run.num_results < run.num_rows else 'all '}"
        raise LadmError(
            f"{run.folder} {has}{run.identity.rows_in_words}; leave --so-far out, or read {run.folder} itself"
        )
    waiting = {unit.number for unit in run.unsealed()}
    units = [unit for unit in run.units if unit.number not in waiting]
    if not units:
        raise IncompleteError(
            f"{run.folder} has no rows to show: no unit of {run.unit_rows} rows is complete yet; for its progress: "
            + shlex.join(["ladm", "status", str(run.folder)])
        )
    return units
