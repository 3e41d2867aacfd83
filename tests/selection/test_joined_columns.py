"""Columns of the rows (`rows.quality`) and of other runs of the same rows (`--join other=RUN2`)."""

from __future__ import annotations

import html
import json
import math
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import Result

import ladm as front
from ladm.corpus.rows import reading as rows_module
from ladm.corpus.rows.number_columns import number_names, read_numbers
from ladm.corpus.rows.reading import open_rows
from ladm.errors import LadmError, UsageError
from ladm.runs.columns.by_name import read_columns
from ladm.runs.folder import Run
from support.models import SMALL
from support.pages import data_of
from support.rows import topical_rows
from support.subsets import selected

Command = Callable[..., Result]
LENGTHS = [512, 400, 450, 90, 700, 480, 512, 490]
"""The fourth row is too short for a score. Even rows are of domain 0, odd ones of domain 1."""
QUALITY = [0.1, 0.7, 0.3, 0.9, None, 0.2, 0.8, 0.5]
EDU = [5, 1, 4, 2, 3, 8, 7, 6]


def corpus(golden: Any, quality: list[float | None] = QUALITY) -> list[dict[str, Any]]:
    rows = topical_rows(golden, LENGTHS)
    for k, row in enumerate(rows):
        row["meta"] = row["meta"] | {"edu": EDU[k]}
        row |= {
            "quality": quality[k], "language-score": k / 10, "stars": "5" if k < 4 else "unsure", "good": k % 3 == 0,
            "length": float(-k), "date": f"2024-01-0{k + 1}", "tags": json.dumps({"toxic": {"p": k / 8}}),
            "text": f"text {k} " * 20,
        }  # fmt: skip
    return rows


@pytest.fixture
def scored(score_rows: Any, golden: Any) -> tuple[str, Path]:
    return score_rows(corpus(golden))


@pytest.fixture
def other(score_once: Any, scored: tuple[str, Path], tmp_path: Path) -> Path:
    """A second run of the same rows, with other spans; its scores are in another order."""
    return Path(score_once(scored[0], "--span-tokens", "8", output=tmp_path / "other"))


def by_position(run: Path, name: str) -> dict[int, float]:
    table = read_columns(Run.read(run), [name])
    return dict(zip(table["position"].to_pylist(), table[name].to_pylist(), strict=True))


# Columns of the rows


@pytest.mark.parametrize(
    ("by", "best"),
    [
        # Row 3 has no score, row 4 no quality.
        ("rows.quality", [1, 6, 7]),
        ("-rows.quality", [0, 2, 5]),
        ("rows.meta.edu", [5, 6, 7]),
        ("rows['language-score']", [5, 6, 7]),
        ("rows.tags.toxic.p", [5, 6, 7]),
        ("rows.length", [0, 1, 2]),
        ("rank(rows.quality) - 2 * rank(rows.meta.edu)", [1, 2, 6]),
    ],
)
def test_a_column_of_the_rows_ranks(ladm: Command, scored: tuple[str, Path], by: str, best: list[int]) -> None:
    found = selected(ladm, scored[1], "--documents", "3", "--domain-key", "none", "--by", by)
    assert found["positions"] == best
    assert f"ranked by: {by}" in found["table"]
    assert list(found["joined_columns"]) == sorted(
        found["joined_columns"], key=by.replace("['language-", ".language-").find
    )


def test_a_row_without_a_number_is_not_selected_and_counted(ladm: Command, scored: tuple[str, Path]) -> None:
    found = selected(ladm, scored[1], "--top", "100%", "--by", "rows.quality")
    assert found["without_value"] == 1
    assert 4 not in found["positions"]
    assert "not selectable without a value of rows.quality: 1" in found["table"]
    # Texts that are no numbers; true is 1.
    found = selected(ladm, scored[1], "--top", "100%", "--within", "rows.stars:4-", "--within", "rows.good:0-0.5")
    assert found["positions"] == [1, 2]
    assert [guard["without_value"] for guard in found["guards"]] == [4, 0]
    assert "dropped without a value of rows.stars: 4" in found["table"]
    found = selected(ladm, scored[1], "--top", "100%", "--within", "rows.language-score:0%-50%")
    assert found["positions"] == [0, 1, 2, 4]


