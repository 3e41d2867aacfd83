"""`ladm`, in which every process stops before it has scored LADM_TEST_PAUSE_AFTER rows more, until it is killed.

A test can so interrupt a run at a known row, however fast or busy the machine is. Worker processes import this file
too, as the main module of their parent. With LADM_TEST_FACTS, a file that holds those of the model, no process spends
seconds on importing torch and transformers: modules without content stand for them, and a fake scorer for the model.
"""

from __future__ import annotations

import importlib.machinery
import os
import pickle
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Python puts the folder of a program first; the helpers beside this file are a package of the folder above.
sys.path[0] = str(Path(__file__).resolve().parents[1])

_left = int(os.environ["LADM_TEST_PAUSE_AFTER"])


def paused(score: Any) -> Callable[..., Any]:
    """The method `score` of a scorer, which waits once enough rows are scored."""

    def score_and_pause(self: Any, ids_BT: Any, *, low_memory: bool = False) -> Any:
        global _left
        while _left <= 0:
            time.sleep(0.01)
        _left -= len(ids_BT)
        return score(self, ids_BT, low_memory=low_memory)

    return score_and_pause


def known_facts(_: str, **__: Any) -> Any:
    """Stands for `model_facts`, which asks transformers."""
    with open(os.environ["LADM_TEST_FACTS"], "rb") as file:
        return pickle.load(file)


def two_workers_on_cpu(*_: Any, **__: Any) -> Any:
    """Stands for `find_hardware`, which asks torch."""
    from ladm.scoring.plan import Hardware

    return Hardware(devices=("cpu", "cpu"), dtype="float32", attention="sdpa", backend="torch", fused="none")


def make_fake(device: str) -> Any:
    """Stands for the function that loads the model."""
    from support import fakes

    return fakes.make_fake(device)


if "LADM_TEST_FACTS" in os.environ:
    for name in ("torch", "transformers"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
    from ladm.scoring import plan, score
    from support.fakes import FakeScorer

    score.model_facts = known_facts  # type: ignore[attr-defined]
    plan.find_hardware = two_workers_on_cpu
    plan.Plan.make_scorer = lambda _: make_fake  # type: ignore[method-assign]
    FakeScorer.score = paused(FakeScorer.score)  # type: ignore[method-assign]
else:
    from ladm.signals.row_scorer import RowScorer

    RowScorer.score = paused(RowScorer.score)  # type: ignore[method-assign]

if __name__ == "__main__":
    from ladm.__main__ import main

    main()
