"""Rows that came again: `ladm select` of several runs takes a row of equal ids once, that of the earlier run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from ladm.runs.folder import Run

Command = Callable[..., Result]


def row_of(name: str, ids: list[int], domain: str = "d") -> dict[str, Any]:
    return {"id": name, "meta": {"pile_set_name": domain}, "input_ids": ids}


@pytest.fixture
def ids(golden: Any) -> list[list[int]]:
    """Seven rows of 300 different ids, then one of 290."""
    texts = golden["input_ids"]
    vocabulary = sorted({token for text in texts for token in text})[:307]
    return [vocabulary[k : k + 300] for k in range(7)] + [vocabulary[:290]]


@pytest.fixture
def run_of(score_once: Callable[..., Path]) -> Callable[..., Path]:
    """Have the rows of a folder scored; returns the run, beside that folder."""
    return lambda folder, *flags: score_once(folder, *flags, output=Path(f"{folder}-run"))


@pytest.mark.parametrize("signals", [("cds,text", "cds,text"), ("cds,text", "cds"), ("cds", "cds")])
def test_rows_that_came_again_are_left_out(
    ladm: Command,
    run_of: Callable[..., Path],
    save_rows: Any,
    ids: list[list[int]],
    tmp_path: Path,
    signals: tuple[str, str],
) -> None:
    from datasets import Features, List, Value

    # Of equal length and the same statistics, and the same ids where a key is made of a few of them.
    backwards = ids[0][::-1]
    exchanged = [*ids[0][:20], ids[0][21], ids[0][20], *ids[0][22:]]
    old = [row_of("a0", ids[0]), row_of("a1", ids[1]), row_of("a1 twice", ids[1]), row_of("a7", ids[7])]
    new = [
        row_of("b2", ids[2]), row_of("b1", ids[1], "other"), row_of("b backwards", backwards), row_of("b0", ids[0]),
        row_of("b2 twice", ids[2]), row_of("b exchanged", exchanged), row_of("b7", ids[7]), row_of("b0 twice", ids[0]),
    ]  # fmt: skip
    # Of another type, as another tool may have stored them.
    small = Features({
        "id": Value("string"), "meta": {"pile_set_name": Value("string")}, "input_ids": List(Value("int32")),
    })  # fmt: skip
    folders = [save_rows(old, "old"), save_rows(new, "new", features=small), save_rows([row_of("c2", ids[2])], "third")]
    used = (*signals, signals[0])
    runs = [run_of(folder, "--signals", each) for folder, each in zip(folders, used, strict=True)]
    command = ("select", *runs, "--documents", "99", "--allow-small-pool", "--format", "jsonl")
    result = ladm(*command, "--output", tmp_path / "subset")
    assert result.exit_code == 0, result.output
    assert "left out as copies of another row: 5\n" in result.stdout
    manifest = json.loads((tmp_path / "subset" / "manifest.json").read_text())
    assert manifest["copies"] == 5
    # Copies inside one data set are for `ladm prepare`.
    assert [each["ids"] for each in manifest["chosen"]] == [
        ["a0", "a1", "a1 twice", "a7"], ["b2", "b backwards", "b2 twice", "b exchanged"], [],
    ]  # fmt: skip
    refused = ladm("select", *runs, "--documents", "99", "--output", tmp_path / "none")
    assert refused.stderr == (
        "ladm: the pool has 8 documents, fewer than the budget of 99; give a smaller --documents, or take all of it "
        "with --allow-small-pool; 5 rows left out as copies of another row\n"
    )


def test_which_rows_that_are_left_out_leave_their_copies_out_too(
    ladm: Command, run_of: Callable[..., Path], save_rows: Any, ids: list[list[int]], tmp_path: Path
) -> None:
    folders = [
        save_rows([row_of("a0", ids[0]), row_of("a1", ids[1], "web")], "old"),
        save_rows([row_of("b0", ids[0]), row_of("b1", ids[1], "code"), row_of("b2", ids[2])], "new"),
    ]
    runs = [run_of(folder) for folder in folders]
    (tmp_path / "drop.txt").write_text("a0\n")
    flags = ("--exclude-ids", tmp_path / "drop.txt", "--exclude-domain", "web", "--within", "length:-300")
    result = ladm("select", *runs, "--top", "100%", *flags, "--output", tmp_path / "subset")
    assert result.exit_code == 0, result.output
    manifest = json.loads((tmp_path / "subset" / "manifest.json").read_text())
    assert [each["ids"] for each in manifest["chosen"]] == [[], ["b1", "b2"]]
    # In the order in which rows are left out.
    assert result.stdout.splitlines()[-5:-1] == [
        "left out by --exclude-domain: web 1",
        f"dropped by --exclude-ids {tmp_path / 'drop.txt'}: 1 (of 1 id in it)",
        "left out as copies of another row: 1",
        "dropped by --within length:-300: 0, keeping length of at most 300",
    ]
    # Copies of rows outside of --only-ids are not left out.
    (tmp_path / "only.txt").write_text("b0\n")
    only = ("--top", "100%", "--only-ids", tmp_path / "only.txt")
    assert ladm("select", *runs, *only, "--output", tmp_path / "only").exit_code == 0
    chosen = json.loads((tmp_path / "only" / "manifest.json").read_text())["chosen"]
    assert [each["ids"] for each in chosen] == [[], ["b0"]]
    (tmp_path / "only.txt").write_text("a0\nb0\n")
    refused = ladm("select", *runs, *only, "--exclude-ids", tmp_path / "drop.txt", "--output", tmp_path / "none")
    assert (refused.exit_code, refused.stderr) == (
        1, "ladm: no document with a value of score can be selected: each is a copy of a row that is left out too\n"
    )  # fmt: skip


def test_runs_without_a_row_in_common(
    ladm: Command, run_of: Callable[..., Path], save_rows: Any, ids: list[list[int]], tmp_path: Path
) -> None:
    runs = [run_of(save_rows([row_of(f"{k}", ids[k])], f"rows{k}")) for k in (0, 1)]
    result = ladm("select", *runs, "--documents", "2", "--output", tmp_path / "subset")
    assert result.exit_code == 0, result.output
    assert "copies" not in result.stdout
    assert "copies" not in json.loads((tmp_path / "subset" / "manifest.json").read_text())


def test_rare_words_counted_on_different_rows_are_warned_of(
    ladm: Command, run_of: Callable[..., Path], save_rows: Any, ids: list[list[int]]
) -> None:
    folders = [save_rows([row_of(f"{k}", ids[k])], f"rows{k}") for k in (0, 1)]
    one, two = (run_of(folder, "--signals", "cds,text") for folder in folders)

    def warnings(*flags: object) -> list[str]:
        result = ladm("select", *flags, "--documents", "1", "--dry-run")
        assert result.exit_code == 0, result.output
        return [line for line in result.stderr.splitlines() if "far_rare" in line]

    for flags in (("--by", "far_rare"), ("--by", "rank(score)+rank(far_rare)"), ("--within", "far_rare:-80%/domain")):
        assert warnings(one, two, *flags) == [
            "warning   far_rare depends on how often each token occurs, which these runs counted on different rows, so "
            f"its values in one run cannot be compared with those in another. To use the counts of {one} for all, "
            f"which needs no model: ladm annotate {two} --unigrams {one}/unigrams.npy (docs/selection.md)"
        ]
    assert warnings(one, two, "--by", "gzip_ratio") == []
    # A table that was counted without a model ends with the highest id of the rows.
    bare = run_of(save_rows([row_of("2", ids[2])], "rows2"), "--signals", "cds")
    assert ladm("annotate", bare).exit_code == 0
    (found,) = warnings(bare, one, "--by", "far_rare")
    remedy = f"ladm annotate {bare} --unigrams {one}/unigrams.npy"
    assert found.endswith(f"To use the counts of {one} for all, which needs no model: {remedy} (docs/selection.md)")
    # As it says, after which the table that most runs have is proposed for the only other run, with its rows.
    assert ladm(*shlex.split(remedy)[1:]).exit_code == 0
    places = ("--rows", f"{bare}"[:-4], "--rows", folders[1], "--rows", folders[0])
    (found,) = warnings(bare, two, one, "--by", "far_rare", *places)
    remedy = f"ladm annotate {two} --rows {folders[1]} --unigrams {bare}/signals/text/unigrams.npy"
    assert found.endswith(f"for all, which needs no model: {remedy} (docs/selection.md)")
    assert ladm(*shlex.split(remedy)[1:]).exit_code == 0
    assert warnings(bare, two, one, "--by", "far_rare") == []
    # The manifest says which table was used, and what the run was scored with stays in its own folder.
    selected = ("select", two, one, "--by", "far_rare", "--documents", "1", "--output", f"{two}-subset")
    assert ladm(*selected).exit_code == 0
    manifest = json.loads(Path(f"{two}-subset", "manifest.json").read_text())
    tables = [each["signals"]["text"]["unigrams"] for each in (manifest["run"], *manifest["other_runs"])]
    own = [Run.read(run).identity.signals["text"]["unigrams"] for run in (one, two)]
    assert (tables, len(set(own))) == ([own[0], own[0]], 2)
