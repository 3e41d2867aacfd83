"""A started job and other settings -> the command lines that make them from its scores, or from its rows. No torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from ladm.pipeline.domain_keys import key_in_rows
from ladm.runs.folder import Run
from ladm.runs.layout import IDENTITY_FILE
from ladm.settings.common import DOMAIN_KEY, NO_DOMAINS
from ladm.settings.fields import settings_of
from ladm.settings.pipeline import ROWS, SCORES, SUBSET, fields_by_part
from ladm.settings.score import ScoreSettings
from ladm.settings.selection import SelectSettings


def select_command(job: Any, *, folder: Path, domain_key: str | None) -> str:
    """The command line that selects from the scores in `folder` with the settings of `job`, into a new subset.

    `domain_key`: that of the job as it was started.
    """
    has_rows = (folder / ROWS).is_dir()
    rows = folder / ROWS if has_rows else job.sources[0]
    key = key_in_rows(domain_key, are_made_here=has_rows)
    free = next(path for path in (folder / f"{SUBSET}{k}" for k in count(2)) if not path.exists())
    words = ["ladm", "select", folder / SCORES, "--rows", rows, *_flags(job, SelectSettings), "-o", free]
    words += [] if key == DOMAIN_KEY else ["--domain-key", key]
    # Rows that the job made have a domain.
    words += [] if has_rows or job.domain is None else ["--domain", job.domain]
    return shlex.join(map(str, words))


def run_command(job: Any, *, folder: Path, domain_key: str | None) -> str:
    """The command line of a new job with the settings of `job`, of the finished rows in `folder`."""
    free = next(path for path in (_beside(folder, k) for k in count(2)) if not path.exists())
    words = ["ladm", "run", folder / ROWS, "--model", job.model]
    # That rows of another tokenizer are wanted.
    words += [] if job.tokenizer is None else ["--tokenizer", job.tokenizer]
    words += [] if domain_key != NO_DOMAINS else ["--domain-key", NO_DOMAINS]
    words += [*_flags(job, ScoreSettings, SelectSettings), "-o", free]
    return shlex.join(map(str, words))


def continue_command(job: Any, *, folder: Path, domain_key: str | None) -> str:
    """The command line, or two, that go on with the job in `folder` from its finished rows, without its documents."""
    scores = folder / SCORES
    if not (scores / IDENTITY_FILE).is_file():
        return run_command(job, folder=folder, domain_key=domain_key)
    select = select_command(job, folder=folder, domain_key=domain_key)
    if Run.read(scores).is_finished:
        return select
    words = ["ladm", "score", folder / ROWS, "--model", job.model, *_flags(job, ScoreSettings), "-o", scores]
    words += [] if job.tokenizer is None else ["--allow-other-tokenizer"]
    return f"{shlex.join(map(str, words))} && {select}"


def _beside(folder: Path, number: int) -> Path:
    # Of `.` the name is empty.
    folder = folder if folder.name else folder.absolute()
    return folder.with_name(f"{folder.name}{number}")


def _flags(job: Any, *kinds: type) -> Iterator[Any]:
    own = fields_by_part()[1] | fields_by_part()[2]
    # `profile` is a field of two commands, and one flag.
    for field in {each.name: each for kind in kinds for each in settings_of(kind)}.values():
        if field.name not in own or (value := getattr(job, field.name)) == field.default:
            continue
        if value is True:
            yield field.flag
        else:
            for each in value if isinstance(value, tuple) else (value,):
                yield from (field.flag, each)
