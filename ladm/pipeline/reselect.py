"""A finished job and other settings of its selection -> the `ladm select` that makes them from its scores. No torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from ladm.pipeline.document_sample import key_in_rows
from ladm.settings.common import DOMAIN_KEY
from ladm.settings.fields import settings_of
from ladm.settings.pipeline import ROWS, SCORES, SUBSET, fields_by_part
from ladm.settings.selection import SelectSettings


def select_command(job: Any, *, folder: Path, domain_key: str | None) -> str:
    """The command line that selects from the scores in `folder` with the settings of `job`, into a new subset.

    `domain_key`: that of the job as it was started.
    """
    has_rows = (folder / ROWS).is_dir()
    rows = folder / ROWS if has_rows else job.sources[0]
    key = key_in_rows(domain_key, are_made_here=has_rows)
    free = next(path for path in (folder / f"{SUBSET}{k}" for k in count(2)) if not path.exists())
    words = ["ladm", "select", folder / SCORES, "--rows", rows, *_flags(job), "-o", free]
    words += [] if key == DOMAIN_KEY else ["--domain-key", key]
    return shlex.join(map(str, words))


def _flags(job: Any) -> Iterator[Any]:
    own = fields_by_part()[2]
    for field in settings_of(SelectSettings):
        if field.name not in own or (value := getattr(job, field.name)) == field.default:
            continue
        if value is True:
            yield field.flag
        else:
            for each in value if isinstance(value, tuple) else (value,):
                yield from (field.flag, each)
