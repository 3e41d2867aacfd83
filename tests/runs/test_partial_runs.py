"""A run of the first rows alone, as `ladm score --limit` makes it: every command that shows it says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from ladm.errors import StorageError
from ladm.runs.folder import Run
from ladm.runs.rows_of_run import partial_coverage
from support.models import SMALL
from support.rows import topical_rows

Command = Callable[..., Result]
LINE = "only the first 4 of 6 rows were scored; to add the others, run ladm score without --limit"


@pytest.fixture
def rows(save_rows: Any, golden: Any) -> str:
    return str(save_rows(topical_rows(golden, [512] * 6)))


def test_every_command_says_that_a_run_has_only_the_first_rows(ladm: Command, rows: str, tmp_path: Path) -> None:
    run, subset = tmp_path / "run", tmp_path / "subset"
    scored = ladm("score", rows, *SMALL, "--limit", "4", "-o", run)
    assert scored.exit_code == 0, scored.output
    assert f"rows      {rows}: 4 rows, the first of 6\n" in scored.stderr
    assert ladm("status", run).stdout.splitlines()[:2] == ["finished: 4 of 4 rows", f"warning: {LINE}"]
    assert json.loads(ladm("status", run, "--json").stdout)["partial"] == LINE
    selected = ladm("select", run, "--top", "50%", "-o", subset)
    assert selected.exit_code == 0
    assert "warning: only the first 4 of 6 rows were scored\n" in selected.stdout
    assert json.loads((subset / "manifest.json").read_text())["unscored_rows"] == 2
    assert f"warning   {LINE}\n" in ladm("top", run).stderr
    page = tmp_path / "compare.html"
    assert f"warning   {LINE}\n" in ladm("compare", run, "-o", page).stderr
    assert f"<strong>Not all rows:</strong> {LINE}." in page.read_text()
    assert f"warning   {LINE}\n" in ladm("report", run, "--subset", subset).stderr
    assert f"<strong>Not all rows:</strong> {LINE}." in (run / "report.html").read_text()
    # With all rows nothing is said any more, and the manifest has no such key.
    assert ladm("score", rows, *SMALL, "-o", run).exit_code == 0
    assert "warning" not in ladm("status", run).output
    selected = ladm("select", run, "--top", "50%", "-o", tmp_path / "subset2")
    assert "rows were scored" not in selected.output
    assert "unscored_rows" not in json.loads((tmp_path / "subset2/manifest.json").read_text())


def test_what_to_do_is_what_works_for_that_run(ladm: Command, rows: str, tmp_path: Path) -> None:
    run, rescored = tmp_path / "job" / "scores", tmp_path / "rescored"
    assert ladm("score", rows, *SMALL, "--limit", "4", "-o", run).exit_code == 0
    assert ladm("rescore", run, "--score", "robust", "-o", rescored).exit_code == 0
    found = partial_coverage(Run.read(rescored))
    assert found is not None
    assert found.endswith("; score the others in the run that it was made from, and rescore that")
    # More rows of its run would no longer be those of the job.
    (tmp_path / "job" / "job.yaml").write_text("{}")
    assert str(partial_coverage(Run.read(run))).endswith("; to add others, run ladm run with a greater --limit")


def test_rows_that_cannot_be_counted_are_no_reason_to_fail(
    ladm: Command, rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ladm("score", rows, *SMALL, "--limit", "4", "-o", tmp_path / "run").exit_code == 0
    run = Run.read(tmp_path / "run")
    assert partial_coverage(run, str(tmp_path / "nowhere")) is None
    # What `ladm prepare` recorded beside its rows counts without them being opened.
    Path(rows, "prepare.json").write_text('{"rows": 6}')
    with monkeypatch.context() as patch:
        patch.setattr("ladm.runs.rows_of_run.open_rows", None)
        assert partial_coverage(run) == LINE
    Path(rows, "prepare.json").unlink()

    def damaged(_name: str) -> None:
        raise StorageError("cannot read rows")

    monkeypatch.setattr("ladm.runs.rows_of_run.open_rows", damaged)
    assert partial_coverage(run) is None
    assert ladm("status", run.folder).stdout.startswith("finished: 4 of 4 rows\nunits")
