"""How many passes `--dry-run` times: a row takes minutes on a CPU."""

from __future__ import annotations

import json
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

import ladm.scoring.dry_run as module
from support.models import SMALL
from support.rows import topical_rows


@pytest.mark.parametrize(
    ("lengths", "seconds", "passes"),
    [
        ([512] * 5, 1.0, [512] * 4),
        ([512] * 5, 10.0, [512]),
        ([512, 700, 700, 900], 1.0, [512, 512, 700, 900]),
        ([512, 700, 700, 900], 10.0, [512, 700, 900]),
    ],
)
def test_a_slow_row_is_timed_once_on_a_cpu(
    ladm: Any, save_rows: Any, golden: Any, monkeypatch: pytest.MonkeyPatch, lengths: list[int], seconds: float,
    passes: list[int],
) -> None:  # fmt: skip
    tokens: list[int] = []

    def start_batch(rows: list[Any], *rest: Any) -> Any:
        tokens.extend(len(checked.ids) for checked in rows)
        return real(rows, *rest)

    real, clock = module.start_batch, count(0.0, seconds)
    monkeypatch.setattr(module, "start_batch", start_batch)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    result = ladm("score", save_rows(topical_rows(golden, lengths)), *SMALL, "--signals", "cds", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    assert tokens == passes
    found = json.loads(result.stdout)
    assert found["seconds_by_length"] == {str(length): seconds for length in sorted(set(lengths))}
