"""The page of a run without CDS, and of any run by another column than its score."""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import ladm as front
from ladm.runs.columns.by_name import read_columns
from ladm.runs.folder import Run
from ladm.runs.results import score_batches
from support.files import read_lines
from support.models import SMALL
from support.pages import Page, data_of, require_harmless
from support.rows import topical_rows

LENGTHS = [700, 650, 600, 550, 512, 580, 630]
OF_CDS = ("cds", "score", "attention", "sink", "layer", "pair")
HEADINGS = [
    "Explore documents", "Distribution of gzip_ratio", "Medians and quartiles", "Highest and lowest documents",
    "Run details",
]  # fmt: skip


@pytest.fixture
def text_run(ladm: Any, save_rows: Any, golden: Any, talking: Path, tmp_path: Path) -> Path:
    """Text statistics of seven documents in two domains, and a row that is no document."""
    rows = topical_rows(golden, LENGTHS)
    for k, row in enumerate(rows):
        row |= {"id": f"doc-{k}", "text": f"beginning of {k}\nsecond line"}
    rows.append(rows[0] | {"id": "bad", "input_ids": [10**6] * 600})
    folder = save_rows(rows)
    words = ("--model", talking, "--device", "cpu", "--signals", "text", "--output", tmp_path / "text")
    assert ladm("score", folder, *words).exit_code == 0
    return tmp_path / "text"


def headings(page: Path) -> list[str]:
    return re.findall(r"<h2[^>]*>([^<]*)</h2>", page.read_text())


def ranked_ids(page: Path) -> list[str]:
    """The ids in the table of the highest and the lowest documents, in its order."""
    text = page.read_text()
    return re.findall(r"<bdi>(doc-\d)</bdi> · ", text[text.index('<h2 id="ranking">') : text.index('id="x-static"')])


def ids_by(run: Path, values: Any) -> list[str]:
    """The ids of a run, the highest value first."""
    ids = pq.read_table(run / "scores.parquet", columns=["id"])["id"].to_pylist()
    return [ids[k] for k in np.argsort(-values, kind="stable")]


def test_a_run_of_text_statistics_has_a_page_without_a_word_about_cds(ladm: Any, text_run: Path) -> None:
    result = ladm("report", text_run)
    assert (result.exit_code, result.stderr) == (0, "")
    place = text_run / "report.html"
    page = Page(place.read_text())
    require_harmless(page)
    assert headings(place) == [*HEADINGS[:-1], "Rows without values", HEADINGS[-1]]
    for word in OF_CDS:
        assert word not in page.text.lower().replace("ladm score", ""), word
    assert "Documents are ranked by gzip_ratio , the highest first." in page.text
    # Why by this one, and how to have another.
    assert (
        "This is the default for this run, also in ladm top and ladm select ; ladm report --by COLUMN ranks"
        in page.text
    )
    assert "Random characters and tables of numbers have a high gzip_ratio ; far_rare is a better one" in page.text
    assert "7 documents, ranked by gzip_ratio" in page.text
    values = read_columns(Run.read(text_run), ["gzip_ratio"])["gzip_ratio"].to_numpy()
    for number, name in ((values.max(), "highest"), (np.median(values), "median"), (values.min(), "lowest")):
        assert f"{number:.3f} {name} gzip_ratio" in page.text
    assert ranked_ids(place) == ids_by(text_run, values)
    # The explorer has the columns by their own names, and none twice.
    columns = [column["name"] for column in data_of(place)["columns"]]
    assert columns == [
        "gzip_ratio", "far_rare", "unigram_entropy", "repeated_4grams", "repeated_13grams", "characters_per_token",
        "digits", "length",
    ]  # fmt: skip
    assert "domain documents gzip_ratio far_rare unigram_entropy repeated_13grams digits" in page.text
    assert "signals text" in page.text
    assert "1 without values" in page.text
    assert "beginning of 3" in page.text


