"""A function -> its result, computed while the caller does something else. Imports no torch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_background(function: Callable[[], T]) -> Callable[[], T]:
    """Start a function in a thread; the returned one waits for its result, or raises what it raised.

    Unlike that of an executor the thread does not delay the end of the program: a command that is refused meanwhile
    ends at once.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def wait() -> T:
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    return wait
