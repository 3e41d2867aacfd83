"""`OUT/job.yaml`: a job as a file of flags, everything that was found out written down. Imports no torch.

The file is written before the first row is, so that a resume uses what was found the first time; with
`ladm run --config OUT/job.yaml -o OTHER` it repeats the job. A flag binds once something is stored that was made with
it; until then a resume may have another value, which replaces the one in the file.
"""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import yaml

from ladm.corpus.documents.missing_sources import are_there, require_sources, without_documents
from ladm.corpus.files.folders import NoSourceError
from ladm.corpus.ids.files import IdFile
from ladm.corpus.preparation.prepare import has_sealed_rows
from ladm.corpus.rows.identity import PREPARED
from ladm.errors import LadmError, StorageError, UsageError
from ladm.pipeline.changed_files import profile_scores, subset_files
from ladm.pipeline.moved_files import moved_files
from ladm.pipeline.reselect import continue_command, run_command, select_command
from ladm.runs.layout import IDENTITY_FILE
from ladm.selection.manifest import MANIFEST_FILE
from ladm.selection.quota_weights import is_weights_file
from ladm.settings.common import NO_DOMAINS
from ladm.settings.config_file import read_config
from ladm.settings.fields import settings_of
from ladm.settings.id_lists import EXCLUDE_IDS, ONLY_IDS
from ladm.settings.named_scores import NAMED_SCORES, is_profile
from ladm.settings.pipeline import JOB_FILE, PAGE, ROWS, SCORES, SUBSET, RunSettings, changed_values, fields_by_part
from ladm.settings.selection import SelectSettings
from ladm.settings.yaml_text import CHECKSUM
from ladm.storage.files import create_once, io_errors, remove_abandoned, write_whole
from ladm.storage.identity import CHANGED_REMEDY, require_same
from ladm.storage.json_object import content_checksum

_FREE_TO_CHANGE = ("output", "device", "workers", "batch_size", "max_errors", "fail_fast", "max_bad_files", "num_proc")
"""Flags that a resume may have other values of: they change no row, score or choice."""
_PLACES = ("sources", "model", "tokenizer", "profile", "unigrams", EXCLUDE_IDS, ONLY_IDS)


