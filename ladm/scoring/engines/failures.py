"""Lost workers -> which row, which device or which run is to blame, and when silence counts as a hang. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ladm.scoring.engines.assignments import Assignment


class FailureTracker:
    """Counts what was lost where. A place is a device, or an actor.

    A row is quarantined only after it was lost in more than one place, if there is more than one: a
    row that kills one GPU and scores on the next was not the cause.
    """

    MAX_IN_A_ROW = 20
    """Workers lost without a single row scored in between, before the run ends."""
    MAX_OF_ONE_PLACE = 5
    """The same for one place, before the others go on without it."""
    MAX_FAILED_STARTS = 2
    """Workers of one place lost while they started, one after the other, before it is given up."""
    MAX_OF_ONE_ROW = 3
    """Workers lost with a row that was scored alone, before it is quarantined."""

    def __init__(self) -> None:
        self.in_a_row = 0
        self.failed_starts: Counter[int] = Counter()
        """By place, since the last start there that succeeded."""
        self._places_of_row: dict[int, list[int]] = {}
        self._batches_of_place: dict[int, list[list[int]]] = {}
        """Batches lost by a place since it last scored a row."""

    @property
    def too_many(self) -> bool:
        return self.in_a_row > self.MAX_IN_A_ROW

    def record_success(self, place: int) -> None:
        """A row was scored there."""
        self.in_a_row = 0
        self._batches_of_place.pop(place, None)

    def record_loss(self, place: int, batch: Sequence[int]) -> None:
        """A worker was lost there while it scored these rows; none while it started."""
        # A loss during the start has no rows: it counts against the run, but says nothing about a row or a batch.
        self.in_a_row += 1
        for position in batch:
            self._places_of_row.setdefault(position, []).append(place)
        if batch:
            self._batches_of_place.setdefault(place, []).append(list(batch))

    def record_start(self, place: int) -> None:
        """A worker has started there."""
        self.failed_starts[place] = 0

    def record_failed_start(self, place: int) -> None:
        """A worker was lost there while it started."""
        self.failed_starts[place] += 1

    def cannot_start(self, place: int) -> bool:
        """Has one worker after the other been lost there while it started?"""
        return self.failed_starts[place] > self.MAX_FAILED_STARTS

    def is_bad(self, place: int) -> bool:
        """Does the place lose worker after worker, with rows that no other place was lost with?"""
        only_here = [
            batch
            for batch in self._batches_of_place.get(place, ())
            if all(set(self._places_of_row[position]) == {place} for position in batch)
        ]
        return len(only_here) > self.MAX_OF_ONE_PLACE

    def losses_with(self, batch: Sequence[int]) -> int:
        """How many workers were lost with the most suspect row of a batch."""
        return max((len(self._places_of_row.get(position, ())) for position in batch), default=0)

    def after_loss(self, assignment: Assignment, batch: Sequence[int], cause: str, *, others: bool) -> Assignment:
        """The unit once more, each row of `batch` alone; a row that was alone and lost too often is quarantined.

        `cause` is what became of the worker, such as `the worker on cuda:0 died`; `others`: is there
        another place where the rows could be tried?

        Example: a batch of rows 4-7 is lost, so 4, 5, 6 and 7 are scored alone; the worker is lost again
        with row 6 alone, twice, so row 6 becomes an error row and the others keep their scores.
        """
        quarantined = dict(assignment.quarantined)
        if len(batch) == 1:
            places = self._places_of_row[batch[0]]
            if len(places) >= self.MAX_OF_ONE_ROW and (len(set(places)) > 1 or not others):
                quarantined[batch[0]] = f"{cause} each time it scored this row"
        return replace(assignment, alone=assignment.alone | set(batch), quarantined=quarantined)


class HangTimeout:
    """How long a worker may be silent: `hang_seconds`, or ten times the slowest batch where that is longer.

    A row that a worker was lost with gets four times as long, each time: it may only be slow. A worker that has not
    finished a batch yet gets `first_batch_seconds` at least, because its kernels may still be compiling.
    """

    def __init__(self, *, hang_seconds: float, first_batch_seconds: float) -> None:
        self._hang_seconds, self._first_batch_seconds = hang_seconds, first_batch_seconds
        self._slowest_seconds = 0.0

    def record_batch(self, seconds: float) -> None:
        """A batch took this long."""
        self._slowest_seconds = max(self._slowest_seconds, seconds)

    def limit(self, *, warm: bool, losses: int) -> float:
        """Seconds of silence after which a worker counts as hung. `warm`: it has finished a batch."""
        usual = max(self._hang_seconds, 10 * self._slowest_seconds) * 4.0**losses
        # The worker that takes over is often a new one: there too a slow row needs the longer limit.
        return usual if warm else max(usual, self._first_batch_seconds)
