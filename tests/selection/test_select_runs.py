"""`ladm select` of several runs at once: ranked together, refused where they differ, rows of one document in each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from ladm.runs.columns.by_name import read_columns
from ladm.runs.folder import Run
from support.files import read_lines
from support.models import SMALL
from support.rows import topical_rows
from support.subsets import selected, write_profile

Command = Callable[..., Result]


@pytest.fixture
def two(score_once: Any, save_rows: Any, golden: Any, tmp_path: Path) -> list[tuple[str, Path]]:
    """Two runs of four rows each, of one model and method."""
    made = []
    for name, lengths in (("a", [512, 400, 450, 480]), ("b", [700, 490, 512, 300])):
        rows = save_rows(
            [row | {"id": f"{name}{row['index']}"} for row in topical_rows(golden, lengths)], f"rows-{name}"
        )
        made.append((rows, score_once(rows, output=tmp_path / name)))
    return made


def test_several_runs_are_ranked_together(ladm: Command, two: list[tuple[str, Path]], tmp_path: Path) -> None:
    from datasets import load_from_disk

    (rows, run), (rows2, run2) = two
    both: list[tuple[float, str]] = []
    for name, folder in (("a", run), ("b", run2)):
        table = read_columns(Run.read(folder), ["score"])
        names = [f"{name}{position}" for position in table["position"].to_pylist()]
        both += zip(table["score"].to_pylist(), names, strict=True)
    best = sorted(name for _, name in sorted(both, reverse=True)[:5])
    command = ("select", run, run2, "--rows", rows, rows2, "--documents", "5", "--domain-key", "none")
    result = ladm(*command, "--output", tmp_path / "subset")
    assert result.exit_code == 0, result.output
    assert load_from_disk(str(tmp_path / "subset"))["train"]["id"] == best
    manifest = json.loads((tmp_path / "subset" / "manifest.json").read_text())
    assert [name for part in manifest["chosen"] for name in part["ids"]] == best
    assert [part["data"]["rows"] for part in manifest["chosen"]] == [4, 4]
    assert manifest["other_runs"][0]["data"] == manifest["chosen"][1]["data"]
    # The rows may come first, each with its own flag, and are where they were without one.
    again = ("select", "--rows", rows, run, "--rows", rows2, run2, "--documents", "5", "--domain-key", "none")
    assert ladm(*again, "--output", tmp_path / "again").exit_code == 0
    assert ladm("select", run, run2, *command[-4:], "--output", tmp_path / "third").exit_code == 0
    for name in ("again", "third"):
        assert load_from_disk(str(tmp_path / name))["train"]["id"] == best
    assert ladm("report", run2, "--subset", tmp_path / "subset", "--domain-key", "none").exit_code == 0


def test_rows_of_two_runs_without_ids_have_numbers_of_their_own(
    ladm: Command, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    runs = []
    for name, lengths in (("a", [512, 400, 450, 480]), ("b", [700, 490, 512, 300])):
        rows = save_rows(topical_rows(golden, lengths), f"rows-{name}")
        runs.append(tmp_path / name)
        assert ladm("score", rows, *SMALL, "--output", runs[-1]).exit_code == 0
    command = ("select", *runs, "--documents", "8", "--by", "random", "--format", "jsonl", "-o", tmp_path / "subset")
    assert ladm(*command).exit_code == 0
    (lines,) = (tmp_path / "subset" / "data").glob("*.jsonl")
    assert len({row["score"] for row in read_lines(lines)}) == 8


def test_a_page_of_one_of_several_runs_counts_what_was_taken_of_it(
    ladm: Command, two: list[tuple[str, Path]], tmp_path: Path
) -> None:
    subset = tmp_path / "subset"
    assert ladm("select", *(run for _, run in two), "--documents", "6", "--output", subset).exit_code == 0
    manifest = json.loads((subset / "manifest.json").read_text())
    for (_, run), chosen in zip(two, manifest["chosen"], strict=True):
        assert ladm("report", run, "--subset", subset).exit_code == 0
        page = (run / "report.html").read_text()
        taken = len(chosen["positions"])
        assert f"<b>{taken}</b>selected, " in page
        assert "documents of 2 runs" in page
        assert sum(map(int, re.findall(r'data-label="selected">(\d+)<', page))) == taken < 6


def test_runs_that_were_not_made_alike_are_refused(ladm: Command, two: list[tuple[str, Path]], tmp_path: Path) -> None:
    (rows, run), (rows2, run2) = two
    other = tmp_path / "other"
    assert ladm("score", rows2, *SMALL[:-1], "32", "--reduce", "median", "--output", other).exit_code == 0
    out = ("--documents", "5", "--output", tmp_path / "none")
    result = ladm("select", run, other, *out)
    assert (result.exit_code, result.stderr) == (
        1,
        f"ladm: {other} was not scored as {run} was, so their scores cannot be ranked together:\n"
        f"  settings.span_tokens: 16 in {run}, 32 in {other}\n"
        f'  settings.reduce: "mean" in {run}, "median" in {other}\n'
        f'  score.reduce: "mean" in {run}, "median" in {other}\n',
    )
    # How the layers make the score matters to the score alone.
    median = tmp_path / "median"
    assert ladm("rescore", run2, "--reduce", "median", "--output", median).exit_code == 0
    both = ("select", run, median, "--rows", rows, rows2, "--documents", "5", "--domain-key", "none")
    assert ladm(*both, "--output", tmp_path / "by-score").exit_code == 1
    assert ladm(*both, "--by", "robust", "--output", tmp_path / "by-robust").exit_code == 0
    result = ladm("select", run, run, *out)
    assert (result.exit_code, result.stderr) == (1, f"ladm: {run} scored the same rows as {run}; give them once\n")
    result = ladm("select", run, run2, "--rows", rows, *out)
    assert (result.exit_code, result.stderr) == (
        2, "ladm: 2 runs but 1 --rows; give the rows of every RUN, in the same order\n",
    )  # fmt: skip
    result = ladm("select", run, run2, "--rows", rows2, rows, *out)
    assert (result.exit_code, result.stderr) == (
        1, f"ladm: {rows2} are not the rows that {run} scored: their content differs\n",
    )  # fmt: skip


def test_rows_per_document_in_runs_with_and_without_windows(
    ladm: Command, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    """Four windows of each of two books, and articles that no window is cut from; then a subset of both as rows."""
    rows = topical_rows(golden, [512] * 8 + [480] * 3)
    books = [
        row | {"document": k // 4, "chunked_index": str(k % 4), "start_token": 512 * (k % 4), "source": "books.jsonl"}
        for k, row in enumerate(rows[:8])
    ]
    articles = [row | {"document": k, "start_token": 0, "source": f"article-{k}.txt"} for k, row in enumerate(rows[8:])]
    folders = [save_rows(books, "books"), save_rows(articles, "articles"), save_rows(rows[8:], "others")]
    runs = [Path(f"{folder}-run") for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        assert ladm("score", folder, *SMALL, "--output", run).exit_code == 0
    everything = ("--documents", "99", "--allow-small-pool", "--domain-key", "none")
    for other in runs[1:]:
        # The articles have a number of a document, or none.
        found = selected(ladm, runs[0], other, *everything)
        assert found["max_per_document"] == 2
        assert [sum(k // 4 == book for k in found["positions"]) for book in (0, 1)] == [2, 2]
        assert found["chosen"][1]["positions"] == [0, 1, 2]
        # Rows that were selected are rows to score: the columns that only the books have are null in the articles.
        again = tmp_path / "again"
        assert ladm("score", tmp_path / "subset", *SMALL, "--output", again, "--overwrite").exit_code == 0
        subset = tmp_path / "subset"
        subset.rename(subset := tmp_path / other.name.partition("-")[0] / "subset")
        # Document 0 of the books and document 0 of the articles are two documents.
        found = selected(ladm, again, *everything, "--rows", subset, "--max-per-document", "2")
        assert found["positions"] == list(range(7))


def test_whole_documents_are_ranked_by_the_mean_of_their_rows(
    ladm: Command, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    """Three books of four windows each: the best book is taken whole, whatever its worst window scores."""
    rows = topical_rows(golden, [700] * 12)
    # No two rows alike, and so no two means.
    books = [
        row | {"input_ids": row["input_ids"][7 * k : 7 * k + 512], "document": k // 4, "chunked_index": str(k % 4)}
        for k, row in enumerate(rows)
    ]
    folder = save_rows(books, "books")
    run = Path(f"{folder}-run")
    assert ladm("score", folder, *SMALL, "--output", run).exit_code == 0
    lines = [json.loads(line) for line in (run / "sorted_by_score.jsonl").read_text().splitlines()]
    scores = {line["index"]: line["score"] for line in lines}
    means = [sum(scores[4 * book + k] for k in range(4)) / 4 for book in range(3)]
    best = means.index(max(means))
    whole = ("--by", "document_mean(score)", "--documents", "4", "--domain-key", "none")
    found = selected(ladm, run, *whole)
    assert found["positions"] == [4 * best + k for k in range(4)]
    assert "max_per_document" not in found
    assert selected(ladm, run, *whole, "--max-per-document", "1", "--allow-small-pool")["max_per_document"] == 1
    top = json.loads(ladm("top", run, "--by", "document_mean(score)", "--json").stdout)["documents"]
    assert [row["value"] for row in top[:4]] == pytest.approx([max(means)] * 4)
    compared = ladm("compare", run, "--columns", "score,document_mean(score)")
    assert (compared.exit_code, compared.stderr) == (0, "")
    plain = save_rows(topical_rows(golden, [512] * 3), "plain")
    assert ladm("score", plain, *SMALL, "--output", tmp_path / "run").exit_code == 0
    refused = ladm("select", tmp_path / "run", *whole, "--output", tmp_path / "none")
    assert (refused.exit_code, refused.stderr) == (
        1,
        f"ladm: {plain} has no column document, so document_mean has nothing to average\n",
    )


def test_documents_are_named_by_numbers_or_texts(save_rows: Any) -> None:
    from ladm.corpus.rows.reading import open_rows
    from ladm.selection.windows import read_documents

    names = {"texts": ["a", "b", "a", None, None], "numbers": [1, None, 1, 2, None]}
    rows = [
        open_rows(save_rows([{"input_ids": [1], "document": each} for each in column], kind))
        for kind, column in names.items()
    ]
    found = read_documents(rows).tolist()
    for part, expected in ((found[:5], [0, 1, 0, 3, 4]), (found[5:], [0, 1, 0, 3, 4])):
        assert [part.index(number) for number in part] == expected
    assert len(set(found)) == 4 + 4


def test_copy_shares_over_different_layers_are_not_compared(
    ladm: Command, two: list[tuple[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (rows, run), (rows2, run2) = two
    command = ("select", run, run2, "--rows", rows, rows2, "--documents", "5", "--domain-key", "none")
    command += ("--within", "copy_share:-95%")
    assert ladm(*command, "--output", tmp_path / "same").exit_code == 0
    last = {run: (0, 1, 2), run2: (2,)}
    monkeypatch.setattr("ladm.selection.sources.layers_after_sinks", lambda each: last[each.folder])
    refused = ladm(*command, "--output", tmp_path / "none")
    assert (refused.exit_code, refused.stderr) == (
        1,
        f"ladm: copy_share is the mean over layers 0-2 in {run} and over layers 2 in {run2}, by the sinks in their own "
        "rows, so its values cannot be compared; leave it out, or select from each run alone\n",
    )
    assert ladm(*command[:-2], "--output", tmp_path / "without").exit_code == 0
    # A band brings the copy share with it.
    profile = write_profile(run, tmp_path / "p.yaml", {"score": (0.0, 0.0, 9.0), "copy_share": (0.0, 0.5, 1.0)})
    by_band = ladm(*command[:-1], "profile", "--profile", profile, "--output", tmp_path / "none")
    assert (by_band.exit_code, by_band.stderr) == (1, refused.stderr)


def test_runs_need_the_same_signals_only_where_they_are_used(
    ladm: Command, two: list[tuple[str, Path]], golden_lm: Path, tmp_path: Path
) -> None:
    model = ("--model", golden_lm, "--dtype", "float32", "--device", "cpu", "--span-tokens", "16")
    runs = []
    for k, ((rows, _), scheme) in enumerate(zip(two, ("suffix", "blocks"), strict=True)):
        runs.append(tmp_path / f"run{k}")
        signals = ("--signals", "cds,context-gain,text", "--context-gain", scheme)
        # Of the first an own signal, of the second one that is added.
        for part in (signals,) if k == 0 else (("--signals", "cds"), signals):
            assert ladm("score", rows, *model, *part, "--output", runs[k]).exit_code == 0
    select = ("select", *runs, "--documents", "5", "--domain-key", "none", "--output", tmp_path / "subset")
    different = (
        f"ladm: {runs[1]} was not scored as {runs[0]} was, so their scores cannot be ranked together:\n"
        f'  signals.context-gain.scheme: "suffix" in {runs[0]}, "blocks" in {runs[1]}\n'
    )
    for flags in (("--by", "rank(gain) + rank(score)"), ("--within", "key_tokens:0-")):
        refused = ladm(*select, *flags)
        assert (refused.exit_code, refused.stderr) == (1, different)
    # Each run counted its tokens on its own rows, which makes no difference in kind.
    made = ladm(*select, "--by", "rank(score) + rank(far_rare)")
    assert made.exit_code == 0, made.stderr
    manifest = json.loads((tmp_path / "subset" / "manifest.json").read_text())
    assert manifest["run"]["signals"]["context-gain"] == {"scheme": "suffix"}
    assert set(manifest["other_runs"][0]["signals"]) == {"cds", "text"}
    assert ladm("report", runs[1], "--subset", tmp_path / "subset", "--domain-key", "none").exit_code == 0