class JobFolder:
    """The folder of a job. `in_memory`: ids that the program holds, of lists in its settings."""

    def __init__(self, path: Path, *, in_memory: Iterable[IdFile] = ()) -> None:
        self.path = path
        self._held = {each.name: each.xxh3_128 for each in in_memory}
        self.rows, self.scores, self.subset = (str(path / name) for name in (ROWS, SCORES, SUBSET))
        self.page = str(path / PAGE)
        self._job = path / JOB_FILE

    @property
    def is_started(self) -> bool:
        """Is there a job already?"""
        return self._job.is_file()

    def require_free(self) -> None:
        """Raise LadmError where something of another command is in the way; other files may be in the folder."""
        for name in (ROWS, SCORES, SUBSET, PAGE):
            if (self.path / name).exists():
                raise LadmError(
                    f"{self.path} holds {name} and no {JOB_FILE}, so it is not a job of ladm run; give another --output"
                )

    def bound_fields(self) -> frozenset[str]:
        """The settings that what is stored was made with; a resume must have the same."""
        parts = 0
        if (Path(self.subset) / MANIFEST_FILE).is_file():
            parts = 3
        elif (Path(self.scores) / IDENTITY_FILE).is_file():
            parts = 2
        elif has_sealed_rows(Path(self.rows)):
            parts = 1
        return frozenset().union(*fields_by_part()[:parts]) - set(_FREE_TO_CHANGE)

    def start(self, job: Any) -> bool:
        """Write the job down and return True; False where another launch has done so meanwhile."""
        with io_errors(self.path, "create"):
            self.path.mkdir(parents=True, exist_ok=True)
        remove_abandoned(self._job)
        return create_once(self._job, _text(job))

    def replace(self, job: Any) -> None:
        """Write the job down in place of the one that is there. Only for the holder of the lock."""
        write_whole(self._job, [_text(job)])

    def resume(self, job: Any) -> Any:
        """The job as `as_started` has it, written down where it differs. Only for the holder of the lock."""
        had, resumed = self._had(), self.as_started(job)
        # Values of flags that never bind may stay as they were in the file.
        kept = {name: getattr(had, name) for name in _FREE_TO_CHANGE if hasattr(had, name)}
        if (recorded := dataclasses.replace(resumed, **kept)) != had:
            self.replace(recorded)
        return resumed

    def as_started(self, job: Any) -> Any:
        """The job as it was started, with what may change taken from `job`.

        Raises LadmError with the flags that differ; what `job` leaves open is as it was found. Raises StorageError for
        a file that cannot be used.
        """
        had = self._had()
        self._require_sources(job, had)
        moved = moved_files(job, had, scores=Path(self.scores))
        bound = self.bound_fields() - moved
        if had.limit is not None and job.limit is not None and job.limit > had.limit:
            # The rows and scores that there are stay as they are; others are added to them.
            bound -= {"limit"}
        if had.domain is None and had.domain_key != NO_DOMAINS:
            # A document without a domain was an error so far, which says to give this.
            bound -= {"domain"}
        fixed = [field for field in settings_of(RunSettings) if field.name in bound]
        now, before = {}, {}
        for field in fixed:
            mine, old = (_plain(getattr(each, field.name)) for each in (job, had))
            # None means: keep the value that the first start filled in.
            if mine is not None:
                now[field.flag], before[field.flag] = mine, old
        is_other_score = False
        for key, old, mine in subset_files(job, had, subset=Path(self.subset), held=self._held):
            before[key], now[key] = old, mine
        for key, old, mine in profile_scores(job, had, scores=Path(self.scores)):
            before[key], now[key], is_other_score = old, mine, True
        # The fields are flags already; the names of those that differ lead the message.
        remedy = self._remedy(job, had, moved, is_other_score=is_other_score)
        require_same(self.path, before, now, name_of_field=str, remedy=remedy)
        return dataclasses.replace(job, **{field.name: getattr(had, field.name) for field in fixed})

    def _had(self) -> Any:
        # An earlier version wrote some places down as they were given.
        return with_absolute_places(self._read())

    def use_rows(self, job: Any, *, domain_key: str | None) -> str:
        """The command that goes on from finished rows without their documents; `domain_key`: as at the start."""
        return continue_command(job, folder=self.path, domain_key=domain_key)

    def _require_sources(self, job: Any, had: Any) -> None:
        """Raise LadmError for a source that is gone: that it has another name now would hide it."""
        try:
            require_sources(job.sources, before=had.sources)
        except NoSourceError as error:
            if self._has_finished_rows:
                use_rows = self.use_rows(job, domain_key=had.domain_key)
                error.args = (f"{error}; {without_documents(use_rows)}",)
            raise

    @property
    def _has_finished_rows(self) -> bool:
        return (Path(self.rows) / PREPARED).is_file()

    def _remedy(self, job: Any, had: Any, moved: Collection[str], *, is_other_score: bool) -> str:
        """What to do about settings that differ: rows and scores need not be made again for what comes after them.

        `is_other_score`: the profile has the same name and another score.
        """
        changed = {
            field.name for field in settings_of(RunSettings)
            if (mine := getattr(job, field.name)) is not None and mine != getattr(had, field.name)
        }  # fmt: skip
        differs = changed - {*_FREE_TO_CHANGE, *moved} | ({"profile"} if is_other_score else set())
        # A run of either variant has the column `robust`, whichever score it was made with.
        is_in_both = job.score in NAMED_SCORES and NAMED_SCORES[job.score].variant is None
        if is_in_both and job.by == had.by == SelectSettings.by:
            differs -= {"score"}
            job = dataclasses.replace(job, by=job.score)
        _, of_scores, of_subset = fields_by_part()
        if differs <= of_subset:
            # As everywhere, None means: as before.
            before = {name: getattr(had, name) for name in ("domain", "quota") if getattr(job, name) is None}
            job = dataclasses.replace(job, **before)
            command = select_command(job, folder=self.path, domain_key=had.domain_key)
            return f"to make another selection from its scores: {command}; or {CHANGED_REMEDY}"
        # Rows of one corpus answer no question about another; a corpus that was only moved is no longer where it was.
        is_other = "sources" in differs and are_there(had.sources)
        if is_other or not self._has_finished_rows or not differs <= of_scores | of_subset | {"model", "sources"}:
            return CHANGED_REMEDY
        if differs == {"sources"}:
            return f"{without_documents(self.use_rows(job, domain_key=had.domain_key))}; or {CHANGED_REMEDY}"
        command = run_command(job, folder=self.path, domain_key=had.domain_key)
        return f"to score its rows another way: {command}; or {CHANGED_REMEDY}"

    def _read(self) -> Any:
        try:
            found = read_config(self._job, RunSettings)
            if not found:
                raise UsageError("it is empty; restore it from a copy")
            return RunSettings(**found)
        except UsageError as error:
            # Of the user's own flags none is at fault here.
            reason = str(error).removeprefix(f"--config {self._job}").lstrip(": ")
            raise StorageError(f"cannot resume with {self._job}: {reason}; or give another --output") from None


def with_absolute_places(job: Any) -> Any:
    """The job with what is on this machine by its absolute path, to be found from any folder.

    Rows repeat the name of their file: a resume, which reads the job's file, must make the same as an undisturbed job.
    """
    # The name of a score and the unit or the weights of a quota are words, whatever folder is called the same.
    may_be_words = {"score": is_profile(job.score), "quota": is_weights_file(job.quota)}
    places = (*_PLACES, *(name for name, is_place in may_be_words.items() if is_place))
    return dataclasses.replace(job, **{name: _absolute(getattr(job, name)) for name in places})


def _absolute(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_absolute(each) for each in value)
    is_here = isinstance(value, str) and "://" not in value and (os.path.exists(value) or glob.has_magic(value))
    return os.path.abspath(value) if is_here else value


def _text(job: Any) -> bytes:
    values = {name: _plain(value) for name, value in changed_values(job).items()}
    # The checksum goes first: the lines in front of a cut would otherwise pass for a whole file of an earlier version.
    text = yaml.safe_dump({CHECKSUM: content_checksum(values)} | values, sort_keys=False, allow_unicode=True)
    return f"# ladm run --config {JOB_FILE}\n{text}".encode()


def _plain(value: Any) -> Any:
    """A value as YAML has it."""
    return list(value) if isinstance(value, tuple) else value
