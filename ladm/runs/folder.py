"""A run folder: its identity and its units of rows. `layout.py` has the names of its files. Imports no torch."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from ladm.corpus.files.data_set import is_saved
from ladm.corpus.files.other_stages import WORK_FOLDER, format_of_subset
from ladm.errors import IncompleteError, LadmError, UsageError
from ladm.runs.flags import PART, SCORE_FLAGS, UNIGRAMS_FLAG, flag_of_field
from ladm.runs.heartbeat import is_locked
from ladm.runs.identity import FORMAT, READABLE_FORMATS, RunIdentity
from ladm.runs.layout import IDENTITY_FILE, LEFTOVERS, RESULT_FILES, SIGNALS, UNIT_FILES, UNITS
from ladm.runs.lines import StoredLine, damaged_unit, read_lines
from ladm.runs.records import ScoredRow
from ladm.settings.pipeline import JOB_FILE, SCORES
from ladm.storage.files import io_errors
from ladm.storage.json_object import damaged_file, read_json_object
from ladm.storage.output_folder import OutputFolder

TARGET_UNITS = 4096
MIN_UNIT_ROWS, MAX_UNIT_ROWS = 16, 1024


def unit_rows_for(num_rows: int) -> int:
    """Rows in a unit: a function of the data alone, so that any number of workers may resume."""
    return min(max(-(-num_rows // TARGET_UNITS), MIN_UNIT_ROWS), MAX_UNIT_ROWS)


@dataclass(frozen=True)
class Unit:
    """Rows `start` to `stop - 1` of the data, sealed together."""

    number: int
    start: int
    stop: int


class Run:
    """An existing run folder."""

    def __init__(self, folder: Path, identity: RunIdentity) -> None:
        self.folder = folder
        self.identity = identity
        self.num_rows = identity.num_rows
        self.num_results = identity.num_results
        self.unit_rows = identity.unit_rows

    @classmethod
    def open(cls, name: str) -> Run:
        """The run that a person names: its own folder, or the folder of the job of `ladm run` that made it.

        Raises as `read`.
        """
        folder = Path(name)
        is_job = not (folder / IDENTITY_FILE).is_file() and (folder / SCORES / IDENTITY_FILE).is_file()
        return cls.read(folder / SCORES if is_job else folder)

    @property
    def is_of_job(self) -> bool:
        """Is it the run in the folder of a job, which `ladm run` made?"""
        # Absolute, because the folder may be `.`, which has neither a name nor a parent.
        folder = self.folder.absolute()
        return folder.name == SCORES and (folder.parent / JOB_FILE).is_file()

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Open a run for reading, of this format or of an older one. Raises LadmError where there is none."""
        path = folder / IDENTITY_FILE
        if not path.is_file():
            if format_of_subset(folder) is not None:
                raise UsageError(
                    f"{folder} is a subset, not a run; give the run that it was selected from, as in ladm report RUN "
                    f"--subset {shlex.quote(str(folder))}"
                )
            if is_saved(folder):
                raise UsageError(
                    f"{folder} holds rows, not a run; score them first: ladm score {folder} --model MODEL -o run"
                )
            if (folder / JOB_FILE).is_file():
                what = "it is running" if is_locked(folder) else "run the same ladm run command again"
                raise IncompleteError(f"{folder} is a job of ladm run that has no scores yet; {what}")
            if (folder / WORK_FOLDER).is_dir():
                raise IncompleteError(f"{folder} holds the rows of an unfinished ladm prepare, not a run")
            if not folder.exists():
                raise LadmError(f"no such run: {folder} does not exist")
            raise LadmError(f"{folder} is not a run: it has no {IDENTITY_FILE}")
        content = read_json_object(path)
        try:
            identity = RunIdentity(content)
            if identity.format not in READABLE_FORMATS:
                raise LadmError(
                    f"{path}: format {identity.format}, and this version reads {min(READABLE_FORMATS)} to {FORMAT}"
                )
            return cls(folder, identity)
        except (ValueError, KeyError, TypeError):
            raise damaged_file(path, "not a run's identity") from None

    @classmethod
    def create_or_resume(cls, folder: Path, identity: RunIdentity, *, remedy: str | None = None) -> Run:
        """Create the run, or resume the one that is there when its identity is the same.

        A finished run of an older format is opened as it is, because nothing will be written to it.
        Raises LadmError with every field that differs, and for an unfinished run of an older format. `remedy`: what
        to do about the former, where the advice for `ladm score` does not apply.
        """
        require_own_or_empty(folder)
        with io_errors(folder, "create"):
            (folder / UNITS).mkdir(parents=True, exist_ok=True)
        output = _output_folder(folder, remedy)
        if not output.is_started:
            output.start(identity.content)
            return cls.read(folder)
        existing = cls.read(folder)
        if existing.identity.format != identity.format:
            if not existing.is_finished:
                existing.require_writable_format()
            identity = identity.with_format(existing.identity.format)
        output.start(identity.content)
        return existing

    @property
    def is_finished(self) -> bool:
        """Is every row accounted for and every result file in place?"""
        return all((self.folder / name).exists() for name in RESULT_FILES)

    def require_writable_format(self) -> None:
        """Raise LadmError for a run of an older format: it would become a mixture of two."""
        found, kind = self.identity.format, "a run" if self.is_finished else "an unfinished run"
        if not self.identity.is_as_written_now:
            raise LadmError(
                f"{self.folder} is {kind} of format {found}, and this version writes format {FORMAT}; "
                "continue with the version of ladm that started it, or give another --output"
            )

    def forget_if_empty(self) -> None:
        """Remove the identity while no unit has rows, so that a failed start does not fix the folder's settings."""
        # A model that does not load must not force the user to another folder, or to repeat the same mistake. Where a
        # file cannot be removed, the error that ended the start is worth more than that one.
        with contextlib.suppress(OSError):
            left = list((self.folder / UNITS).iterdir())
            # The file of a unit is created before its first rows are scored, and is empty until they are.
            if all(UNIT_FILES.fullmatch(path.name) and path.stat().st_size == 0 for path in left):
                # Before the identity: files of units without one would block the next start.
                for path in left:
                    path.unlink(missing_ok=True)
                (self.folder / IDENTITY_FILE).unlink(missing_ok=True)

    @property
    def units(self) -> list[Unit]:
        """All units, in the order of the data."""
        starts = range(0, self.num_rows, self.unit_rows)
        return [Unit(k, start, min(start + self.unit_rows, self.num_rows)) for k, start in enumerate(starts)]

    def sealed_path(self, unit: Unit) -> Path:
        return self.folder / UNITS / f"{unit.number:06d}.jsonl"

    def open_path(self, unit: Unit, holder: str = "") -> Path:
        return self.folder / UNITS / f"{unit.number:06d}.open{f'-{holder}' if holder else ''}"

    def claim_path(self, unit: Unit, generation: int) -> Path:
        return self.folder / UNITS / f"{unit.number:06d}.claim-{generation}"

    def unsealed(self) -> list[Unit]:
        """Units that still have rows to score."""
        names = set(self.unit_names())
        return [unit for unit in self.units if self.sealed_path(unit).name not in names]

    def unit_names(self) -> list[str]:
        """The names of the files of all units."""
        # One listing instead of a stat for each of thousands of units: on a network file system that matters.
        with io_errors(self.folder / UNITS, "list"):
            return sorted(os.listdir(self.folder / UNITS))

    def read_sealed_lines(self, unit: Unit) -> list[StoredLine]:
        """The rows of a sealed unit in the order of the data, each with the JSON text that it was read from.

        Raises IncompleteError when it is not sealed and StorageError, with file and offset, for
        any line that is not whole or not this unit's, and for a missing row.
        """
        path = self.sealed_path(unit)
        if not path.exists():
            raise IncompleteError(f"{self.folder} is not finished: unit {unit.number} is missing")
        lines, size = read_lines(path, start=unit.start, stop=unit.stop)
        if size != path.stat().st_size:
            raise damaged_unit(path, "a sealed unit ends in the middle of a line", offset=size)
        if len(lines) != unit.stop - unit.start:
            raise damaged_unit(path, f"{len(lines)} rows of {unit.stop - unit.start}")
        for line in lines:
            row = line.record
            if isinstance(row, ScoredRow) and not math.isfinite(row.score):
                raise damaged_unit(path, f"row {row.position} has the score {row.score}")
        return sorted(lines, key=lambda line: line.record.position)


