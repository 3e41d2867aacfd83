"""How long-running functions report progress: to an object with three methods, and to a function for single lines.

The command line passes progress bars and a printer to standard error; a program in Python passes what it likes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Echo = Callable[[str], None]
"""Receives one line about the work, without a line break at its end."""


class Progress(Protocol):
    """Receives the progress over rows; `launches` share them, of which this one reports only its own."""

    def start(self, *, total: int, done: int, launches: int = 1) -> None: ...
    def advance(self, *, rows: int, tokens: int) -> None: ...
    def close(self) -> None: ...


class NoProgress:
    """Shows nothing: what the library does unless the caller wants to see more."""

    def start(self, *, total: int, done: int, launches: int = 1) -> None:
        """Do nothing."""

    def advance(self, *, rows: int, tokens: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def silent(_line: str) -> None:
    """Print nothing."""
