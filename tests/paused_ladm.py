"""`ladm`, in which every process stops before it has scored LADM_TEST_PAUSE_AFTER rows more, until it is killed.

A test can so interrupt a run at a known row, however fast or busy the machine is. Worker processes import this file
too, as the main module of their parent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from ladm.signals.row_scorer import RowScorer
from ladm.signals.scorer import ScorerOutput

_score = RowScorer.score
_left = int(os.environ["LADM_TEST_PAUSE_AFTER"])


def score_and_pause(self: RowScorer, ids_BT: Any, *, low_memory: bool = False) -> Callable[[], list[ScorerOutput]]:
    global _left
    while _left <= 0:
        time.sleep(0.01)
    _left -= len(ids_BT)
    return _score(self, ids_BT, low_memory=low_memory)


RowScorer.score = score_and_pause  # type: ignore[method-assign]

if __name__ == "__main__":
    from ladm.__main__ import main

    main()
