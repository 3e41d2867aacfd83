"""The error for a pool that is too small for the budget: everything that left rows out is in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from support.models import SMALL
from support.rows import topical_rows

Command = Callable[..., Result]
LENGTHS = [512, 400, 450, 90, 700, 480, 512, 490]
"""The fourth row is too short for a score. Even rows are of domain 0, odd ones of domain 1."""
START = "ladm: the pool has {} tokens, fewer than the budget of 9,000; give a smaller --tokens, or take all of it with "
START += "--allow-small-pool; 1 row left out without a score"


@pytest.fixture
def scored(score_rows: Any, golden: Any) -> tuple[str, Path]:
    return score_rows([row | {"id": f"n{row['index']}"} for row in topical_rows(golden, LENGTHS)])


@pytest.fixture
def refusal(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> Callable[..., str]:
    """What `ladm select` writes to standard error where it refuses a budget of 9,000 tokens."""

    def refused(*flags: Any) -> str:
        result = ladm("select", scored[1], "--tokens", "9k", *flags, "--output", tmp_path / "subset")
        assert (result.exit_code, result.stdout) == (1, "")
        return result.stderr

    return refused


def test_rows_that_a_joined_file_does_not_have(refusal: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "q.csv"
    file.write_text("id,q\nn0,1\nn1,2\nx,3\n")
    joined = f"; joined q={file}: of 8 rows 2 have a value of q.q (3 ids in it; 1 is of no row)\n"
    flags = ("--join", f"q={file}", "--domain-key", "none")
    assert refusal(*flags, "--by", "q.q") == START.format(912) + "; 5 rows left out without a value of q.q" + joined
    # The same where it is a guard that wants the value.
    assert refusal(*flags, "--within", "q.q:2-") == (
        START.format(400) + "; --within q.q:2- leaves 1 row out; 5 rows left out without a value of q.q" + joined
    )


def test_lists_of_ids_domains_and_guards(refusal: Callable[..., str], tmp_path: Path) -> None:
    drop, only = tmp_path / "drop.txt", tmp_path / "only.txt"
    drop.write_text("n0\n")
    only.write_text("n0\nn1\nn2\nn4\n")
    assert refusal("--exclude-domain", "domain 1") == START.format("2,174") + "; --exclude-domain leaves 3 rows out\n"
    assert refusal("--exclude-ids", drop, "--only-ids", only, "--within", "length:-500") == (
        START.format(850) + f"; --exclude-ids {drop} leaves 1 row out; 3 rows left out because no --only-ids has their "
        "id; --within length:-500 leaves 1 row out\n"
    )
    assert refusal("--quota", "{domain 0: 0, domain 1: 1}") == (
        START.format("1,370") + "; the weight 0 of domain 0 leaves 4 rows out\n"
    )


def test_a_budget_of_documents_and_the_percent_rule(refusal: Callable[..., str]) -> None:
    assert refusal("--rule", "percent", "--within", "length:500-").endswith(
        "; 1 row left out without a score; --within length:500- leaves 4 rows out\n"
    )


def test_rows_that_are_not_scored_yet(ladm: Command, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = save_rows(topical_rows(golden, [400, 410, 420]))
    assert ladm("score", rows, *SMALL, "--limit", "2", "--output", tmp_path / "run").exit_code == 0
    result = ladm("select", tmp_path / "run", "--documents", "3", "--output", tmp_path / "subset")
    assert result.stderr == (
        "ladm: the pool has 2 documents, fewer than the budget of 3; give a smaller --documents, or take all of it "
        "with --allow-small-pool; 1 row not scored yet\n"
    )


def test_a_guard_whose_column_no_document_that_is_left_has(
    ladm: Command, scored: tuple[str, Path], tmp_path: Path
) -> None:
    file, only = tmp_path / "q.csv", tmp_path / "only.txt"
    file.write_text("id,q\nn0,1\n")
    only.write_text("n1\nn2\n")
    flags = ("--join", f"q={file}", "--only-ids", only, "--output", tmp_path / "subset")
    for guard in ("q.q:0-", "q.q:-90%"):
        result = ladm("select", scored[1], "--top", "50%", *flags, "--within", guard)
        assert (result.exit_code, result.stderr) == (
            1, f"ladm: --within {guard} leaves no document; no document that was left for it has a value of q.q\n"
        )  # fmt: skip
