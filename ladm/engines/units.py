"""Which unit is worked on next: the contract of an engine with a source of units. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ladm.runs import Run, Unit


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A unit to work on, and what is known of its rows from workers that were lost with it.

    Rows of `alone` are scored in steps of their own; rows of `poisoned` are not scored again but
    recorded with the text. `generation` counts the holders that a shared unit has had.
    """

    unit: Unit
    generation: int = 0
    shared: bool = False
    alone: frozenset[int] = frozenset()
    poisoned: Mapping[int, str] = field(default_factory=dict)


class Source(Protocol):
    """Where units come from. `take` gives None when there is nothing for now; `finished` says whether for good."""

    def take(self) -> Assignment | None: ...
    def finished(self) -> bool: ...
    def sealed(self, assignment: Assignment) -> None: ...


class OwnUnits:
    """All unsealed units of a run that nobody else works on, in order."""

    def __init__(self, run: Run) -> None:
        self._waiting = run.unsealed()[::-1]

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Assignment | None:
        return Assignment(unit=self._waiting.pop()) if self._waiting else None

    def finished(self) -> bool:
        return not self._waiting

    def sealed(self, assignment: Assignment) -> None:
        """Nothing to give back."""
