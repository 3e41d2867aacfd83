"""The format of a run folder: float32 columns since format 4; runs of format 3 are read and never written to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from ladm.method.reduction import reduce_cds
from ladm.runs.columns.by_name import column_names
from ladm.runs.folder import Run
from ladm.runs.records import float32_column
from support.files import read_lines, read_object
from support.models import SMALL
from support.paths import DATA, GOLDEN
from support.rows import topical_rows
from support.runs import results

Command = Callable[..., Result]
LENGTHS = [700, 512, 700, 650, 90, 600, 512]
"""Tokens of the rows of the run of format 3."""


@pytest.fixture
def rows(save_rows: Any, golden: dict[str, Any]) -> str:
    return str(save_rows(topical_rows(golden, LENGTHS)))


@pytest.fixture
def old(tmp_path: Path, rows: str) -> Path:
    """A copy of a run that a version before format 4 finished, as if made here with these packages."""
    folder = tmp_path / "old"
    shutil.copytree(DATA / "run_format_3", folder)
    identity = read_object(folder / "run.json")
    identity["versions"] |= {name: version(name) for name in ("torch", "transformers")}
    identity["about"] |= {"rows": rows, "model": str(GOLDEN)}
    (folder / "run.json").write_text(json.dumps(identity))
    return folder


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=9))
def test_a_column_is_the_shortest_decimal_of_its_float32(values: list[float]) -> None:
    column = float32_column(values)
    assert isinstance(column, list)
    assert np.array_equal(np.array(column, dtype=np.float32), np.array(values, dtype=np.float32))
    assert float32_column(column) == column
    for number in column:
        digits = repr(number).partition("e")[0].replace("-", "").replace(".", "").strip("0")
        assert len(digits) <= 9
    assert float32_column(0.1) == 0.1
    assert float32_column(float(np.float32(0.1))) == 0.1


def test_a_run_stores_float32_and_its_score_is_made_of_what_it_stores(ladm: Command, rows: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert ladm("score", rows, *SMALL, "--record", "forms", "--output", run).exit_code == 0
    table = pq.read_table(run / "scores.parquet")
    names = ("cds_per_layer", "cds_per_layer_no_std", "cds_per_head", "cds_per_head_no_std")
    assert all(table.schema.field(name).type.value_type == pa.float32() for name in names)
    assert table.schema.field("score").type == pa.float64()
    for line, row in zip(read_lines(run / "sorted_by_score.jsonl"), table.to_pylist(), strict=True):
        stored = np.array([line["cds_per_layer"]], dtype=np.float32)
        assert stored[0].tolist() == row["cds_per_layer"]
        assert reduce_cds(stored, "mean").tolist() == [line["score"]] == [row["score"]]
    again = tmp_path / "again"
    assert ladm("rescore", run, "--reduce", "mean", "--output", again).exit_code == 0
    assert results(again) == results(run)


def test_the_scores_are_those_of_format_3(ladm: Command, old: Path, rows: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert ladm("score", rows, *SMALL, "--record", "forms", "--output", run).exit_code == 0
    before, now = (
        {line["index"]: line for line in read_lines(folder / "sorted_by_score.jsonl")} for folder in (old, run)
    )
    assert {k: line["score"] for k, line in now.items()} == pytest.approx(
        {k: line["score"] for k, line in before.items()}, rel=1e-5
    )
    for k, line in now.items():
        assert line["cds_per_head"] == pytest.approx(before[k]["cds_per_head"], rel=1e-4)
    # Of the columns that both have: a run of format 3 has neither value weights nor copy share.
    columns = [name for name in next(iter(before.values())) if "cds" in name]
    sizes = [len(json.dumps([[line[name] for name in columns] for line in lines.values()])) for lines in (now, before)]
    assert sizes[0] < 0.8 * sizes[1]


def test_a_finished_run_of_format_3_is_read_by_every_command(
    ladm: Command, old: Path, rows: str, tmp_path: Path
) -> None:
    before = results(old)
    assert ladm("status", old).stdout.startswith("finished: 7 of 7 rows\nunits: 1 of 1 sealed\n  too_short: 1\n")
    assert ladm("verify", old, "--deep").stdout == f"{old} is sound: 7 rows, 1 unit\n"
    selected = ladm("select", old, "--rows", rows, "--tokens", "1k", "--output", tmp_path / "subset")
    assert selected.exit_code == 0, selected.output
    assert ladm("inspect", old, "--device", "cpu").exit_code == 0
    assert ladm("report", old).exit_code == 0
    assert ladm("rescore", old, "--reduce", "mean", "--output", tmp_path / "mean").exit_code == 0
    mean = tmp_path / "mean"
    assert {**results(mean), "scores.parquet": b""} == {**before, "scores.parquet": b""}
    # The file of format 3 has no digests of the others.
    assert pq.read_table(mean / "scores.parquet").equals(pq.read_table(old / "scores.parquet"))
    assert ladm("rescore", old, "--reduce", "median", "--output", tmp_path / "median").exit_code == 0
    assert ladm("verify", tmp_path / "median").exit_code == 0
    for line in read_lines(tmp_path / "median" / "sorted_by_score.jsonl"):
        assert line["score"] == sorted(line["cds_per_layer"])[1]
    assert results(old) == before


def test_the_command_of_a_finished_run_of_format_3_changes_nothing(ladm: Command, old: Path, rows: str) -> None:
    files = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    result = ladm("score", rows, *SMALL, "--record", "forms", "--output", old)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("already finished: 6 rows scored, 1 without a score")
    assert {path: path.read_bytes() for path in files} == files
    other = ladm("score", rows, *SMALL, "--record", "layers", "--output", old)
    assert other.exit_code == 1
    assert '\n  settings.record: "forms" before, "layers" now' in other.stderr


@pytest.mark.parametrize("flags", [(), ("--retry-errors",)])
def test_an_unfinished_run_of_format_3_is_not_resumed(
    ladm: Command, old: Path, rows: str, flags: tuple[str, ...]
) -> None:
    for name in ("sorted_by_score.jsonl", "scores.parquet", "errors.jsonl"):
        (old / name).unlink()
    result = ladm("score", rows, *SMALL, "--record", "forms", "--output", old, *flags)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1,
        f"ladm: {old} is an unfinished run of format 3, and this version writes format 7; continue with the version of "
        "ladm that started it, or give another --output",
    )
    assert ladm("status", old).stdout.startswith("unfinished: 7 of 7 rows\n")


@pytest.mark.parametrize("signals", ["text", "cds,text"])
@pytest.mark.parametrize("number", [5, 6])
def test_an_unfinished_run_of_format_5_or_6_goes_on_if_it_stores_nothing_of_layers(
    ladm: Command, rows: str, tmp_path: Path, signals: str, number: int
) -> None:
    """Of a row without CDS the same is stored in all of these formats."""
    run = tmp_path / "run"
    command = ("score", rows, *SMALL, "--signals", signals, "--output", run)
    assert ladm(*command).exit_code == 0
    whole = results(run)
    (run / "run.json").write_text(json.dumps(read_object(run / "run.json") | {"format": number}))
    for name in whole:
        (run / name).unlink()
    again = ladm(*command)
    if "cds" in signals:
        assert again.exit_code == 1
        assert f"is an unfinished run of format {number}, and this version writes format 7" in again.stderr
    else:
        assert again.exit_code == 0, again.output
        assert results(run) == whole


def test_a_run_of_format_6_is_used_beside_newer_ones_and_has_no_near_share(
    ladm: Command, rows: str, save_rows: Any, golden: dict[str, Any], tmp_path: Path
) -> None:
    others = save_rows(topical_rows(golden, LENGTHS[:3]), "others")
    older, newer = tmp_path / "older", tmp_path / "newer"
    assert ladm("score", rows, *SMALL, "--output", older).exit_code == 0
    assert ladm("score", others, *SMALL, "--output", newer).exit_code == 0
    (older / "run.json").write_text(json.dumps(read_object(older / "run.json") | {"format": 6}))
    table = pq.read_table(older / "scores.parquet").drop_columns("near_share_per_layer")
    pq.write_table(table, older / "scores.parquet", write_page_checksum=True)
    both = ("select", older, newer, "--by", "robust", "--documents", "4")
    assert ladm(*both, "--within", "pool", "--output", tmp_path / "subset").exit_code == 0
    refused = ladm(*both, "--within", "near_share:0-", "--output", tmp_path / "refused")
    assert (refused.exit_code, refused.stderr) == (
        2,
        f"ladm: {older} has no column near_share, because it did not store near_share_per_layer; score its rows again "
        "with this version of ladm\n",
    )
    assert ladm(*both[:1], newer, *both[3:-1], "1", "--within", "near_share:0-", "-o", tmp_path / "s").exit_code == 0
    assert ladm("report", older).exit_code == 0
    again = tmp_path / "again"
    assert ladm("rescore", older, "--score", "robust", "--output", again).exit_code == 0
    assert read_object(again / "run.json")["format"] == 6
    assert "near_share" not in column_names(Run.read(again))


def test_the_failed_rows_of_a_run_of_format_3_stay_as_they_are(ladm: Command, old: Path, rows: str) -> None:
    before = results(old)
    result = ladm("score", rows, *SMALL, "--record", "forms", "--output", old, "--retry-errors")
    assert result.exit_code == 1
    assert "is a run of format 3, and this version writes format 7" in result.stderr
    assert results(old) == before


def test_a_run_of_another_format_is_refused(ladm: Command, old: Path) -> None:
    identity = read_object(old / "run.json") | {"format": 8}
    (old / "run.json").write_text(json.dumps(identity))
    result = ladm("status", old)
    assert (result.exit_code, result.stderr) == (
        1, f"ladm: {old}/run.json: format 8, and this version reads 3 to 7\n",
    )  # fmt: skip
