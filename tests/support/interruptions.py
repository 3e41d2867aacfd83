"""Disk operations of this process that are counted, and stopped or failed at a given number."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

OPERATIONS = ("write", "fsync", "rename", "replace", "link", "unlink", "ftruncate")
MODES = ("stop before", "stop after", "fail once", "fail for ever")


class Stopped(BaseException):
    """Stands for the process ending here."""


@contextlib.contextmanager
def disk_operations(act: Callable[[int, Callable[[], Any]], Any]) -> Iterator[dict[str, int]]:
    """Have `act` do, or not do, each disk operation: it is given its number and a call that does it."""
    counter = {"calls": 0}
    guard = threading.Lock()
    real = {name: getattr(os, name) for name in OPERATIONS}

    def wrap(operation: Any) -> Any:
        def counted(*arguments: Any, **named: Any) -> Any:
            with guard:
                number = counter["calls"]
                counter["calls"] += 1
            return act(number, lambda: operation(*arguments, **named))

        return counted

    for name in OPERATIONS:
        setattr(os, name, wrap(real[name]))
    try:
        yield counter
    finally:
        for name in OPERATIONS:
            setattr(os, name, real[name])


def interrupting(mode: str, n: int) -> Callable[[int, Callable[[], Any]], Any]:
    """What happens to the n-th operation, and to later ones, in one of the `MODES`; for `disk_operations`."""

    def act(number: int, do: Callable[[], Any]) -> Any:
        if number < n or (mode == "fail once" and number > n):
            return do()
        if mode.startswith("fail"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if mode == "stop after" and number == n:
            made = do()
            if hasattr(made, "close"):
                made.close()
        raise Stopped

    return act


def stop_at(n: int, *, after: bool) -> contextlib.AbstractContextManager[dict[str, int]]:
    """Let the n-th disk operation be the last, done or not; every later one fails too, as after a death."""
    return disk_operations(interrupting("stop after" if after else "stop before", n))


def fail_at(n: int, *, for_ever: bool) -> contextlib.AbstractContextManager[dict[str, int]]:
    """Let the n-th disk operation find the disk full, and with `for_ever` all later ones too."""
    return disk_operations(interrupting("fail for ever" if for_ever else "fail once", n))
