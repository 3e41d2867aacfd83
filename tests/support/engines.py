"""A run scored to its end by a fake scorer, on any number of devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ladm.corpus.rows.reading import Rows
from ladm.runs.finish import finish
from ladm.runs.folder import Run
from ladm.runs.records import Record
from ladm.runs.unsealed import adopt_shared
from ladm.scoring.engines.assignments import OwnUnits
from ladm.scoring.engines.local import run_units
from ladm.storage.locks import locked
from support import fakes
from support.crashes import identity, job_of


def complete(
    folder: Path,
    rows: Rows,
    make_scorer: Any = fakes.make_fake,
    *,
    devices: int = 1,
    warn: Callable[[str], None] = print,
    **config: Any,
) -> list[Record]:
    heard: list[Record] = []
    with locked(folder):
        run = Run.create_or_resume(folder, identity(rows))
        adopt_shared(run)
        source = OwnUnits(run)
        run_units(
            job_of(
                run, rows, source, make_scorer=make_scorer, devices=devices, report=heard.extend, warn=warn, **config
            )
        )
        finish(run)
    return heard
