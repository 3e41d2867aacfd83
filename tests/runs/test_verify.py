"""`ladm verify`: a sound run, every kind of damage, an unfinished run, and the memory it takes."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ladm.corpus.rows.reading import open_rows
from ladm.runs.finish import finish
from ladm.runs.folder import Run as RunFolder
from ladm.runs.verify import verify
from ladm.scoring.engines.assignments import OwnUnits
from ladm.scoring.engines.local import run_units
from support.commands import Command
from support.crashes import identity, job_of
from support.fakes import fake_rows
from support.files import flip, read_object
from support.models import SMALL
from support.paths import GOLDEN
from support.runs import RESULTS, results


def test_a_sound_run_is_called_sound(ladm: Command, made: tuple[str, Path]) -> None:
    for deep in ((), ("--deep",)):
        result = ladm("verify", made[1], *deep)
        assert (result.exit_code, result.stdout) == (0, f"{made[1]} is sound: 40 rows, 3 units\n")


def test_verify_finds_what_is_wrong(ladm: Command, run: Path) -> None:
    unit = run / "units" / "000002.jsonl"
    whole = unit.read_bytes()
    for at in range(0, len(whole), 97):
        flip(unit, at)
        result = ladm("verify", run)
        assert result.exit_code == 74
        assert f"{unit} is damaged" in result.stdout
        unit.write_bytes(whole)
    table = pq.read_table(run / "scores.parquet")
    for name in RESULTS:
        path = run / name
        whole = path.read_bytes()
        for at in range(0, len(whole), max(1, len(whole) // 40)):
            flip(path, at)
            result = ladm("verify", run)
            if name == "scores.parquet" and result.exit_code == 0:
                # A byte that means nothing, such as one of the statistics: what is read is as it was.
                assert pq.read_table(path).equals(table)
            else:
                assert result.exit_code == 74, (name, at)
                assert name in result.stdout, result.stderr
            path.write_bytes(whole)
    lines = (run / "sorted_by_score.jsonl").read_text().splitlines(keepends=True)
    (run / "sorted_by_score.jsonl").write_text("".join([lines[1], lines[0], *lines[2:]]))
    result = ladm("verify", run)
    other = (
        "is damaged: its content does not match the digest in scores.parquet; remove both, and rerun the command that "
        "made the run to write them"
    )
    assert result.stdout == f"{run}/sorted_by_score.jsonl {other} again\n"
    assert result.stderr == f"ladm: {run} is not sound: 1 problem\n"
    (run / "sorted_by_score.jsonl").write_text("".join(lines))
    whole = (run / "errors.jsonl").read_bytes()
    (run / "errors.jsonl").write_text("")
    assert ladm("verify", run).stdout == f"{run}/errors.jsonl {other} again\n"
    (run / "errors.jsonl").write_bytes(whole)
    unit.unlink()
    assert ladm("verify", run).stdout == (
        f"{run} has results, but units of it are missing; remove sorted_by_score.jsonl, and rerun the command that "
        "made the run to score their rows again\n"
    )


def test_a_damaged_unit_is_scored_again_as_the_message_says(ladm: Command, made: tuple[str, Path], run: Path) -> None:
    unit, before = run / "units" / "000002.jsonl", results(run)
    flip(unit, 30)
    assert ladm("verify", run).stdout == (
        f"{unit} is damaged at byte 0: the line does not match its checksum; remove it and sorted_by_score.jsonl, and "
        "rerun the command that made the run to score its rows again\n"
    )
    unit.unlink()
    (run / "sorted_by_score.jsonl").unlink()
    assert ladm("score", made[0], *SMALL, "--output", run).exit_code == 0
    assert results(run) == before
    identity = run / "run.json"
    identity.write_text(identity.read_text().replace('"rows": 40', '"rows": 41'))
    result = ladm("verify", run)
    assert (result.exit_code, result.stderr) == (
        74, f"ladm: {identity} is damaged: its content does not match its checksum; restore it from a copy, or remove "
        f"{run} and score the rows again\n",
    )  # fmt: skip


def test_an_unfinished_run_is_looked_at_as_far_as_it_is(ladm: Command, run: Path) -> None:
    for name in RESULTS:
        (run / name).unlink()
    (run / "units" / "000001.jsonl").rename(run / "units" / "000001.open")
    result = ladm("verify", run)
    assert (result.exit_code, result.stdout) == (3, "")
    assert (
        result.stderr == f"ladm: {run} shows no damage so far, but is not finished; rerun the command that started it\n"
    )
    flip(run / "units" / "000001.open", 50)
    result = ladm("verify", run)
    assert result.exit_code == 74
    assert (
        "000001.open is damaged at byte 0: the line does not match its checksum; remove it, and rerun the command that"
        in result.stdout
    )


def peak_bytes(run: RunFolder) -> int:
    """The most memory that verifying a sound run takes: that of Python and NumPy, and that of Arrow."""
    default = pa.default_memory_pool()
    arrow = pa.proxy_memory_pool(default)
    pa.set_memory_pool(arrow)
    tracemalloc.start()
    try:
        assert list(verify(run, deep=False)) == []
        return int(tracemalloc.get_traced_memory()[1] + arrow.max_memory())
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(default)


def test_the_memory_of_verify_hardly_grows_with_the_rows(
    save_rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is read at once is made small, so that it does not hide what grows.
    monkeypatch.setattr("ladm.runs.sorting.GROUP_ROWS", 100)
    monkeypatch.setattr("ladm.runs.verify.ROWS_AT_A_TIME", 100)
    monkeypatch.setattr("ladm.storage.digests._CHUNK_BYTES", 1 << 12)
    peaks = []
    for count in (300, 1300):
        rows = open_rows(save_rows(fake_rows(count), name=f"rows{count}"))
        made = RunFolder.create_or_resume(tmp_path / f"run{count}", identity(rows, unit_rows=200))
        run_units(job_of(made, rows, OwnUnits(made), batch=200))
        finish(made)
        peaks.append(peak_bytes(made))
    # Numbers of each row, 33 bytes, some of them twice for a while; with every row as Python objects it was 360.
    assert (peaks[1] - peaks[0]) / 1000 < 128


def test_verify_names_what_differs_in_the_results(ladm: Command, run: Path) -> None:
    """Files that are whole, as their checksums say, and do not hold the same."""
    path = run / "scores.parquet"
    table = pq.read_table(path)
    scores, positions = table["score"].to_pylist(), table["position"].to_pylist()

    def problems(name: str, values: list[Any]) -> list[str]:
        column = pa.array(values, table.schema.field(name).type)
        pq.write_table(table.set_column(table.schema.get_field_index(name), name, column), path)
        result = ladm("verify", run)
        assert result.exit_code == 74
        return list(result.stdout.splitlines())

    differ = f"{run}/sorted_by_score.jsonl, line {{}}, and row {{}} of scores.parquet differ"
    assert problems("score", scores[::-1]) == [
        f"{path} is not in order", differ.format(1, 1)
    ]  # fmt: skip
    damaged = f"{run}/sorted_by_score.jsonl is damaged at line {{}}: it is not what the unit holds"
    assert problems("position", [*positions[:4], positions[0], *positions[5:]]) == [
        f"{path} has a row twice", damaged.format(5)
    ]  # fmt: skip
    assert problems("position", [*positions[:2], 1000, *positions[3:]]) == [damaged.format(3)]
    assert problems("position", [*positions[:2], None, *positions[3:]]) == [damaged.format(3)]
    pq.write_table(table.slice(0, 30), path)
    assert ladm("verify", run).stdout.splitlines() == [
        f"{run}: 30 scores and 2 errors are not 40 rows", differ.format(31, 31)
    ]  # fmt: skip
    pq.write_table(table.drop(["position"]), path)
    names = ", ".join(name for name in table.column_names if name != "position")
    assert ladm("verify", run).stdout.splitlines() == [f"{path} is damaged: it has columns {names}"]
    pq.write_table(table, path)
    (run / "errors.jsonl").write_text((run / "errors.jsonl").read_text().replace("too_short", "too_long"))
    assert ladm("verify", run).stdout.splitlines() == [f"{run}/errors.jsonl is not what the units hold"]


def test_verify_deep_sees_other_rows_and_models(
    ladm: Command, made: tuple[str, Path], run: Path, save_rows: Any
) -> None:
    identity = read_object(run / "run.json")
    other = save_rows([{"input_ids": [1, 2, 3]}] * 40)
    identity["about"] |= {"rows": other}
    identity["model"]["sha256"]["config.json"] = "0" * 64
    (run / "run.json").write_text(json.dumps(identity))
    assert ladm("verify", run).exit_code == 0
    result = ladm("verify", run, "--deep")
    assert result.exit_code == 1
    assert result.stdout == (
        f"the model {GOLDEN} is no longer the one that scored\nthe rows {other} are no longer those that were scored\n"
    )
    assert made[1] != run
