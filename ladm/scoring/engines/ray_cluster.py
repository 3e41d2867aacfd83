"""Units -> sealed units on a Ray cluster: a pool of actors that Ray places on devices and restarts. Imports no torch.

The driver claims units like any launch that shares a run, and gives them to actors that are free. A unit whose actor
was lost is claimed again under the next generation: should the lost one still write somewhere, nobody needs its file.
Run folder, rows and model must be on a file system that every node sees.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from ladm.errors import LadmError, UsageError, one_line
from ladm.runs.folder import Run
from ladm.scoring.engines.shard import SharedUnits
from ladm.scoring.engines.units import Assignment, Losses, Patience, Queue
from ladm.scoring.engines.work import BatchSizes, Event, Report, work_unit
from ladm.scoring.engines.worker import Work

TICK_SECONDS = 0.5
PLACING_SECONDS = 30.0
"""For so long a start may fail; Ray gives the same answer for an actor that it is still placing."""
MOST_FAILED_STARTS = 3
"""Starts of one actor, one after the other, before its device is given up."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Ray cluster that this process is connected to, and what of it is used."""

    cuda: bool
    actors: int

    def on_a_device(self, function: Callable[[], T]) -> T:
        """Call a function on a node as an actor would see it, with one GPU where actors have one."""
        answer = ray.remote(lambda: function()).options(**self.resources).remote()
        # In short waits, between which a Ctrl-C is heard.
        while not ray.wait([answer], timeout=TICK_SECONDS)[0]:
            pass
        try:
            found: T = ray.get(answer)
        except RayError as error:
            cause = getattr(error, "cause", None)
            raise cause if isinstance(cause, LadmError) else LadmError(f"Ray: {one_line(error)}") from None
        return found

    @property
    def resources(self) -> dict[str, int]:
        """What one actor occupies."""
        return {"num_gpus": 1, "num_cpus": 0} if self.cuda else {"num_cpus": 1}


