"""Tokens of a row -> how many such rows go into one batch: planned, and learnt from the device. Imports no torch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

BatchRule = Callable[[int], int]
"""Number of tokens of a row -> how many such rows go into one batch."""
CUDA_BATCH_TOKENS = 32_768
"""Tokens of the first batches with `--batch-size auto` on a GPU: with 1B parameters more are hardly faster."""
MOST_CUDA_BATCH_TOKENS = 8 * CUDA_BATCH_TOKENS
"""Tokens up to which a batch grows where that is faster: as many as are read at a time."""
GROWS_ABOVE = 1.05
"""A batch of twice the rows is kept where this many times the rows are scored in a second: more than noise."""
MEASURED_BATCHES = 5
"""Batches whose median is taken at each size; the first one may compile kernels, and any may wait for the disk."""


@dataclass(frozen=True, kw_only=True)
class TokenBatches:
    """A batch rule: as many rows as have about `tokens` tokens, and more where they are scored faster.

    Rows of which not even two are planned for a batch fill the device alone, and stay alone.
    """

    tokens: int
    most_tokens: int

    def __call__(self, num_tokens: int) -> int:
        return max(1, self.tokens // num_tokens)

    def most_rows(self, num_tokens: int) -> int:
        """The rows of the largest batch that is tried."""
        planned = self(num_tokens)
        return planned if planned == 1 else max(planned, self.most_tokens // num_tokens)


@dataclass(frozen=True)
class FixedRows:
    """A batch rule: always as many rows."""

    rows: int

    def __call__(self, num_tokens: int) -> int:  # noqa: ARG002 - the interface of a rule
        return self.rows


def batch_rule(size: int | Literal["auto"], *, on_cuda: bool) -> BatchRule:
    """The rule for `--batch-size`."""
    if size != "auto":
        return FixedRows(size)
    # A CPU computes a row at a time anyway, and a batch of one row keeps scores independent of the batch.
    tokens, most_tokens = (CUDA_BATCH_TOKENS, MOST_CUDA_BATCH_TOKENS) if on_cuda else (1, 1)
    return TokenBatches(tokens=tokens, most_tokens=most_tokens)


@dataclass
class _Growth:
    """What has been measured with rows of one length. `rows` of a batch double until that is of no more use."""

    rows: int
    most_rows: int
    seconds: list[float] = field(default_factory=list)
    last_rate: float = 0.0
    settled: bool = False

    def add(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) < MEASURED_BATCHES:
            return
        # The clock of a machine may stand still between two batches of a fraction of a millisecond.
        rate = self.rows / max(statistics.median(self.seconds), 1e-9)
        self.seconds.clear()
        if self.last_rate and rate < GROWS_ABOVE * self.last_rate:
            self.rows, self.settled = self.rows // 2, True
        elif 2 * self.rows > self.most_rows:
            self.settled = True
        else:
            self.rows, self.last_rate = 2 * self.rows, rate


class BatchSizes:
    """A batch rule that learns from the device: a size that did not fit is not tried again, and a batch may grow.

    With a rule `TokenBatches`, `record_finished` doubles the rows of a batch as long as that pays. If 8 rows of 4,096
    tokens take 80 ms and 16 take 100, that is 1.6 times the rows a second, so 16 are kept and 32 are tried. If these
    take 200, it is 16 for the rest of the process.
    """

    def __init__(self, rule: BatchRule) -> None:
        self._rule = rule
        self._max_rows: dict[int, int] = {}
        self._growth: dict[int, _Growth] = {}
        self._last: tuple[int, int] | None = None
        self._finished = 0.0

    def __call__(self, num_tokens: int) -> int:
        growth = self._growth.get(num_tokens)
        # What did not fit at one length does not fit at a greater one either.
        learnt = (rows for tokens, rows in self._max_rows.items() if tokens <= num_tokens)
        return min([self._rule(num_tokens) if growth is None else growth.rows, *learnt])

    def reduce(self, num_tokens: int, rows: int) -> None:
        """A batch of `rows` rows of this length did not fit: from now on half as many, for longer rows too."""
        self._max_rows[num_tokens] = min(self._max_rows.get(num_tokens, rows), max(1, rows // 2))

    def record_finished(self, num_tokens: int, rows: int) -> None:
        """The scores of a batch have just arrived.

        The time since the batch before is what counts while reading, scoring and storing overlap; after a batch of
        another length or size it says nothing.
        """
        now, before, last = time.perf_counter(), self._finished, self._last
        self._last, self._finished = (num_tokens, rows), now
        if last == (num_tokens, rows):
            self._add(num_tokens, rows, now - before)

    def pause(self) -> None:
        """Nothing is scored between the batch before and the next one, so the time between them is not measured."""
        self._last = None

    def _add(self, num_tokens: int, rows: int, seconds: float) -> None:
        rule = self._rule
        if not isinstance(rule, TokenBatches) or rows != self(num_tokens):
            # What is left of a unit or of a part that was read is no full batch.
            return
        growth = self._growth.setdefault(num_tokens, _Growth(rule(num_tokens), rule.most_rows(num_tokens)))
        # A size that memory has reduced stays as it is.
        if not growth.settled and rows == growth.rows:
            growth.add(seconds)
