"""Units -> sealed units on a Ray cluster: a pool of actors that Ray places on devices and restarts. Imports no torch.

The driver claims units like any launch that shares a run, and gives them to idle actors. A unit whose actor was lost is
claimed again under the next generation: should the lost actor still write somewhere, nobody reads its file. Run folder,
rows and model must be on a file system that every node sees.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from ladm.errors import LadmError, one_line
from ladm.runs.folder import Run
from ladm.scoring.engines.assignments import Assignment
from ladm.scoring.engines.batch_sizes import BatchSizes
from ladm.scoring.engines.events import UnitEvent, UnitSealed
from ladm.scoring.engines.job import TICK_SECONDS, ScoreJob, WorkerConfig
from ladm.scoring.engines.ray_connection import Cluster
from ladm.scoring.engines.score_unit import score_unit
from ladm.scoring.engines.shared_units import SharedUnits
from ladm.scoring.engines.tracker import TrackedWorker, WorkerTracker

PLACING_SECONDS = 30.0
"""A start may fail for this long: Ray reports an actor that it is still placing like one that has died."""
STARTING_SECONDS = 120.0
"""After this without a single actor, a line names what may be the reason. Large models load for longer."""


def run_units(job: ScoreJob, *, cluster: Cluster) -> None:
    """Score the units of `job.source`, which is a `SharedUnits`, until it is finished.

    Raises LadmError when a scorer cannot be made, or when actors keep dying; rows that are durable by
    then stay.
    """
    supervisor = _Supervisor(job, cluster)
    try:
        supervisor.run()
    finally:
        supervisor.close()


class _Actor:
    """Scores units where Ray has placed it. After a loss Ray constructs it again, and the driver starts it again."""

    def __init__(self, config: WorkerConfig, device: str) -> None:
        self._config, self._device = config, device

    def start(self) -> None:
        """Load the model. Not in the constructor, whose errors Ray reports like the death of the actor."""
        self._run, self._rows = Run.read(self._config.folder), self._config.open_rows()
        self._guard = self._config.input_guard(self._rows)
        self._scorer = self._config.make_scorer(self._device)
        self._sizes = BatchSizes(self._config.batch_rows)

    def score(self, assignment: Assignment) -> Iterator[UnitEvent]:
        """The events of a unit, as they happen."""
        yield from score_unit(self._run, assignment, self._rows, self._scorer, sizes=self._sizes, guard=self._guard)


@dataclass(kw_only=True)
class _Slot(TrackedWorker):
    """An actor, and the future that it is expected to answer next."""

    actor: Any
    starting: Any
    """The future of `start`, until it is done."""
    events: Any = None
    """The stream of a unit's events, while it has one."""

    @property
    def awaited(self) -> Any:
        return self.starting if self.starting is not None else self.events