def connect(device: str, workers: int | None) -> Cluster:
    """Join the cluster of RAY_ADDRESS, of this job, or of this machine.

    Raises LadmError where there is none or it has no such device, UsageError for a device by number.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: Ray gives out the devices; say cpu, cuda or auto")
    if not ray.is_initialized():
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise LadmError(
                f"--engine ray: no Ray cluster to join ({one_line(error)}); start one with ray start --head, or name "
                "it in RAY_ADDRESS"
            ) from None
        finally:
            # Ray puts handlers of its own in the place of ours.
            if threading.current_thread() is threading.main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)
    gpus = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
    if device == "cuda" and not gpus:
        raise LadmError("--device cuda: the Ray cluster has no GPU")
    cuda = gpus > 0 and device != "cpu"
    cores = int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
    return Cluster(cuda=cuda, actors=workers or (gpus if cuda else max(1, cores)))


def run_units(
    work: Work,
    source: SharedUnits,
    *,
    cluster: Cluster,
    device: str,
    report: Report,
    say: Callable[[str], None] = print,
) -> None:
    """Work on the units of `source` until it is finished. `report` hears of each durable batch, in this process.

    Raises LadmError when a scorer cannot be made, or when actors keep dying; what is sealed or
    appended by then stays.
    """
    pool = _Pool(work, source, cluster=cluster, device=device, report=report, say=say)
    try:
        pool.run()
    finally:
        pool.close()


class _Actor:
    """Scores units where Ray has put it. Constructed again by Ray after a loss, and then started again."""

    def __init__(self, work: Work, device: str) -> None:
        self._work, self._device = work, device

    def start(self) -> None:
        """Load the model."""
        self._run, self._rows = Run.read(self._work.folder), self._work.open_rows()
        self._scorer = self._work.make_scorer(self._device)
        self._sizes = BatchSizes(self._work.batch_rows)

    def score(self, assignment: Assignment) -> Iterator[Event]:
        """The events of a unit, as they happen."""
        yield from work_unit(self._run, assignment, self._rows, self._scorer, batch_rows=self._sizes)


@dataclass
class _Slot:
    actor: Any
    starting: Any
    """The future of `start`, until it is done."""
    since: float
    events: Any = None
    assignment: Assignment | None = None
    batch: list[int] = field(default_factory=list)
    warm: bool = False
    reason: str = ""
    failed_starts: int = 0

    @property
    def awaited(self) -> Any:
        return self.starting if self.starting is not None else self.events


class _Pool:
    def __init__(
        self,
        work: Work,
        source: SharedUnits,
        *,
        cluster: Cluster,
        device: str,
        report: Report,
        say: Callable[[str], None],
    ) -> None:
        self._source, self._report, self._say = source, report, say
        self._losses, self._patience = Losses(), Patience(work.hang_seconds, work.first_seconds)
        self._queue = Queue(source)
        kind = ray.remote(_Actor).options(max_restarts=-1, scheduling_strategy="SPREAD", **cluster.resources)
        actors = [kind.remote(work, device) for _ in range(cluster.actors)]
        self._slots = [_Slot(actor, _started(actor), time.monotonic()) for actor in actors]

    def run(self) -> None:
        while not self._done():
            # Ray drops what a signal's handler raises inside of it; the report says whether one came.
            self._report([])
            for slot in self._slots:
                if slot.awaited is None:
                    self._hand_out(slot)
            waiting = {slot.awaited: slot for slot in self._slots if slot.awaited is not None}
            if not waiting:
                time.sleep(TICK_SECONDS)
                continue
            heard, _ = ray.wait(list(waiting), num_returns=1, timeout=TICK_SECONDS)
            for each in heard:
                self._hear(waiting[each])
            self._look_for_hung()

    def close(self) -> None:
        """Let the actors go."""
        for slot in self._slots:
            with contextlib.suppress(RayError):
                ray.kill(slot.actor)

    def _done(self) -> bool:
        return not any(slot.assignment for slot in self._slots) and self._queue.finished()

    def _hand_out(self, slot: _Slot) -> None:
        assignment = self._queue.take(id(slot), elsewhere=len(self._slots) > 1)
        if assignment is None:
            return
        slot.assignment, slot.batch, slot.since = assignment, [], time.monotonic()
        # Where a row is under suspicion, what is told of it must have arrived before it is scored.
        pace = {"_generator_backpressure_num_objects": 1} if assignment.alone else {}
        slot.events = slot.actor.score.options(num_returns="streaming", **pace).remote(assignment)

    def _hear(self, slot: _Slot) -> None:
        """The end of a start, one event of a unit, or the news that the actor is gone."""
        try:
            if slot.starting is not None:
                ray.get(slot.starting)
                slot.starting, slot.failed_starts = None, 0
                return
            event = next(slot.events, None)
            kind, content = ("sealed", []) if event is None else ray.get(event)
        except RayTaskError as error:
            if isinstance(error.cause, LadmError):
                raise error.cause from None
            what = f"failed ({type(error.cause).__name__}: {one_line(error.cause)})"
            if slot.starting is not None:
                raise LadmError(f"a Ray actor {what}") from None
            # The device's state may be spoilt: Ray is to start the actor afresh.
            ray.kill(slot.actor, no_restart=False)
            self._lost(slot, what)
            return
        except RayActorError as error:
            self._lost(slot, slot.reason or "died", told=one_line(error))
            return
        except RayError as error:
            # What the actor told was lost with a node, or Ray ran out of memory: the unit is done again.
            ray.kill(slot.actor, no_restart=False)
            self._lost(slot, f"was lost ({one_line(error)})")
            return
        now = time.monotonic()
        if kind == "begin":
            slot.batch = slot.batch + content
        elif kind == "rows":
            safe = {record["position"] for record in content}
            if not safe.isdisjoint(slot.batch):
                self._patience.saw(now - slot.since)
                slot.warm = True
            slot.batch = [position for position in slot.batch if position not in safe]
            if any(record["status"] == "ok" for record in content):
                self._losses.scored(id(slot))
            self._report(content)
        else:
            assert slot.assignment is not None
            self._source.sealed(slot.assignment)
            slot.assignment = slot.events = None
        slot.since = now

    def _lost(self, slot: _Slot, reason: str, *, told: str = "") -> None:
        """Have the unit worked on again by whoever is free, and the actor started again once Ray has placed it."""
        if slot.starting is not None:
            slot.failed_starts += 1
            if slot.failed_starts >= MOST_FAILED_STARTS and time.monotonic() - slot.since > PLACING_SECONDS:
                self._slots.remove(slot)
                if not self._slots:
                    raise LadmError(f"no Ray actor starts: each {reason}, {slot.failed_starts} times over: {told}")
                return
            time.sleep(TICK_SECONDS)
            slot.starting = _started(slot.actor)
            return
        self._losses.lost(id(slot), slot.batch)
        if self._losses.too_many:
            raise LadmError(
                f"a Ray actor {reason} {self._losses.in_a_row} times without a row in between; the rows that were "
                "finished are safe, and the same command goes on from there"
            )
        if slot.assignment is not None:
            again = self._source.again(slot.assignment)
            if again is not None:
                elsewhere = len(self._slots) > 1
                again = self._losses.after(again, slot.batch, f"its Ray actor {reason}", elsewhere=elsewhere)
                self._queue.put_back(again, id(slot))
        if self._losses.is_bad(id(slot)) and len(self._slots) > 1:
            self._say(f"warning   a Ray actor is given up: it {reason}, again and again; the others go on")
            ray.kill(slot.actor)
            self._slots.remove(slot)
            return
        slot.assignment = slot.events = None
        slot.batch, slot.warm, slot.reason = [], False, ""
        slot.since, slot.starting = time.monotonic(), _started(slot.actor)

    def _look_for_hung(self) -> None:
        for slot in self._slots:
            limit = self._patience.limit(warm=slot.warm, tries=self._losses.tries(slot.batch))
            if slot.events is not None and not slot.reason and time.monotonic() - slot.since > limit:
                slot.reason = f"hung for {limit:.0f} s"
                with contextlib.suppress(RayActorError):
                    ray.kill(slot.actor, no_restart=False)


def _started(actor: Any) -> Any:
    """The future of the actor's start. Ray asks again while it places the actor anew, but not without end."""
    return actor.start.options(max_task_retries=1).remote()
