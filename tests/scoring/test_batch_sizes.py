"""How many rows go into one batch: planned by tokens, reduced where memory is full, grown where that is faster."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ladm.api.memory import Scorer
from ladm.corpus.rows.reading import open_rows
from ladm.runs.folder import Run
from ladm.scoring.engines import batch_sizes as module
from ladm.scoring.engines.assignments import Assignment
from ladm.scoring.engines.batch_sizes import (
    MEASURED_BATCHES,
    BatchRule,
    BatchSizes,
    TokenBatches,
    batch_rule,
)
from ladm.scoring.engines.events import BatchStarted
from ladm.scoring.engines.input_guard import InputGuard
from ladm.scoring.engines.score_unit import READ_TOKENS, score_unit
from ladm.signals.scorer import ScorerOutput
from support.crashes import identity, sealed_records
from support.fakes import FakeScorer, fake_rows

ON_GPU = batch_rule("auto", on_cuda=True)


class Clock:
    """A device on which a batch takes a time by its rows; None: it does not fit the memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int], float]) -> None:
        self.now, self.seconds = 0.0, seconds
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)

    def run(self, sizes: BatchSizes, num_tokens: int, batches: int) -> list[int]:
        """The sizes of batches that are finished one after the other."""
        used = []
        for _ in range(batches):
            used.append(sizes(num_tokens))
            self.now += self.seconds(used[-1])
            sizes.record_finished(num_tokens, used[-1])
        return used


def distinct(sizes: list[int]) -> list[int]:
    """Without repetitions: [8, 8, 16, 8] -> [8, 16, 8]."""
    return [size for size, before in zip(sizes, [None, *sizes], strict=False) if size != before]


def test_the_plan_is_by_tokens_on_a_gpu_and_a_row_at_a_time_on_a_cpu() -> None:
    assert [ON_GPU(tokens) for tokens in (128, 4096, 4097, 32_768, 100_000)] == [256, 8, 7, 1, 1]
    assert [batch_rule("auto", on_cuda=False)(tokens) for tokens in (1, 128, 4096)] == [1, 1, 1]
    assert [batch_rule(5, on_cuda=on_cuda)(4096) for on_cuda in (False, True)] == [5, 5]
    # Rules are sent to the processes that score.
    assert pickle.loads(pickle.dumps(ON_GPU)) == ON_GPU
    assert ON_GPU.most_tokens == READ_TOKENS


def test_a_batch_doubles_while_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 ms of starting kernels, 1 ms a row: twice the rows pay up to the bound."""
    sizes = BatchSizes(ON_GPU)
    used = Clock(monkeypatch, lambda rows: 0.08 + 0.001 * rows).run(sizes, 4096, 60)
    assert distinct(used) == [8, 16, 32, 64]
    # Five intervals at a size, of which the first needs a batch before it.
    assert used.count(8) == used.count(16) == used.count(32) == MEASURED_BATCHES + 1


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (lambda rows: 0.01 * rows, [8, 16, 8]),  # the device is full
        (lambda rows: 0.01 * rows * (1.2 if rows > 16 else 1) + 0.02, [8, 16, 32, 16]),
        (lambda rows: 0.01 * rows / (1.04 if rows > 8 else 1), [8, 16, 8]),  # within the noise
    ],
)
def test_a_batch_that_is_no_faster_is_given_up_for_good(
    monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int], float], expected: list[int]
) -> None:
    used = Clock(monkeypatch, seconds).run(BatchSizes(ON_GPU), 4096, 100)
    assert distinct(used) == expected
    assert used[-1] == expected[-1]


def test_a_slow_batch_now_and_then_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of a size compiles kernels, and any may wait for a disk."""
    clock = Clock(monkeypatch, lambda rows: 0.08 + 0.001 * rows)
    steady, slow = clock.seconds, iter(range(1000))
    clock.seconds = lambda rows: steady(rows) + (20.0 if next(slow) % 6 in (0, 1) else 0.0)
    assert distinct(clock.run(BatchSizes(ON_GPU), 4096, 60)) == [8, 16, 32, 64]


def test_rows_that_fill_the_device_alone_stay_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, lambda _rows: 0.1)
    for tokens in (16_385, 32_768, 200_000):
        assert distinct(clock.run(BatchSizes(ON_GPU), tokens, 40)) == [1]
    assert distinct(clock.run(BatchSizes(ON_GPU), 16_384, 40)) == [2, 4, 8, 16]