def test_a_run_s_own_column_and_one_of_the_rows_keep_apart(ladm: Command, scored: tuple[str, Path]) -> None:
    flags = ("--documents", "2", "--domain-key", "none", "--by")
    assert selected(ladm, scored[1], *flags, "-length")["positions"] == [1, 2]
    assert selected(ladm, scored[1], *flags, "rows.length")["positions"] == [0, 1]


def test_float32_of_the_rows_includes_its_limit(ladm: Command, golden: Any, tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict, Value

    data = Dataset.from_list([row | {"q": 0.7} for row in topical_rows(golden, [512, 400, 450])])
    DatasetDict(train=data.cast_column("q", Value("float32"))).save_to_disk(str(tmp_path / "rows"))
    assert ladm("score", tmp_path / "rows", *SMALL, "--output", tmp_path / "run").exit_code == 0
    found = selected(ladm, tmp_path / "run", "--top", "100%", "--within", "rows.q:0.7-")
    assert found["positions"] == [0, 1, 2]


def test_numbers_are_read_without_the_ids_and_without_long_texts(
    scored: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, read = open_rows(scored[0]), []
    kept = rows_module.CheckedColumns

    def recorded(dataset: Any, names: list[str]) -> Any:
        read.extend(names)
        return kept(dataset, names)

    monkeypatch.setattr(rows_module, "CheckedColumns", recorded)
    assert read_numbers(rows, "meta.edu").tolist() == EDU
    assert read_numbers(rows, "quality")[[0, 6]].tolist() == [0.1, 0.8]
    assert set(read) == {"meta", "quality"}
    assert number_names(rows) == ["meta.edu", "index", "quality", "language-score", "good", "length"]
    for key in ("text", "date"):
        with pytest.raises(LadmError, match=rf"^no row of {scored[0]} has a number in {key}$"):
            read_numbers(rows, key)


def test_values_that_are_no_numbers(save_rows: Any) -> None:
    from datasets import ClassLabel, Features, List, Value

    huge = "1" + "0" * 400
    rows = [
        {"input_ids": [1], "n": 1 << 60, "f": math.inf, "t": "inf", "c": 1, "j": '{"a": 1, "b": [2]}', "u": "7"},
        {"input_ids": [1], "n": None, "f": -0.5, "t": " 2.5 ", "c": 0, "j": f'{{"a": {huge}}}', "u": "x" * 100},
        {"input_ids": [1], "n": 3, "f": None, "t": None, "c": None, "j": "{", "u": "7" * 100},
    ]
    kinds = {"n": Value("int64"), "f": Value("float64"), "t": Value("large_string"), "j": Value("string")}
    features = kinds | {"input_ids": List(Value("int32")), "c": ClassLabel(names=["one", "2"]), "u": Value("string")}
    opened = open_rows(save_rows(rows, "odd", features=Features(features)))
    expected = {
        "n": [2.0**60, None, 3], "f": [None, -0.5, None], "t": [None, 2.5, None], "c": [2, None, None],
        "j.a": [1, None, None], "u": [7, None, None],
    }  # fmt: skip
    for key, values in expected.items():
        np.testing.assert_array_equal(read_numbers(opened, key), np.array(values, dtype=np.float64), err_msg=key)
    with pytest.raises(LadmError, match=r"has a number in j\.b$"):
        read_numbers(opened, "j.b")
    with pytest.raises(UsageError, match=r"^input_ids of .*odd holds no numbers, but list<"):
        read_numbers(opened, "input_ids")


def test_what_the_rows_do_not_have_is_an_error_of_usage(
    ladm: Command, scored: tuple[str, Path], tmp_path: Path, save_rows: Any, golden: Any
) -> None:
    rows, run = scored
    numbers = "meta.edu, index, quality, language-score, good, length"
    other_rows = save_rows(topical_rows(golden, LENGTHS[::-1]), "reversed")
    faults = [
        (("--by", "quality"), 2, f"{run} has no column quality, and its rows do: rows.quality"),
        (("--within", "edu:3-"), 2, f"{run} has no column edu, and its rows do: rows.meta.edu"),
        (("--by", "rows.qualty"), 2, f"{rows} has no column qualty; did you mean quality?"),
        (("--by", "rows.language-score"), 2,
         f'{rows} has no column language; in an expression, the column language-score is rows["language-score"]'),
        (("--within", ".a:1-"), 2, f"{run} has no column .a; it has score"),
        (("--within", "rows.:1-"), 2, f"{rows} has no column ; it has numbers in {numbers}"),
        (("--by", "rows.zzz"), 2, f"{rows} has no column zzz; it has numbers in {numbers}"),
        (("--by", "rows.meta"), 2, f"meta of {rows} holds objects; give a key inside, such as meta.NAME"),
        (("--by", "rows.meta.edx"), 1, f"no row of {rows} has a number in meta.edx"),
        (("--by", "rows.quality", "--rows", other_rows), 2,
         f"{other_rows} has no column quality; it has numbers in index"),
        (("--by", "rows.index", "--rows", other_rows), 1,
         f"{other_rows} are not the rows that {run} scored: their content differs"),
        (("--by", "rows.index", "--rows", tmp_path / "nowhere"), 1,
         f"no such data set: {tmp_path}/nowhere is neither a folder nor a Hub id such as org/name"),
    ]  # fmt: skip
    for flags, code, message in faults:
        for command in (("select", run, "--top", "50%", "--dry-run"), ("top", run)):
            if "--within" in flags and command[0] == "top":
                continue
            result = ladm(*command, *flags)
            assert result.exit_code == code, (flags, result.output)
            assert result.stderr.startswith(f"ladm: {message}"), (command, flags, result.stderr)


def test_the_manifest_says_which_numbers_were_used(
    score_once: Any, ladm: Command, golden: Any, save_rows: Any, tmp_path: Path
) -> None:
    rows = save_rows(corpus(golden))
    score_once(rows, output=tmp_path / "run")
    command = (
        "select",
        tmp_path / "run",
        "--documents",
        "3",
        "--within",
        "rows.quality:0.05-",
        "-o",
        tmp_path / "subset",
    )
    assert ladm(*command).exit_code == 0
    first = json.loads((tmp_path / "subset" / "manifest.json").read_text())
    assert ladm(*command).exit_code == 0
    # The annotator changes a value: the ids are the same, and the choice is too.
    shutil.rmtree(rows)
    save_rows(corpus(golden, [*QUALITY[:-1], 0.51]))
    again = ladm(*command)
    assert (again.exit_code, "it was made from other data" in again.stderr) == (1, True)
    assert ladm(*command[:-1], tmp_path / "second").exit_code == 0
    second = json.loads((tmp_path / "second" / "manifest.json").read_text())
    assert first["chosen"] == second["chosen"]
    assert list(first["joined_columns"]) == ["rows.quality"]
    assert first["joined_columns"] != second["joined_columns"]
    assert "joined_runs" not in first
    assert ladm("report", tmp_path / "run", "--subset", tmp_path / "second").exit_code == 0


# Columns of another run


def test_two_runs_in_one_expression(ladm: Command, scored: tuple[str, Path], other: Path) -> None:
    own, beside = by_position(scored[1], "score"), by_position(other, "robust")
    assert sorted(own, key=lambda k: own[k]) != sorted(beside, key=lambda k: beside[k])
    difference = {k: beside[k] - own[k] for k in own}
    best = sorted(sorted(difference, key=lambda k: -difference[k])[:3])
    flags = ("--documents", "3", "--domain-key", "none", "--by", "second.robust - score", "--join", f"second={other}")
    found = selected(ladm, scored[1], *flags)
    assert found["positions"] == best
    assert found["joined_runs"]["second"]["settings"]["span_tokens"] == 8
    assert found["joined_runs"]["second"]["data"] == found["run"]["data"]
    assert list(found["joined_columns"]) == ["second.robust"]
    assert f"--join second={other}" in found["command"]
    # A column of the other run alone, and a guard on it.
    best = sorted(sorted(beside, key=lambda k: -beside[k])[:3])
    assert selected(ladm, scored[1], *flags[:4], "--by", "b.robust", "--join", f"b={other}")["positions"] == best
    limit = sorted(beside.values())[4]
    found = selected(ladm, scored[1], "--top", "100%", "--within", f"b.robust:{limit!r}-", "--join", f"b={other}")
    assert len(found["positions"]) == len(beside) - 4


def test_a_row_that_the_other_run_could_not_score_has_no_value(
    ladm: Command, scored: tuple[str, Path], tmp_path: Path
) -> None:
    # With longer spans a row of 400 tokens is too short.
    longer = ladm("score", scored[0], *SMALL[:-1], "28", "--output", tmp_path / "other")
    assert longer.exit_code == 0, longer.output
    lost = set(by_position(scored[1], "score")) - set(by_position(tmp_path / "other", "score"))
    assert lost
    found = selected(ladm, scored[1], "--top", "100%", "--by", "o.score", "--join", f"o={tmp_path / 'other'}")
    assert found["without_value"] == len(lost)
    assert not lost & set(found["positions"])


def test_a_run_of_other_rows_is_refused(
    score_once: Any, ladm: Command, scored: tuple[str, Path], tmp_path: Path, save_rows: Any, golden: Any
) -> None:
    rows, run = scored
    turned = save_rows(corpus(golden)[::-1], "turned")
    # The same ids in another order, the first rows alone, and a run that is not finished.
    score_once(turned, output=tmp_path / "turned-run")
    score_once(rows, "--limit", "5", output=tmp_path / "part")
    shutil.copytree(run, tmp_path / "half")
    (tmp_path / "half" / "scores.parquet").unlink()
    t = tmp_path
    faults = [
        ("turned-run", 1, f"{t}/turned-run scored other rows than {run}; only runs of the same rows can be joined"),
        ("part", 1, f"{t}/part scored 5 rows, and {run} 8; only runs of the same rows can be joined"),
        ("half", 3, f"{t}/half is not finished: scores.parquet missing; run the same ladm score command again"),
        ("none", 1, f"no such run: {t}/none does not exist"),
    ]
    for name, code, message in faults:
        for command in (("select", run, "--top", "50%", "--dry-run"), ("top", run)):
            result = ladm(*command, "--by", "o.score", "--join", f"o={t / name}")
            assert result.exit_code == code, result.output
            assert result.stderr.endswith(f"{message}\n"), result.stderr
    score_once(rows, output=t / "again")
    unknown = ladm("top", run, "--by", "o.gain", "--join", f"o={t / 'again'}")
    assert (unknown.exit_code, unknown.stderr.startswith(f"ladm: {t}/again has no column gain")) == (2, True)


# Other commands, several runs, Python


def test_top_and_compare_take_them(ladm: Command, scored: tuple[str, Path], other: Path) -> None:
    first = ladm("top", scored[1], "-n", "2", "--by", "rows.quality", "--json")
    assert [row["position"] for row in json.loads(first.stdout)["documents"]] == [6, 1]
    columns = "score,rows.quality,rank(o.score)+rows.meta.edu"
    found = ladm("compare", scored[1], "--columns", columns, "--join", f"o={other}", "--json")
    assert found.exit_code == 0, found.output
    names = [(column["name"], column["documents"]) for column in json.loads(found.stdout)["columns"]]
    assert names == [("score", 7), ("rows.quality", 6), ("rank(o.score)+rows.meta.edu", 7)]
    both = ladm("compare", scored[1], other, "--columns", "rows.quality,score", "--json")
    assert json.loads(both.stdout)["columns"][2]["name"] == "other: rows.quality"
    unused = ladm("compare", scored[1], "--join", f"o={other}")
    assert (unused.exit_code, "has no effect without a column of it" in unused.stderr) == (2, True)


def test_several_runs_rank_by_a_column_of_their_rows(
    ladm: Command, score_once: Any, scored: tuple[str, Path], save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    quality = [0.75, 0.0, None, 0.0, 0.95, 0.0, 0.0, 0.0]
    more = save_rows([row | {"input_ids": row["input_ids"][:-1]} for row in corpus(golden, quality)], "more")
    score_once(more, output=tmp_path / "run2")
    command = (
        "select",
        scored[1],
        tmp_path / "run2",
        "--documents",
        "3",
        "--domain-key",
        "none",
        "--by",
        "rows.quality",
    )
    assert ladm(*command, "-o", tmp_path / "both").exit_code == 0
    manifest = json.loads((tmp_path / "both" / "manifest.json").read_text())
    assert [part["positions"] for part in manifest["chosen"]] == [[6], [0, 4]]
    assert manifest["without_value"] == 2
    assert len(set(manifest["joined_columns"]["rows.quality"])) == 2
    # Rows that do not have it at all would be left out in silence.
    bare = save_rows(topical_rows(golden, [500, 600]), "bare")
    score_once(bare, output=tmp_path / "run3")
    refused = ladm("select", scored[1], tmp_path / "run3", *command[3:], "--dry-run")
    assert (refused.exit_code, refused.stderr) == (2, f"ladm: {bare} has no column quality; it has numbers in index\n")


def test_from_python(scored: tuple[str, Path], other: Path, tmp_path: Path) -> None:
    rows, run = scored[0], front.open_run(scored[1])
    table = run.scores(["position", "score", "rows.quality", "o.score"], join={"o": other})
    assert table["score"].to_pylist() == sorted(table["score"].to_pylist(), reverse=True)
    beside = by_position(other, "score")
    for row in table.to_pylist():
        quality = QUALITY[row["position"]]
        assert row["rows.quality"] == quality or (quality is None and math.isnan(row["rows.quality"]))
        assert row["o.score"] == beside[row["position"]]
    assert run.columns(rows=rows, join={"o": other}) == [
        *run.columns(), "rows.meta.edu", "rows.index", "rows.quality", "rows.language-score", "rows.good",
        "rows.length", *(f"o.{name}" for name in read_names(other)),
    ]  # fmt: skip
    by = "rank(rows.quality) + rank(o.score)"
    subset = front.select(run, rows=rows, documents=3, by=by, join={"o": front.open_run(other)}, output=tmp_path / "s")
    assert subset.manifest.taken_documents == 3
    assert list(subset.manifest.joined_runs) == ["o"]
    with pytest.raises(UsageError, match=r"^x\.score: nothing is joined as x$"):
        run.scores(["x.score"])


def test_texts_of_the_rows_from_python(scored: tuple[str, Path]) -> None:
    run = front.open_run(scored[1])
    names = ["position", "rows.date", "rows.stars", "rows.meta.pile_set_name", "rows.tags.toxic"]
    table = run.scores(names)
    assert table.column_names == names
    for row in table.to_pylist():
        k = row["position"]
        assert row["rows.date"] == f"2024-01-0{k + 1}"
        # Half of the stars are numbers, and so all are read as such.
        assert row["rows.stars"] == 5 if k < 4 else math.isnan(row["rows.stars"])
        assert row["rows.meta.pile_set_name"] == f"domain {k % 2}"
        assert json.loads(row["rows.tags.toxic"]) == {"p": k / 8}
    with pytest.raises(LadmError, match=rf"^no row of {scored[0]} has a value in meta\.nothing$"):
        run.scores(["rows.meta.nothing"])


def read_names(run: Path) -> list[str]:
    from ladm.runs.columns.by_name import column_names

    return column_names(Run.read(run))


# The page


def test_the_page_shows_columns_of_rows_and_other_runs(
    ladm: Command, scored: tuple[str, Path], other: Path, tmp_path: Path
) -> None:
    run = scored[1]
    columns = 'rows["language-score"],rank(rows.quality)+rank(score),other.score'
    assert ladm("report", run, "--columns", columns, "--join", f"other={other}").exit_code == 0
    data = data_of(run / "report.html")
    shown = {column["name"]: k for k, column in enumerate(data["columns"])}
    assert list(shown)[-3:] == columns.split(",")
    expected = by_position(other, "score")
    positions = pq.read_table(run / "scores.parquet")["position"].to_pylist()
    for position, document in zip(positions, data["documents"], strict=True):
        values = document[7]
        assert values[shown['rows["language-score"]']] == pytest.approx(position / 10)
        assert values[shown["other.score"]] == pytest.approx(expected[position], rel=1e-5)
    # The command that the page makes for a column selects by it.
    for name in columns.split(","):
        by = shlex.split(data["columns"][shown[name]]["by"])
        command = [
            "select",
            *shlex.split(data["run"]),
            "--by",
            *by,
            "--top",
            "50%",
            "-o",
            tmp_path / f"by-{shown[name]}",
        ]
        made = ladm(*command)
        assert made.exit_code == 0, made.output
    written = re.search(r"ladm report [^<]*--columns[^<]*", (run / "report.html").read_text())
    assert written is not None
    assert ladm(*shlex.split(html.unescape(written[0]))[1:]).exit_code == 0


def test_the_page_of_a_subset_shows_what_it_was_ranked_by_and_guarded_with(
    ladm: Command, scored: tuple[str, Path], tmp_path: Path
) -> None:
    folder, run = scored
    flags = ("--by", "rank(rows.quality)", "--within", "rows.language-score:-0.55", "--top", "60%")
    assert ladm("select", run, *flags, "-o", tmp_path / "subset").exit_code == 0
    report = ("report", run, "--subset", tmp_path / "subset")
    assert ladm(*report).exit_code == 0
    data = data_of(run / "report.html")
    names = [column["name"] for column in data["columns"]]
    assert names[-2:] == ["rank(rows.quality)", 'rows["language-score"]']
    assert data["subset"]["by"] == "rank(rows.quality)"
    # Without its rows the page is made all the same, and says what it lacks.
    Path(folder).rename(tmp_path / "elsewhere")
    moved = ladm(*report)
    lacking = [line for line in moved.stderr.splitlines() if line.startswith("note      the page does not show ")]
    assert (moved.exit_code, len(lacking)) == (0, 2)
    assert "rank(rows.quality), which the subset used: " in lacking[0]
    assert ladm(*report, "--rows", tmp_path / "elsewhere").exit_code == 0
    assert [column["name"] for column in data_of(run / "report.html")["columns"]] == names


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("rows.qualty", "{rows} has no column qualty; did you mean quality?"),
        ("other.score", "other.score: there is no other; a column of the rows is rows.NAME, such as rows.other.score, "
                        "and one of another run or a file NAME.COLUMN, with --join NAME=RUN2 or --join NAME=FILE"),
        ("medain", "{run} has no column medain; did you mean median?"),
        (",".join(f"score+{k}" for k in range(17)), "--columns has 17 columns; at most 16 can be shown"),
    ],
)  # fmt: skip
def test_columns_that_a_page_cannot_show(ladm: Command, scored: tuple[str, Path], columns: str, message: str) -> None:
    rows, run = scored
    result = ladm("report", run, "--columns", columns)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "ladm: " + message.format(rows=rows, run=run)