def test_the_page_ranks_by_what_the_user_names(ladm: Any, text_run: Path) -> None:
    place = text_run / "report.html"
    table = read_columns(Run.read(text_run), ["far_rare", "length"])
    far_rare, length = table["far_rare"].to_numpy(), table["length"].to_numpy()
    for by, values in (("far_rare", far_rare), ("length", length), ("-length", -length), ("log(length)", length)):
        assert ladm("report", text_run, "--by", by).exit_code == 0
        page = Page(place.read_text())
        assert f"Documents are ranked by {by} , the highest first." in page.text
        assert "This is the default" not in page.text
        assert f"7 documents, ranked by {by}" in page.text
        assert ranked_ids(place) == ids_by(text_run, values), by
        data = data_of(place)
        assert data["columns"][0]["name"] == by
        ids = pq.read_table(text_run / "scores.parquet", columns=["id", "position"]).to_pylist()
        of_id = {row["id"]: k for k, row in enumerate(ids)}
        assert [document[4] for document in data["documents"]] == ids_by(text_run, values)
        for document in data["documents"]:
            k = of_id[document[4]]
            for name, numbers in (("length", length), ("far_rare", far_rare)):
                column = [column["name"] for column in data["columns"]].index(name)
                assert document[7][column] == pytest.approx(float(numbers[k]), rel=1e-5)
            assert document[6].startswith(f"beginning of {document[4][-1]}")
        # Domains are in the order of their medians, and each histogram is of its own documents.
        in_domain = [np.array([values[of_id[f"doc-{k}"]] for k in range(7) if k % 2 == d]) for d in (0, 1)]
        section = page.text[page.text.index("Distribution of", page.text.index("Explore documents")) :]
        first, second = ("domain 0", "domain 1") if np.median(in_domain[0]) >= np.median(in_domain[1]) else (
            "domain 1", "domain 0")  # fmt: skip
        assert section.index(first) < section.index(second)


def test_the_score_of_a_run_without_cds_is_its_first_column(ladm: Any, text_run: Path, tmp_path: Path) -> None:
    pages = []
    for words in ((), ("--by", "score"), ("--by", "gzip_ratio")):
        assert ladm("report", text_run, *words, "--output", tmp_path / "page.html").exit_code == 0
        pages.append((tmp_path / "page.html").read_text())
    assert pages[0] == pages[1]
    assert "This is the default" not in re.sub(r"\s+", " ", pages[2])
    assert ranked_ids(tmp_path / "page.html") == ids_by(
        text_run, read_columns(Run.read(text_run), ["score"])["score"].to_numpy()
    )


def test_a_run_of_longattn_has_a_page(ladm: Any, save_rows: Any, golden: Any, golden_lm: Path, tmp_path: Path) -> None:
    run = tmp_path / "longattn"
    rows = save_rows(topical_rows(golden, LENGTHS))
    words = ("--model", golden_lm, "--device", "cpu", "--signals", "longattn", "--output", run)
    assert ladm("score", rows, *words).exit_code == 0
    assert ladm("report", run).exit_code == 0
    assert headings(run / "report.html")[1] == "Distribution of longattn_ds"
    text = Page((run / "report.html").read_text()).text
    assert "domain documents longattn_ds longattn all documents" in text
    assert "CDS" not in text
    assert ladm("report", run, "--by", "longattn").exit_code == 0
    values = read_columns(Run.read(run), ["longattn"])["longattn"].to_numpy()
    assert [document[7][0] for document in data_of(run / "report.html")["documents"]] == pytest.approx(
        sorted(values, reverse=True), rel=1e-5
    )
    # What was added to it can be looked at too.
    assert ladm("annotate", run).exit_code == 0
    assert ladm("report", run, "--by", "far_rare").exit_code == 0
    assert headings(run / "report.html")[1] == "Distribution of far_rare"


def test_the_page_of_added_statistics_alone(ladm: Any, small_run: Path) -> None:
    """`ladm annotate` keeps a run of its own inside the run, which names no model."""
    assert ladm("score", Run.read(small_run).identity.rows_name, *SMALL, "--signals", "cds", "-o",
                small_run.parent / "cds").exit_code == 0  # fmt: skip
    run = small_run.parent / "cds"
    assert ladm("annotate", run).exit_code == 0
    assert ladm("report", run / "signals" / "text").exit_code == 0
    assert headings(run / "signals" / "text" / "report.html")[1] == "Distribution of gzip_ratio"


