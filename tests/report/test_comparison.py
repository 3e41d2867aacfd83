"""`ladm top` and `ladm compare`: agreement by hand, kinds, both tables, the page, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import tracemalloc
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from ladm.calibration.estimates import PairwiseWins, auc, estimate_auc, estimate_aucs, wins
from ladm.comparison.agreement import (
    best_inside_domains,
    is_constant,
    overlap,
    ranks_inside_domains,
    spearman_inside_domains,
)
from ladm.comparison.kinds import kind_table
from ladm.corpus.rows.reading import open_rows
from ladm.errors import LadmError
from ladm.runs.columns.by_name import read_columns
from ladm.runs.columns.labels import shown_name
from ladm.runs.columns.quartiles import largest_domains, quartiles, quartiles_text, summarise_columns
from ladm.runs.folder import Run
from ladm.selection.applying import apply_budget
from ladm.selection.budget import DomainSelection
from ladm.selection.ranks import spearman
from ladm.settings.selection import SelectSettings
from support.models import SMALL
from support.rows import topical_rows
from support.runs import add_signal

Command = Callable[..., Result]
LENGTHS = [512, 400, 450, 90, 700, 480, 512, 490]
NAN = float("nan")


@pytest.fixture
def scored(score_once: Any, save_rows: Any, golden: Any, tmp_path: Path) -> tuple[str, Path]:
    """A run of eight rows with texts, kinds and packages; the fourth is too short for a score."""
    rows = topical_rows(golden, LENGTHS)
    for k, row in enumerate(rows):
        row["text"] = f"\n  <b>Title {k}</b>\x1b\tof\xa0it \nand more"
        row["kind"] = "intact" if k < 5 else "shuffled" if k < 7 else None
        row["package"] = f"p{k // 2}"
    folder = save_rows(rows)
    run = Run.read(score_once(folder, output=tmp_path / "run"))
    gain = {0: 0.1, 1: 0.9, 2: 0.3, 4: 0.2, 5: 0.05, 6: 0.4}
    add_signal(run, "context-gain", {"gain": gain})
    return folder, run.folder


def test_agreement_by_hand() -> None:
    a = np.array([1.0, 2.0, 3.0, 10.0, 20.0, 30.0])
    b = np.array([3.0, 2.0, 1.0, 30.0, 20.0, 10.0])
    codes = np.array([0, 0, 0, 1, 1, 1], dtype=np.int32)
    # Opposite orders inside both domains; over all, the domains lie apart: 1 - 6 x 16 / 210.
    assert spearman_inside_domains(a, b, codes) == pytest.approx(-1)
    assert spearman(a, b) == pytest.approx(1 - 6 * 16 / 210)
    assert np.isnan(spearman(a, np.array([1.0, NAN, NAN, NAN, NAN, 2.0])))
    assert spearman(a, np.array([1.0, NAN, 3.0, NAN, NAN, 2.0])) == pytest.approx(0.5)
    assert np.isnan(spearman(a, np.ones(6)))
    assert ranks_inside_domains(a, codes).tolist() == [0, 0.5, 1, 0, 0.5, 1]
    names = ["first", "second"]
    best_a, best_b = (best_inside_domains(values, codes, names=names, percent=67) for values in (a, b))
    assert best_a.tolist() == [False, True, True, False, True, True]
    assert overlap(best_a, best_b) == 0.5
    assert [is_constant(np.array(each)) for each in ([2.0, NAN, 2.0], [NAN], [2.0, 3.0])] == [True, True, False]
    with_nan = np.array([NAN, 2.0, NAN, NAN, NAN, NAN])
    only = best_inside_domains(with_nan, codes, names=names, percent=100)
    assert only.tolist() == [False, True, False, False, False, False]
    assert not best_inside_domains(np.full(6, NAN), codes, names=names, percent=100).any()


@pytest.mark.parametrize("percent", [1, 10, 20, 33.3, 50, 70, 100])
def test_the_overlap_is_of_what_a_selection_takes(percent: float) -> None:
    draw = np.random.default_rng(0)
    codes = draw.integers(0, 5, 60).astype(np.int32)
    values = draw.normal(size=60)
    values[draw.integers(0, 60, 7)] = NAN
    names = ["e", "b", "a", "d", "c"]
    domains = {}
    for code in np.unique(codes):
        places = np.flatnonzero((codes == code) & ~np.isnan(values))
        places = places[np.argsort(-values[places], kind="stable")]
        tokens = np.full(len(places), 100)
        domains[names[code]] = DomainSelection(positions=places, num_tokens=tokens, scores=values[places])
    settings = SelectSettings(runs=("run",), output="subset", top=percent)
    shares = {name: len(domain) for name, domain in domains.items()}
    apply_budget(domains, shares, settings, are_float32=False)
    taken = np.sort(np.concatenate([domain.taken_positions for domain in domains.values()]))
    assert np.flatnonzero(best_inside_domains(values, codes, names=names, percent=percent)).tolist() == taken.tolist()


def test_kinds_by_hand() -> None:
    values = np.array([5.0, 3.0, 1.0, 2.0, 4.0, 9.0, NAN])
    kinds = ["intact", "intact", "bad", "bad", "worse", None, "worse"]
    table = kind_table({"x": values}, kinds, list(range(7)), intact="intact", seed=0)
    assert [(kind.kind, kind.rows) for kind in table.kinds] == [("bad", 2), ("worse", 2)]
    found = [kind.by_column["x"] for kind in table.kinds]
    assert [each.value for each in found if each] == [auc(values[:2], values[2:4]), 0.5]
    assert kind_table({"x": np.full(7, NAN)}, kinds, [0] * 7, intact="intact", seed=0).kinds[0].by_column == {"x": None}
    with pytest.raises(LadmError, match="the kinds are bad, intact, worse; an AUC needs good and another one"):
        kind_table({"x": values}, kinds, [0] * 7, intact="good", seed=0)


def test_a_row_without_a_kind_is_not_of_the_kind_without_a_name() -> None:
    values = np.array([5.0, 1.0, 9.0, 9.0])
    table = kind_table({"x": values}, ["intact", "", None, None], list(range(4)), intact="intact", seed=0)
    (found,) = table.kinds
    assert (found.kind, found.rows, table.clusters) == ("", 1, 2)
    assert found.by_column["x"] is not None
    assert found.by_column["x"].value == 1.0


def test_clusters_widen_an_interval() -> None:
    """Ten copies of each row say nothing new: drawn as one cluster they leave the interval that it has alone."""
    draw = np.random.default_rng(0)
    intact, bad = draw.normal(0.5, 1, 30), draw.normal(0, 1, 30)
    values, kinds = np.r_[intact, bad], ["intact"] * 30 + ["bad"] * 30
    alone = kind_table({"x": values}, kinds, list(range(60)), intact="intact", seed=0).kinds[0].by_column["x"]
    copies, clusters = np.repeat(values, 10), np.repeat(np.arange(60), 10).tolist()
    repeated = [kind for kind in kinds for _ in range(10)]
    together = kind_table({"x": copies}, repeated, clusters, intact="intact", seed=0).kinds[0].by_column["x"]
    assert alone is not None
    assert together is not None
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))


def test_the_auc_of_kinds_is_that_of_all_pairs_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(2)
    for trial in range(12):
        A, B, C = (int(size) for size in generator.integers(1, 50, size=3))
        of_intact, of_bad = generator.integers(0, C, A), generator.integers(0, C, B)
        # Rounded, so that there are ties.
        scores = [(generator.normal(size=A).round(1), generator.normal(size=B).round(1)) for _ in range(2)]
        monkeypatch.setattr("ladm.calibration.estimates.COUNTS_AT_A_TIME", int(generator.integers(1, 5000)))
        pairs = [PairwiseWins(wins_AB=wins(*both), intact_A=of_intact, rows_B=of_bad) for both in scores]
        expected = [estimate_auc([each], seed=trial) for each in pairs]
        assert estimate_aucs(scores, of_intact, of_bad, seed=trial) == expected


def test_kinds_of_many_rows_need_no_memory_for_their_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory grew with the pairs of intact and other rows, and many pairs were refused without a remedy."""
    monkeypatch.setattr("ladm.calibration.estimates.BOOTSTRAP_DRAWS", 200)
    monkeypatch.setattr("ladm.calibration.estimates.COUNTS_AT_A_TIME", 1 << 18)
    values = np.random.default_rng(0).normal(size=62_000)
    tracemalloc.start()
    kinds = ["intact"] * 60_000 + ["bad"] * 2000
    table = kind_table({"x": values, "y": -values}, kinds, [None] * 62_000, intact="intact", seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    x, y = table.kinds[0].by_column.values()
    assert x is not None
    assert y is not None
    assert x.value == pytest.approx(0.5, abs=0.03)
    assert x.value + y.value == pytest.approx(1)
    # The pairs alone would take a gigabyte, the draws 200 MB.
    assert peak < 60e6


def test_rows_without_a_cluster_are_drawn_for_themselves() -> None:
    generator = np.random.default_rng(1)
    values, kinds = {"x": generator.normal(size=60)}, ["intact", "bad"] * 30
    alone = kind_table(values, kinds, list(range(60)), intact="intact", seed=0)
    assert kind_table(values, kinds, [None] * 60, intact="intact", seed=0) == alone


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"id": "a/b", "source": "c/d.txt", "index": 3}, "a/b"),
        ({"id": None, "source": "c/d.txt", "index": 3, "chunked_index": None}, "#3 d.txt"),
        ({"source": "c/d.jsonl line 4", "index": 3, "chunked_index": 1}, "3/1 d.jsonl line 4"),
        ({"id": None, "source": None, "index": 3}, "#3"),
        ({"index": 3, "chunked_index": 1}, "3/1"),
    ],
)
def test_a_document_without_an_id_is_shown_with_the_file_that_it_is_from(named: dict[str, Any], expected: str) -> None:
    assert shown_name(named, 7) == expected


