"""Guards of texts, dates, true and false, such as `--within rows.lang:en,de`: as they are read, applied and shown."""

from __future__ import annotations

import datetime
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

import ladm as front
from ladm.corpus.rows.reading import open_rows
from ladm.corpus.rows.values import match_rows, require_occurring
from ladm.errors import LadmError, UsageError
from ladm.runs.folder import Run
from ladm.selection.manifest_file import read_manifest
from ladm.selection.ranking_warnings import unguarded_warning
from ladm.settings.guards import parse_guard
from ladm.settings.selection import SelectSettings
from ladm.settings.value_guards import ValueGuard, ValueRange, spell_value
from support.jobs import job_words, write_finepdfs
from support.models import SMALL
from support.pages import data_of
from support.rows import topical_rows
from support.subsets import LENGTHS, selected

Command = Callable[..., Result]
LANGUAGES = ["en", "de", "en", "en", "fr", None, "de", "en-GB"]
CLEAN = [True, False, True, True, None, False, True, True]
"""Of rows 0 to 7, of which row 3 is too short for a score."""
DATES = [f"2024-0{k + 1}-15" for k in range(8)]


def corpus(golden: Any) -> list[dict[str, Any]]:
    rows = topical_rows(golden, LENGTHS)
    for k, row in enumerate(rows):
        row["meta"] = row["meta"] | {"licence": "mit" if k % 2 else "cc-by, 4.0"}
        row |= {
            "lang": LANGUAGES[k], "is_clean": CLEAN[k], "date": f"{DATES[k]}T23:30:00Z", "season": f"{2000 + k}-2001",
            "day": datetime.date.fromisoformat(DATES[k]), "stars": k, "tags": json.dumps({"kind": f"k{k % 3}", "n": k}),
            "dc:type": "book" if k < 4 else "a:b",
        }  # fmt: skip
    return rows


@pytest.fixture
def scored(score_rows: Any, golden: Any) -> tuple[str, Path]:
    return score_rows(corpus(golden))


# What is read


@pytest.mark.parametrize(
    ("text", "column", "values"),
    [
        ("rows.lang:en", "rows.lang", ("en",)),
        ("rows.lang: en , de", "rows.lang", ("en", "de")),
        ("rows.lang:en-US", "rows.lang", ("en-US",)),
        ("rows.date:2024-01-01..2024-12-31", "rows.date", (ValueRange(low="2024-01-01", high="2024-12-31"),)),
        ("rows.date:2024-01-01..", "rows.date", (ValueRange(low="2024-01-01"),)),
        ("rows.date:..2024-12-31,x", "rows.date", (ValueRange(high="2024-12-31"), "x")),
        ("rows.time:2024-01-01T10:30..", "rows.time", (ValueRange(low="2024-01-01T10:30"),)),
        ("rows.url:https://a.b/c", "rows.url", ("https://a.b/c",)),
        ('rows.t:"a, b..c:d","!x" , "\\u00e9"', "rows.t", ("a, b..c:d", "!x", "é")),
        ('rows.dc:type:"book"', "rows.dc:type", ("book",)),
        ('rows.t:"profile","1-2",""', "rows.t", ("profile", "1-2", "")),
        ('rows.t:"a:",":"', "rows.t", ("a:", ":")),
    ],
)
def test_values_that_are_read(text: str, column: str, values: tuple[Any, ...]) -> None:
    assert parse_guard(text) == ValueGuard(text=text, column=column, values=values)
    left_out = text.replace(f"{column}:", f"{column}:!", 1)
    assert parse_guard(left_out) == ValueGuard(text=left_out, column=column, values=values, leaves_out=True)


