"""A state machine that works on a run, stops it anywhere and takes the power away."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ladm.corpus.rows.reading import Rows, open_rows
from ladm.runs.folder import Run
from support.crashes import (
    complete,
    contents,
    positions_in,
)
from support.fakes import fake_rows
from support.forgetful import ForgetfulDisk
from support.interruptions import Stopped, stop_at


class PowerLoss(RuleBasedStateMachine):
    """A run on a forgetful disk: worked on, stopped anywhere, its power lost, again and again.

    A row that was acknowledged is there once, whatever happens; the end is that of an undisturbed run.
    """

    rows: Rows
    whole: dict[str, bytes]

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.run = self.root / "run"
        self.run.mkdir()
        self.disk = ForgetfulDisk(self.run)
        self.acknowledged: set[int] = set()

    def _work(self, n: int, *, after: bool, batch: int) -> bool:
        def report(records: list[Any]) -> None:
            self.acknowledged |= {record.position for record in records}

        with self.disk.watching(), stop_at(n, after=after), contextlib.suppress(Stopped):
            complete(self.run, self.rows, batch=batch, report=report)
            return True
        return False

    @rule(n=st.integers(0, 70), after=st.booleans(), batch=st.integers(1, 9), seed=st.integers(0, 2**32))
    def stop_and_lose_power(self, n: int, after: bool, batch: int, seed: int) -> None:
        self._work(n, after=after, batch=batch)
        self.lose_power(seed)

    @rule(n=st.integers(0, 70), after=st.booleans(), batch=st.integers(1, 9))
    def stop(self, n: int, after: bool, batch: int) -> None:
        self._work(n, after=after, batch=batch)

    def lose_power(self, seed: int) -> None:
        draw = random.Random(seed)
        self.disk.lose_power(lambda n: draw.randint(0, n))

    @precondition(lambda self: hasattr(self, "run"))
    @invariant()
    def what_was_acknowledged_is_there_once(self) -> None:
        if not (self.run / "run.json").exists():
            assert not self.acknowledged
            return
        found = positions_in(self.run)
        assert len(found) == len(set(found))
        assert self.acknowledged <= set(found)
        if Run.read(self.run).is_finished:
            assert contents(self.run) == self.whole

    def teardown(self) -> None:
        if not hasattr(self, "run"):
            return
        complete(self.run, self.rows)
        assert contents(self.run) == self.whole
        self.disk.forget()
        shutil.rmtree(self.root)


def power_loss_on(folder: Path) -> type[PowerLoss]:
    """The state machine with 20 rows, two of them without a score, and what an undisturbed run makes of them."""
    from datasets import Dataset

    data = fake_rows(20)
    data[5]["input_ids"] = [3]
    Dataset.from_list(data).save_to_disk(str(folder / "rows"))
    rows = open_rows(str(folder / "rows"))
    complete(folder / "whole", rows)
    return type("PowerLossOnRows", (PowerLoss,), {"rows": rows, "whole": contents(folder / "whole")})


def run_machine(machine: type[PowerLoss], *, examples: int, shrink: bool = True) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=6,
            deadline=None,
            suppress_health_check=checks,
            database=None,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        ),
    )
