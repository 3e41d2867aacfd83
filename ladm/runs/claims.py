"""The claims in a run folder that several launches share -> who works on which unit. Imports no torch."""

from __future__ import annotations

import contextlib
import json

from ladm.runs.folder import Run
from ladm.runs.layout import CLAIM, UNITS


def units_held(run: Run) -> dict[int, str]:
    """Who works on which unsealed unit, for people: unit number -> `process 12 on host`."""
    newest: dict[int, tuple[int, str]] = {}
    # A claim may outlive its unit: its holder removes it after the unit is sealed.
    waiting = {unit.number for unit in run.unsealed()}
    for path in (run.folder / UNITS).glob("*.claim-*"):
        found = CLAIM.fullmatch(path.name)
        if found is None or int(found[1]) not in waiting:
            continue
        # A claim may be released, or be half written, while this reads: then it has no holder to show.
        with contextlib.suppress(OSError, ValueError, KeyError):
            label = json.loads(path.read_text())
            holder = (int(found[2]), f"process {label['process']} on {label['host']}")
            newest[int(found[1])] = max(newest.get(int(found[1]), holder), holder)
    return {number: who for number, (_, who) in newest.items()}
