"""`ladm rescore --so-far`: a run of the sealed units of one that is not finished, which every command reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import ladm as ladm_package
from ladm.cli.main import main
from ladm.errors import IncompleteError, LadmError, LadmWarning
from ladm.runs.folder import Run
from ladm.runs.layout import RESULT_FILES
from ladm.runs.lines import encode_line, read_records
from support.files import read_lines, read_object
from support.models import SMALL
from support.rows import topical_rows
from support.runs import results

Command = Callable[..., Result]
ROWS, UNIT_ROWS = 40, 16


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, golden: dict[str, Any]) -> Path:
    """Rows and a run of three units, the last one of 8 rows; the row at 20 is too short for a score."""
    from datasets import Dataset

    folder, lengths = tmp_path_factory.mktemp("scored"), [512] * ROWS
    lengths[20] = 8
    Dataset.from_list(topical_rows(golden, lengths)).save_to_disk(str(folder / "rows"))
    command = ["score", str(folder / "rows"), *SMALL, "--output", str(folder / "run")]
    assert CliRunner().invoke(main, command).exit_code == 0
    return folder


@pytest.fixture
def rows(scored: Path) -> str:
    return str(scored / "rows")


@pytest.fixture
def run(scored: Path, tmp_path: Path) -> Path:
    """A finished run, for `unfinish`."""
    return Path(shutil.copytree(scored / "run", tmp_path / "run"))


def unfinish(run: Path, *missing: int) -> None:
    """What a job that is at work, or was stopped, has by then: no results, and units `missing`."""
    for name in RESULT_FILES:
        (run / name).unlink(missing_ok=True)
    for number in missing:
        (run / f"units/{number:06d}.jsonl").rename(run / f"units/{number:06d}.kept")


def seal(run: Path, number: int) -> None:
    (run / f"units/{number:06d}.kept").rename(run / f"units/{number:06d}.jsonl")


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder, and when it was changed."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def so_far(ladm: Command, run: Path, output: Path) -> Result:
    result = ladm("rescore", run, "--so-far", "-o", output)
    assert result.exit_code == 0, result.output
    return result


def test_the_sealed_units_of_a_run_become_a_run_that_every_command_reads(
    ladm: Command, rows: str, run: Path, tmp_path: Path
) -> None:
    whole = read_lines(run / "sorted_by_score.jsonl")
    errors = (run / "errors.jsonl").read_text()
    # Launches that share a run begin at different places, so that the units that are missing lie between others.
    unfinish(run, 0)
    before, part = content(run), tmp_path / "part"
    made = so_far(ladm, run, part)
    assert content(run) == before
    line = f"only 24 of 40 rows were scored so far; once there are more, rescore {run} again"
    assert f"warning   {line}\n" in made.stderr
    assert "23 rows scored, 1 without a score" in made.stdout
    assert f"next: ladm top {part}\n" in made.stderr
    # The same lines in the same order, with ranks of their own.
    kept = [found for found in whole if found["index"] >= UNIT_ROWS]
    assert read_lines(part / "sorted_by_score.jsonl") == [found | {"rank": rank} for rank, found in enumerate(kept, 1)]
    assert (part / "errors.jsonl").read_text() == errors
    assert pq.read_table(part / "scores.parquet")["position"].to_pylist() == [found["index"] for found in kept]
    identity = read_object(part / "run.json")
    assert identity["part"] == {"rows": 24, "units": 2}
    assert identity["data"] == read_object(run / "run.json")["data"]

    assert ladm("status", part).stdout.splitlines()[:3] == [
        "finished: 24 of 40 rows", f"warning: {line}", "units: 2 of 3 sealed",
    ]  # fmt: skip
    found = json.loads(ladm("status", part, "--json").stdout)
    assert (found["finished"], found["rows"], found["done"], found["sealed"]) == (True, 40, 24, 2)
    verified = ladm("verify", part, "--deep")
    assert (verified.exit_code, verified.stdout) == (0, f"{part} is sound: 24 of 40 rows, 2 units\n")
    assert f"warning   {line}\n" in ladm("top", part).stderr
    page = tmp_path / "compare.html"
    assert f"warning   {line}\n" in ladm("compare", part, "-o", page).stderr
    assert f"<strong>Not all rows:</strong> {line}." in page.read_text()
    trial = tmp_path / "trial"
    selected = ladm("select", part, "--rows", rows, "--top", "50%", "-o", trial)
    assert selected.exit_code == 0, selected.output
    assert "warning: only 24 of 40 rows were scored\n" in selected.stdout
    manifest = read_object(trial / "manifest.json")
    assert (manifest["unscored_rows"], manifest["run"]["part"]) == (16, {"rows": 24, "units": 2})
    assert manifest["pool_documents"] == 23
    assert f"warning   {line}\n" in ladm("report", part, "--subset", trial).stderr
    page_text = (part / "report.html").read_text()
    assert f"<strong>Not all rows:</strong> {line}." in page_text
    assert "24 of 40 rows, XXH3" in page_text
    inspected = ladm("inspect", part, "--top", "1", "--bottom", "0")
    assert inspected.exit_code == 0, inspected.output


def test_other_commands_name_it_where_there_is_something_to_see(ladm: Command, run: Path) -> None:
    unfinish(run, 1)
    for command in ("top", "report", "compare", "select", "inspect"):
        arguments = ("--top", "1", "-o", run.parent / "x") if command == "select" else ()
        result = ladm(command, run, *arguments)
        assert (result.exit_code, result.stderr) == (
            3,
            f"ladm: {run} is not finished: 1 of 3 units are missing; run the same ladm score command again; to look "
            f"at the rows so far: ladm rescore {run} --so-far -o RUN2\n",
        )
    unfinish(run, 0, 2)
    assert ladm("top", run).stderr.endswith("units are missing; run the same ladm score command again\n")


def test_nothing_to_see_is_one_line(ladm: Command, run: Path, tmp_path: Path) -> None:
    unfinish(run, 0, 1, 2)
    result = ladm("rescore", run, "--so-far", "-o", tmp_path / "part")
    assert (result.exit_code, result.stderr) == (
        3,
        f"ladm: {run} has no rows to show: no unit of 16 rows is complete yet; for its progress: ladm status {run}\n",
    )
    assert not (tmp_path / "part").exists()


def test_a_finished_run_has_no_so_far(ladm: Command, run: Path, tmp_path: Path) -> None:
    result = ladm("rescore", run, "--so-far", "-o", tmp_path / "part")
    assert (result.exit_code, result.stderr) == (
        1, f"ladm: {run} is finished, and has all 40 rows; leave --so-far out, or read {run} itself\n",
    )  # fmt: skip
    assert not (tmp_path / "part").exists()
    # That of a finished part is the same.
    unfinish(run, 2)
    so_far(ladm, run, tmp_path / "part")
    result = ladm("rescore", tmp_path / "part", "--so-far", "-o", tmp_path / "again")
    assert result.stderr.startswith(f"ladm: {tmp_path / 'part'} is finished, and has 32 of 40 rows; ")
    for name in RESULT_FILES:
        (tmp_path / "part" / name).unlink()
    result = ladm("rescore", tmp_path / "part", "--so-far", "-o", tmp_path / "again")
    assert result.stderr == f"ladm: {tmp_path / 'part'} is not finished: run the same ladm rescore command again\n"


def test_it_changes_no_score(ladm: Command, run: Path, tmp_path: Path) -> None:
    for flags in (("--score", "robust"), ("--profile", "p.yaml"), ("--reduce", "mean"), ("--layers", "0")):
        result = ladm("rescore", run, "--so-far", *flags, "-o", tmp_path / "part")
        assert (result.exit_code, result.stderr) == (
            2, f"ladm: --so-far keeps the score of RUN; leave {flags[0]} out, and rescore what it makes\n",
        )  # fmt: skip


def test_the_run_itself_is_no_place_for_it(ladm: Command, run: Path) -> None:
    unfinish(run, 0)
    before = content(run)
    result = ladm("rescore", run, "--so-far", "-o", f"{run}/../run")
    assert (result.exit_code, result.stderr) == (2, f"ladm: --output {run}/../run is RUN itself; give another folder\n")
    assert content(run) == before


def test_the_same_command_later_has_what_was_scored_since(ladm: Command, run: Path, tmp_path: Path) -> None:
    whole, part = results(run), tmp_path / "part"
    unfinish(run, 0, 2)
    so_far(ladm, run, part)
    assert read_object(part / "run.json")["part"] == {"rows": 16, "units": 1}
    first = results(part)
    so_far(ladm, run, part)
    assert results(part) == first
    seal(run, 0)
    assert "only 32 of 40 rows were scored so far" in so_far(ladm, run, part).stderr
    assert read_object(part / "run.json")["part"] == {"rows": 32, "units": 2}
    assert ladm("verify", part).exit_code == 0
    # All units are sealed, and the results are still being written.
    seal(run, 2)
    assert "warning" not in so_far(ladm, run, part).stderr
    assert results(part) == whole
    assert "partial" not in ladm("verify", part).output
    assert ladm("status", part).stdout.splitlines()[:2] == ["finished: 40 of 40 rows", "units: 3 of 3 sealed"]


def test_killed_in_the_middle_it_is_made_again_though_there_are_more_rows(
    ladm: Command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / "part"
    unfinish(run, 0, 2)
    with monkeypatch.context() as patch:
        patch.setattr("ladm.runs.finish.write_sorted", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            ladm_package.open_run(run).rescore(output=part, so_far=True)
    assert (part / "run.json").exists()
    message = f"{part} is not finished: run the same ladm rescore command again"
    assert ladm("status", part).stderr == f"ladm: {message}\n"
    assert ladm("verify", part).stderr == f"ladm: {message}\n"
    seal(run, 0)
    so_far(ladm, run, part)
    assert ladm("verify", part).stdout == f"{part} is sound: 32 of 40 rows, 2 units\n"
    # A part that is being replaced has no results of either.
    seal(run, 2)
    with monkeypatch.context() as patch:
        patch.setattr("ladm.runs.finish.write_sorted", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            ladm_package.open_run(run).rescore(output=part, so_far=True)
    assert ladm("top", part).exit_code == 3


def _interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_units_sealed_meanwhile_are_left_for_the_next_time(
    ladm: Command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinish(run, 0)
    read = Run.read_sealed_lines

    def read_and_seal(self: Run, unit: Any) -> Any:
        if (run / "units/000000.kept").exists():
            seal(run, 0)
        return read(self, unit)

    monkeypatch.setattr(Run, "read_sealed_lines", read_and_seal)
    so_far(ladm, run, tmp_path / "part")
    assert ladm("verify", tmp_path / "part").stdout == f"{tmp_path / 'part'} is sound: 24 of 40 rows, 2 units\n"


def test_a_run_that_is_started_again_meanwhile_is_not_mixed_with_the_new_one(
    ladm: Command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinish(run, 0)
    read = Run.read_sealed_lines

    def read_and_restart(self: Run, unit: Any) -> Any:
        other = read_object(run / "run.json")
        (run / "run.json").write_text(json.dumps(other | {"dtype": "bfloat16"}))
        return read(self, unit)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "read_sealed_lines", read_and_restart)
        result = ladm("rescore", run, "--so-far", "-o", tmp_path / "part")
    assert (result.exit_code, result.stderr) == (
        1, f"ladm: {run} was started with something else meanwhile; run the same command again\n",
    )  # fmt: skip
    so_far(ladm, run, tmp_path / "part")

    def read_and_remove(self: Run, unit: Any) -> Any:
        (run / "units/000002.jsonl").unlink(missing_ok=True)
        return read(self, unit)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "read_sealed_lines", read_and_remove)
        result = ladm("rescore", run, "--so-far", "-o", tmp_path / "other")
    assert (result.exit_code, result.stderr) == (3, f"ladm: {run} is not finished: unit 2 is missing\n")
    assert not (tmp_path / "other/run.json").exists()


def test_a_damaged_unit_is_named_and_nothing_is_left(ladm: Command, run: Path, tmp_path: Path) -> None:
    unfinish(run, 0)
    damaged = bytearray((run / "units/000001.jsonl").read_bytes())
    damaged[700] ^= 1
    (run / "units/000001.jsonl").write_bytes(damaged)
    result = ladm("rescore", run, "--so-far", "-o", tmp_path / "part")
    assert result.exit_code == 74
    assert result.stderr.startswith(f"ladm: {run}/units/000001.jsonl is damaged at byte ")
    assert not any((tmp_path / "part" / name).exists() for name in ("run.json", *RESULT_FILES))


def test_scoring_goes_on_in_the_run_and_not_in_its_part(ladm: Command, rows: str, run: Path, tmp_path: Path) -> None:
    whole, part = results(run), tmp_path / "part"
    unfinish(run, 2)
    so_far(ladm, run, part)
    before = content(part)
    message = (
        f"ladm: {part} was started with something else (the rows so far); it was made by ladm rescore --so-far: run "
        "ladm score on the run that it was made from, or give another --output:"
    )
    for more in ((), ("--limit", "40"), ("--shard", "0/2"), ("--max-errors", "5")):
        result = ladm("score", rows, *SMALL, *more, "-o", part)
        assert (result.exit_code, result.stderr.splitlines()[-2]) == (1, message)
    result = ladm("score", rows, *SMALL, "--retry-errors", "-o", part)
    assert (result.exit_code, result.stderr.splitlines()[-2]) == (1, message)
    after = content(part)
    assert {name: after[name] for name in before if ".lock" not in name} == {
        name: found for name, found in before.items() if ".lock" not in name
    }
    # What was made of it changes nothing for the run.
    (run / "units/000002.kept").unlink()
    assert ladm("score", rows, *SMALL, "-o", run).exit_code == 0
    assert results(run) == whole


def test_an_output_of_another_run_is_refused(ladm: Command, rows: str, run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert ladm("score", rows, *SMALL, "--reduce", "median", "-o", other).exit_code == 0
    before = results(other)
    unfinish(run, 2)
    result = ladm("rescore", run, "--so-far", "-o", other)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"ladm: {other} was started with something else (--score, ")
    assert results(other) == before
    unfinish(other, 1)
    part = tmp_path / "part"
    so_far(ladm, other, part)
    before = results(part)
    result = ladm("rescore", run, "--so-far", "-o", part)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"ladm: {part} was started with something else (--score, ")
    assert results(part) == before


def test_a_part_can_be_rescored_and_joined(ladm: Command, run: Path, tmp_path: Path) -> None:
    part, robust = tmp_path / "part", tmp_path / "robust"
    again = ladm("rescore", run, "--score", "robust", "-o", tmp_path / "whole")
    assert again.exit_code == 0
    whole = {found["index"]: found["score"] for found in read_lines(tmp_path / "whole/sorted_by_score.jsonl")}
    full = tmp_path / "full"
    assert ladm("rescore", run, "--reduce", "mean", "-o", full).exit_code == 0
    unfinish(run, 1)
    so_far(ladm, run, part)
    assert ladm("rescore", part, "--score", "robust", "-o", robust).exit_code == 0
    found = {line["index"]: line["score"] for line in read_lines(robust / "sorted_by_score.jsonl")}
    assert found == {index: whole[index] for index in whole if not 16 <= index < 32}
    assert f"only 24 of 40 rows were scored so far; once there are more, rescore {part} again" in (
        ladm("status", robust).stdout
    )
    assert ladm("verify", robust).exit_code == 0
    # Of the same rows as a whole run: what the part lacks has no value.
    selected = ladm(
        "select", full, "--join", f"part={part}", "--by", "part.score", "--top", "100%", "-o", tmp_path / "subset"
    )
    assert "not selectable without a value of part.score: 15" in selected.stdout
    # The same commands later, also where there are no other rows by then.
    seal(run, 1)
    for _ in range(2):
        so_far(ladm, run, part)
        assert ladm("rescore", part, "--score", "robust", "-o", robust).exit_code == 0
        assert results(robust) == results(tmp_path / "whole")
    # A whole run is not replaced by a part of it.
    unfinish(run, 1)
    so_far(ladm, run, part)
    result = ladm("rescore", part, "--score", "robust", "-o", tmp_path / "whole")
    assert result.stderr.startswith(f"ladm: {tmp_path / 'whole'} was started with something else (the rows so far); ")
    assert results(robust) == results(tmp_path / "whole")


def test_of_a_run_that_was_given_more_rows(ladm: Command, rows: str, tmp_path: Path) -> None:
    run, part, robust = tmp_path / "limited", tmp_path / "part", tmp_path / "robust"
    assert ladm("score", rows, *SMALL, "--limit", "36", "-o", run).exit_code == 0
    assert ladm("rescore", run, "--score", "robust", "-o", robust).exit_code == 0
    before = results(robust)
    unfinish(run, 0)
    so_far(ladm, run, part)
    seal(run, 0)
    assert ladm("score", rows, *SMALL, "-o", run).exit_code == 0
    assert ladm("rescore", run, "--score", "robust", "-o", robust).exit_code == 0
    assert len(before["sorted_by_score.jsonl"].splitlines()) < len(read_lines(robust / "sorted_by_score.jsonl")) == 39
    assert ladm("verify", robust).stdout.startswith(f"{robust} is sound: 40 rows")
    unfinish(run, 0)
    assert "only 24 of 40 rows were scored so far" in so_far(ladm, run, part).stderr
    assert ladm("verify", part).stdout == f"{part} is sound: 24 of 40 rows, 2 units\n"


def test_rows_of_another_run_are_refused(
    ladm: Command, score_once: Any, save_rows: Any, golden: dict[str, Any], run: Path, tmp_path: Path
) -> None:
    other, robust = tmp_path / "other", tmp_path / "robust"
    more = save_rows(topical_rows(golden, [512] * 20), name="more")
    score_once(more, output=other)
    assert ladm("rescore", run, "--score", "robust", "-o", robust).exit_code == 0
    before = results(robust)
    result = ladm("rescore", other, "--score", "robust", "-o", robust)
    assert result.exit_code == 1
    assert f"ladm: {robust} was started with something else (" in result.stderr
    assert results(robust) == before


def test_statistics_added_to_a_part_are_those_of_all_rows(ladm: Command, rows: str, run: Path, tmp_path: Path) -> None:
    part, counts = tmp_path / "part", tmp_path / "counts.npy"
    np.save(counts, np.arange(1, 1 + len(np.load(run / "unigrams.npy"))))
    unfinish(run, 1)
    so_far(ladm, run, part)
    assert ladm("annotate", part, "--unigrams", counts).exit_code == 0
    before = ladm("top", part, "--by", "far_rare").stdout
    assert len(before.splitlines()) > 5
    assert ladm("verify", part).exit_code == 0
    seal(run, 1)
    so_far(ladm, run, part)
    assert ladm("verify", part).exit_code == 0
    assert ladm("select", part, "--by", "far_rare", "--top", "50%", "-o", tmp_path / "subset").exit_code == 0
    # The model would read all rows, for those so far alone.
    unfinish(run, 1)
    so_far(ladm, run, part)
    for signals in ("longattn", "cds,text,longattn"):
        result = ladm("score", rows, *SMALL, "--signals", signals, "-o", part)
        assert (result.exit_code, result.stderr) == (
            1,
            f"ladm: {part} has 24 of 40 rows, those so far of another run; add longattn to that one once it is "
            "finished\n",
        )
    assert not (part / "signals/longattn").exists()


def test_parts_of_two_runs_are_ranked_together(
    ladm: Command, score_once: Any, save_rows: Any, golden: dict[str, Any], run: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    more = save_rows(topical_rows(golden, [512] * 20), name="more")
    score_once(more, output=other)
    unfinish(run, 1)
    unfinish(other, 0)
    for each in (run, other):
        so_far(ladm, each, Path(f"{each}-part"))
    selected = ladm("select", f"{run}-part", f"{other}-part", "--top", "50%", "-o", tmp_path / "subset")
    assert selected.exit_code == 0, selected.output
    assert "warning: only 28 of 60 rows were scored\n" in selected.stdout


def test_a_run_of_the_first_rows_alone_counts_those_behind_too(
    ladm: Command, score_once: Any, rows: str, tmp_path: Path
) -> None:
    run, part = tmp_path / "limited", tmp_path / "part"
    rows = str(shutil.copytree(rows, tmp_path / "rows"))
    score_once(rows, "--limit", "36", output=run)
    unfinish(run, 0)
    so_far(ladm, run, part)
    assert "only 20 of 40 rows were scored so far" in ladm("status", part).stdout
    selected = ladm("select", part, "--top", "50%", "-o", tmp_path / "subset")
    assert "warning: only 20 of 40 rows were scored\n" in selected.stdout
    # Where the rows cannot be counted, those of the run can.
    Path(rows).rename(tmp_path / "elsewhere")
    assert "only 20 of 36 rows were scored so far" in ladm("status", part).stdout


def test_statistics_of_texts_alone(ladm: Command, rows: str, tmp_path: Path) -> None:
    run, part = tmp_path / "counts", tmp_path / "part"
    assert ladm("score", rows, *SMALL[:2], "--signals", "text", "-o", run).exit_code == 0
    unfinish(run, 1)
    so_far(ladm, run, part)
    assert ladm("verify", part).stdout == f"{part} is sound: 24 of 40 rows, 2 units\n"
    for command in (("top", part, "--by", "far_rare"), ("compare", part)):
        result = ladm(*command)
        assert result.exit_code == 0, result.output
    # By which further runs are compared with it.
    assert (part / "unigrams.npy").read_bytes() == (run / "unigrams.npy").read_bytes()


def test_rows_without_a_score_alone(
    ladm: Command, score_once: Any, save_rows: Any, golden: dict[str, Any], tmp_path: Path
) -> None:
    run, part = tmp_path / "run", tmp_path / "part"
    short = save_rows(topical_rows(golden, [8] * 16 + [512] * 4))
    score_once(short, output=run)
    unfinish(run, 1)
    result = ladm("rescore", run, "--so-far", "-o", part)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1, f"ladm: no document has a score; {part}/errors.jsonl says why",
    )  # fmt: skip
    assert len(read_lines(part / "errors.jsonl")) == 16
    assert ladm("verify", part).stdout == f"{part} is sound: 16 of 20 rows, 1 unit\n"


def test_rows_of_an_unfinished_unit_are_not_among_them(ladm: Command, run: Path, tmp_path: Path) -> None:
    unfinish(run, 2)
    kept = read_records(run / "units/000002.kept", start=32, stop=40)
    (run / "units/000002.open").write_bytes(b"".join(map(encode_line, kept[:4])))
    so_far(ladm, run, tmp_path / "part")
    assert ladm("verify", tmp_path / "part").stdout == f"{tmp_path / 'part'} is sound: 32 of 40 rows, 2 units\n"


def test_a_part_with_fewer_results_than_it_says_is_damaged(ladm: Command, run: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    unfinish(run, 2)
    so_far(ladm, run, part)
    identity = read_object(part / "run.json")
    (part / "run.json").write_text(json.dumps(identity | {"part": {"rows": 24, "units": 2}}))
    result = ladm("verify", part)
    assert result.exit_code == 74
    assert f"{part}: 31 scores and 1 error are not 24 rows" in result.stdout
    for broken in (7, {"rows": 24}, {"rows": "x", "units": 2}):
        (part / "run.json").write_text(json.dumps(identity | {"part": broken}))
        assert ladm("top", part).stderr.startswith(f"ladm: {part}/run.json is damaged: not a run's identity")


def test_in_python(run: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    unfinish(run, 0)
    with pytest.raises(IncompleteError, match="to look at the rows so far: ladm rescore"):
        ladm_package.open_run(run).scores()
    with pytest.warns(LadmWarning, match="only 24 of 40 rows were scored so far"):
        made = ladm_package.open_run(run).rescore(output=part, so_far=True)
    assert (made.folder, made.is_finished, len(made.scores())) == (part, True, 23)
    assert made.identity().part == {"rows": 24, "units": 2}
    assert (made.status().done, made.verify()) == (24, [])
    with pytest.raises(LadmError, match="keeps the score of RUN"):
        ladm_package.open_run(run).rescore(output=part, so_far=True, score="robust")


def test_of_a_job(ladm: Command, run: Path, tmp_path: Path) -> None:
    job = tmp_path / "job"
    job.mkdir()
    (job / "job.yaml").write_text("{}")
    run.rename(job / "scores")
    unfinish(job / "scores", 0)
    assert "run the same ladm run command again; to look at the rows so far: " in ladm("top", job).stderr
    so_far(ladm, job, tmp_path / "part")
    assert ladm("verify", tmp_path / "part").exit_code == 0
