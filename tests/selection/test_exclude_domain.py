"""`ladm select --exclude-domain`: a domain is left out as if its documents were not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

import ladm as package
from ladm.errors import UsageError
from ladm.selection.inclusion import compacted
from support.documents import write_jsonl
from support.models import SMALL
from support.rows import topical_rows
from support.subsets import manifest

Command = Callable[..., Result]
LENGTHS = [512, 400, 450, 600, 700, 480, 512, 490, 530]
NAMES = ("Books", "Logs", "Web")


def rows_of_three_domains(golden: Any) -> list[dict[str, Any]]:
    rows = topical_rows(golden, LENGTHS)
    # With ids, of which the noise of a sample is made: without, it is of the place in the data.
    return [row | {"meta": {"pile_set_name": NAMES[k % 3]}, "id": f"d{k}"} for k, row in enumerate(rows)]


@pytest.fixture
def scored(score_once: Any, save_rows: Any, golden: Any, tmp_path: Path) -> tuple[str, str, Path, Path]:
    """All rows and those without a domain, with a run of each."""
    rows = rows_of_three_domains(golden)
    every, others = save_rows(rows), save_rows([row for row in rows if row["meta"]["pile_set_name"] != "Logs"], "few")
    for data, name in ((every, "run"), (others, "run-few")):
        score_once(data, "--signals", "cds,longattn,text", output=tmp_path / name)
    return every, others, tmp_path / "run", tmp_path / "run-few"


def test_a_selection_is_that_of_rows_without_the_domain(
    ladm: Command, scored: tuple[str, str, Path, Path], tmp_path: Path
) -> None:
    _, _, run, few = scored
    weights, all_weights = tmp_path / "few.yaml", tmp_path / "all.yaml"
    weights.write_text("Books: 1\nWeb: 2\n")
    all_weights.write_text("Books: 1\nWeb: 2\nLogs: 9\n")
    for number, flags in enumerate(
        (
            ("--tokens", "2k"),
            ("--tokens", "50%"),
            ("--top", "50%"),
            ("--documents", "4", "--by", "rank(score) + z(length)"),
            ("--documents", "3", "--by", "longattn"),
            ("--top", "50%", "--within", "length:20%-80%"),
            ("--tokens", "1500", "--rule", "percent"),
            ("--tokens", "2k", "--quota", "FILE"),
            ("--min-score", "0"),
            ("--documents", "3", "--sample", "--seed", "4"),
        )
    ):
        found = tmp_path / f"with-{number}", tmp_path / f"without-{number}"
        for folder, output, file, more in (
            (run, found[0], all_weights, ("--exclude-domain", "Logs")),
            (few, found[1], weights, ()),
        ):
            given = [str(file) if word == "FILE" else word for word in flags]
            result = ladm("select", folder, *given, *more, "--output", output)
            assert result.exit_code == 0, result.output
        left, right = map(manifest, found)
        assert left["domains"] == right["domains"], flags
        assert left["chosen"][0]["ids"] == right["chosen"][0]["ids"], flags
        assert (left["pool_tokens"], left["budget_tokens"]) == (right["pool_tokens"], right["budget_tokens"])
        assert left["excluded_domains"] == {"Logs": 3}
        assert "--exclude-domain Logs" in left["command"]
        assert "excluded_domains" not in right
    assert "exclude_domain:\n- Logs\n" in (tmp_path / "with-0/README.md").read_text()
    # The page reads the manifest of such a subset.
    assert ladm("report", run, "--subset", tmp_path / "with-0").exit_code == 0


def test_excluded_rows_are_reported_and_kept_without_a_rank(
    ladm: Command, scored: tuple[str, str, Path, Path], tmp_path: Path
) -> None:
    run = scored[2]
    flags = ("--exclude-domain", "Logs", "--exclude-domain", "Books")
    result = ladm("select", run, "--top", "100%", *flags, "--keep-all", "-o", tmp_path / "s", "--format", "jsonl")
    assert result.exit_code == 0, result.output
    assert "left out by --exclude-domain: Books 3, Logs 3\n" in result.stdout
    (shard,) = (tmp_path / "s/data").iterdir()
    kept = [json.loads(line) for line in shard.read_text().splitlines()]
    assert [row["taken"] for row in kept] == [False, False, True] * 3
    assert all((row["rank"] is None) == (row["score"] is None) == (not row["taken"]) for row in kept)


def test_a_domain_that_is_not_there(ladm: Command, scored: tuple[str, str, Path, Path], tmp_path: Path) -> None:
    rows, _, run, _ = scored
    for name, hint in (("Log", "did you mean Logs?"), ("Poems", "the domains are Books, Logs, Web")):
        result = ladm("select", run, "--top", "9%", "--exclude-domain", name, "-o", tmp_path / "s")
        assert (result.exit_code, result.stderr) == (
            2,
            f"ladm: --exclude-domain {name}: {rows} has no row of that domain; {hint}\n",
        )
    everything = [word for name in NAMES for word in ("--exclude-domain", name)]
    result = ladm("select", run, "--top", "9%", *everything, "-o", tmp_path / "s")
    assert (result.exit_code, result.stderr) == (
        1, "ladm: --exclude-domain leaves no document; exclude fewer domains\n",
    )  # fmt: skip
    assert not (tmp_path / "s").exists()


def test_from_python_and_from_a_file(ladm: Command, scored: tuple[str, str, Path, Path], tmp_path: Path) -> None:
    run = scored[2]
    for number, value in enumerate(("Logs", ["Logs", "Web"])):
        subset = package.select(run, output=tmp_path / f"p{number}", top="50%", exclude_domains=value)
        assert list(subset.manifest.excluded_domains) == ([value] if isinstance(value, str) else value)
    with pytest.raises(UsageError, match="did you mean Logs"):
        package.select(run, output=tmp_path / "none", top="50%", exclude_domains=["Lgos"])
    for number, text in enumerate(("exclude_domain: Logs", "exclude-domain: [Logs]", "exclude_domains: [Logs]")):
        (tmp_path / "c.yaml").write_text(f"top: 50%\n{text}\n")
        result = ladm("select", run, "--config", tmp_path / "c.yaml", "-o", tmp_path / f"c{number}")
        assert result.exit_code == 0, result.output
        assert manifest(tmp_path / f"c{number}")["excluded_domains"] == {"Logs": 3}


def test_a_job_knows_a_misspelt_domain_before_it_scores(
    ladm: Command, talking: Path, tmp_path: Path
) -> None:  # fmt: skip
    texts = [" ".join(f"w{(k * 7 + word * (k + 3)) % 300}" for word in range(300)) for k in range(6)]
    source = write_jsonl(tmp_path / "d.jsonl", [{"text": t, "domain": NAMES[k % 3]} for k, t in enumerate(texts)])
    flags = ("--model", talking, "--length", "256", "--dtype", "float32", "--device", "cpu", "--span-tokens", "8")
    job = ("run", source, *flags, "-o", tmp_path / "job")
    result = ladm(*job, "--documents", "2", "--exclude-domain", "Log")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        2, f"ladm: --exclude-domain Log: {tmp_path}/job/rows has no row of that domain; did you mean Logs?",
    )  # fmt: skip
    assert not (tmp_path / "job/scores").exists()
    # Four of six rows are left to fill the budget with.
    result = ladm(*job, "--documents", "5", "--exclude-domain", "Logs")
    assert (result.exit_code, "there are 4 rows, fewer than --documents 5" in result.stderr) == (1, True)
    result = ladm(*job, "--documents", "5", "--exclude-domain", "Logs", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["selectable_rows"] == 4
    result = ladm(*job, "--documents", "2", "--exclude-domain", "Logs")
    assert result.exit_code == 0, result.output
    assert "exclude_domain:\n- Logs\n" in (tmp_path / "job/job.yaml").read_text()
    assert manifest(tmp_path / "job/subset")["excluded_domains"] == {"Logs": 2}
    # Rows that are scored as they are.
    again = ("run", tmp_path / "job/rows", *flags[:2], *flags[4:], "--top", "50%", "--exclude-domain", "Logs")
    result = ladm(*again, "--dry-run", "--json")
    assert (result.exit_code, json.loads(result.stdout)["selectable_rows"]) == (0, 4)


def test_arrays_larger_than_a_batch_are_compacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ladm.selection.inclusion.BATCH_DOCUMENTS", 3)
    values = np.arange(11)
    included = values % 4 != 1
    assert compacted(values.copy(), included).tolist() == values[included].tolist()


def test_rows_without_a_domain_get_the_one_that_is_named(
    ladm: Command, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    rows = rows_of_three_domains(golden)
    for row in rows[1::3]:
        row["meta"] = {"pile_set_name": None}
    data = save_rows(rows)
    assert ladm("score", data, *SMALL, "--output", tmp_path / "run").exit_code == 0
    select = ("select", tmp_path / "run", "--documents", "4")
    result = ladm(*select, "-o", tmp_path / "s0")
    assert result.exit_code == 1
    assert result.stderr == (
        f"ladm: row 1 of {data} has no meta.pile_set_name; give another --domain-key, --domain a name for all rows "
        "without one, or --domain-key none to rank all documents together\n"
    )
    rest = (*select, "--domain", "rest")
    assert ladm(*rest, "--quota", "{Books: 1, Web: 1, rest: 2}", "-o", tmp_path / "s1").exit_code == 0
    found = manifest(tmp_path / "s1")
    assert {name: part["taken_documents"] for name, part in found["domains"].items()} == {
        "Books": 1, "Web": 1, "rest": 2,
    }  # fmt: skip
    result = ladm("report", tmp_path / "run", "--subset", tmp_path / "s1", "-o", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "page.html").read_text()
    assert (">rest<" in page, "(none)" in page) == (True, False)
    assert ladm(*rest, "--exclude-domain", "rest", "-o", tmp_path / "s2").exit_code == 0
    assert manifest(tmp_path / "s2")["domains"].keys() == {"Books", "Web"}
    result = ladm(*rest, "--domain-key", "meta.kind", "-o", tmp_path / "s3")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (
        0, "warning   no row has meta.kind, so all are of the domain rest",
    )  # fmt: skip
    # A row that has the named domain itself shows that the key is no mistake.
    rows = [row | {"meta": {"pile_set_name": "Books" if k % 2 else None}} for k, row in enumerate(rows)]
    assert ladm("score", save_rows(rows, "books"), *SMALL, "--output", tmp_path / "run-books").exit_code == 0
    result = ladm("select", tmp_path / "run-books", "--documents", "4", "--domain", "Books", "-o", tmp_path / "s4")
    assert (result.exit_code, "warning" in result.stderr) == (0, False), result.stderr


def test_rows_without_any_column_of_domains_get_the_one_that_is_named(
    ladm: Command, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    rows = [
        {name: row[name] for name in row if name not in ("meta", "domain")} for row in rows_of_three_domains(golden)
    ]
    data = save_rows(rows)
    assert ladm("score", data, *SMALL, "--output", tmp_path / "run").exit_code == 0
    select = ("select", tmp_path / "run", "--documents", "2")
    result = ladm(*select, "-o", tmp_path / "s0")
    assert (result.exit_code, "has no column meta" in result.stderr) == (1, True), result.stderr
    result = ladm(*select, "--domain", "web", "-o", tmp_path / "s1")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (
        0, "warning   no row has meta.pile_set_name, so all are of the domain web",
    )  # fmt: skip
    assert manifest(tmp_path / "s1")["domains"].keys() == {"web"}
    # Another key than the default was meant for a column that is there.
    result = ladm(*select, "--domain", "web", "--domain-key", "group", "-o", tmp_path / "s2")
    assert (result.exit_code, "has no column group" in result.stderr) == (1, True), result.stderr
    result = ladm("report", tmp_path / "run", "--subset", tmp_path / "s1", "-o", tmp_path / "page.html")
    assert (result.exit_code, ">web<" in (tmp_path / "page.html").read_text()) == (0, True), result.output
    job = ("run", data, "--model", SMALL[1], "--documents", "2", *SMALL[2:], "-o", tmp_path / "job")
    assert ladm(*job, "--domain", "web").exit_code == 0
    assert manifest(tmp_path / "job/subset")["domains"].keys() == {"web"}
