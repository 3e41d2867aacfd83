"""`--max-per rows.COLUMN:N`: at most N rows that share a value of a column of the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from datasets import load_from_disk

import ladm as front
from ladm.corpus.rows.reading import open_rows
from ladm.corpus.rows.value_keys import NO_VALUE, read_value_keys
from ladm.selection.limits import within_caps
from ladm.selection.manifest_file import read_manifest
from support.documents import write_corpus
from support.files import read_object
from support.models import SMALL
from support.rows import topical_rows

Command = Callable[..., Result]
LENGTHS = [512, 400, 450, 480, 700, 490, 512, 430]
HOSTS = ["a", "a", "b", "a", "a", "b", None, ""]


@pytest.fixture
def run(score_rows: Any, golden: Any) -> Path:
    """Even rows are of domain 0, odd ones of domain 1."""
    return score_rows(rows_with_hosts(golden))[1]


def rows_with_hosts(golden: Any, hosts: Sequence[Any] = HOSTS) -> list[dict[str, Any]]:
    rows = topical_rows(golden, LENGTHS)
    return [row | {"host": host, "part": k} for k, (row, host) in enumerate(zip(rows, hosts, strict=True))]


def taken(folder: Path) -> list[int]:
    return [position for run in read_object(folder / "manifest.json")["chosen"] for position in run["positions"]]


def best_first(run: Path) -> list[int]:
    return [document.position for document in front.open_run(run).top(100)]


def test_the_best_of_each_value_are_taken_over_all_domains(ladm: Command, run: Path, tmp_path: Path) -> None:
    ranked = best_first(run)
    result = ladm("select", run, "--top", "100%", "--max-per", "rows.host:1", "-o", tmp_path / "s")
    assert result.exit_code == 0, result.output
    line = "left out by --max-per rows.host:1: 4, of values with more rows than that; 2 without a value are not limited"
    assert line in result.stdout.splitlines()
    best = {host: next(k for k in ranked if HOSTS[k] == host) for host in "ab"}
    # A row without a value, or with an empty text, is not limited.
    assert taken(tmp_path / "s") == sorted([*best.values(), 6, 7])
    manifest = read_manifest(tmp_path / "s")
    assert [vars(cap) for cap in manifest.max_per] == [
        {"column": "rows.host", "most": 1, "left_out": 4, "without_value": 2}
    ]
    assert (manifest.pool_documents, manifest.is_cut) == (4, False)
    assert list(manifest.joined_columns) == ["rows.host"]
    assert "max_per:\n- rows.host:1\n" in (tmp_path / "s" / "README.md").read_text()
    # The same command finds its own subset, and the page shows it.
    again = ladm("select", run, "--top", "100%", "--max-per", "rows.host:1", "-o", tmp_path / "s")
    assert again.exit_code == 0, again.output
    assert ladm("report", run, "--subset", tmp_path / "s", "-o", tmp_path / "page.html").exit_code == 0
    assert "at most 1 row of one rows.host" in (tmp_path / "page.html").read_text()
    without = ladm("select", run, "--top", "100%", "-o", tmp_path / "all")
    assert (without.exit_code, "max_per" in read_object(tmp_path / "all" / "manifest.json")) == (0, False)


def test_several_caps_and_the_rows_of_a_document(score_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = rows_with_hosts(golden, list("aaaaaabb"))
    documents = [0, 0, 0, 1, 1, 2, 3, 3]
    for row, document in zip(rows, documents, strict=True):
        row |= {"document": document, "meta": row["meta"] | {"year": 2000 + document // 2}}
    run = score_rows(rows)[1]
    ranked = best_first(run)

    def best(rows: Sequence[int], keys: Sequence[Any], most: int) -> list[int]:
        counts: Counter[Any] = Counter()
        kept = []
        for k in rows:
            counts[keys[k]] += 1
            kept += [k] if counts[keys[k]] <= most else []
        return kept

    # First one row of each document, so that a host's three rows are of three documents.
    expected = best(ranked, documents, 1)
    caps = ["rows.host:2", "rows.meta.year:1"]
    for cap, keys in zip(caps, ("aaaaaabb", [2000 + document // 2 for document in documents]), strict=True):
        expected = best(expected, keys, int(cap[-1]))
    call: dict[str, Any] = {"top": "100%", "max_per_document": 1, "domain_key": "none"}
    subset = front.select(run, max_per=caps, output=tmp_path / "s", **call)
    assert taken(tmp_path / "s") == sorted(expected)
    assert [(cap.column, cap.left_out) for cap in subset.manifest.max_per] == [("rows.host", 1), ("rows.meta.year", 1)]
    assert subset.manifest.beyond_max_per_document == 4
    with pytest.raises(front.LadmError) as caught:
        front.select(run, documents=4, max_per=caps, output=tmp_path / "t", **(call | {"top": None}))
    assert str(caught.value).endswith(
        "; --max-per-document 1 leaves 4 rows out; --max-per rows.host:2 leaves 1 row out; --max-per rows.meta.year:1 "
        "leaves 1 row out"
    )


def test_a_domain_of_weight_0_takes_no_place(run: Path, tmp_path: Path) -> None:
    quota = {"domain 1": 0, "*": 1}
    subset = front.select(run, documents=2, quota=quota, max_per="rows.host:1", output=tmp_path / "s")
    (even,) = subset.manifest.domains.values()
    # Rows 0 and 4 of host a, row 2 of host b and row 6, whatever the rank of the other domain's rows.
    assert (even.pool_documents, subset.manifest.max_per[0].left_out) == (3, 1)
    assert subset.manifest.domains_left_out == ["domain 1"]
    # Row 7 has no value either, and is of the other domain.
    assert subset.manifest.max_per[0].without_value == 1


def test_rows_of_a_domain_of_weight_0_are_not_counted_as_left_out(score_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = rows_with_hosts(golden)
    for k, row in enumerate(rows):
        # Documents of four rows of one domain each; of those of domain 1, the last two windows repeat each other.
        row |= {"document": k % 2, "start_token": 1000 * k if k < 7 else 5010, "chunked_index": k, "source": "x"}
    run = score_rows(rows)[1]
    subset = front.select(run, documents=1, quota={"domain 1": 0, "*": 1}, max_per_document=1, output=tmp_path / "s")
    assert (subset.manifest.beyond_max_per_document, subset.manifest.repeating_windows) == (3, 0)
    both = front.select(run, documents=1, max_per_document=1, output=tmp_path / "both")
    assert (both.manifest.beyond_max_per_document, both.manifest.repeating_windows) == (5, 1)


def test_the_same_value_in_two_runs(ladm: Command, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = rows_with_hosts(golden, ["a", "b", "a", "b", "c", "c", "d", "d"])
    words: list[Any] = []
    for name, part in (("first", rows[:4]), ("second", rows[4:])):
        for row in part:
            row["host"] = "a" if name == "second" and row["host"] == "c" else row["host"]
        folder = save_rows(part, name)
        assert ladm("score", folder, *SMALL, "-o", tmp_path / f"run-{name}").exit_code == 0
        words.append(tmp_path / f"run-{name}")
    result = ladm("select", *words, "--top", "100%", "--max-per", "rows.host:1", "-o", tmp_path / "s")
    assert result.exit_code == 0, result.output
    subset = load_from_disk(str(tmp_path / "s"))["train"]
    assert sorted(subset["host"]) == ["a", "b", "d"]


def test_bad_input_gets_one_line(run: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    for given, message in (
        (
            "rows.host",
            "--max-per 'rows.host' is not rows.COLUMN:N, such as rows.repo:3 or host(rows.url):3; N is at least 1",
        ),
        (
            "rows.host:0",
            "--max-per 'rows.host:0' is not rows.COLUMN:N, such as rows.repo:3 or host(rows.url):3; N is at least 1",
        ),
        (
            "rows.host:1.5",
            "--max-per 'rows.host:1.5' is not rows.COLUMN:N, such as rows.repo:3 or host(rows.url):3; N is at least 1",
        ),
        (
            "meta.host:2",
            "--max-per meta.host:2: meta.host is no column of the rows, whose names begin with rows., as in "
            "rows.meta.host:2",
        ),
        (
            "rows.:3",
            "--max-per rows.:3: rows. is no column of the rows, whose names begin with rows., as in rows.repo:3",
        ),
        (
            "host:3",
            "--max-per host:3: host is no column of the rows, whose names begin with rows., as in host(rows.url):3",
        ),
        (["rows.host:3", "rows.host:2"], "--max-per gives rows.host twice; give one number for each column"),
        ("rows.hots:3", f"{rows} has no column hots; did you mean host?"),
        ("rows.meta:3", f"meta of {rows} holds objects; give a key inside, such as meta.NAME"),
        ("rows.input_ids:3", f"input_ids of {rows} holds no texts, numbers, dates or booleans, but "),
        ("rows.meta.url:3", f"no row of {rows} has a value in meta.url"),
    ):
        with pytest.raises(front.LadmError) as caught:
            front.select(run, top="50%", max_per=given, output=tmp_path / "s")
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)


def test_values_of_every_kind(save_rows: Any) -> None:
    import datetime

    day = datetime.datetime(2024, 1, 2)
    columns: dict[str, list[Any]] = {
        "text": ["a", "b", "a", "", None, "ü"],
        "whole": [7, 8, 7, None, 0, 0],
        "float": [0.5, float("nan"), 0.5, None, 2.0, 3.0],
        "time": [day, day, None, None, day.replace(year=2023), None],
        "json": ['{"host": "a"}', '{"host": 7}', '{"host": "a"}', "{}", "no", '{"host": null}'],
        "true": [True, False, True, None, None, False],
    }
    rows = [{"input_ids": [1, 2, 3], **{name: values[k] for name, values in columns.items()}} for k in range(6)]
    data = open_rows(save_rows(rows))

    def pattern(key: str) -> list[int]:
        keys = read_value_keys(data, key)[0].tolist()
        return [-1 if each == NO_VALUE else keys.index(each) for each in keys]

    assert pattern("text") == [0, 1, 0, -1, -1, 5]
    assert pattern("whole") == [0, 1, 0, -1, 4, 4]
    assert pattern("float") == [0, -1, 0, -1, 4, 5]
    assert pattern("time") == [0, 0, -1, -1, 4, -1]
    assert pattern("json.host") == [0, 1, 0, -1, -1, -1]
    assert pattern("true") == [0, 1, 0, -1, -1, 1]
    # A number has the key of the text that spells it, as one data set may store either.
    assert read_value_keys(data, "whole")[0][0] == read_value_keys(data, "json.host")[0][1]


def test_numbers_that_are_stored_as_others_in_another_data_set(save_rows: Any) -> None:
    from decimal import Decimal

    columns: dict[str, list[Any]] = {
        "whole": [7, 8, None],
        "float": [7.0, float("inf"), None],
        "decimal": [Decimal("7.00"), Decimal("0.50"), None],
        "json": ['{"site": 7.0}', '{"site": Infinity}', '{"site": NaN}'],
    }
    rows = [{"input_ids": [1, 2, 3], **{name: values[k] for name, values in columns.items()}} for k in range(3)]
    data = open_rows(save_rows(rows))
    keys = {key: read_value_keys(data, key)[0].tolist() for key in ("whole", "float", "decimal", "json.site")}
    assert len({each[0] for each in keys.values()}) == 1
    assert keys["float"][1] == keys["json.site"][1]
    assert [each[2] for each in keys.values()] == [NO_VALUE] * 4


def test_within_caps() -> None:
    keys = np.array([7, 7, 3, 7, 3, 7])
    free = np.array([False, False, False, True, False, False])
    assert within_caps(keys, 2, is_free=free).tolist() == [True, True, True, True, True, False]
    assert within_caps(keys[:0], 2, is_free=free[:0]).tolist() == []


def test_a_job_with_a_cap(talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path)
    monkeypatch.chdir(tmp_path)
    call: dict[str, Any] = {"model": talking, "output": "job", "length": 512, "span_tokens": 16}
    for more, message in (
        ({"tokens": "2k", "max_per": "rows.host:3"}, "job/rows has no column host"),
        ({"tokens": "2k", "max_per": "rows.domain:1"}, r"^the rows \(--max-per rows.domain:1\) have 1,024 tokens, "),
        (
            {"documents": 3, "max_per": "rows.domain:1"},
            r"^there are 2 rows \(--max-per rows.domain:1\), fewer than --d",
        ),
    ):
        with pytest.raises(front.LadmError, match=message):
            front.run("corpus/*.jsonl.gz", **call, **more)
    assert not Path("job/scores").exists(), "scored before the column was looked for"
    job = front.run("corpus/*.jsonl.gz", **call, documents=2, max_per="rows.domain:1")
    assert [domain.pool_documents for domain in job.subset.manifest.domains.values()] == [1, 1]
    assert "max_per:\n- rows.domain:1\n" in (job.folder / "job.yaml").read_text()
    assert front.run("corpus/*.jsonl.gz", **call, documents=2, max_per="rows.domain:1") == job