def test_top_and_compare_name_the_files_of_texts_without_ids(
    score_once: Any, ladm: Command, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    rows = topical_rows(golden, [512, 400])
    for k, row in enumerate(rows):
        row["source"] = f"books/volume {k}.txt"
    score_once(save_rows(rows), output=tmp_path / "run")
    found = json.loads(ladm("top", tmp_path / "run", "--json").stdout)["documents"]
    assert {(each["id"], each["name"]) for each in found} == {("0", "0 volume 0.txt"), ("1", "1 volume 1.txt")}
    lines = ladm("top", tmp_path / "run").stdout.splitlines()[1:]
    assert [each["name"] in line for each, line in zip(found, lines, strict=True)] == [True, True]
    pairs = ("--columns", "score,-score", "--domain-key", "none")
    compare = ("compare", tmp_path / "run", *pairs, "--output", tmp_path / "page.html")
    table = ladm(*compare).stdout
    assert ("  0 volume 0.txt" in table, "  1 volume 1.txt" in table) == (True, True)
    found = json.loads(ladm(*compare, "--json").stdout)
    differing = found["higher_by_a"] + found["higher_by_b"]
    assert {(each["id"], each["name"]) for each in differing} == {("0", "0 volume 0.txt"), ("1", "1 volume 1.txt")}
    assert "0 volume 0.txt" in (tmp_path / "page.html").read_text()


def test_top_lists_documents(ladm: Command, scored: tuple[str, Path]) -> None:
    _, run = scored
    table = read_columns(Run.read(run), ["score"])
    positions, scores = table["position"].to_pylist(), table["score"].to_pylist()
    lines = ladm("top", run, "-n", "3").stdout.splitlines()
    assert lines[0].split() == ["rank", "score", "domain", "id", "beginning"]
    assert len(lines) == 4
    for k, line in enumerate(lines[1:]):
        p = positions[k]
        text = f"{k + 1:>8,}  {scores[k]:>11.5g}  domain {p % 2}  {p}   <b>Title {p}</b>? of it and more"
        assert line == text
    worst = json.loads(ladm("top", run, "-n", "2", "--worst", "--json").stdout)["documents"]
    assert [(each["rank"], each["position"]) for each in worst] == [(7, positions[-1]), (6, positions[-2])]
    found = json.loads(ladm("top", run, "--by", "-gain", "--domain", "domain 1", "--json").stdout)
    assert found["by"] == "-gain"
    assert [(each["rank"], each["id"], each["value"]) for each in found["documents"]] == [
        (1, "5", pytest.approx(-0.05)), (6, "1", pytest.approx(-0.9)),
    ]  # fmt: skip


def test_long_ids_keep_both_ends(score_once: Any, ladm: Command, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    """Paths and addresses differ at their ends, where a window has its number too."""
    rows = topical_rows(golden, [512, 512])
    for k, row in enumerate(rows):
        row["id"] = f"usr/lib/python3/site-packages/package/module_{k}.py"
        row["chunked_index"] = k
    score_once(save_rows(rows), output=tmp_path / "run")
    output = ladm("top", tmp_path / "run").stdout
    assert all(f"  usr/lib/python3/sit…ackage/module_{k}.py/{k}  document {k}" in output for k in (0, 1)), output


def test_tables_are_aligned_behind_wide_letters(
    score_once: Any, ladm: Command, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    rows = topical_rows(golden, LENGTHS)
    for k, row in enumerate(rows):
        row["meta"] = {"pile_set_name": ("图书", "Bu\u0308cher", "web", "หนังสือ")[k % 4]}
        row["text"] = f"document {k}"
    score_once(save_rows(rows), output=tmp_path / "run")
    top = ladm("top", tmp_path / "run").stdout.splitlines()
    compared = ladm("compare", tmp_path / "run", "--columns", "score,length").stdout.splitlines()
    selected = ladm("select", tmp_path / "run", "--documents", "3", "--dry-run").stdout.splitlines()
    number = r"(four|cher|web|books) +\d+"
    for lines, until in ((top[1:], "document "), (compared, rf"{number}(?=.*\()"), (selected, number)):
        # As a terminal shows it: two columns for each of the Chinese letters, none for the two dots of Bücher and the
        # two vowels above the Thai letters.
        shown = [line.replace("图书", "four").replace("u\u0308", "u").replace("หนังสือ", "books") for line in lines]
        ends = [found.end() for line in shown if (found := re.search(until, line))]
        assert (len(ends) >= 3, len(set(ends))) == (True, 1), "\n".join(lines)


@pytest.mark.parametrize("command", [("top",), ("compare",), ("compare", "--columns", "score,gain")])
def test_a_run_that_is_not_finished_is_named_as_such(
    ladm: Command, scored: tuple[str, Path], command: tuple[str, ...]
) -> None:
    """Not by a file that nobody named: its columns are read before anything else."""
    _, run = scored
    (run / "scores.parquet").unlink()
    result = ladm(*command, run)
    message = f"ladm: {run} is not finished: scores.parquet missing; run the same ladm score command again\n"
    assert (result.exit_code, result.stderr) == (3, message)


@pytest.mark.parametrize("how", ["small", "recorded"])
def test_rows_with_other_contents_show_no_texts(
    ladm: Command, scored: tuple[str, Path], save_rows: Any, golden: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of the same lengths; large ones are compared by the digest that prepare.json has of them."""
    rows, run = scored
    others = topical_rows(golden, LENGTHS)
    for row in others:
        row["input_ids"], row["text"] = row["input_ids"][::-1], "of another corpus"
    other = save_rows(others, "other")
    if how == "recorded":
        monkeypatch.setattr("ladm.runs.columns.text_beginnings.MOST_BYTES_READ", 0)
        (Path(other) / "prepare.json").write_text(json.dumps({"xxh3_128": open_rows(other).identity()["xxh3_128"]}))
    message = f"{other} are not the rows of {run}: they have other contents"
    result = ladm("top", run, "--rows", other)
    assert (result.exit_code, result.stderr) == (1, f"ladm: {message}\n")
    result = ladm("compare", run, "--columns", "score,gain", "--show", "3", "--rows", other)
    assert (result.exit_code, result.stderr) == (1, f"ladm: {message}\n")
    # At the place where the run found its own they only cost the texts.
    shutil.rmtree(rows)
    Path(other).rename(rows)
    result = ladm("top", run)
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 8)
    assert "of another corpus" not in result.stdout
    assert "they have other contents; to show texts, give --rows the rows that it scored" in result.stderr


def test_large_rows_are_compared_by_the_ids_of_those_that_are_shown(
    score_once: Any, ladm: Command, save_rows: Any, golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladm.runs.columns.text_beginnings.MOST_BYTES_READ", 0)
    rows = [row | {"id": f"mine {k}"} for k, row in enumerate(topical_rows(golden, [512, 450]))]
    score_once(save_rows(rows), output=tmp_path / "run")
    assert "document" in ladm("top", tmp_path / "run", "-n", "1").stdout.splitlines()[1]
    other = save_rows([row | {"id": f"d{k}"} for k, row in enumerate(rows)], "other")
    result = ladm("top", tmp_path / "run", "--worst", "-n", "1", "--rows", other)
    (k,) = re.findall(r": row (\d) is d", result.stderr)
    assert result.stderr == f"ladm: {other} are not the rows of {tmp_path / 'run'}: row {k} is d{k}, not mine {k}\n"


def test_top_without_the_rows_and_with_others(
    ladm: Command, scored: tuple[str, Path], save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    rows, run = scored
    other = save_rows(topical_rows(golden, [9] * 8), "other")
    result = ladm("top", run, "--rows", other)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"ladm: {other} are not the rows of {run}: row ")
    few = save_rows(topical_rows(golden, [512, 400]), "few")
    assert ladm("top", run, "--rows", few).stderr == f"ladm: {few} are not the rows of {run}: there are 2, not 8\n"
    Path(rows).rename(tmp_path / "moved")
    # Rows that were prepared again under the same name: the list stays, without texts of other documents.
    Path(few).rename(rows)
    result = ladm("top", run, "-n", "1")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 2)
    note = f"{rows} are not the rows of {run}: there are 2, not 8; to show texts, give --rows the rows that it scored"
    assert result.stderr == f"note      {note}\n"
    shutil.rmtree(rows)
    result = ladm("top", run, "-n", "1")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 2)
    assert (
        f"no such data set: {rows} is neither a folder nor a Hub id such as org/name; to show their texts, give"
        in result.stderr
    )
    assert "<b>Title" in ladm("top", run, "-n", "1", "--rows", tmp_path / "moved").stdout
    result = ladm("top", run, "--domain", "zzz")
    message = f"no document of {run} has the domain zzz; the domains are domain 0, domain 1"
    assert (result.exit_code, result.stderr) == (1, f"ladm: {message}\n")
    assert ladm("top", run, "--by", "zzz").exit_code == 2
    result = ladm("top", run, "--domain-key", "kind")
    assert (result.exit_code, result.stderr) == (
        2,
        f"ladm: --domain-key kind: {run} stores only meta, id, domain and source of the rows; give one of them, or "
        "none\n",
    )


def test_quartiles_by_domain_by_hand() -> None:
    nan = NAN
    columns = {"a": np.array([1.0, 2.0, 3.0, 10.0, 30.0, 5.0, nan]), "b": np.array([nan, 4.0, 6.0, nan, nan, 7.0, 8.0])}
    codes = np.array([0, 0, 0, 1, 1, 2, 3], dtype=np.int32)
    (a, b), documents = summarise_columns(columns, codes, ["low", "high", "alone", "empty"], most_domains=3)
    # Of the three largest domains, by the median of the first column; of two that are equally large the first by name.
    assert documents == {"high": 2, "alone": 1, "low": 3}
    assert list(a.by_domain) == list(b.by_domain) == list(documents)
    assert a.by_domain == {"high": (15, 20, 25), "alone": (5, 5, 5), "low": (1.5, 2, 2.5)}
    assert (a.documents, a.quartiles) == (6, (2.25, 4, 8.75))
    assert b.by_domain["low"] == (4.5, 5, 5.5)
    assert np.isnan(b.by_domain["high"]).all()
    assert largest_domains(documents, 2) == ["high", "low"]
    # A domain without a value is the last.
    (last, _), found = summarise_columns(columns, codes, ["low", "high", "alone", "empty"], most_domains=9)
    assert list(found) == ["high", "alone", "low", "empty"]
    assert np.isnan(last.by_domain["empty"]).all()
    assert summarise_columns({}, codes, ["low", "high", "alone", "empty"], most_domains=9) == ([], {})
    assert quartiles_text(a.by_domain["low"]) == "2 (1.5 to 2.5)"
    assert quartiles_text(b.by_domain["high"]) == "-"


def test_compare_prints_quartiles_by_domain(ladm: Command, scored: tuple[str, Path], monkeypatch: Any) -> None:
    _, run = scored
    table = read_columns(Run.read(run), ["score", "gain"])
    cells = {}
    for domain in (0, 1):
        inside = table["position"].to_numpy() % 2 == domain
        cells[domain] = [quartiles_text(quartiles(table[name].to_numpy()[inside])) for name in ("score", "gain")]
    first = max((0, 1), key=lambda domain: float(cells[domain][0].split()[0]))
    lines = ladm("compare", run, "--columns", "score,gain").stdout.splitlines()
    at = lines.index("median (first to third quartile) by domain, in the order of the median of score")
    assert lines[at + 1].split() == ["domain", "documents", "score", "gain"]
    for line, domain in zip(lines[at + 2 : at + 4], (first, 1 - first), strict=True):
        count = 4 if domain == 0 else 3
        assert re.split(r" {2,}", line) == [f"domain {domain}", str(count), *cells[domain]]
    assert lines[at + 4] == ""
    # What is left out is said, and one domain is no table.
    monkeypatch.setattr("ladm.cli.comparison.MOST_DOMAINS", 1)
    monkeypatch.setattr("ladm.cli.comparison.MOST_COLUMNS", 1)
    monkeypatch.setattr("ladm.comparison.page.MOST_DOMAINS", 1)
    page = run.parent / "few.html"
    lines = ladm("compare", run, "--columns", "score,gain", "-o", page).stdout.splitlines()
    assert lines[at + 2].startswith("domain 0 ")
    assert lines[at + 3 : at + 5] == [
        "not shown: 1 smaller domain",
        "not shown: 1 more column; choose with --columns, or write a page of all with -o FILE",
    ]
    assert "Not shown: 1 smaller domain." in page.read_text()
    alone = ladm("compare", run, "--columns", "score,gain", "--domain-key", "none").stdout
    assert "by domain" not in alone


def test_compare_columns_of_a_run(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    _, run = scored
    page = tmp_path / "compare.html"
    result = ladm("compare", run, "--columns", "score,gain,rank(gain)", "--top", "50%", "-o", page, "--show", "1")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split()[:2] == ["column", "documents"]
    assert lines[2].split()[:2] == ["gain", "6"]
    assert lines[-1] == f"page: {page}"
    at = lines.index("documents that score ranks above gain (rank in the domain: 1 is the best, 0 the last)")
    assert lines[at + 1].split() == ["score", "gain", "domain", "id", "beginning"]
    assert float(lines[at + 2].split()[0]) > float(lines[at + 2].split()[1])
    found = json.loads(ladm("compare", run, "--columns", "score,gain,rank(gain)", "--top", "50%", "--json").stdout)
    pairs = {(pair["a"], pair["b"]): pair for pair in found["pairs"]}
    assert pairs["gain", "rank(gain)"]["spearman"] == pytest.approx(1)
    assert pairs["gain", "rank(gain)"]["overlap"] == 1
    table = read_columns(Run.read(run), ["score", "gain"])
    expected = spearman(table["score"].to_numpy(), table["gain"].to_numpy())
    assert pairs["score", "gain"]["spearman"] == pytest.approx(expected)
    for document in found["higher_by_a"]:
        assert document["rank_a"] > document["rank_b"]
        assert document["beginning"].startswith("<b>Title")
    text = page.read_text()
    assert "default-src 'none'" in text
    assert "<script" not in text
    assert "&lt;b&gt;Title" in text
    assert "<b>Title" not in text
    # Written again by its own command, and never over a file of somebody else.
    assert ladm("compare", run, "--columns", "score,gain", "-o", page).exit_code == 0
    page.write_text("mine")
    result = ladm("compare", run, "--columns", "score,gain", "-o", page)
    message = f"--output {page} exists already and was not written by this command; give another"
    assert (result.exit_code, result.stderr, page.read_text()) == (2, f"ladm: {message}\n", "mine")


def test_of_many_columns_only_pairs_with_the_first_are_printed(ladm: Command, scored: tuple[str, Path]) -> None:
    _, run = scored

    def pairs(*flags: str) -> tuple[list[tuple[str, str]], str]:
        lines = ladm("compare", run, "--show", "0", *flags).stdout.splitlines()
        at = next(k for k, line in enumerate(lines) if line.startswith("a ") and " b " in line)
        names = [tuple(line.split()[:2]) for line in lines[at + 1 :] if not line.startswith("not shown")]
        return names, lines[-1]

    names = [column["name"] for column in json.loads(ladm("compare", run, "--json").stdout)["columns"]]
    every = list(combinations(names, 2))
    shown, last = pairs()
    assert shown == [("score", name) for name in names[1:]]
    left = len(every) - len(shown)
    assert last == f"not shown: {left} pairs without score; give --all-pairs, or choose with --columns"
    assert pairs("--all-pairs")[0] == every
    assert pairs("--columns", ",".join(names))[0] == every
    assert len(json.loads(ladm("compare", run, "--json").stdout)["pairs"]) == len(every)
    assert pairs("--columns", "score,gain,length")[0] == list(combinations(["score", "gain", "length"], 2))


def test_compare_all_columns_and_kinds(ladm: Command, scored: tuple[str, Path], tmp_path: Path) -> None:
    _, run = scored
    result = ladm("compare", run, "--kinds", "kind", "--cluster", "package", "--json", "-o", tmp_path / "c.html")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    names = [column["name"] for column in found["columns"]]
    assert {"score", "gain", "robust", "copy_share", "length", "random"} <= set(names)
    kinds = found["kinds"]
    assert (kinds["intact_rows"], kinds["clusters"]) == (4, 4)
    assert [(kind["kind"], kind["rows"]) for kind in kinds["kinds"]] == [("shuffled", 2)]
    table = read_columns(Run.read(run), ["score"])
    score = dict(zip(table["position"].to_pylist(), table["score"].to_pylist(), strict=True))
    intact, bad = (np.array([score[k] for k in places]) for places in ((0, 1, 2, 4), (5, 6)))
    assert kinds["kinds"][0]["by_column"]["score"]["value"] == auc(intact, bad)
    for flags in (("--kinds", "sort"), ("--kinds", "kind", "--cluster", "sort")):
        result = ladm("compare", run, *flags)
        assert result.exit_code == 1
        assert "has no column sort, and no row has it inside meta; the columns are " in result.stderr
        assert "kind" in result.stderr.partition("; the columns are ")[2].strip().split(", ")
    lines = ladm("compare", run, "--kinds", "kind", "--columns", "score").stdout.splitlines()
    assert "AUC of intact (4 rows) over each kind; 95 % intervals over 6 clusters" in lines
    assert "AUC by kind" in (tmp_path / "c.html").read_text()


def test_compare_two_runs(
    ladm: Command, scored: tuple[str, Path], save_rows: Any, golden: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    _, run = scored
    assert ladm("rescore", run, "--reduce", "median", "--output", tmp_path / "run2").exit_code == 0
    found = json.loads(ladm("compare", run, tmp_path / "run2", "--json").stdout)
    (pair,) = found["pairs"]
    assert (pair["a"], pair["b"]) == ("run: score", "run2: score")
    both = read_columns(Run.read(run), ["score", "median"])
    assert pair["spearman"] == pytest.approx(spearman(both["score"].to_numpy(), both["median"].to_numpy()))
    monkeypatch.chdir(run)
    (pair,) = json.loads(ladm("compare", ".", tmp_path / "run2", "--json").stdout)["pairs"]
    assert (pair["a"], pair["b"]) == ("run: score", "run2: score")
    # Every job of `ladm run` calls its run `scores`.
    names = {}
    for first, second in [("a/run", "b/run"), ("a/run", "c"), ("a/run", "a/run")]:
        for name in (first, second):
            shutil.copytree(run, tmp_path / name, dirs_exist_ok=True)
        (pair,) = json.loads(ladm("compare", tmp_path / first, tmp_path / second, "--json").stdout)["pairs"]
        names[first, second] = (pair["a"], pair["b"])
    assert names == {
        ("a/run", "b/run"): ("a/run: score", "b/run: score"),
        ("a/run", "c"): ("run: score", "c: score"),
        ("a/run", "a/run"): ("run: score", "run 2: score"),
    }
    other = save_rows(topical_rows(golden, [512, 400]), "other")
    assert ladm("score", other, *SMALL, "--output", tmp_path / "other-run").exit_code == 0
    result = ladm("compare", run, tmp_path / "other-run")
    message = f"{tmp_path}/other-run scored other rows than {run}; only runs of the same rows can be compared"
    assert (result.exit_code, result.stderr) == (1, f"ladm: {message}\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("b c", "3 runs given; at most 2 can be compared"),
        ("--cluster p", "--cluster has no effect without --kinds"),
        ("--intact p", "--intact has no effect without --kinds"),
        ("--columns a,b --all-pairs", "--all-pairs has no effect with --columns, whose pairs are all printed"),
        ("--columns a,b --seed 1", "--seed has no effect without --kinds or the column random"),
        ("b --seed 1", "--seed has no effect without --kinds or the column random"),
        ("--columns a,,b",
         "--columns '' is not an expression of columns, numbers, + - * /, parentheses, rank(x), z(x), log(x) "
         "and document_mean(x)"),
        ("--top 0%", "--top '0%' must be above 0% and at most 100%"),
        ("--show -1", "--show must be at least 0, not -1"),
    ],
)  # fmt: skip
def test_flags_that_compare_refuses(ladm: Command, flags: str, message: str) -> None:
    result = ladm("compare", "a", *flags.split())
    assert (result.exit_code, result.stderr) == (2, f"ladm: {message}\n")


def test_too_many_columns_and_one_alone(ladm: Command, scored: tuple[str, Path]) -> None:
    _, run = scored
    result = ladm("compare", run, "--columns", ",".join(f"c{k}" for k in range(41)))
    assert (result.exit_code, result.stderr) == (2, "ladm: --columns has 41 columns; at most 40 can be compared\n")
    result = ladm("compare", run, "--columns", "score")
    message = "there is only one column to compare; give --columns A,B or another RUN"
    assert (result.exit_code, result.stderr) == (1, f"ladm: {message}\n")
    assert ladm("top", run, "-n", "0").stderr == "ladm: --number must be at least 1, not 0\n"
