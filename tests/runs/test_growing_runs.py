"""A run that goes on with more rows: the same numbers as a fresh run, nothing scored twice, safe wherever it stops."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from click.testing import Result

from ladm.errors import LadmError
from ladm.runs.columns.by_name import read_columns
from ladm.runs.folder import Run
from support.files import read_lines
from support.models import SMALL
from support.runs import results

Command = Callable[..., Result]


@pytest.fixture
def rows(save_rows: Any) -> str:
    ids = [[(k * k * (3 + row) + 7 * k + row) % 500 for k in range(360)] for row in range(40)]
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


def test_a_run_that_grows_by_rows_of_another_place_is_selected_from_without_naming_it(
    ladm: Command, rows: str, save_rows: Any, tmp_path: Path
) -> None:
    from ladm.corpus.rows.reading import open_rows

    run, first = tmp_path / "run", save_rows(list(open_rows(rows).select(np.arange(18))), "first")
    assert score(ladm, first, run).exit_code == 0
    assert score(ladm, rows, run).exit_code == 0
    result = ladm("select", run, "--documents", 30, "-o", tmp_path / "subset")
    assert result.exit_code == 0, result.output
    result = ladm("verify", run, "--deep")
    assert result.exit_code == 0, result.output


def test_a_worker_that_starts_after_rows_were_added_reads_those_of_the_run(
    ladm: Command, rows: str, save_rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ladm.corpus.rows.reading import open_rows

    every = list(open_rows(rows).select(np.arange(40)))
    first = save_rows(every[:18], "growing")
    workers: list[Any] = []

    def start(*, worker: Any, **_: Any) -> Mock:
        workers.append(worker)
        return Mock(finish_run=Mock(side_effect=LadmError("the device was lost")))

    monkeypatch.setattr("ladm.scoring.score.ScoringPass", start)
    assert score(ladm, first, tmp_path / "run").stderr.endswith("ladm: the device was lost\n")
    more = save_rows(every, "more")
    shutil.rmtree(first)
    Path(more).rename(first)
    assert len(workers[0].open_rows()) == 18


def test_what_does_not_grow(ladm: Command, rows: str, save_rows: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert score(ladm, rows, run, "--limit", 4).exit_code == 0
    before = results(run)
    fewer = score(ladm, rows, run, "--limit", 3)
    assert fewer.exit_code == 1
    assert "data.rows: 4 before, 3 now" in fewer.stderr
    others = save_rows([{"input_ids": [k] * 512, "meta": {"pile_set_name": "A"}} for k in range(6)], "others")
    assert "something else (the rows or --limit)" in score(ladm, others, run).stderr
    other_flag = score(ladm, rows, run, "--limit", 6, "--d-afs", 5)
    assert "settings.d_afs: 4 before, 5 now" in other_flag.stderr
    assert "data" not in other_flag.stderr.partition("start again:")[2]
    shared = score(ladm, rows, run, "--limit", 6, "--shard", "0/2")
    assert shared.stderr.splitlines()[-1] == (
        f"ladm: {run} has 4 of these 6 rows, and launches that share a run cannot add the others; first start one "
        "launch alone, which may be stopped as soon as it scores rows"
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


def test_a_signal_of_fewer_rows_stops_only_what_needs_it_and_grows(
    ladm: Command, rows: str, golden_lm: Path, tmp_path: Path
) -> None:
    run, model = tmp_path / "run", ("--model", golden_lm, "--dtype", "float32", "--device", "cpu")
    own = ("score", rows, *model, "--span-tokens", "16", "--signals", "cds", "--output", run)
    signal = ("score", rows, *model, "--signals", "longattn", "--output", run)
    assert ladm(*own, "--limit", 18).exit_code == 0
    for command in ((*signal, "--limit", 18), ("annotate", run, "--num-proc", 1)):
        assert ladm(*command).exit_code == 0
    more = ladm(*own, "--limit", 20)
    assert more.exit_code == 0
    select = ("select", run, "--documents", 3, "--domain-key", "none", "--output", tmp_path / "subset")
    assert ladm(*select, "--by", "score", "--dry-run").exit_code == 0
    for command in (("top", run), ("compare", run), ("report", run), ("verify", run)):
        assert ladm(*command).exit_code == 0, command
    adds = {
        "longattn": f"ladm score {rows} --model {golden_lm} --signals longattn -o {run}",
        "text": f"ladm annotate {run}",
    }
    lines = [f"{run}/signals/{each} has 18 of the 20 rows of {run}; add the others: {adds[each]}" for each in adds]
    assert more.stderr.splitlines()[-3:-1] == [f"warning   {line}" for line in lines]
    for by, name in (("longattn", "longattn"), ("rank(longattn_v)", "longattn"), ("gzip_ratio", "text")):
        result = ladm(*select, "--by", by)
        message = f"{run}/signals/{name} has 18 of the 20 rows of {run}; add the others: {adds[name]}"
        assert (result.exit_code, result.stderr) == (1, f"ladm: {message}\n")
    grown = ladm(*signal, "--limit", 20)
    assert grown.exit_code == 0, grown.stderr
    assert "adding 2 rows to the 18 of the run" in grown.stderr
    # Only what still lacks rows.
    assert [line for line in grown.stderr.splitlines() if "add the others" in line] == [f"warning   {lines[1]}"]
    assert ladm("annotate", run, "--num-proc", 1).exit_code == 0
    assert "add the others" not in ladm(*own, "--limit", 20).output
    assert ladm(*select, "--by", "rank(longattn) + rank(gzip_ratio)").exit_code == 0
    fresh = tmp_path / "fresh"
    assert ladm(*signal[:-1], fresh, "--limit", 20).exit_code == 0
    # The fresh run is one of longattn alone, and makes its score of it.
    assert read_columns(Run.read(run / "signals" / "longattn"), ["longattn_v"]) == read_columns(
        Run.read(fresh), ["longattn_v"]
    )


def test_rows_whose_meta_has_more_keys_since_are_still_inspected(ladm: Command, save_rows: Any, tmp_path: Path) -> None:
    """`ladm prepare` gives all rows the keys of the meta of those that it adds, null where a row has none."""
    ids = [[(k * k * (3 + row) + 7 * k + row) % 500 for k in range(512)] for row in range(4)]
    old = [{"input_ids": each, "meta": {"pile_set_name": "A"}} for each in ids]
    new = [row | {"meta": row["meta"] | {"year": None}} for row in old[:2]]
    new += [row | {"meta": row["meta"] | {"year": 1999}} for row in old[2:]]
    run = tmp_path / "run"
    assert score(ladm, save_rows(old[:2]), run).exit_code == 0
    shutil.rmtree(tmp_path / "rows")
    rows = save_rows(new)
    before = ladm("inspect", run, "--top", "2")
    assert before.exit_code == 0, before.output
    assert score(ladm, rows, run).exit_code == 0
    shutil.rmtree(run / "inspected")
    after = ladm("inspect", run, "--top", "4")
    assert after.exit_code == 0, after.output
    assert len(list((run / "inspected").iterdir())) == 4
