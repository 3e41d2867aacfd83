"""Which unit is worked on next: the contract of an engine with a source of units. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from ladm.runs import Run, Unit


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A unit to work on, and what is known of its rows from workers that were lost with it.

    Rows of `alone` are scored in steps of their own; rows of `poisoned` are not scored again but
    recorded with the text. Of a unit that launches share, `generation` counts the claims on it, and
    `holder` names the file that this claim's holder writes, as no other does.
    """

    unit: Unit
    generation: int = 0
    holder: str = ""
    alone: frozenset[int] = frozenset()
    poisoned: Mapping[int, str] = field(default_factory=dict)


class Source(Protocol):
    """Where units come from. `take` gives None when there is nothing for now; `finished` says whether for good."""

    def take(self) -> Assignment | None: ...
    def finished(self) -> bool: ...
    def sealed(self, assignment: Assignment) -> None: ...


class Losses:
    """What lost workers say of the rows that they were at: which row takes workers with it, when to give up."""

    MOST_IN_A_ROW = 20
    """Workers lost without a single row scored in between, before the run is given up."""
    OF_A_POISONOUS_ROW = 3

    def __init__(self) -> None:
        self.in_a_row = 0
        self._of_row: Counter[int] = Counter()

    @property
    def too_many(self) -> bool:
        return self.in_a_row > self.MOST_IN_A_ROW

    def tries(self, batch: Sequence[int]) -> int:
        """How many workers the most suspect row of a batch has taken."""
        return max((self._of_row[position] for position in batch), default=0)

    def after(self, assignment: Assignment, batch: Sequence[int], what: str) -> Assignment:
        """The unit once more, with the rows of `batch` alone; one that was alone and lost again and again is left out.

        `what` is what became of the worker, such as `the worker on cuda:0 died`.
        """
        self._of_row.update(batch)
        poisoned = dict(assignment.poisoned)
        if len(batch) == 1 and self._of_row[batch[0]] >= self.OF_A_POISONOUS_ROW:
            poisoned[batch[0]] = f"{what} each time it scored this row"
        return replace(assignment, alone=assignment.alone | set(batch), poisoned=poisoned)


class Patience:
    """How long a worker may be silent: `hang_seconds` and ten times the slowest batch.

    One that is not warm, not having finished a batch yet, may be silent for `first_seconds`. A row that
    has already taken a worker gets four times as long, each time.
    """

    def __init__(self, hang_seconds: float, first_seconds: float) -> None:
        self._hang_seconds, self._first_seconds = hang_seconds, first_seconds
        self._slowest_seconds = 0.0

    def saw(self, seconds: float) -> None:
        """A batch took so long."""
        self._slowest_seconds = max(self._slowest_seconds, seconds)

    def limit(self, *, warm: bool, tries: int) -> float:
        """Seconds of silence after which a worker counts as hung."""
        usual = max(self._hang_seconds, 10 * self._slowest_seconds)
        return usual * 4.0**tries if warm else max(usual, self._first_seconds)


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
