"""`ladm status`, `--retry-errors` and `--overwrite`, on a run of the golden model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ladm.errors import duration
from ladm.runs.folder import Run as RunFolder
from ladm.runs.heartbeat import Heartbeat, read_heartbeats
from ladm.runs.reset import delete_run, forget_errors
from ladm.runs.status import status
from ladm.storage.locks import locked
from support.commands import Command
from support.files import read_lines, read_object
from support.models import SMALL
from support.paths import GOLDEN
from support.runs import RESULTS, results


def test_status_of_a_finished_and_of_an_unfinished_run(ladm: Command, run: Path) -> None:
    assert ladm("status", run).stdout == ("finished: 40 of 40 rows\nunits: 3 of 3 sealed\n  empty: 1\n  too_short: 1\n")
    for name in RESULTS:
        (run / name).unlink()
    sealed = run / "units" / "000001.jsonl"
    lines = sealed.read_bytes().splitlines(keepends=True)
    sealed.rename(run / "units" / "000001.open")
    (run / "units" / "000001.open").write_bytes(b"".join(lines[:5]) + lines[5][:20])
    (run / "units" / "000001.claim-0").write_text('{"host": "node7", "process": 12, "shard": "0/2"}')
    printed = ladm("status", run).stdout
    head, running, *rest = printed.splitlines(keepends=True)
    assert (head, running[:23]) == ("unfinished: 29 of 40 rows\n", "running: unknown, perha")
    assert "".join(rest).startswith("units: 2 of 3 sealed\n  empty: 1\n  too_short: 1\nrate: ")
    assert printed.endswith(" left at that rate\nunit 1: process 12 on node7\n")
    found = json.loads(ladm("status", run, "--json").stdout)
    assert (found["done"], found["sealed"], found["errors"]) == (29, 2, {"empty": 1, "too_short": 1})
    assert found["seconds_left"] == pytest.approx(11 / found["rows_a_second"])


def test_status_says_whether_a_run_is_alive_and_its_rate_from_the_first_batch(ladm: Command, run: Path) -> None:
    for name in RESULTS:
        (run / name).unlink()
    for number in ("000001", "000002"):
        (run / "units" / f"{number}.jsonl").unlink()
    first = (run / "units" / "000000.jsonl").read_bytes().splitlines(keepends=True)
    (run / "units" / "000000.jsonl").unlink()
    (run / "units" / "000000.open").write_bytes(b"".join(first[:6]))
    dead = ladm("status", run).stdout
    assert dead.splitlines()[1].startswith("running: no, latest rows ")
    assert dead.splitlines()[1].endswith(" ago; to continue, rerun the command that started it")
    assert "rate: " not in dead
    times = iter([100.0, 110.0, 114.0, 120.0])
    heartbeat = Heartbeat(run, shard=0, clock=lambda: next(times))
    with locked(run):
        for rows in (2, 2, 2):
            heartbeat.advance(rows)
        alive = ladm("status", run).stdout
        found = json.loads(ladm("status", run, "--json").stdout)
    assert f"running: yes, process {os.getpid()} on " in alive
    assert (found["running"], found["rows_a_second"], found["seconds_left"]) == (True, 0.4, 85.0)
    heartbeat.close()
    assert not list(run.glob(".progress*"))


def test_a_clock_that_is_set_changes_no_rate(run: Path) -> None:
    """The rate is of a clock that only goes on: one set back by an hour would stop the reports for that hour."""
    before = time.monotonic()
    Heartbeat(run, shard=0).advance(2)
    found = read_heartbeats(run)[0]
    assert before <= found.start <= found.first_batch == found.latest <= time.monotonic()


def test_an_empty_report_is_no_batch(run: Path) -> None:
    """The Ray engine makes one at every tick, also while the model loads: that time would count for the rate."""
    times = iter([100.0, 150.0, 160.0])
    heartbeat = Heartbeat(run, shard=0, clock=lambda: next(times))
    for rows in (0, 4, 4):
        heartbeat.advance(rows)
    (found,) = read_heartbeats(run)
    assert (found.first_rows, found.rows_a_second) == (4, 0.4)


def test_a_launch_that_was_killed_has_no_rate(run: Path) -> None:
    """What it left would count beside the launches that go on with the run, and double the rate of one."""
    Heartbeat(run, shard=0).advance(2)
    with subprocess.Popen(["true"]) as ended:
        pass
    here = json.loads((run / ".progress-0").read_text())
    for shard, changes in enumerate(({"process": ended.pid}, {"host": "node7", "process": ended.pid}), 1):
        (run / f".progress-{shard}").write_text(json.dumps(here | changes))
    # Nothing is known of the processes of other machines.
    assert [found.host for found in read_heartbeats(run)] == [here["host"], "node7"]


def test_status_of_a_rescored_run(ladm: Command, run: Path, tmp_path: Path) -> None:
    ladm("rescore", run, "--reduce", "median", "--output", tmp_path / "again")
    assert ladm("status", tmp_path / "again").stdout == ladm("status", run).stdout
    assert ladm("verify", tmp_path / "again").exit_code == 0
    # Git and object stores keep no empty folders.
    (tmp_path / "again" / "units").rmdir()
    assert ladm("status", tmp_path / "again").stdout == ladm("status", run).stdout


def test_a_claim_that_is_renewed_makes_no_rows_newer(ladm: Command, run: Path) -> None:
    """The time of a claim changes every few seconds while its launch lives, and even where its workers hang."""
    for name in RESULTS:
        (run / name).unlink()
    (run / "units" / "000002.jsonl").unlink()
    (run / "units" / "000002.claim-0").write_text("{}")
    for path in (run / "units").glob("*.jsonl"):
        os.utime(path, (time.time() - 5000, time.time() - 5000))
    # Those of the rows, however long the command takes; the claim is new.
    assert json.loads(ladm("status", run, "--json").stdout)["seconds_since_rows"] >= 4000


def test_durations() -> None:
    assert [duration(s) for s in (5, 61, 3700, 200_000)] == ["5 s", "1 min", "1 h 01 min", "2 d 07 h"]


def test_errors_are_tried_again(ladm: Command, made: tuple[str, Path], run: Path) -> None:
    """A row whose error was the machine's gets its score, and the run ends as if nothing had happened."""
    before = results(run)
    line = read_lines(run / "units" / "000001.jsonl")[0]
    from ladm.runs.lines import encode_object

    rest = (run / "units" / "000001.jsonl").read_bytes().splitlines(keepends=True)[1:]
    problem = {"position": line["position"], "status": "error"}
    problem |= {key: line[key] for key in ("index", "chunked_index", "meta", "num_tokens")}
    problem |= {"stage": "score", "error_type": "out_of_memory", "message": "full"}
    (run / "units" / "000001.jsonl").write_bytes(encode_object(problem) + b"".join(rest))
    for name in RESULTS:
        (run / name).unlink()
    ladm("score", made[0], *SMALL, "--output", run)
    assert json.loads(ladm("status", run, "--json").stdout)["errors"]["out_of_memory"] == 1
    result = ladm("score", made[0], *SMALL, "--output", run, "--retry-errors")
    assert result.exit_code == 0, result.output
    assert "removing 3 rows without a score, to score again\n" in result.stderr
    assert results(run) == before


