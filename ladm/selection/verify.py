"""A folder of rows, a run, a subset or a job -> what is wrong with it. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ladm.corpus.files.data_set import FILES_OF_A_SAVED_SET
from ladm.corpus.files.other_stages import WORK_FOLDER
from ladm.corpus.rows.identity import PREPARED, PREPARED_DIGEST
from ladm.corpus.rows.reading import open_rows
from ladm.errors import IncompleteError, LackOfMemoryError, LadmError, StorageError, UsageError, count_of
from ladm.runs.folder import Run
from ladm.runs.layout import IDENTITY_FILE
from ladm.runs.verify import Problem
from ladm.runs.verify import verify as verify_run
from ladm.selection.manifest import MANIFEST_FILE
from ladm.selection.manifest_file import read_manifest
from ladm.settings import pipeline
from ladm.settings.config_file import UnknownKeyError, read_config
from ladm.settings.pipeline import SCORES
from ladm.storage.checksum_list import CHECKSUM_FILE, changed_files, read_checksums
from ladm.storage.json_object import read_json_object

RUN, ROWS, SUBSET, JOB = "run", "rows", "subset", "job"


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found in a folder."""

    folder: Path
    kind: str
    """`run`, `rows`, `subset` or `job`."""
    rows: int | None
    """Of a subset, those that were taken; of a job, those of its run; None where damage hides their number."""
    problems: list[Problem]
    """Empty where nothing is wrong."""
    sound: list[str]
    """A line for each folder in which nothing is wrong and nothing is missing, with what it consists of."""
    finished: bool = True
    """False for a run that still lacks rows, and for a job that lacks one of its folders."""


def verify_folder(name: str, *, deep: bool = False, rows: str | None = None, model: str | None = None) -> Verification:
    """Compare all that a folder holds with the checksums that were written with it.

    `deep`, of a run or a job: also look whether the rows and the model are still those that were scored;
    `rows` and `model` say where they are if not where the run found them.
    Raises LadmError for a folder that is none of the four or has no checksums, IncompleteError for unfinished rows and
    for a job without scores, and UsageError with `deep` for rows and subsets.
    """
    folder = Path(name)
    if not any((place / IDENTITY_FILE).is_file() for place in (folder, folder / SCORES)):
        is_subset = _is_subset(folder)
        is_rows = any((folder / each).exists() for each in (PREPARED, WORK_FOLDER, *FILES_OF_A_SAVED_SET))
        if deep and (is_subset or is_rows):
            raise UsageError(f"{folder} is not a run; leave --deep out, everything in it is read anyway")
        if is_subset:
            return _verify_subset(folder)
        if is_rows:
            return _verify_rows(folder)
    run = Run.open(name)
    found = _verify_run(run, deep=deep, given_rows=rows, model=model)
    # Somebody who names the run in the folder of a job asks for the run alone.
    is_job = run.is_of_job and run.folder != folder
    return _verify_job(folder, run, found) if is_job else found


def _verify_run(run: Run, *, deep: bool, given_rows: str | None, model: str | None) -> Verification:
    problems = list(verify_run(run, deep=deep, rows=given_rows, model=model))
    part = run.identity.part
    parts = f"{run.identity.rows_in_words}, {count_of(part['units'] if part else len(run.units), 'unit')}"
    return Verification(
        folder=run.folder, kind=RUN, rows=run.num_results, problems=problems, finished=run.is_finished,
        sound=[_sound(run.folder, parts)] if run.is_finished and not problems else [],
    )  # fmt: skip


def _verify_job(folder: Path, run: Run, of_run: Verification) -> Verification:
    """The rows and the subset of a job too, for they are what a person trains on."""
    rows, subset = folder / pipeline.ROWS, folder / pipeline.SUBSET
    # A job of rows that existed before has none of its own; its run names them.
    needs_rows = rows.is_dir() or Path(run.identity.rows_name) == rows.absolute()
    found = [_verify_part(_verify_rows, rows)] if needs_rows else []
    found += [of_run, _verify_part(_verify_subset, subset)]
    problems = [*_problems_of_flags(folder), *(problem for each in found for problem in each.problems)]
    return Verification(
        folder=folder, kind=JOB, rows=of_run.rows, problems=problems,
        sound=[line for each in found for line in each.sound], finished=all(each.finished for each in found),
    )  # fmt: skip


