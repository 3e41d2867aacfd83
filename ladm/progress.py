"""How a long work shows its advance, and says a line. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Echo = Callable[[str], None]


class Progress(Protocol):
    """Where the advance over rows is shown."""

    def start(self, *, total: int, done: int) -> None: ...
    def advance(self, *, rows: int, tokens: int) -> None: ...
    def close(self) -> None: ...
