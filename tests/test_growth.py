"""A run that goes on with more rows: the same numbers as a fresh run, nothing scored twice, safe wherever it stops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from click.testing import Result
from conftest import SMALL, read_lines, results

from ladm.runs.folder import Run

Command = Callable[..., Result]


@pytest.fixture
def rows(save_rows: Any) -> str:
    ids = [[(k * k * (3 + row) + 7 * k + row) % 500 for k in range(512)] for row in range(40)]
    return str(save_rows([{"input_ids": each, "meta": {"pile_set_name": "A"}} for each in ids]))


def score(ladm: Command, rows: str, folder: Path, *more: Any) -> Result:
    # Without text statistics, whose table of unigrams is counted over the rows that a run is started with.
    return ladm("score", rows, *SMALL, "--signals", "cds", "--output", folder, *more)


def test_a_greater_limit_scores_only_the_new_rows(ladm: Command, rows: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert score(ladm, rows, run, "--limit", 18).exit_code == 0
    assert (run / "units/000001.jsonl").exists()
    result = score(ladm, rows, run, "--limit", 37)
    assert result.exit_code == 0, result.output
    assert "adding 19 rows to the 18 of the run" in result.stderr.splitlines()
    assert "37 of 37" in ladm("status", run).stdout
    assert score(ladm, rows, run).exit_code == 0
    assert score(ladm, rows, tmp_path / "fresh").exit_code == 0
    assert results(run) == results(tmp_path / "fresh")
    assert Run.read(run).identity.data == Run.read(tmp_path / "fresh").identity.data
    assert ladm("verify", run).exit_code == 0


def test_what_does_not_grow(ladm: Command, rows: str, save_rows: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert score(ladm, rows, run, "--limit", 4).exit_code == 0
    before = results(run)
    fewer = score(ladm, rows, run, "--limit", 3)
    assert fewer.exit_code == 1
    assert "data.rows: 4 before, 3 now" in fewer.stderr
    others = save_rows([{"input_ids": [k] * 512, "meta": {"pile_set_name": "A"}} for k in range(6)], "others")
    assert "namely other the rows" in score(ladm, others, run).stderr
    other_flag = score(ladm, rows, run, "--limit", 6, "--d-afs", 5)
    assert "settings.d_afs: 4 before, 5 now" in other_flag.stderr
    assert "data" not in other_flag.stderr.partition("start again:")[2]
    shared = score(ladm, rows, run, "--limit", 6, "--shard", "0/2")
    assert shared.stderr.splitlines()[-1] == (
        f"ladm: {run} has 4 of these 6 rows, and launches that share a run cannot add the others: start one launch "
        "alone first, which may be stopped as soon as it scores"
    )
    assert results(run) == before


@pytest.mark.parametrize("step", ["sync_folder", "write_whole"])
def test_growth_that_is_stopped(
    ladm: Command, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    run = tmp_path / "run"
    assert score(ladm, rows, run, "--limit", 18).exit_code == 0
    with monkeypatch.context() as broken:
        broken.setattr(f"ladm.runs.growth.{step}", Mock(side_effect=OSError("the disk is gone")))
        assert score(ladm, rows, run, "--limit", 20).exit_code == 74
    assert ladm("select", run, "--tokens", 1024, "--dry-run", "-o", tmp_path / "s").exit_code == 3
    assert score(ladm, rows, run, "--limit", 18).exit_code == 0
    assert score(ladm, rows, run, "--limit", 20).exit_code == 0
    assert len(read_lines(run / "sorted_by_score.jsonl")) == 20
