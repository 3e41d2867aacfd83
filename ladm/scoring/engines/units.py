"""Which unit is worked on next: the contract of an engine with a source of units. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from ladm.runs.folder import Run, Unit


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


class Queue:
    """The units of a source and, before them, those that were lost at one place and wait for another."""

    PAUSE_SECONDS = 0.5
    """For so long a source that had none is not asked again."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lost: list[tuple[Assignment, Hashable]] = []
        self._ask_again = 0.0

    def put_back(self, assignment: Assignment, place: Hashable) -> None:
        """A unit was lost there."""
        self._lost.append((assignment, place))

    def take(self, place: Hashable, *, elsewhere: bool) -> Assignment | None:
        """A unit for a place, None for now. `elsewhere`: is there another for what was lost at this one?"""
        for k, (assignment, lost_at) in enumerate(self._lost):
            if lost_at != place or not elsewhere:
                del self._lost[k]
                return assignment
        if time.monotonic() < self._ask_again:
            return None
        new = self._source.take()
        if new is None:
            self._ask_again = time.monotonic() + self.PAUSE_SECONDS
        return new

    def finished(self) -> bool:
        """Is there nothing left to hand out, for good?"""
        return not self._lost and self._source.finished()


class Losses:
    """What lost workers say of rows and of devices: which row takes workers with it, what does not work.

    A row is poisonous only once it was lost in more than one place, where there is more than one. A
    place is a device, or an actor.
    """

    MOST_IN_A_ROW = 20
    """Workers lost without a single row scored in between, before the run is given up."""
    MOST_OF_A_PLACE = 5
    """The same of one place, before the others go on without it."""
    OF_A_POISONOUS_ROW = 3

    def __init__(self) -> None:
        self.in_a_row = 0
        self._of_row: dict[int, list[Hashable]] = {}
        self._since_scored: dict[Hashable, list[list[int]]] = {}
        """Batches lost by a place since it scored a row."""

    @property
    def too_many(self) -> bool:
        return self.in_a_row > self.MOST_IN_A_ROW

    def scored(self, place: Hashable) -> None:
        """A row was scored there."""
        self.in_a_row = 0
        self._since_scored.pop(place, None)

    def lost(self, place: Hashable, batch: Sequence[int]) -> None:
        """A worker was lost there, at these rows; at none while it started."""
        self.in_a_row += 1
        for position in batch:
            self._of_row.setdefault(position, []).append(place)
        if batch:
            self._since_scored.setdefault(place, []).append(list(batch))

    def is_bad(self, place: Hashable) -> bool:
        """Does the place lose worker after worker, at rows that no other has lost one at?"""
        alone = [
            batch
            for batch in self._since_scored.get(place, ())
            if all(set(self._of_row[position]) == {place} for position in batch)
        ]
        return len(alone) > self.MOST_OF_A_PLACE

    def tries(self, batch: Sequence[int]) -> int:
        """How many workers the most suspect row of a batch has taken."""
        return max((len(self._of_row.get(position, ())) for position in batch), default=0)

    def after(self, assignment: Assignment, batch: Sequence[int], what: str, *, elsewhere: bool) -> Assignment:
        """The unit once more, with the rows of `batch` alone; one that was alone and lost again and again is left out.

        `what` is what became of the worker, such as `the worker on cuda:0 died`; `elsewhere`: is there
        another place where the rows could be tried?
        """
        poisoned = dict(assignment.poisoned)
        if len(batch) == 1:
            places = self._of_row[batch[0]]
            if len(places) >= self.OF_A_POISONOUS_ROW and (len(set(places)) > 1 or not elsewhere):
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
