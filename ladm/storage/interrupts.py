"""Ctrl-C and SIGTERM -> the unfinished batch dropped, the rest kept, and a line that says how to go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ladm.errors import InterruptedRunError


class StopSignal(BaseException):
    """A signal arrived; unwinds to where it can be told."""


@contextmanager
def stop_on_signals(folder: Path) -> Iterator[list[int]]:
    """Let Ctrl-C and SIGTERM drop the unfinished batch, keep the rest, and say how to go on.

    Yields the signals that came: Python loses an exception that is raised inside a callback of its
    own, so the list is to be looked at between batches.
    """
    signals: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        raise StopSignal(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    except StopSignal as stopped:
        number = signal.Signals(stopped.args[0])
        raise InterruptedRunError(
            f"stopped by {number.name}; finished rows are safe in {folder}, and the same command goes on from there",
            signal_number=number,
        ) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