def test_overwrite_removes_nothing_when_the_command_cannot_work(
    ladm: Command, made: tuple[str, Path], run: Path
) -> None:
    profile = {
        "format": 1, "model": {"type": "llama", "sha256": {"config.json": "0"}}, "length_tokens": 1,
        "settings": read_object(run / "run.json")["settings"],
        "score": {"reduce": "mean", "layers": [0], "heads": None, "weights": None},
    }  # fmt: skip
    (run.parent / "p.yaml").write_text(json.dumps(profile))
    before = results(run)
    common = ("--model", GOLDEN, "--dtype", "float32", "--profile", run.parent / "p.yaml")
    result = ladm("score", made[0], *common, "--output", run, "--overwrite")
    assert "was calibrated for another model" in result.stderr
    assert results(run) == before


def test_taking_errors_back_survives_a_kill_at_any_operation(run: Path, made: tuple[str, Path], ladm: Command) -> None:
    import os

    class Killed(BaseException):
        pass

    before = results(run)
    n = 0
    while True:
        folder = run.parent / f"run{n}"
        shutil.copytree(run, folder)
        count = 0

        def counted(real: Any, limit: int = n) -> Any:
            def operation(*arguments: Any, **named: Any) -> Any:
                nonlocal count
                count += 1
                if count > limit:
                    raise Killed
                return real(*arguments, **named)

            return operation

        with pytest.MonkeyPatch.context() as patch:
            for name in ("unlink", "replace", "fsync", "rename"):
                patch.setattr(os, name, counted(getattr(os, name)))
            try:
                forget_errors(RunFolder.read(folder))
            except Killed:
                pass
            else:
                break
        assert ladm("score", made[0], *SMALL, "--output", folder).exit_code == 0
        assert results(folder) == before
        n += 1
    assert n > 5