def test_a_subset_is_marked_on_the_page_of_a_run_without_cds(ladm: Any, text_run: Path, tmp_path: Path) -> None:
    for by, words in (("gzip_ratio", ()), ("far_rare", ("--by", "far_rare"))):
        subset = tmp_path / f"by-{by}"
        selected = ladm("select", text_run, "--documents", "3", "--domain-key", "none", *words, "--output", subset)
        assert selected.exit_code == 0, selected.output
        following = shlex.split(selected.stderr.splitlines()[-1].removeprefix("next: ladm "))
        assert following == ["report", str(text_run), "--subset", str(subset), "--domain-key", "none", *words]
        assert ladm(*following).exit_code == 0
        place = text_run / "report.html"
        page, data = Page(place.read_text()), data_of(place)
        assert headings(place)[1] == f"Distribution of {by}"
        values = read_columns(Run.read(text_run), [by])[by].to_numpy()
        taken = [document[4] for document in data["documents"] if document[10]]
        assert taken == ids_by(text_run, values)[:3]
        # The explorer begins with the column of the subset, and knows where it ends.
        assert (data["subset"]["by"], data["subset"]["cut"]) == (by, True)
        assert data["columns"][0]["name"] == by
        assert data["subset"]["lowest"] == pytest.approx([sorted(values)[-3]], rel=1e-5)
        assert "Documents around the cut" in page.text
        assert "score" not in page.text.lower()
    # By another column than that of the page the subset is no cut of it.
    assert ladm("report", text_run, "--subset", tmp_path / "by-far_rare", "--domain-key", "none").exit_code == 0
    text = Page((text_run / "report.html").read_text()).text
    assert "Documents around the middle of the ranking" in text
    assert "lowest far_rare selected" in text


def test_the_guards_of_a_subset_by_the_first_column(ladm: Any, text_run: Path, tmp_path: Path) -> None:
    words = ("--top", "50%", "--within", "score:30%-", "--within", "digits:0-", "--output", tmp_path / "subset")
    assert ladm("select", text_run, *words).exit_code == 0
    assert ladm("report", text_run, "--subset", tmp_path / "subset").exit_code == 0
    names = [column["name"] for column in data_of(text_run / "report.html")["columns"]]
    assert "score" not in names
    assert len(set(names)) == len(names)
    assert "Guards of the subset" in headings(text_run / "report.html")


def test_a_run_of_cds_by_another_column(ladm: Any, small_run: Path, tmp_path: Path) -> None:
    usual, other = small_run / "report.html", tmp_path / "other.html"
    assert ladm("inspect", small_run, "--top", "1").exit_code == 0
    for words in ((), ("--by", "score")):
        assert ladm("report", small_run, *words).exit_code == 0
        assert "Where scores come from" in headings(usual)
    assert ladm("report", small_run, "--by", "length", "--output", other).exit_code == 0
    # What is about the score alone is left out: another column than it ranks the documents.
    assert headings(other) == [
        "Explore documents", "Distribution of length", "Medians and quartiles", "Highest and lowest documents",
        "Rows without a score", "Run details",
    ]  # fmt: skip
    assert set(headings(usual)) - set(headings(other)) == {
        "Score distribution", "Where scores come from", "Best and worst documents", "Contribution of each layer",
    }  # fmt: skip
    data = data_of(other)
    assert [column["name"] for column in data["columns"]][:2] == ["length", "score"]
    assert [document[1] for document in data["documents"]] == sorted(
        (document[1] for document in data["documents"]), reverse=True
    )


def test_documents_without_a_value_come_last(ladm: Any, small_run: Path) -> None:
    # Of 5 documents 2 are of at most 550 tokens; of one domain none is left.
    assert ladm("report", small_run, "--by", "log(length - 599)").exit_code == 0
    page = Page((small_run / "report.html").read_text())
    assert "2 without log(length - 599)" in page.text
    data = data_of(small_run / "report.html")
    assert [document[1] for document in data["documents"]][:3] == [700, 650, 600]
    assert {document[1] for document in data["documents"][3:]} == {550, 512}
    assert [document[0] for document in data["documents"]] == [1, 2, 3, 4, 5]
    assert ladm("report", small_run, "--by", "log(length - 650)").exit_code == 0
    page = Page((small_run / "report.html").read_text())
    assert "domain 0 3 3.912 domain 1 2 \u2013" in page.text
    for by, code, message in (
        ("log(-length)", 1, f"{small_run}: no document has a value of log(-length)"),
        ("far_rar", 2, f"{small_run} has no column far_rar; did you mean far_rare?"),
        ("quality", 2, None),
        ("rows.text", 1, None),
        ("lambda: 1", 2, None),
        ("other.score", 2, None),
    ):
        result = ladm("report", small_run, "--by", by)
        assert result.exit_code == code, result.output
        assert message is None or result.stderr == f"ladm: {message}\n"
        assert len(result.stderr.splitlines()) == 1


def test_the_page_by_a_column_of_another_run(ladm: Any, small_run: Path, tmp_path: Path) -> None:
    words = ("--by", "other.score - score", "--join", f"other={small_run}", "--output", tmp_path / "page.html")
    assert ladm("report", small_run, *words).exit_code == 0
    data = data_of(tmp_path / "page.html")
    column = data["columns"][0]
    assert shlex.split(column["by"]) == ["other.score - score", "--join", f"other={small_run}"]


