"""Progress bars on standard error. Imports no torch, and tqdm only when a bar is shown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


class ScoringBar:
    """Documents, tokens a second and time left, on standard error."""

    # tqdm is imported in `start`, because it loads 50 ms of modules that `ladm --help` does not need.

    def __init__(self, what: str = "scoring") -> None:
        self._what = what
        self._bar: tqdm[Any] | None = None
        self._tokens = 0
        self._start = 0.0

    def start(self, *, total: int, done: int) -> None:
        from tqdm import tqdm

        self._start = time.monotonic()
        self._bar = tqdm(total=total, initial=done, unit="doc", desc=self._what, dynamic_ncols=True)

    def advance(self, *, rows: int, tokens: int) -> None:
        assert self._bar is not None
        self._tokens += tokens
        # Of this process alone: rows that a former run finished took no time in this one.
        rate = self._tokens / max(time.monotonic() - self._start, 1e-9)
        self._bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
        self._bar.update(rows)

    def close(self) -> None:
        assert self._bar is not None
        self._bar.close()


class PreparingBar:
    """Documents read and kept, on standard error."""

    def start(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(unit="doc", desc="preparing", dynamic_ncols=True)

    def advance(self, *, documents: int, kept: int) -> None:
        self._bar.set_postfix_str(f"{kept:,} kept", refresh=False)
        self._bar.update(documents)

    def close(self) -> None:
        self._bar.close()
