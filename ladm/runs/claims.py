"""The claims in a run folder that several launches share -> who works on which unit. Imports no torch."""

from __future__ import annotations

import contextlib
import json
import re

from ladm.runs.folder import Run

CLAIM = re.compile(r"(\d+)\.claim-(\d+)")
"""A claim's file name: the unit and the generation of its holder."""


def units_held(run: Run) -> dict[int, str]:
    """Who works on which unsealed unit, for people: unit number -> `process 12 on host`."""
    newest: dict[int, tuple[int, str]] = {}
    waiting = {unit.number for unit in run.unsealed()}
    for path in (run.folder / "units").glob("*.claim-*"):
        found = CLAIM.fullmatch(path.name)
        if found is None or int(found[1]) not in waiting:
            continue
        with contextlib.suppress(OSError, ValueError, KeyError):
            who = json.loads(path.read_text())
            told = (int(found[2]), f"process {who['process']} on {who['host']}")
            newest[int(found[1])] = max(newest.get(int(found[1]), told), told)
    return {number: told for number, (_, told) in newest.items()}
