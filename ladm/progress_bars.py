"""Progress on standard error: a bar on a terminal, a plain line a minute in a log. Imports no torch."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from ladm.errors import count_of, three_digits
from ladm.progress import NoProgress, Progress

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_SECONDS = 60.0


class ScoringBar:
    """Rows, tokens a second and time left, on standard error."""

    # tqdm is imported in `start`, because it loads 50 ms of modules that `ladm --help` does not need.

    def __init__(self, what: str = "scoring") -> None:
        self._what = what
        self._bar: tqdm[Any] | None = None
        self._tokens = self._rows = self._total = self._done = 0
        self._launches = 1
        self._start = self._printed = 0.0

    def start(self, *, total: int, done: int, launches: int = 1) -> None:
        self._start = self._printed = time.monotonic()
        self._total, self._done, self._launches = total, done, launches
        # Started again for each signal that is added to a run.
        self._tokens = self._rows = 0
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, unit="row", desc=self._what, dynamic_ncols=True)

    def advance(self, *, rows: int, tokens: int) -> None:
        self._tokens += tokens
        self._rows += rows
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._rate(now):,.0f} tokens/s", refresh=False)
            self._bar.update(rows)
        elif now - self._printed >= LINE_SECONDS:
            self._printed = now
            self._print(now)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._rows:
            self._print(time.monotonic())

    def _rate(self, now: float) -> float:
        # Of this process alone: rows that a former run finished took no time in this one.
        return self._tokens / max(now - self._start, 1e-9)

    def _print(self, now: float) -> None:
        done = self._done + self._rows
        # The others are taken to be as fast: what they have done is not known here.
        rows_left = max(0, self._total - self._done - self._launches * self._rows) / self._launches
        left = (now - self._start) / max(self._rows, 1) * rows_left
        others = "" if self._launches == 1 else f" if all {self._launches:,} launches are as fast"
        print(
            f"{self._what}: {100 * done // max(self._total, 1)}% of {count_of(self._total, 'row')}, "
            f"{self._rate(now):,.0f} tokens/s, {left / 60:,.0f} min left{others}",
            file=sys.stderr,
            flush=True,
        )


class PreparingBar:
    """Documents read and rows made of them, on standard error."""

    def __init__(self, *, is_shown: bool = True) -> None:
        self._is_shown = is_shown
        self._bar: tqdm[Any] | None = None
        self._documents = self._rows = self._new = self._source = 0
        self._sources = 1
        self._limit: int | None = None
        self._printed = self._start = self._first_share = 0.0

    def start(self, *, sources: int = 1, limit: int | None = None) -> None:
        self._printed = self._start = time.monotonic()
        self._sources, self._limit = max(sources, 1), limit
        # Started again where a damaged file is left out, and the documents are counted again.
        self._documents = self._rows = self._new = self._source = 0
        self._first_share = 0.0
        if self._is_shown and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(unit="doc", desc="preparing", dynamic_ncols=True)

    def advance(self, *, documents: int, rows: int, source: int = 0, is_new: bool = True) -> None:
        self._documents, self._rows, self._source = self._documents + documents, rows, source
        if is_new:
            self._new += documents
        else:
            # What an earlier start did takes no time in this one.
            self._start, self._first_share = time.monotonic(), self._share()
        if self._bar is not None:
            self._bar.set_postfix_str(count_of(rows, "row"), refresh=False)
            self._bar.update(documents)
        elif time.monotonic() - self._printed >= LINE_SECONDS:
            self._printed = time.monotonic()
            self._print(self._rate_and_left(self._printed))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._documents:
            self._print()

    def _share(self) -> float:
        """How much of the work is done, of 1: of the files that are read, or of the rows that are wanted."""
        of_limit = 0.0 if self._limit is None else self._rows / self._limit
        return min(1.0, max(self._source / self._sources, of_limit))

    def _rate_and_left(self, now: float) -> str:
        """The file that is read, documents a second, and the minutes left, which a first file does not show."""
        seconds, done = max(now - self._start, 1e-9), self._share() - self._first_share
        text = f"; file {self._source + 1:,} of {self._sources:,}, {three_digits(self._new / seconds)} documents/s"
        left = seconds * (1 - self._share()) / done if done > 0 else None
        return text if left is None else f"{text}, about {left / 60:,.0f} min left"

    def _print(self, more: str = "") -> None:
        if self._is_shown:
            print(
                f"preparing: {count_of(self._documents, 'document')} read, {count_of(self._rows, 'row')} made{more}",
                file=sys.stderr,
                flush=True,
            )


class JobBars:
    """The bars of the parts of `ladm run`; `is_shown` False: none."""

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown

    def preparing(self) -> PreparingBar:
        """For documents."""
        return PreparingBar(is_shown=self._is_shown)

    def scoring(self) -> Progress:
        """For rows."""
        return ScoringBar() if self._is_shown else NoProgress()