def _output_folder(folder: Path, remedy: str | None = None) -> OutputFolder:
    # --overwrite would delete the run that the signal was added to.
    is_added = folder.parent.name == SIGNALS and (folder.parent.parent / IDENTITY_FILE).is_file()

    def changed(flags: tuple[str, ...]) -> str:
        if flags == (UNIGRAMS_FLAG,):
            command = shlex.join(["ladm", "annotate", str(folder.parent.parent if is_added else folder)])
            return f"give what it was started with; once it is finished, other counts: {command} {UNIGRAMS_FLAG} FILE"
        if is_added:
            return f"give what it was started with, or remove {folder} to compute the signal again"
        if flags == (SCORE_FLAGS,):
            command = shlex.join(["ladm", "rescore", str(folder)])
            return f"for another score of a finished run: {command} --score NAME -o RUN2; else give another --output"
        if flags == (PART,):
            return (
                "it was made by ladm rescore --so-far: run ladm score on the run that it was made from, or give "
                "another --output"
            )
        return "give what it was started with, another --output, or --overwrite to delete the run and start again"

    return OutputFolder(
        folder,
        record=IDENTITY_FILE,
        leftovers=LEFTOVERS.pattern,
        name_of_field=flag_of_field,
        changed_remedy=changed if remedy is None else remedy,
    )


def require_same_start(folder: Path, identity: RunIdentity) -> None:
    """Raise LadmError with every field that differs from that of the run in `folder`. Writes nothing."""
    _output_folder(folder).require_same(identity.content)


def require_own_or_empty(folder: Path) -> None:
    """Raise LadmError when `folder` exists and holds anything but a run or the leftovers of one.

    Raises StorageError when it could not be created or written to.
    """
    output = _output_folder(folder)
    output.require_own_or_empty()
    units = folder / UNITS
    if output.is_started:
        Run.read(folder)
    elif units.is_dir() and any(units.iterdir()):
        raise LadmError(f"{folder} holds units of a run whose {IDENTITY_FILE} is missing; give another --output")