def _verify_part(check: Callable[[Path], Verification], folder: Path) -> Verification:
    """One folder of a job: one that cannot be checked is a problem like another, so that the others are checked too."""
    problems, finished = list[Problem](), False
    try:
        if folder.is_dir():
            return check(folder)
    except LackOfMemoryError:
        raise
    except IncompleteError:
        pass
    except LadmError as error:
        problems, finished = [Problem.of(error)], True
    return Verification(folder=folder, kind=JOB, rows=None, problems=problems, sound=[], finished=finished)


def _problems_of_flags(folder: Path) -> list[Problem]:
    path = folder / pipeline.JOB_FILE
    try:
        if not read_config(path, pipeline.RunSettings):
            return [Problem(f"{path}: it is empty")]
    except UnknownKeyError:
        # Whole, and of another version: a damaged file is found by its checksum before its keys are looked at.
        pass
    except UsageError as error:
        return [Problem(f"{path}: {str(error).removeprefix(f'--config {path}').lstrip(': ')}")]
    return []


def _is_subset(folder: Path) -> bool:
    # A copy that was cut short may lack either.
    return (folder / MANIFEST_FILE).is_file() or (folder / CHECKSUM_FILE).is_file()


def _sound(folder: Path, parts: str) -> str:
    return f"{folder} is sound: {parts}"


def _verify_rows(folder: Path) -> Verification:
    """The digests of all rows, which `ladm prepare` has recorded."""
    if not (folder / PREPARED).is_file():
        if (folder / WORK_FOLDER).is_dir():
            raise IncompleteError(f"{folder} is not finished: its ladm prepare was stopped; run that command again")
        raise LadmError(f"{folder} has no {PREPARED}, so there is nothing to compare its rows with")
    count, problems = None, []
    try:
        if PREPARED_DIGEST not in read_json_object(folder / PREPARED):
            raise LadmError(
                f"{folder / PREPARED} has no {PREPARED_DIGEST}, so there is nothing to compare the rows with"
            )
        # Read in full: a disk that returns other bytes than were written changes no date.
        rows = open_rows(folder, remember=False)
        count = len(rows)
        # Compares what it computes with what is recorded.
        rows.identity()
    except StorageError as error:
        problems.append(Problem.of(error))
    sound = [] if problems else [_sound(folder, count_of(count or 0, "row"))]
    return Verification(folder=folder, kind=ROWS, rows=count, problems=problems, sound=sound)


def _verify_subset(folder: Path) -> Verification:
    """The checksums of the manifest and of the files with the rows."""
    taken, files, problems = None, 0, []
    if not (folder / MANIFEST_FILE).is_file():
        problems.append(Problem(f"{folder / MANIFEST_FILE} is missing"))
    else:
        try:
            taken = read_manifest(folder).taken_documents
        except StorageError as error:
            problems.append(Problem.of(error))
    if not (folder / CHECKSUM_FILE).is_file():
        raise LadmError(f"{folder} has no {CHECKSUM_FILE}, so there is nothing to compare its files with")
    try:
        files = len(read_checksums(folder))
        # Read in full: a disk that returns other bytes than were written changes no date.
        problems += [Problem(f"{path} is damaged or missing") for path in changed_files(folder, remember=False)]
    except StorageError as error:
        problems.append(Problem.of(error))
    sound = [] if problems else [_sound(folder, f"{count_of(taken or 0, 'row')}, {count_of(files, 'file')}")]
    return Verification(folder=folder, kind=SUBSET, rows=taken, problems=problems, sound=sound)
