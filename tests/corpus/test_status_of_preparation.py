"""`ladm status` of rows that are being prepared, that were stopped, and that are finished."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from ladm.runs.preparation import find_preparation
from support.commands import Command
from support.documents import corpus
from support.stopped_preparation import before_block

Prepare = Callable[..., Result]


@pytest.fixture
def prepare(ladm: Command, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 3)
    return lambda *words: ladm("prepare", *words, "--tokenizer", tokenizer, "--length", "40", "-o", tmp_path / "rows")


def stop_at_third_block(prepare: Prepare, paths: list[Path], monkeypatch: pytest.MonkeyPatch, look: Any) -> None:
    def stop() -> None:
        look()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        before_block(patch, 2, stop)
        assert prepare(*paths).exit_code == 130


def test_rows_in_preparation(
    ladm: Command, prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    rows, paths = tmp_path / "rows", corpus(tmp_path / "corpus")
    seen: list[Result] = []
    stop_at_third_block(
        prepare, paths, monkeypatch, lambda: seen.extend([ladm("status", rows), ladm("status", rows, "--json")])
    )
    first, second = seen[0].stdout.splitlines()
    assert first == "preparing: 6 documents read, 6 rows stored so far (duplicates are dropped at the end)"
    assert re.fullmatch(rf"running: yes, process {os.getpid()} on \S+, latest rows \d+ s ago", second)
    found = json.loads(seen[1].stdout)
    assert (found["stage"], found["documents"], found["counts"], found["rows"]) == ("prepare", 6, {"kept": 6}, 6)
    assert (found["finished"], found["prepared"], found["running"], found["folder"]) == (False, False, True, str(rows))

    stopped = ladm("status", rows)
    assert (stopped.exit_code, stopped.stdout.splitlines()[0]) == (0, first)
    assert re.fullmatch(r"running: no, latest rows \d+ s ago; to continue, .*", stopped.stdout.splitlines()[1])
    other = ladm("top", rows)
    assert (other.exit_code, other.stderr) == (
        3, f"ladm: {rows} holds the rows of an unfinished ladm prepare, not a run\n"
    )  # fmt: skip

    assert prepare(*paths).exit_code == 0
    finished = ladm("status", rows)
    assert (finished.exit_code, finished.stdout) == (0, "finished: 12 rows of 12 documents\n")
    assert finished.stderr == f"next: ladm score {rows} --model MODEL -o run\n"
    assert json.loads(ladm("status", rows, "--json").stdout)["finished"] is True


def test_rows_that_grow_are_not_finished_meanwhile(
    ladm: Command, prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, paths = tmp_path / "rows", corpus(tmp_path / "corpus")
    assert prepare(*paths, "--limit", "2").exit_code == 0
    limited = find_preparation(str(rows))
    assert limited is not None
    assert (limited.finished, limited.rows, limited.running) == (True, 2, False)
    seen: list[Result] = []
    with monkeypatch.context() as patch:
        before_block(patch, 1, lambda: seen.append(ladm("status", rows, "--json")))
        assert prepare(*paths).exit_code == 0
    (found,) = (json.loads(each.stdout) for each in seen)
    assert (found["finished"], found["rows"], found["running"]) == (False, 6, True)


def test_a_damaged_block_is_named(
    ladm: Command, prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at_third_block(prepare, corpus(tmp_path / "corpus"), monkeypatch, lambda: None)
    block = tmp_path / "rows" / ".preparing" / "000001.parquet"
    block.write_bytes(block.read_bytes()[:-20])
    damaged = ladm("status", tmp_path / "rows")
    assert (damaged.exit_code, damaged.stderr.startswith(f"ladm: {block} is damaged: ")) == (74, True)


def test_a_data_set_of_another_program_is_no_preparation(ladm: Command, short_rows: str) -> None:
    result = ladm("status", short_rows)
    assert (result.exit_code, "holds rows, not a run" in result.stderr) == (2, True)
