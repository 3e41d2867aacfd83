"""A scorer without a model, so that what surrounds the scorers can be tested by the thousand."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ladm.corpus.rows.row import Ids, Row, token_ids
from ladm.errors import RowError
from ladm.signals.scorer import ScorerOutput

VOCABULARY = 1000


@dataclass
class FakeScorer:
    """Scores a row by its ids alone. `forwards` counts the rows scored."""

    seconds: float = 0.0
    forwards: int = 0
    die_on: int | None = None
    nan_on: int | None = None
    hang_once: str | None = None
    hang_from_call: int = 1
    spoil_once: str | None = None
    memory_rows: int | None = None
    memory_at_call: int | None = None
    can_spare: bool = False
    calls: int = 0
    asynchronous: bool = False
    memory_message: str = "CUDA out of memory. Tried to allocate 2.00 GiB"
    wait_for: str | None = None
    """Scores nothing before this file exists."""

    def check(self, row: Row) -> Ids:
        ids = token_ids(row, vocab_size=VOCABULARY)
        if len(ids) < 2:
            raise RowError("too_short", f"{len(ids)} tokens leave no span to score")
        return ids

    def score(self, ids_BT: Any, *, low_memory: bool = False) -> Callable[[], list[ScorerOutput]]:
        while self.wait_for is not None and not os.path.exists(self.wait_for):
            time.sleep(0.01)
        self.calls += 1
        if self.calls == self.memory_at_call:
            raise RuntimeError(self.memory_message)
        if self.memory_rows is not None and len(ids_BT) > self.memory_rows and not (low_memory and self.can_spare):
            raise RuntimeError(self.memory_message)
        if self.die_on is not None and (ids_BT[:, 0] == self.die_on).any():
            os._exit(9)
        if self.hang_once is not None and self.calls >= self.hang_from_call and once(self.hang_once):
            time.sleep(100_000)
        if self.spoil_once is not None and once(self.spoil_once):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        time.sleep(self.seconds * len(ids_BT))
        self.forwards += len(ids_BT)
        return lambda: [self._one(ids) for ids in ids_BT]

    def _one(self, ids: Any) -> ScorerOutput:
        cds = [float(np.float32(np.sin(ids.sum() * (layer + 1)) ** 2)) for layer in range(3)]
        if ids[0] == self.nan_on:
            cds[1] = float("nan")
        return ScorerOutput(score=sum(cds) / 3, extras={"cds_per_layer": cds})


def make_fake(_device: str) -> FakeScorer:
    return FakeScorer()


def make_meeting(_device: str) -> FakeScorer:
    """Scores nothing before LADM_TEST_MEETING launches have reached this point; each has claimed a unit by then."""
    folder, count = os.environ["LADM_TEST_MEETING"].rsplit(":", 1)
    scorer = FakeScorer()
    score = scorer.score

    def meet(ids_BT: Any, *, low_memory: bool = False) -> Callable[[], list[ScorerOutput]]:
        Path(folder, str(os.getpid())).touch()
        while len(os.listdir(folder)) < int(count):
            time.sleep(0.01)
        return score(ids_BT, low_memory=low_memory)

    scorer.score = meet  # type: ignore[method-assign]
    return scorer


def make_slow(_device: str) -> FakeScorer:
    return FakeScorer(seconds=0.02)


def make_deadly(_device: str) -> FakeScorer:
    return FakeScorer(die_on=70)


def once(path: str) -> bool:
    """True for the first caller of all processes alone, whose process id is then in the file."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    os.write(descriptor, str(os.getpid()).encode())
    os.close(descriptor)
    return True


def make_hanging_once(_device: str) -> FakeScorer:
    return FakeScorer(hang_once=os.environ["LADM_TEST_HANG_ONCE"])


def make_hanging_later(_device: str) -> FakeScorer:
    return FakeScorer(hang_once=os.environ["LADM_TEST_HANG_ONCE"], hang_from_call=4)


def make_waiting(_device: str) -> FakeScorer:
    return FakeScorer(wait_for=os.environ["LADM_TEST_WAIT_FOR"])


def make_bad_on_one(device: str) -> FakeScorer:
    """fake:1 loads a model, and dies with every row; the other device waits until it is given up."""
    if device == "fake:1":
        return FakeScorer(memory_rows=0, memory_message="no kernel image")
    return make_waiting(device)


def make_dying_on_one(device: str) -> FakeScorer:
    """fake:1 dies while it loads a model; the other device waits until it is given up."""
    return make_dying(device) if device == "fake:1" else make_waiting(device)


def make_spoilt_once(_device: str) -> FakeScorer:
    return FakeScorer(spoil_once=os.environ["LADM_TEST_HANG_ONCE"])


def make_dying(_device: str) -> FakeScorer:
    os._exit(3)


def make_failing(_device: str) -> FakeScorer:
    raise ValueError("no such weights")


def fake_rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "input_ids": [k % VOCABULARY, 1 + k % 7, k // 3 % VOCABULARY] + [5] * (k % 3),
            "index": k,
            "meta": {"d": k % 2},
        }
        for k in range(count)
    ]