def test_overwrite_removes_the_run_and_nothing_else(ladm: Command, made: tuple[str, Path], run: Path) -> None:
    other = ("--model", GOLDEN, "--dtype", "float32", "--span-tokens", "8", "--output", run)
    refused = ladm("score", made[0], *other)
    assert "settings.span_tokens: 16 before, 8 now" in refused.stderr
    (run / "notes.txt").write_text("mine")
    result = ladm("score", made[0], *other, "--overwrite")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1, f"ladm: {run} holds more than a run (notes.txt); move that away, or give another --output",
    )  # fmt: skip
    assert ladm("verify", run).exit_code == 0
    (run / "notes.txt").unlink()
    # What kills leave behind is the run's own, and goes with it.
    for name in (
        "run.json.0a1b.partial",
        "units/000001.claim-0.ff.partial",
        "units/000000.open.partial",
        ".finishing-0",
    ):
        (run / name).write_text("")
    (run / "units" / "mine").write_text("")
    assert "holds more than a run (units/mine)" in ladm("score", made[0], *other, "--overwrite").stderr
    (run / "units" / "mine").unlink()
    assert ladm("score", made[0], *other, "--overwrite").exit_code == 0
    assert read_object(run / "run.json")["settings"]["span_tokens"] == 8
    assert ladm("verify", run).exit_code == 0


def test_a_run_is_removed_to_the_last_file(run: Path) -> None:
    delete_run(run)
    assert [p.name for p in run.rglob("*") if p.name not in (".lock", "units")] == []


@pytest.mark.parametrize("option", ["--overwrite", "--retry-errors"])
def test_launches_that_share_a_run_reset_nothing(ladm: Command, made: tuple[str, Path], run: Path, option: str) -> None:
    result = ladm("score", made[0], *SMALL, "--output", run, "--shard", "0/2", option)
    assert (result.exit_code, result.stderr) == (
        2,
        "ladm: --overwrite and --retry-errors are for a run that no other launch shares; leave --shard and --engine "
        "out\n",
    )  # fmt: skip


@pytest.mark.slow
def test_score_in_two_processes_and_as_a_shard_gives_the_same_bytes(
    ladm: Command, made: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = ladm("score", made[0], *SMALL, "--output", tmp_path / "two", "--workers", "2")
    assert result.exit_code == 0, result.output
    assert results(tmp_path / "two") == results(made[1])
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = ladm("score", made[0], *SMALL, "--output", tmp_path / "shared")
    assert result.exit_code == 0, result.output
    assert "shard     1 of 2 that share the run\n" in result.stderr
    assert results(tmp_path / "shared") == results(made[1])
    assert status(RunFolder.read(tmp_path / "shared")).finished


def test_workers_are_a_cpus(ladm: Command, made: tuple[str, Path], tmp_path: Path) -> None:
    result = ladm("score", made[0], *SMALL, "--output", tmp_path / "x", "--workers", "0")
    assert (result.exit_code, result.stderr) == (2, "ladm: --workers must be at least 1, not 0\n")


def test_what_is_no_run_has_no_status(ladm: Command, tmp_path: Path) -> None:
    for command in ("status", "verify"):
        result = ladm(command, tmp_path)
        assert (result.exit_code, result.stderr) == (1, f"ladm: {tmp_path} is not a run: it has no run.json\n")
