"""Ctrl-C and SIGTERM -> the unfinished batch dropped, finished rows kept, and a message that says how to resume."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ladm.errors import InterruptedRunError

HANDLED = (signal.SIGINT, signal.SIGTERM)


class StopSignal(BaseException):
    """A signal arrived. Not an Exception, so that no `except Exception` on the way keeps it."""


@contextmanager
def stop_on_signals(folder: Path) -> Iterator[list[int]]:
    """Have Ctrl-C and SIGTERM drop the unfinished batch, keep finished rows, and say how to resume.

    Yields the list of signals that came, to be checked between batches: Python discards an exception that a handler
    raises while C code calls back into Python. A signal that the process ignores is ignored here too. Outside the main
    thread Python allows no handlers: there the list stays empty, and a Ctrl-C is the main thread's to handle.
    """
    signals: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return

    # A shell starts the jobs that a script puts into the background with Ctrl-C ignored: it is meant for others. None:
    # a program that Python is embedded in has a handler written in C, which could not be set again from here.
    heard = [number for number in HANDLED if signal.getsignal(number) not in (signal.SIG_IGN, None)]

    def stop(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        # A second Ctrl-C must not interrupt the cleaning up after the first.
        for each in heard:
            signal.signal(each, signal.SIG_IGN)
        raise StopSignal(number)

    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield signals
    except (StopSignal, SystemError):
        # Compiled code that a handler's exception passes through may replace it by a SystemError, as Ray's does.
        if not signals:
            raise
        number = signal.Signals(signals[0])
        raise InterruptedRunError(
            f"stopped by {number.name}; finished rows are safe in {folder}; run the same command again to continue",
            signal_number=number,
        ) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
