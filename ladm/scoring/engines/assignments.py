"""Which unit is scored next: the contract between an engine and a source of units. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ladm.runs.folder import Run, Unit


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A unit to score, and what is known of its rows from workers that were lost with it.

    Rows of `alone` are scored in batches of their own; rows of `quarantined` are not scored again but
    recorded as errors with the text. In a run that launches share, `generation` counts the claims on the
    unit, and `holder` names the file that only this claim's holder writes.
    """

    unit: Unit
    generation: int = 0
    holder: str = ""
    alone: frozenset[int] = frozenset()
    quarantined: Mapping[int, str] = field(default_factory=dict)


class UnitSource(Protocol):
    """Hands out units, one at a time."""

    def take(self) -> Assignment | None:
        """A unit to score; None when there is none at the moment."""
        ...

    def finished(self) -> bool:
        """Will it never hand out another unit?"""
        ...

    def sealed(self, assignment: Assignment) -> None:
        """Note that the unit is sealed."""
        ...


class OwnUnits:
    """All unsealed units of a run that no other launch shares, in order."""

    def __init__(self, run: Run) -> None:
        self._waiting = run.unsealed()[::-1]

    def take(self) -> Assignment | None:
        return Assignment(unit=self._waiting.pop()) if self._waiting else None

    def finished(self) -> bool:
        return not self._waiting

    def sealed(self, assignment: Assignment) -> None:
        """Nothing to release."""