@pytest.mark.parametrize("rule", [batch_rule("auto", on_cuda=False), batch_rule(8, on_cuda=True), lambda _: 8])
def test_a_cpu_and_a_size_that_was_given_never_grow(monkeypatch: pytest.MonkeyPatch, rule: BatchRule) -> None:
    assert distinct(Clock(monkeypatch, lambda _rows: 0.1).run(BatchSizes(rule), 4096, 40)) == [rule(4096)]


def test_a_size_that_does_not_fit_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sizes = Clock(monkeypatch, lambda rows: 0.08 + 0.001 * rows), BatchSizes(ON_GPU)
    assert clock.run(sizes, 4096, MEASURED_BATCHES + 1)[-1] == 8
    assert sizes(4096) == 16
    sizes.reduce(4096, 16)
    assert distinct(clock.run(sizes, 4096, 60)) == [8]
    # Neither with longer rows.
    assert max(clock.run(sizes, 8192, 60)) <= 8


def test_other_batches_in_between_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a unit is no full batch, and rows of two lengths in turn have no time of their own."""
    clock, sizes = Clock(monkeypatch, lambda rows: 0.08 + 0.001 * rows), BatchSizes(ON_GPU)
    for _ in range(40):
        clock.run(sizes, 4096, 1)
        clock.run(sizes, 2048, 1)
        sizes.record_finished(4096, 3)
        sizes.record_finished(4096, 3)
    assert (sizes(4096), sizes(2048)) == (8, 16)


class SlowStart(FakeScorer):
    """A batch takes as long to start as others, whatever its rows; more than 8 do not fit."""

    clock: Clock

    def score(self, ids_BT: Any, *, low_memory: bool = False) -> Callable[[], list[ScorerOutput]]:
        scored = super().score(ids_BT, low_memory=low_memory)

        def collect() -> list[ScorerOutput]:
            self.clock.now += 1.0
            return scored()

        return collect


@pytest.mark.parametrize("asynchronous", [True, False])
def test_the_batches_of_a_run_grow_and_its_scores_do_not_change(
    tmp_path: Path, save_rows: Any, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    data = [row | {"input_ids": row["input_ids"][:3]} for row in fake_rows(400)]
    rows = open_rows(save_rows(data))
    found = {}
    for name, rule in (("grown", TokenBatches(tokens=6, most_tokens=192)), ("fixed", lambda _: 2)):
        run = Run.create_or_resume(tmp_path / name, identity(rows))
        scorer = SlowStart(asynchronous=asynchronous, memory_rows=8)
        scorer.clock = Clock(monkeypatch, lambda _rows: 1.0)
        sizes, used = BatchSizes(rule), []
        for unit in run.units:
            for event in score_unit(run, Assignment(unit=unit), rows, scorer, sizes=sizes, guard=InputGuard()):
                if isinstance(event, BatchStarted):
                    used.append(len(event.positions))
        found[name] = [record for unit in run.units for record in sealed_records(run, unit)]
        if name == "grown":
            # A unit has 16 rows, which are tried once, and halved.
            assert distinct(used) == ([2, 4, 8, 16, 8] if asynchronous else [2])
            assert used.count(16) == (1 if asynchronous else 0)
    assert found["grown"] == found["fixed"]
    assert len(found["grown"]) == 400


def test_the_time_between_two_calls_in_memory_is_not_that_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that tokenises for a second between two calls does not make the batches of the device slower."""
    used: list[int] = []
    clock = Clock(monkeypatch, lambda rows: 0.08 + 0.001 * rows)

    class Timed(FakeScorer):
        def score(self, ids_BT: Any, *, low_memory: bool = False) -> Callable[[], list[ScorerOutput]]:
            used.append(len(ids_BT))
            clock.now += clock.seconds(len(ids_BT))
            return super().score(ids_BT, low_memory=low_memory)

    scorer = Scorer.from_signal(Timed(asynchronous=True))
    scorer._sizes = BatchSizes(ON_GPU)
    row = [1] * 4096
    scorer.score([row] * 8 * (MEASURED_BATCHES + 4))
    assert distinct(used) == [8, 16]
    used.clear()
    for _ in range(MEASURED_BATCHES + 2):
        clock.now += 1.0
        scorer.score([row] * 16)
    assert distinct(used) == [16]