@given(*[st.text(alphabet='ab01,.!":- %e\n\\é\u202e', max_size=7)] * 2)
def test_a_value_is_read_as_it_is_spelled(value: str, other: str) -> None:
    assert parse_guard(f"rows.c:{spell_value(value)}").values == (value,)  # type: ignore[union-attr]
    both = ValueRange(low=value, high=other)
    guard = parse_guard(f"rows.c:!{both},{spell_value(other)}")
    assert guard == ValueGuard(text=guard.text, column="rows.c", values=(both, other), leaves_out=True)
    assert spell_value(value).isprintable()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows.x:", "a value is missing; an empty text is \"\""),
        ("rows.x:!", "a value is missing; an empty text is \"\""),
        ("rows.x:en,,de", "a value is missing; an empty text is \"\""),
        ("rows.x:..", "a range needs one end at least, such as 2024-01-01.. or ..2024-12-31"),
        ("rows.x:a..b..c", "a comma is missing before '..c'"),
        ('rows.x:"a"b', "a comma is missing before 'b'"),
        ('rows.x:"a', '"a does not begin with a quoted JSON string'),
        (r'rows.x:"\ud83d"', "a value has half of a surrogate pair"),
        ("rows.x:-", "'-' is not LOW-HIGH, such as 0.2-0.5, 20%-80%, -0.5 or 0.2-; a text is given in quotes: "
                     'rows.x:"-"'),
        ("rows.x:2024-01", '2024 is above 01; a text is given in quotes: rows.x:"2024-01", all of a month as '
                           'rows.x:2024-01..2024-01'),
        ("rows.x:2024-13", '2024 is above 13; a text is given in quotes: rows.x:"2024-13"'),
        ("lang:en,de", "'en,de' is not LOW-HIGH, such as 0.2-0.5, 20%-80%, -0.5 or 0.2-; texts and dates are those of "
                       "a column of the rows: rows.lang:en,de"),
        ("day:2024-01-01..", "'2024-01-01..' is not LOW-HIGH, such as 0.2-0.5, 20%-80%, -0.5 or 0.2-; texts and dates "
                             "are those of a column of the rows: rows.day:2024-01-01.."),
        ("domain:Law", "'Law' is not LOW-HIGH, such as 0.2-0.5, 20%-80%, -0.5 or 0.2-; --exclude-domain leaves a "
                       "domain out, and to take some alone, name the column of the rows that has them, such as "
                       "rows.domain:Law"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_guard(text)
    assert str(error.value) == f"--within {text!r}: {message}"


# Which documents are selected


# Guard, the rows that are kept, and how many have no value.
KEPT = [
    ("rows.lang:en", [0, 2], 1),
    ("rows.lang:en,de", [0, 1, 2, 6], 1),
    ("rows.lang:!en,fr", [1, 6, 7], 1),
    ("rows.lang:de..en", [0, 1, 2, 6, 7], 1),
    ("rows.is_clean:true", [0, 2, 6, 7], 1),
    ("rows.is_clean:!True", [1, 5], 1),
    ("rows.is_clean:0-0.5", [1, 5], 1),
    ("rows.date:2024-02..2024-05-15", [1, 2, 4], 0),
    ("rows.date:..2024-02-15", [0, 1], 0),
    ("rows.date:2024-08-15T23:30:00Z", [7], 0),
    ("rows.day:2024-02..2024-05-15", [1, 2, 4], 0),
    ("rows.day:!2024-02-15..", [0], 0),
    ("rows.day:2024-08-15,..2024-01", [0, 7], 0),
    ("rows.day:2024", [0, 1, 2, 4, 5, 6, 7], 0),
    ("rows.meta.licence:mit", [1, 5, 7], 0),
    ('rows.meta.licence:"cc-by, 4.0"', [0, 2, 4, 6], 0),
    ("rows.meta.pile_set_name:domain 1", [1, 5, 7], 0),
    ("rows.tags.kind:k0,k2", [0, 2, 5, 6], 0),
    ('rows.dc:type:"a:b"', [4, 5, 6, 7], 0),
    ('rows.season:"2002-2001"', [2], 0),
]


def test_documents_outside_of_the_values_are_not_selected(ladm: Command, scored: tuple[str, Path]) -> None:
    for guard, positions, without in KEPT:
        found = selected(ladm, scored[1], "--top", "100%", "--within", guard)
        assert (guard, found["positions"]) == (guard, positions)
        (entry,) = found["guards"]
        assert (entry["given"], entry["without_value"]) == (guard, without)
        assert sum(entry["dropped"].values()) == 7 - len(positions) - without
        assert list(found["joined_columns"]) == [entry["column"]]


def test_guards_of_values_are_recorded_and_shown(ladm: Command, scored: tuple[str, Path]) -> None:
    flags = ("--within", "rows.lang:!fr, en-GB", "--within", "length:-500", "--within", "rows.day:2024-02..,2024-01-15")
    found = selected(ladm, scored[1], "--top", "100%", *flags)
    assert found["positions"] == [1, 2]
    assert found["guards"] == [
        {"given": "rows.lang:!fr, en-GB", "column": "rows.lang", "low": None, "high": None,
         "dropped": {"domain 0": 1, "domain 1": 1}, "without_value": 1, "left_out": ["fr", "en-GB"]},
        {"given": "length:-500", "column": "length", "low": None, "high": 500.0, "dropped": {"domain 0": 2},
         "without_value": 0},
        {"given": "rows.day:2024-02..,2024-01-15", "column": "rows.day", "low": None, "high": None, "dropped": {},
         "without_value": 0, "kept": [["2024-02", None], "2024-01-15"]},
    ]  # fmt: skip
    assert found["table"][5:9] == [
        "dropped by --within rows.lang:!fr, en-GB: 2, keeping rows.lang other than fr, en-GB (domain 0 1, domain 1 1)",
        "dropped without a value of rows.lang: 1",
        "dropped by --within length:-500: 2, keeping length of at most 500 (domain 0 2)",
        "dropped by --within rows.day:2024-02..,2024-01-15: 0, keeping rows.day of 2024-02.., 2024-01-15",
    ]
    assert list(found["joined_columns"]) == ["rows.lang", "rows.day"]
    # The command and the manifest give the same subset, and are read back.
    words = shlex.split(found["command"])
    assert ladm(*words[1:]).exit_code == 0
    guards = read_manifest(scored[1].parent / "subset").guards
    assert [guard.limits_text for guard in guards][2] == "rows.day of 2024-02.., 2024-01-15"
    assert (
        front.select(
            scored[1], top="100%", within=[flags[1], flags[3], flags[5]], output=scored[1].parent / "two"
        ).manifest.guards
        == guards
    )


def test_another_value_of_the_column_is_other_data(ladm: Command, scored: tuple[str, Path]) -> None:
    command = ("select", scored[1], "--top", "100%", "-o", scored[1].parent / "subset", "--within")
    guards = ("rows.lang:!xx..zz", "rows.is_clean:true,false", "rows.day:2023..")
    for k, guard in enumerate(guards):
        assert ladm(*command[:-2], scored[1].parent / f"s{k}", "--within", guard).exit_code == 0
    from datasets import Dataset, DatasetDict, load_from_disk

    rows = load_from_disk(scored[0])["train"].to_list()
    # Each guard keeps the changed value too, so that the choice is the same.
    rows[2] |= {"lang": "it", "is_clean": False, "day": datetime.date(2024, 9, 1)}
    changed = scored[1].parent / "changed"
    DatasetDict(train=Dataset.from_list(rows)).save_to_disk(str(changed))
    Path(scored[0]).rename(scored[1].parent / "before")
    changed.rename(scored[0])
    for k, guard in enumerate(guards):
        again = ladm(*command[:-2], scored[1].parent / f"s{k}", "--within", guard)
        assert (again.exit_code, "it was made from other data" in again.stderr) == (1, True), (guard, again.output)


def test_values_of_several_runs_may_be_in_one_of_them(
    ladm: Command, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    folders = []
    for k, languages in enumerate((["en", "en", "fr"], ["fr", "de"])):
        cut = topical_rows(golden, [512, 400 + k, 450][: len(languages)])
        rows = [row | {"lang": language} for row, language in zip(cut, languages, strict=True)]
        folders.append(save_rows(rows, f"rows{k}"))
        assert ladm("score", folders[-1], *SMALL, "-o", tmp_path / f"run{k}").exit_code == 0
    command = ("select", tmp_path / "run0", tmp_path / "run1", "--top", "100%", "--domain-key", "none", "-o", tmp_path)
    assert ladm(*command[:-1], tmp_path / "both", "--within", "rows.lang:en,de").exit_code == 0
    assert ladm(*command[:-1], tmp_path / "one", "--within", "rows.lang:de").exit_code == 0
    chosen = [json.loads((tmp_path / name / "manifest.json").read_text())["chosen"] for name in ("both", "one")]
    assert [[part["positions"] for part in each] for each in chosen] == [[[0, 1], [1]], [[], [1]]]
    refused = ladm(*command[:-1], tmp_path / "none", "--within", "rows.lang:en,da")
    assert refused.stderr.splitlines()[0] == (
        f"ladm: --within rows.lang:en,da: no row of {folders[0]}, {folders[1]} has da in lang; the values are en, fr, "
        "de"
    )


def test_values_hold_behind_excluded_domains(ladm: Command, scored: tuple[str, Path]) -> None:
    flags = ("--top", "100%", "--exclude-domain", "domain 0", "--within", "rows.lang:de,en-GB")
    found = selected(ladm, scored[1], *flags)
    assert (found["positions"], found["guards"][0]["without_value"]) == ([1, 7], 1)


def test_a_domain_of_which_the_guards_drop_every_document_is_named(ladm: Command, scored: tuple[str, Path]) -> None:
    def warnings(*flags: str) -> list[str]:
        result = ladm("select", scored[1], "--documents", "2", "--dry-run", *flags)
        assert result.exit_code == 0, result.output
        return [line for line in result.stderr.splitlines() if line.startswith("warning")]

    # The documents of domain 1 alone have it.
    line = "warning   --within drops every document of domain 0; the budget goes to other domains (docs/selection.md)"
    assert warnings("--within", "rows.meta.licence:mit") == [line]
    assert warnings("--within", "rows.meta.licence:mit", "--exclude-domain", "domain 0") == []
    assert warnings("--within", "rows.lang:en,de") == []
    # The warning about weights says it there.
    (weights,) = warnings("--within", "rows.meta.licence:mit", "--quota", "{domain 0: 1, domain 1: 1}")
    assert weights.startswith("warning   the weights of --quota are not met: no document can be selected of domain 0, ")


# What is refused


def test_values_that_no_row_has_and_columns_of_another_kind(ladm: Command, scored: tuple[str, Path]) -> None:
    rows, run = scored
    names = "text, meta, input_ids, index, lang, is_clean, date, season, day, stars, tags, dc:type"
    in_quotes = "texts and dates are given as --within rows.season:A,B or rows.season:A..B, and 2001-2002 as a text in "
    faults = [
        ("rows.lang:en,eng", 2, f"no row of {rows} has eng in lang; the values are en, de, fr, en-GB; did "
                               "you mean en?"),
        ("rows.lang:!it", 2, f"no row of {rows} has it in lang; the values are en, de, fr, en-GB"),
        ("rows.day:2024-01-16", 2, f"no row of {rows} has 2024-01-16 in day; the values are 2024-01-15, 2024-02-15, "
                                   "2024-03-15, 2024-04-15, 2024-05-15, 2024-06-15, 2024-07-15, 2024-08-15; did you "
                                   "mean 2024-01-15?"),
        ("rows.day:tuesday", 2, "rows.day holds dates, and 'tuesday' is not one, such as 2024, 2024-12-31 or "
                                "2024-12-31T18:30"),
        ("rows.day:2024-02-30..", 2, "rows.day holds dates, and '2024-02-30' is not one, such as 2024, 2024-12-31 or "
                                     "2024-12-31T18:30"),
        ("rows.day:2024-02..2024-01", 2, "2024-02 is above 2024-01"),
        ("rows.date:2024-02..2024-01", 2, "2024-02 is above 2024-01"),
        *((f"rows.date:{values}", 2, f"rows.date holds dates, and '{end}' is not one, such as 2024, 2024-12-31 or "
                                     "2024-12-31T18:30")
          for values, end in (("..2024-6", "2024-6"), ("2024-1..2024-6", "2024-1"), ("01/02/2024..", "01/02/2024"),
                              ("!2024-13..", "2024-13"), ("2023,2024-02-30..", "2024-02-30"))),
        ("rows.lang:..2024-6", 1, None),
        ("rows.is_clean:yes", 2, "rows.is_clean holds true and false, not yes"),
        ("rows.is_clean:false..true", 2, "rows.is_clean holds true and false, not false..true"),
        ("rows.stars:5", 2, f"stars of {rows} holds numbers; give LOW-HIGH, such as rows.stars:5-5"),
        ("rows.stars:five", 2, f"stars of {rows} holds numbers; give LOW-HIGH, such as rows.stars:0.2-0.5"),
        ("rows.tags.n:5", 2, f"tags.n of {rows} holds numbers; give LOW-HIGH, such as rows.tags.n:5-5"),
        ("rows.lang:!de..", 1, None),
        ("rows.lang:x..z", 1, None),
    ]  # fmt: skip
    others = [
        ("rows.lagn:en", 2, f"{rows} has no column lagn; did you mean lang?"),
        ("rows.zzz:en", 2, f"{rows} has no column zzz; it has {names}"),
        ("rows.meta:en", 2, f"meta of {rows} holds objects; give a key inside, such as meta.NAME"),
        ("rows.input_ids:en", 2, f"input_ids of {rows} holds no texts, dates or booleans, but list<item: int32>"),
        ("rows.meta.zzz:en", 1, f"no row of {rows} has a value in meta.zzz"),
        ("rows.season:2001-2002", 1, f'no row of {rows} has a number in season; {in_quotes}quotes, '
                                     'rows.season:"2001-2002"'),
        ("meta.lang:en", 2, "meta.lang: there is no meta; a column of the rows is rows.NAME, such as rows.meta.lang, "
                            "and one of another run or a file NAME.COLUMN, with --join NAME=RUN2 or --join NAME=FILE"),
    ]  # fmt: skip
    for guard, code, message in faults:
        whole = f"--within {guard} leaves no document; give it other values"
        others.append((guard, code, whole if message is None else f"--within {guard}: {message}"))
    for guard, code, message in others:
        result = ladm("select", run, "--top", "50%", "--dry-run", "--within", guard)
        assert (result.exit_code, result.stderr.splitlines()[0]) == (code, f"ladm: {message}")
    # Where the numbers are ranked by, and no guard wants them, values are of no interest.
    result = ladm("select", run, "--top", "50%", "--dry-run", "--by", "rows.season", "--within", "rows.lang:en")
    assert result.stderr.splitlines()[0] == f"ladm: no row of {rows} has a number in season"
    result = ladm("select", run, "--top", "50%", "--dry-run", "--within", "o.label:en", "--join", f"o={run}")
    assert result.stderr.splitlines()[0] == (
        "ladm: --within o.label:en: the columns of a run, as o is, have numbers; give LOW-HIGH, or a column of the "
        "rows, rows.label"
    )


def test_a_column_that_guards_no_repetition_leaves_the_warning_of_robust(scored: tuple[str, Path]) -> None:
    for within, is_warned in (((), True), (("rows.lang:en",), True), (("rows.lang:en", "length:5-"), False)):
        settings = SelectSettings(runs=("run",), output="s", top=5.0, by="robust", within=within)
        assert (unguarded_warning(settings, Run.read(scored[1])) is not None) == is_warned


# Columns of other types


def kept(rows: Any, guard: str) -> list[bool | None]:
    found = match_rows(rows, parse_guard(guard)).kept_T  # type: ignore[arg-type]
    return [None if np.isnan(value) else bool(value) for value in found]


def test_times_are_compared_with_the_whole_of_a_day_a_month_or_a_minute(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    moments = ["1969-12-31T23:59:59", "2024-02-29T00:00:00", "2024-02-29T23:59:59", "2024-03-01T00:00:00"]
    naive = [datetime.datetime.fromisoformat(moment) for moment in moments]
    kinds = {
        **{unit: pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")}, "zone": pa.timestamp("us", tz="UTC"),
        "d32": pa.date32(), "d64": pa.date64(),
    }  # fmt: skip
    days = [moment.date() for moment in naive]
    columns = {name: pa.array([*(days if "d" in name else naive), None], kind) for name, kind in kinds.items()}
    ids = pa.array([[1]] * 5)
    DatasetDict(train=Dataset(pa.table({"input_ids": ids, **columns}))).save_to_disk(str(tmp_path / "rows"))
    rows = open_rows(str(tmp_path / "rows"))
    for name in kinds:
        assert kept(rows, f"rows.{name}:2024-02-29") == [False, True, True, False, None], name
        assert kept(rows, f"rows.{name}:..2024-02") == [True, True, True, False, None], name
        assert kept(rows, f"rows.{name}:!1969,2024-03") == [False, True, True, False, None], name
        assert kept(rows, f"rows.{name}:0001..9999") == [True] * 4 + [None], name
    for name in ("s", "ms", "us", "ns", "zone"):
        assert kept(rows, f"rows.{name}:2024-02-29T23:59") == [False, False, True, False, None], name
        assert kept(rows, f"rows.{name}:2024-02-29 23:59:59Z..") == [False, False, True, True, None], name
        assert kept(rows, f"rows.{name}:2024-03-01T00:59+01:00") == [False, False, True, False, None], name
        assert kept(rows, f"rows.{name}:..1969-12-31T23:59:58.9") == [False] * 4 + [None], name
        # Half a second, of which a column of whole seconds has the one before inside of one range alone.
        assert kept(rows, f"rows.{name}:..1969-12-31T23:59:59.5") == [True, False, False, False, None], name
        assert kept(rows, f"rows.{name}:2024-02-29T23:59:59.5..2024-02-29") == [False] * 4 + [None], name


def test_texts_of_times_are_compared_with_a_space_or_a_t_in_front_of_the_time(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    # As `ladm prepare` stores times, and as most corpora do.
    times = ["2024-02-02 23:00:00", "2024-02-03 08:00:00", "2024-02-03 10:00:00+00:00", "2024-02-04 01:00:00", None]
    iso = [time and time.replace(" ", "T") for time in times]
    columns = {"space": times, "iso": iso, "both": [*times[:2], *iso[2:]]}
    DatasetDict(train=Dataset(pa.table({"input_ids": [[1]] * 5, **columns}))).save_to_disk(str(tmp_path / "rows"))
    rows = open_rows(str(tmp_path / "rows"))
    for name in columns:
        for sign in " T":
            assert kept(rows, f"rows.{name}:2024-02-03{sign}09:00..") == [False, False, True, True, None], (name, sign)
            assert kept(rows, f"rows.{name}:..2024-02-03{sign}08") == [True, True, False, False, None], (name, sign)
        assert kept(rows, f"rows.{name}:2024-02-03T07..2024-02-03 11") == [False, True, True, False, None], name
        assert kept(rows, f"rows.{name}:2024-02-03..2024-02-03") == [False, True, True, False, None], name
    guard = parse_guard("rows.iso:2024-02-03")
    assert isinstance(guard, ValueGuard)
    found = match_rows(rows, guard)
    with pytest.raises(UsageError, match=r"the values are .*; for all of it give 2024-02-03\.\.2024-02-03$"):
        require_occurring(guard, [rows], [found])


def test_class_labels_large_texts_and_keys_of_json(save_rows: Any) -> None:
    from datasets import ClassLabel, Features, List, Value

    rows = [
        {"input_ids": [1], "c": 1, "t": "é", "j": '{"a": "x", "b": true, "c": 1}', "s": {"k": {"l": "en"}}},
        {"input_ids": [1], "c": 0, "t": "", "j": '{"a": 5, "b": false, "c": 2.5}', "s": {"k": None}},
        {"input_ids": [1], "c": None, "t": None, "j": "{", "s": None},
    ]
    inner = {"k": {"l": Value("string")}}
    kinds = {"c": ClassLabel(names=["one", "two"]), "t": Value("large_string"), "j": Value("string"), "s": inner}
    opened = open_rows(save_rows(rows, "odd", features=Features(kinds | {"input_ids": List(Value("int32"))})))
    assert kept(opened, "rows.c:two") == [True, False, None]
    assert kept(opened, 'rows.t:""') == [False, True, None]
    assert kept(opened, 'rows.t:"\\u00e9"..') == [True, False, None]
    assert kept(opened, "rows.j.a:x") == [True, False, None]
    assert kept(opened, "rows.j.a:5") == [False, True, None]
    assert kept(opened, "rows.j.b:true") == [True, False, None]
    assert kept(opened, "rows.s.k.l:en") == [True, None, None]
    with pytest.raises(UsageError, match=r"holds numbers; give LOW-HIGH, such as rows\.j\.c:1-1$"):
        kept(opened, "rows.j.c:1")
    with pytest.raises(LadmError, match=r"has a value in j\.z$"):
        kept(opened, "rows.j.z:1")


# Elsewhere


def test_a_job_refuses_values_that_no_row_has_before_it_scores(ladm: Command, talking: Path, tmp_path: Path) -> None:
    output = tmp_path / "job"
    words = job_words(write_finepdfs(tmp_path / "000_00000.parquet"), talking, output)
    words += ["--signals", "cds", "--by", "median", "--within"]
    for guard, code, message in (
        ("rows.language:eng", 2, f"{output}/rows has language as rows.domain, because ladm prepare made it the domain"),
        ("rows.domain:eng", 2, f"--within rows.domain:eng: no row of {output}/rows has eng in domain; the values "
                               "are eng_Latn, deu_Latn, fra_Latn"),
        ("rows.domain:1-2", 1, f"no row of {output}/rows has a number in domain; texts and dates are given as --within "
                               'rows.domain:A,B or rows.domain:A..B, and 1-2 as a text in quotes, rows.domain:"1-2"'),
        ("rows.token_count:600", 2, f"--within rows.token_count:600: token_count of {output}/rows holds numbers; give "
                                    "LOW-HIGH, such as rows.token_count:600-600"),
    ):  # fmt: skip
        refused = ladm(*words, guard)
        assert (refused.exit_code, f"ladm: {message}" in refused.stderr.splitlines()) == (code, True), refused.output
        assert not (output / "scores").exists()
    made = ladm(*words, "rows.domain:!eng_Latn")
    assert made.exit_code == 0, made.output
    manifest = json.loads((output / "subset" / "manifest.json").read_text())
    assert list(manifest["domains"]) == ["deu_Latn", "fra_Latn"]
    assert manifest["guards"][0]["left_out"] == ["eng_Latn"]
    # job.yaml has it, and says the same again.
    again = ladm("run", "--config", output / "job.yaml", "-o", tmp_path / "again")
    assert again.exit_code == 0, again.output
    found = json.loads((tmp_path / "again" / "subset" / "manifest.json").read_text())
    assert found["guards"] == manifest["guards"]


def test_the_page_has_the_guards_and_no_column_of_texts(ladm: Command, scored: tuple[str, Path]) -> None:
    run, subset = scored[1], scored[1].parent / "subset"
    flags = ("--within", 'rows.lang:!"fr"', "--within", "rows.day:2024..", "--within", "rows.stars:1-")
    assert ladm("select", run, "--top", "100%", *flags, "-o", subset).exit_code == 0
    result = ladm("report", run, "--subset", subset)
    assert (result.exit_code, "does not show" in result.stderr) == (0, False), result.output
    names = [column["name"] for column in data_of(run / "report.html")["columns"]]
    assert names[-1] == "rows.stars"
    assert not {"rows.lang", "rows.day"} & set(names)
    page = re.sub(r"<[^>]*>|\s+", " ", (run / "report.html").read_text())
    assert "rows.lang:!&#34;fr&#34; rows.lang other than fr 1 1 domain 0 1 " in re.sub(r" +", " ", page)


def test_a_damaged_list_of_values_is_no_manifest(ladm: Command, scored: tuple[str, Path]) -> None:
    selected(ladm, scored[1], "--top", "100%", "--within", "rows.lang:en..")
    path = scored[1].parent / "subset" / "manifest.json"
    text = re.sub(r',\n "crc32": "[0-9a-f]+"', "", path.read_text())
    for wrong in ("5", '["en", 5]', '[["en"]]', "[[1, null]]"):
        path.write_text(re.sub(r'"kept": \[.*?\]\s*\]', f'"kept": {wrong}', text, count=1, flags=re.DOTALL))
        with pytest.raises(LadmError, match=r"is not a manifest of ladm select: the values of a guard are "):
            read_manifest(path.parent)


@pytest.mark.parametrize(("last", "is_refused"), [("2024-06-01", True), (None, True), ("soon", False)])
def test_a_column_holds_dates_only_if_all_its_texts_are_dates(
    last: str | None, is_refused: bool, save_rows: Any, golden: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the batches are in which it is read."""
    monkeypatch.setattr("ladm.corpus.rows.reading.ROWS_AT_A_TIME", 2)
    dates = ["2024-01-15", "2024-12-15", "2024-02-01", last]
    rows = open_rows(
        save_rows([row | {"when": when} for row, when in zip(topical_rows(golden, [90] * 4), dates, strict=True)])
    )
    guard = parse_guard("rows.when:..2024-6")
    if is_refused:
        with pytest.raises(UsageError, match="rows.when holds dates, and '2024-6' is not one"):
            match_rows(rows, guard)  # type: ignore[arg-type]
    else:
        assert match_rows(rows, guard).kept_T.tolist() == [1, 1, 1, 0]  # type: ignore[arg-type]