class _Supervisor:
    """Starts, watches and restarts the actors."""

    def __init__(self, job: ScoreJob, cluster: Cluster) -> None:
        assert isinstance(job.source, SharedUnits)
        self._job, self._source, self._cluster = job, job.source, cluster
        self._tracker = WorkerTracker(job)
        kind = ray.remote(_Actor).options(max_restarts=-1, scheduling_strategy="SPREAD", **cluster.resources)
        actors = [kind.remote(job.worker, job.devices[0]) for _ in range(cluster.actors)]
        now = self._tracker.clock()
        self._slots = [
            _Slot(place=place, last_heard=now, actor=actor, starting=_start(actor))
            for place, actor in enumerate(actors)
        ]
        self._tell_at: float | None = now + STARTING_SECONDS

    def run(self) -> None:
        """Give units to idle actors until none is left."""
        while not self._tracker.all_done(self._slots):
            # Ray discards what a signal handler raises inside it; an empty report checks whether a signal came.
            self._job.report([])
            for slot in self._slots:
                if slot.awaited is None:
                    self._hand_out(slot)
            waiting = {slot.awaited: slot for slot in self._slots if slot.awaited is not None}
            if not waiting:
                time.sleep(TICK_SECONDS)
                continue
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=TICK_SECONDS)
            for each in ready:
                self._receive(waiting[each])
            self._restart_hung()
            self._tell_if_none_starts()

    def close(self) -> None:
        """Release the actors."""
        for slot in self._slots:
            with contextlib.suppress(RayError):
                ray.kill(slot.actor)

    def _others_ready(self, slot: _Slot) -> bool:
        """Is there another actor that could score what this one loses?"""
        # Not one that is starting: where its node is gone, or hangs while it loads the model, it does so for ever.
        return any(other is not slot and other.starting is None for other in self._slots)

    def _hand_out(self, slot: _Slot) -> None:
        assignment = self._tracker.take(slot.place, others=self._others_ready(slot))
        if assignment is None:
            return
        self._tracker.assign(slot, assignment)
        # While a row is scored alone, each event must have arrived before the actor goes on: backpressure of 1.
        pace = {"_generator_backpressure_num_objects": 1} if assignment.alone else {}
        slot.events = slot.actor.score.options(num_returns="streaming", **pace).remote(assignment)

    def _receive(self, slot: _Slot) -> None:
        """Handle the end of a start, one event of a unit, or the loss of the actor."""
        try:
            if slot.starting is not None:
                ray.get(slot.starting)
                slot.starting = None
                self._tracker.failures.record_start(slot.place)
                return
            future = next(slot.events, None)
            event = UnitSealed() if future is None else ray.get(future)
        except RayTaskError as error:
            self._failed(slot, error)
        except RayActorError as error:
            self._lost(slot, slot.reason or "died", details=one_line(error))
        except RayError as error:
            # An event was lost with a node, or Ray ran out of memory: the unit is done again.
            ray.kill(slot.actor, no_restart=False)
            self._lost(slot, f"was lost ({one_line(error)})")
        else:
            self._tracker.handle(slot, event)
            if isinstance(event, UnitSealed):
                slot.events = None

    def _failed(self, slot: _Slot, error: RayTaskError) -> None:
        """The actor is alive, and its code raised an error."""
        if isinstance(error.cause, LadmError):
            raise error.cause from None
        what = f"failed ({type(error.cause).__name__}: {one_line(error.cause)})"
        if slot.starting is not None:
            raise LadmError(f"a Ray actor {what}") from None
        # The device may be in a bad state: Ray is to start the actor in a new process.
        ray.kill(slot.actor, no_restart=False)
        self._lost(slot, what)

    def _lost(self, slot: _Slot, reason: str, *, details: str = "") -> None:
        """Have the unit scored by whichever actor is idle, and this one started again once Ray has placed it."""
        if slot.starting is not None:
            self._start_failed(slot, reason, details)
            return
        failures, others = self._tracker.failures, self._others_ready(slot)
        failures.record_loss(slot.place, slot.batch)
        if failures.too_many:
            raise LadmError(
                f"a Ray actor {reason} {failures.in_a_row} times in a row without finishing a row; finished rows are "
                "safe; run the same command again to continue"
            )
        if slot.assignment is not None:
            again = self._source.again(slot.assignment)
            self._tracker.return_unit(slot, again, f"its Ray actor {reason}", others=others)
        if failures.is_bad(slot.place) and others:
            self._job.warn(f"warning   a Ray actor is no longer used: it {reason} repeatedly; the others continue")
            ray.kill(slot.actor)
            self._slots.remove(slot)
            return
        slot.assignment = slot.events = None
        slot.batch, slot.warm, slot.reason = [], False, ""
        slot.last_heard, slot.starting = self._tracker.clock(), _start(slot.actor)

    def _start_failed(self, slot: _Slot, reason: str, details: str) -> None:
        """Start the actor once more, unless it has failed too often and for too long."""
        failures = self._tracker.failures
        failures.record_failed_start(slot.place)
        # Both: Ray may answer many times a second while it is still placing the actor on another node.
        waited = self._tracker.clock() - slot.last_heard
        if failures.cannot_start(slot.place) and waited > PLACING_SECONDS:
            self._slots.remove(slot)
            if not self._slots:
                times = failures.failed_starts[slot.place]
                raise LadmError(f"no Ray actor starts: each {reason}, {times} times in a row: {details}")
            return
        time.sleep(TICK_SECONDS)
        slot.starting = _start(slot.actor)

    def _restart_hung(self) -> None:
        for slot in self._slots:
            limit = self._tracker.hung_for(slot)
            if slot.events is not None and not slot.reason and limit is not None:
                slot.reason = f"hung for {limit:.0f} s"
                # Its loss is reported by the future of its unit.
                with contextlib.suppress(RayActorError):
                    ray.kill(slot.actor, no_restart=False)

    def _tell_if_none_starts(self) -> None:
        """Say once what may be the reason why nothing happens."""
        if self._tell_at is None or self._tracker.clock() < self._tell_at:
            return
        self._tell_at = None
        if all(slot.starting is not None for slot in self._slots):
            self._job.warn(
                f"waiting   for Ray: no actor has started in {STARTING_SECONDS:.0f} s; {self._cluster.devices} may all "
                "be in use by other jobs (`ray status` shows them), or a node hangs while it loads the model"
            )


def _start(actor: Any) -> Any:
    """The future of the actor's start. Ray retries once while it places the actor on another node, but not for ever."""
    return actor.start.options(max_task_retries=1).remote()
