"""What a worker reports to its supervisor, each event a type of its own. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ladm.errors import LadmError
from ladm.runs.records import Record

Report = Callable[[list[Record]], None]
"""Called with the records of each batch once they are durable."""


@dataclass(frozen=True, slots=True)
class BatchStarted:
    """The rows at these positions are being scored: should the worker be lost now, one of them may be the cause."""

    positions: list[int]


@dataclass(frozen=True, slots=True)
class RowsStored:
    """These records are durable."""

    records: list[Record]


@dataclass(frozen=True, slots=True)
class InputRecheckStarted:
    """Files of the model or of the rows were touched; they are now read again, to see whether their content changed."""

    line: str
    """The line to print."""


@dataclass(frozen=True, slots=True)
class UnitSealed:
    """The worker has finished its unit and is idle."""


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """The model is loaded."""


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """The worker cannot work, and another one could not either: the run ends with this error."""

    error: LadmError


@dataclass(frozen=True, slots=True)
class WorkerBroken:
    """The worker ends because its device may be in a bad state; another one takes over."""

    reason: str


UnitEvent = BatchStarted | RowsStored | InputRecheckStarted
ProgressEvent = UnitEvent | UnitSealed
WorkerEvent = ProgressEvent | WorkerReady | WorkerFailed | WorkerBroken
