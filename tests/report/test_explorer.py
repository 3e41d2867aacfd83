"""The explorer of a page: its counts are those of all documents, its lists a sample that does not grow with the run."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ladm.report.document_samples import SelectionCut, as_script_data, choose_documents, first_lines
from ladm.report.explorer import _subset
from ladm.report.histograms import column_histogram
from ladm.report.overview import RunOverview
from ladm.report.ranking import PageRanking
from ladm.report.subset import ReportedSubset
from ladm.runs.folder import Run
from ladm.runs.results import score_batches
from ladm.selection.guarding import GuardManifest
from ladm.selection.manifest import ChosenRows, Manifest
from ladm.selection.manifest_file import read_manifest, write_manifest
from support.files import read_object
from support.models import SMALL
from support.pages import data_of
from support.rows import topical_rows

ROWS = 6_000


def test_counts_and_texts_of_a_small_run(ladm: Any, small_run: Path) -> None:
    assert ladm("report", small_run).exit_code == 0
    data = data_of(small_run / "report.html")
    table = pq.read_table(small_run / "scores.parquet").to_pylist()
    assert data["scored"] == len(data["documents"]) == len(table) == 5
    assert data["domains"] == ["domain 0", "domain 1"]
    names = [column["name"] for column in data["columns"]]
    assert names[0] == "score"
    assert {"length", "robust", "copy_share"} <= set(names)
    assert "random" not in names
    for document, row in zip(data["documents"], table, strict=True):
        rank, tokens, domain, _, name, meta, text, values, source, shown = document
        assert (rank, tokens, name) == (row["rank"], row["num_tokens"], str(row["index"]))
        # Without an id of its own it is shown with the place that it is from.
        assert shown == f"{row['index']} part-{row['index']}.jsonl line 7"
        assert data["domains"][domain] in meta
        assert text == f"document {row['index']}\nsecond line\nthird\nfourth"
        assert values[0] == pytest.approx(row["score"], rel=1e-5)
        assert source == f"corpus/part-{row['index']}.jsonl line 7"
    for column in data["columns"]:
        assert sum(map(sum, column["documents"])) == 5
        assert sum(map(sum, column["tokens"])) == 700 + 650 + 600 + 550 + 512


def test_the_command_works_from_any_folder(
    ladm: Any, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = small_run.rename(small_run.parent / "it's")
    monkeypatch.chdir(tmp_path)
    assert ladm("report", odd.name, "--rows", "rows", "--domain-key", "none").exit_code == 0
    words = shlex.split(data_of(odd / "report.html")["run"])
    assert words == [str(odd), "--rows", f"{tmp_path}/rows", "--domain-key", "none"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = ladm("select", *words, "--top", "50%", "--output", "subset")
    assert result.exit_code == 0, result.output
    # In the page's other commands a data set of the Hub stays a name.
    from ladm.report.page import _commands
    from ladm.settings.runs import ReportSettings

    inspect, report = _commands(ReportSettings(run="run", rows="org/rows", subset="s"))
    here = f"{tmp_path}/elsewhere"
    assert inspect == f"ladm inspect {here}/run"
    assert report == f"ladm report {here}/run --subset {here}/s --rows org/rows"


def test_the_page_says_that_the_command_takes_fewer_windows_than_the_figures_count(
    ladm: Any, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    """`select` takes at most two windows of a document. Rows of the published form do not say which are of one."""
    rows = [row | {"chunked_index": k} for k, row in enumerate(topical_rows(golden, [700, 650, 600, 550]))]
    line = "the command takes at most 2 of each"
    for name, columns, is_said, taken in (("published", {}, False, 4), ("windows", {"document": 0}, True, 2)):
        run = tmp_path / f"run-{name}"
        assert ladm("score", save_rows([row | columns for row in rows], name), *SMALL, "--output", run).exit_code == 0
        assert ladm("report", run).exit_code == 0
        assert (line in (run / "report.html").read_text()) is is_said
        result = ladm("select", run, "--min-score", "0", "--output", tmp_path / f"subset-{name}", "--json")
        assert json.loads(result.stdout)["taken_documents"] == taken


def test_ids_are_whole_and_in_one_line(score_once: Any, ladm: Any, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = topical_rows(golden, [700, 650])
    names = ["https://example.org/" + "a" * 500, "two\nlines\u2028and\x1bmore"]
    rows = [row | {"id": name} for row, name in zip(rows, names, strict=True)]
    score_once(save_rows(rows), output=tmp_path / "run")
    assert ladm("report", tmp_path / "run").exit_code == 0
    data = data_of(tmp_path / "run" / "report.html")
    assert sorted(document[4] for document in data["documents"]) == [names[0], "two lines and more"]
    page = (tmp_path / "run" / "report.html").read_text()
    # Shown, they are short.
    assert f"<bdi>{names[0][:299]}…</bdi>" in page


def test_a_line_separates_what_was_taken_only_where_nothing_else_decided(
    ladm: Any, small_run: Path, tmp_path: Path
) -> None:
    assert ladm("select", small_run, "--top", "50%", "--output", tmp_path / "subset").exit_code == 0
    cases: list[tuple[dict[str, Any], bool, bool]] = [
        ({}, True, True),
        ({"copies": 0}, True, True),
        ({"by": "length"}, False, True),
        ({"copies": 2}, False, False),
        ({"max_per_document": 1}, False, False),
        ({"sample": {"temperature": 1.0, "seed": 0}}, False, False),
    ]
    for changes, cut_of_scores, cut in cases:
        manifest = dataclasses.replace(read_manifest(tmp_path / "subset"), **changes)
        assert (PageRanking().is_cut_by(manifest), manifest.is_cut) == (cut_of_scores, cut)
        subset = ReportedSubset(manifest=manifest, taken_T=np.array([True, False, False, True, True]))
        overview = RunOverview(positions=array("q", [4, 1, 3, 2, 0]), num_tokens=array("q", [5, 6, 7, 8, 9]))
        found = _subset(subset, overview, ["domain 0", "domain 1"], np.array([0, 1, 1, 1, 0]))
        assert (found["cut"], found["by"]) == (cut, manifest.by)
        assert (found["documents"], found["tokens"]) == ([2, 1], [14, 7])
        lowest = [manifest.domains[name].lowest_score_taken for name in ("domain 0", "domain 1")]
        assert found["lowest"] == (pytest.approx(lowest, rel=1e-5) if cut else [None, None])


def test_the_documents_of_a_guarded_subset_are_marked(ladm: Any, small_run: Path, tmp_path: Path) -> None:
    subset = tmp_path / "subset"
    select = ("select", small_run, "--top", "100%", "--within", "length:-660", "--within", "length:520-")
    assert ladm(*select, "--output", subset).exit_code == 0
    assert ladm("report", small_run, "--subset", subset).exit_code == 0
    data = data_of(small_run / "report.html")
    # Of 700, 650, 600, 550 and 512 tokens, in two domains by turns, the first and the last were dropped.
    assert {document[1]: document[10] for document in data["documents"]} == {700: 0, 650: 1, 600: 1, 550: 1, 512: 0}
    assert data["subset"] == {
        "by": "score", "cut": False, "lowest": [None, None], "documents": [1, 2], "tokens": [600, 1200],
    }  # fmt: skip
    for column in data["columns"]:
        assert [sum(counts) for counts in column["taken"]] == [1, 2]
    page = re.sub(r"<[^>]*>|\s+", " ", (small_run / "report.html").read_text())
    page = re.sub(r" +", " ", page)
    assert "length:-660 length of at most 660 1 0 domain 0 1 " in page
    assert "length:520- length of at least 520 1 0 domain 0 1 " in page
    assert "Documents of the subset" in page
    assert (page.count(" · selected · "), page.count(" · not selected · ") > 0) == (3 * 3, True)
    # Without a subset nothing is marked, and there are no guards.
    assert ladm("report", small_run).exit_code == 0
    assert {len(document) for document in data_of(small_run / "report.html")["documents"]} == {10}
    page = (small_run / "report.html").read_text()
    assert "Guards of the subset" not in page
    assert "selected · " not in page


def test_the_dots_of_a_guarded_subset_are_those_it_took(ladm: Any, small_run: Path, tmp_path: Path) -> None:
    subset = tmp_path / "subset"
    flags = ("--documents", "2", "--within", "length:-660", "--domain-key", "none")
    assert ladm("select", small_run, *flags, "--output", subset).exit_code == 0
    assert ladm("report", small_run, "--subset", subset, "--domain-key", "none").exit_code == 0
    page = (small_run / "report.html").read_text()
    dots = re.findall(r'<circle class="(is|not)" cx="([0-9.]+)" cy="11"', page)
    taken = set(read_object(subset / "manifest.json")["chosen"][0]["positions"])
    rows = pq.read_table(small_run / "scores.parquet").to_pylist()
    assert [kind == "is" for kind, _ in dots] == [row["position"] in taken for row in rows]
    ranked = re.findall(r'data-label="selected">(yes|no)</td>', page)
    assert [word == "yes" for word in ranked] == [row["position"] in taken for row in rows]


def test_a_page_shows_its_run_of_a_subset_of_two(ladm: Any, small_run: Path, save_rows: Any, golden: Any) -> None:
    root = small_run.parent
    rows = topical_rows(golden, [690, 640, 590])
    for row in rows:
        row["text"], row["source"] = f"another {row['index']}", "another.jsonl"
    other = save_rows(rows, "other")
    assert ladm("score", other, *SMALL, "--output", root / "run2").exit_code == 0
    runs = (small_run, root / "run2", "--rows", root / "rows", other)
    result = ladm("select", *runs, "--top", "60%", "--output", root / "both")
    assert result.exit_code == 0, result.output
    chosen = read_object(root / "both" / "manifest.json")["chosen"]
    for run, part in zip((small_run, root / "run2"), chosen, strict=True):
        assert ladm("report", run, "--subset", root / "both").exit_code == 0
        data = data_of(run / "report.html")
        assert sum(data["subset"]["documents"]) == len(part["positions"]) > 0
        assert sum(document[10] for document in data["documents"]) == len(part["positions"])


def test_a_subset_without_the_rows_it_took_is_refused(ladm: Any, small_run: Path, tmp_path: Path) -> None:
    assert ladm("select", small_run, "--top", "50%", "--output", tmp_path / "subset").exit_code == 0
    path = tmp_path / "subset" / "manifest.json"
    manifest = {key: value for key, value in read_object(path).items() if key not in ("crc32", "chosen")}
    message = f"{path} does not list the rows that were chosen from {small_run}; select again"
    wrong = [{"positions": each} for each in (3, ["a"], [0, 6], [-1], [0.5], [[0], [1, 2]])]
    for chosen in (None, [], [{}], "text", *([each] for each in wrong)):
        path.write_text(json.dumps(manifest | ({} if chosen is None else {"chosen": chosen})))
        result = ladm("report", small_run, "--subset", tmp_path / "subset")
        assert (result.exit_code, result.stderr) == (1, f"ladm: {message}\n"), chosen


def test_a_small_subset_of_many_documents_is_on_the_page(ladm: Any, large_run: Any, tmp_path: Path) -> None:
    run = Run.read(large_run(ROWS))
    taken = list(range(5, ROWS, 30))
    guard = GuardManifest(
        given="signal_0:0-", column="signal_0", low=0.0, high=None, without_value=7,
        dropped={f"domain {k}": k for k in range(60)},
    )  # fmt: skip
    manifest = Manifest(
        rule="exact", quota="tokens", percent=None, domain_key="meta.pile_set_name", budget_tokens=3 * len(taken),
        taken_tokens=3 * len(taken), taken_documents=len(taken), pool_tokens=3 * ROWS,
        pool_documents=ROWS, without_score={}, domains_left_out=[], domains={},
        run=run.identity.for_manifest(), guards=[guard],
    )  # fmt: skip
    (tmp_path / "subset").mkdir()
    write_manifest(tmp_path / "subset", manifest, [ChosenRows(data=run.identity.data, positions=[taken], ids=[[]])])
    assert ladm("report", run.folder, "--subset", tmp_path / "subset").exit_code == 0
    page = run.folder / "report.html"
    assert page.stat().st_size < 3_000_000
    data = data_of(page)
    assert sum(data["subset"]["documents"]) == len(taken)
    assert {sum(map(sum, column["taken"])) for column in data["columns"][:1]} == {len(taken)}
    shown = [document for document in data["documents"] if document[10]]
    assert len(shown) >= 100
    # The positions of this run are its ranks the other way round.
    assert {ROWS - document[0] for document in shown} <= set(taken)
    assert "and 52 more" in page.read_text()


def test_without_texts_the_page_says_why(ladm: Any, small_run: Path, save_rows: Any, golden: Any) -> None:
    rows = small_run.parent / "rows"
    moved = rows.rename(small_run.parent / "moved")
    result = ladm("report", small_run)
    message = f"{rows} no longer exists; give the new path of the rows with --rows"
    assert (result.exit_code, result.stderr) == (0, f"note      there are no texts: {message}\n")
    page = (small_run / "report.html").read_text()
    assert message in page
    assert "second line" not in page
    assert ladm("report", small_run, "--rows", moved).exit_code == 0
    assert "second line" in (small_run / "report.html").read_text()
    other = save_rows(topical_rows(golden, [700, 650, 600, 550, 513, 40]), "other")
    message = f"{other} are not the rows of {small_run}: row 4 has another length"
    result = ladm("report", small_run, "--rows", other)
    assert (result.exit_code, result.stderr) == (1, f"ladm: {message}\n")
    # Where they were not given, they only cost the texts.
    Path(other).rename(rows)
    assert ladm("report", small_run).exit_code == 0
    page = (small_run / "report.html").read_text()
    assert f"{rows} are not the rows of {small_run}: row 4 has another length" in page
    assert "document 0" not in page
    few = save_rows(topical_rows(golden, [700, 650]), "few")
    result = ladm("report", small_run, "--rows", few)
    message = f"{few} are not the rows of {small_run}: there are 2, not 6"
    assert (result.exit_code, result.stderr) == (1, f"ladm: {message}\n")


def test_texts_of_rows_with_other_contents_are_not_shown(
    ladm: Any, small_run: Path, save_rows: Any, golden: Any
) -> None:
    """Rows of the same lengths, domains and numbers, made of another corpus."""
    others = topical_rows(golden, [700, 650, 600, 550, 512, 40])
    for row in others:
        row["input_ids"] = row["input_ids"][::-1]
        row["text"] = "of another corpus"
    other = save_rows(others, "other")
    message = f"{other} are not the rows of {small_run}: they have other contents"
    result = ladm("report", small_run, "--rows", other)
    assert (result.exit_code, result.stderr) == (1, f"ladm: {message}\n")
    rows = small_run.parent / "rows"
    rows.rename(small_run.parent / "moved")
    Path(other).rename(rows)
    result = ladm("report", small_run)
    message = f"{rows} are not the rows of {small_run}: they have other contents; to show texts"
    expected = f"note      there are no texts: {message}, give --rows the rows that it scored\n"
    assert (result.exit_code, result.stderr) == (0, expected)
    page = (small_run / "report.html").read_text()
    assert message in page
    assert "of another corpus" not in page


def test_a_page_of_many_documents_stays_small(ladm: Any, large_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ladm.report.run_columns.IN_MEMORY_UP_TO", 1000)
    run = large_run(ROWS)
    assert ladm("report", run).exit_code == 0
    page = run / "report.html"
    # What the page is made of does not grow with the run, so this is its size at a million documents too.
    assert page.stat().st_size < 3_000_000
    data = data_of(page)
    assert data["scored"] == ROWS
    assert len(data["domains"]) == 25
    assert data["domains"][-1] == "(other domains)"
    assert len(data["columns"]) == 24
    table = pq.read_table(run / "scores.parquet")
    for column in data["columns"]:
        counts, edges = np.array(column["documents"]), column["edges"]
        values = table[column["name"] if column["name"] != "length" else "num_tokens"].to_numpy()
        assert counts.sum() + column["without"] == ROWS
        # A cut takes exactly what is at or above its edge.
        for bin_ in range(1, len(edges) - 1, 7):
            assert counts[:, bin_:].sum() == np.count_nonzero(values >= edges[bin_])
    assert next(c["without"] for c in data["columns"] if c["name"] == "signal_0") == len(range(0, ROWS, 7))
    ranks = {document[0] for document in data["documents"]}
    middle = ROWS // 2
    assert {*range(1, 101), *range(ROWS - 99, ROWS + 1), *range(middle - 49, middle + 51)} <= ranks
    best = int(np.argmax(table["signal_1"].to_numpy()))
    assert best + 1 in ranks
    drawn = [document[2] for document in data["documents"] if document[3]]
    assert {drawn.count(domain) for domain in range(25)} == {32}
    assert all(document[6].startswith("<日本") for document in data["documents"])
    # Of a long place the end is shown, which names the file and the line.
    assert all(re.fullmatch(r"…<*/part-7\.jsonl line \d+", document[8]) for document in data["documents"])


def test_reading_a_run_holds_a_part_of_it_at_a_time(large_run: Any) -> None:
    run = large_run(2 * ROWS)
    names = [f"signal_{k}" for k in range(30)]
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() - before for _ in score_batches(run, names, rows=1000))
    assert most < 30 * 8 * ROWS


def test_documents_around_the_cut_are_those_of_its_domain() -> None:
    domains = np.arange(10_000) % 2
    chosen = choose_documents(10_000, [], domains_N=domains, cuts=[SelectionCut(place=5000, domain=1)])
    assert {4901, 4999, 5001, 5099} <= set(chosen.places)
    assert {place % 2 for place in chosen.around} == {1}
    assert sorted(chosen.around) == [4989, 4991, 4993, 4995, 4997, 4999, 5001, 5003, 5005, 5007, 5009, 5011]


def test_histograms_of_awkward_columns() -> None:
    domains, tokens = np.zeros(4, dtype=np.int64), np.array([1, 2, 3, 4])

    def histogram(values: list[float]) -> Any:
        return column_histogram("x", np.array(values), domains_N=domains, tokens_N=tokens, num_domains=1, bins=4)

    assert histogram([np.nan] * 4) is None
    same = histogram([2.0, 2.0, np.nan, 2.0])
    assert (same.documents_DB.sum(), same.tokens_DB.sum(), same.without_value) == (3, 7, 1)
    spread = histogram([1.0, 10.0, 100.0, 10_000.0])
    assert spread.is_logarithmic
    assert spread.edges == [1, 10, 100, 1000, 10_000]
    assert spread.documents_DB.tolist() == [[1, 1, 1, 1]]
    assert spread.tokens_DB.tolist() == [[1, 2, 3, 4]]
    # Different numbers, and on the page, which has six digits of them, the same.
    close = histogram([0.12345671, 0.12345672, 0.12345673, np.nan])
    assert (close.documents_DB.sum(), close.tokens_DB.sum(), len(close.edges)) == (3, 6, 5)
    # An edge is 0.7, and that of float32 is less: `--min-score 0.7` takes it.
    narrow = np.array([0.5, 0.7, 0.9, np.nan], dtype=np.float32).astype(np.float64)
    for is_float32, counts in ((True, [1, 2]), (False, [2, 1])):
        found = column_histogram(
            "x", narrow, domains_N=domains, tokens_N=tokens, num_domains=1, bins=2, is_float32=is_float32
        )
        assert found is not None
        assert found.edges == [0.5, 0.7, 0.9]
        assert found.documents_DB.tolist() == [counts]
    infinite = histogram([np.inf, -np.inf, 0.0, 1.0])
    assert infinite.documents_DB.tolist() == [[2, 0, 0, 2]]


def test_data_of_a_script_cannot_end_it() -> None:
    hostile = ["</script><script>alert(1)</script>", "<!--", "]]>", "\u2028\u2029", "&lt;", "\ud800"]
    found = as_script_data(hostile).decode()
    assert not set("<>&\u2028\u2029") & set(found)
    assert json.loads(found)[:5] == hostile[:5]
    assert first_lines("\x00\x1b[31m\n\n a\u202eb \n") == "[31m\nab"
    assert first_lines("=====\nTitle\n=====\n\nWords.\n") == "Title\nWords."
    assert first_lines("-----\n\n* *\n") == "-----\n* *"
    assert len(as_script_data(first_lines("\U0001f600" * 5000))) <= 500