def test_many_documents_by_another_column(
    ladm: Any,
    large_run: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 5000
    run = large_run(count)
    # Several batches, and arrays in files.
    few = functools.partial(score_batches, rows=700)
    for module in ("overview", "document_samples"):
        monkeypatch.setattr(f"ladm.report.{module}.score_batches", few)
    monkeypatch.setattr("ladm.report.run_columns.IN_MEMORY_UP_TO", 1000)
    assert ladm("report", run, "--by", "signal_0").exit_code == 0
    data = data_of(run / "report.html")
    table = pq.read_table(run / "scores.parquet")
    values, other = table["signal_0"].to_numpy(), table["signal_5"].to_numpy()
    order = np.argsort(-values, kind="stable")
    names = [column["name"] for column in data["columns"]]
    assert names[0] == "signal_0"
    ids, metas = table["id"].to_pylist(), [json.loads(meta) for meta in table["meta"].to_pylist()]
    for document in data["documents"]:
        k = int(order[document[0] - 1])
        assert document[4] == ids[k]
        assert document[7][0] == (None if np.isnan(values[k]) else pytest.approx(values[k], rel=1e-5))
        assert document[7][names.index("signal_5")] == pytest.approx(other[k], rel=1e-5)
        if document[2] < 24:
            assert data["domains"][document[2]] == metas[k]["pile_set_name"]
    ranks = {document[0] for document in data["documents"]}
    valued = int(np.count_nonzero(~np.isnan(values)))
    assert {*range(1, 101), *range(valued - 9, valued + 1)} <= ranks
    # The lowest are those of all documents that have a value.
    text = (run / "report.html").read_text()
    table_text = Page(text[text.index('<h2 id="ranking">') : text.index('<div id="x-static">')]).text
    assert f" … rank signal_0 domain index tokens metadata {valued - 9:,} " in table_text
    assert f" {valued + 1:,} " not in table_text
    column = data["columns"][0]
    assert column["without"] == count - valued
    for bin_ in range(1, 50, 7):
        assert np.array(column["documents"])[:, bin_:].sum() == np.count_nonzero(values >= column["edges"][bin_])


def test_a_job_without_cds_has_a_page_by_its_column(
    ladm: Any, save_rows: Any, golden: Any, talking: Path, tmp_path: Path
) -> None:
    rows = save_rows(topical_rows(golden, LENGTHS))
    job = tmp_path / "job"
    words = ("run", rows, "--model", talking, "--signals", "text", "--by", "-gzip_ratio", "--tokens", "1500", "-o", job)
    first = ladm(*words)
    assert first.exit_code == 0, first.output
    assert "no report" not in first.stderr
    assert first.stdout.splitlines()[-2:] == [f"subset: {job}/subset", f"page: {job}/report.html"]
    assert json.loads((job / "subset" / "manifest.json").read_text())["taken_documents"] > 0
    assert headings(job / "report.html")[1] == "Distribution of -gzip_ratio"
    assert json.loads(ladm(*words, "--json").stdout)["page"] == f"{job}/report.html"
    # Random numbers are drawn with the seed of the job, which a page does not know.
    shutil.rmtree(job / "subset")
    words = ("run", rows, "--model", talking, "--signals", "text", "--by", "random", "--seed", "3", "--tokens", "1500",
             "-o", tmp_path / "random")  # fmt: skip
    assert ladm(*words).exit_code == 0
    assert headings(tmp_path / "random" / "report.html")[1] == "Distribution of gzip_ratio"


def test_the_page_from_python_by_a_column(text_run: Path, tmp_path: Path) -> None:
    page = front.open_run(text_run).report(by="far_rare", output=tmp_path / "page.html")
    assert headings(page)[1] == "Distribution of far_rare"


def test_a_run_of_a_signal_that_this_version_does_not_know(ladm: Any, text_run: Path) -> None:
    """Its score goes by its own name: which column it repeats is not known."""
    content = json.loads((text_run / "run.json").read_text())
    del content["crc32"]
    content["signals"] = {"own": {}}
    content["settings"] = {"method": "own"}
    (text_run / "run.json").write_text(json.dumps(content))
    assert ladm("report", text_run).exit_code == 0
    assert headings(text_run / "report.html")[1] == "Distribution of score"
    assert len(read_lines(text_run / "sorted_by_score.jsonl")) == 7
