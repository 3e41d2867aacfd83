"""`ladm run --dry-run`: what is found, what it would take, and that nothing is written."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

from ladm.corpus.documents.counts import count_documents
from ladm.corpus.documents.sources import Source, find_sources
from ladm.pipeline.corpus_size import CorpusSize, corpus_size
from support.jobs import text_of

Command = Callable[..., Result]
FLAGS = ("--dtype", "float32", "--device", "cpu", "--span-tokens", "16", "--score", "robust", "--dry-run")


@pytest.fixture(autouse=True)
def _one_timed_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """How well three rows are timed matters to no test here."""
    monkeypatch.setattr("ladm.scoring.dry_run.TIMED_ROWS", 1)


def write_lines(path: Path, documents: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(document) + "\n" for document in documents).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def files_of(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_documents_that_were_all_looked_at(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The folder that the source is in: without --output nothing here may count as output.
    monkeypatch.chdir(tmp_path)
    before = files_of(tmp_path)
    result = ladm("run", shard.name, "--model", talking, "--tokens", "3k", *FLAGS)
    assert result.exit_code == 0, result.output
    assert files_of(tmp_path) == before
    assert "length    512 tokens: documents of at least that many have 100% of the tokens" in result.stderr
    assert "domains   language: 3 values" in result.stderr
    lines = result.stdout.splitlines()
    assert lines[:2] == [
        "of 12 documents looked at:", "kept                 12  documents of at least 512 tokens"
    ]  # fmt: skip
    for line in (
        "documents: 12 in 1 source, all of them looked at",
        "rows: 12 rows, 6,144 tokens",
        "budget: 3,000 tokens, 0.488 of the 6,144 that can be selected",
    ):
        assert line in lines
    starts = ("a row of 512 tokens: ", "hours on 1 device: ", "memory: ", "results: about ", "rows on disk: ")
    for start in (*starts, "hours to make the rows: "):
        assert sum(line.startswith(start) for line in lines) == 1, start
    small = ladm("run", shard, "--model", talking, "--tokens", "1M", "-o", tmp_path / "job", *FLAGS, "--json")
    found = json.loads(small.stdout)
    assert files_of(tmp_path) == before
    assert (found["documents"], found["rows"], found["is_exact"], found["fills_budget"]) == (12, 12, True, False)
    assert found["scoring"]["rows_by_length"] == {"512": 12}


def test_the_time_to_make_rows_counts_the_texts_that_are_tokenised_whole(
    ladm: Command, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a long text only the beginning is tokenised for the estimate, and a short one costs nothing."""
    monkeypatch.setattr("ladm.pipeline.sample_rows.MOST_CHARACTERS", 1)
    monkeypatch.setattr("ladm.pipeline.document_sample.MOST_DOCUMENTS", 20)
    monkeypatch.setattr("ladm.pipeline.corpus_size.COUNTED_BYTES", 100_000)
    monkeypatch.setattr("ladm.pipeline.corpus_size.LEAST_BYTES", 1)
    clock = itertools.count(step=10.0)
    monkeypatch.setattr("ladm.pipeline.sample_rows.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    texts = [text_of(k, 1200) for k in range(10)]
    # Of each 16 characters for a token of the row are read: all of these, and half of those.
    texts = [text[:8192].ljust(8192, "x") for text in texts]
    source = write_lines(tmp_path / "d.jsonl", [{"text": text} for text in [*texts, *["short"] * 10] * 10])
    words = ("run", source, "--model", talking, "--length", "512", "--domain", "d", "--tokens", "1k", *FLAGS, "--json")
    result = ladm(*words)
    assert result.exit_code == 0, result.output
    whole = json.loads(result.stdout)
    # 20 of about 200 documents took 10 seconds.
    assert 150 < whole["documents"] < 250
    assert whole["rows_hours"] * 3600 == pytest.approx(whole["documents"] / 2, rel=0.01)
    twice = write_lines(tmp_path / "twice.jsonl", [{"text": text * 2} for text in [*texts, *["short"] * 10] * 10])
    found = json.loads(ladm("run", twice, *words[2:]).stdout)
    assert found["rows_hours"] * 3600 == pytest.approx(found["documents"], rel=0.01)
    limited = json.loads(ladm(*words, "--limit", 50).stdout)
    assert limited["rows"] == 50
    assert limited["rows_hours"] / whole["rows_hours"] == pytest.approx(50 / whole["rows"], rel=0.01)


def test_an_estimate_from_a_part(ladm: Command, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ladm.pipeline.document_sample.MOST_DOCUMENTS", 12)
    monkeypatch.setattr("ladm.pipeline.document_sample.MOST_SOURCES", 2)
    monkeypatch.setattr("ladm.pipeline.corpus_size.COUNTED_BYTES", 100_000)
    monkeypatch.setattr("ladm.pipeline.corpus_size.LEAST_BYTES", 1)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number in range(4):
        # Every third document is too short for a row.
        documents = [{"text": text_of(100 * number + k, 60 if k % 3 == 2 else 600)} for k in range(90)]
        write_lines(corpus / f"{number}.jsonl", documents)
    words = ("run", corpus, "--model", talking, "--length", "512", "--domain", "d")
    result = ladm(*words, "--tokens", "1M", *FLAGS, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["documents_looked_at"], found["sources"], found["sources_looked_at"]) == (12, 4, 2)
    assert found["counts"] == {"kept": 8, "too_short": 4}
    assert found["documents"] == pytest.approx(360, rel=0.1)
    assert found["rows"] == pytest.approx(240, rel=0.1)
    assert (found["is_exact"], found["fills_budget"], found["tokens"]) == (False, False, 512 * found["rows"])
    assert found["scoring"]["seconds"] == pytest.approx(found["rows"] * found["scoring"]["seconds_by_length"]["512"])
    result = ladm(*words, "--documents", "9999", *FLAGS)
    lines = result.stdout.splitlines()
    assert (
        f"documents: about {found['documents']} in 4 sources: an estimate from their sizes and 12 documents of 2 "
        in (result.stdout)
    )
    assert (
        f"budget: 9,999 documents cannot be filled with the about {found['rows']} that can be selected; give a smaller "
        "budget or more documents, or take all of it with --allow-small-pool; 4 of 12 documents looked at have fewer "
        "tokens than --length 512: a smaller length keeps more of them"
    ) in lines
    none = ladm(*words[:4], "--length", "5000", "--domain", "d", "--tokens", "1k", *FLAGS)
    assert (none.exit_code, none.stderr.splitlines()[-1]) == (
        1,
        "ladm: of 12 documents looked at: no document has 5,000 tokens: 12 too_short; give a smaller --length",
    )


NOT_COUNTED = (
    "not counted: duplicates among the other documents, and files that cannot be read to their end, unless listed "
    "here; the run finds them and makes fewer rows"
)


def test_what_the_sample_shows_is_counted_as_in_the_run_itself(ladm: Command, talking: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    documents = [{"text": text_of(k, 600)} for k in (0, 1, 2, 1, 3, 4)]
    whole = write_lines(corpus / "a.jsonl", documents)
    whole.write_bytes(whole.read_bytes() + b"not json\n[1]\n")
    torn = write_lines(corpus / "b.jsonl.gz", [{"text": text_of(k, 600)} for k in range(10, 20)])
    torn.write_bytes(torn.read_bytes()[:-100])
    (corpus / "c.jsonl").write_text('[\n{"text": "a"}\n]\n')
    (corpus / "d.txt").write_bytes(b"\xe9" * 99)
    words = ("run", corpus, "--model", talking, "--length", "512", "--domain", "d", "--tokens", "1k", *FLAGS)
    result = ladm(*words)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "documents: 8 in 4 sources, all of them looked at" in lines
    assert "rows: 5 rows, 2,560 tokens" in lines
    assert NOT_COUNTED not in lines
    found = json.loads(ladm(*words, "--json").stdout)
    assert (found["counts"], found["rows"], found["is_exact"]) == ({"kept": 5, "duplicate": 1, "not_json": 2}, 5, True)
    real = ladm(*(word for word in words if word != "--dry-run"), "-o", tmp_path / "job")
    assert real.exit_code == 0, real.output
    labels = ("kept", "duplicate", "not_json", "bad_file")
    about = [line for line in lines if line.startswith(labels)]
    assert len(about) == 6
    assert about == [line for line in real.stderr.splitlines() if line.startswith(labels)]
    assert [message.split(":")[0] for message in found["bad_files"]] == [
        f"cannot read {corpus / name}" for name in ("b.jsonl.gz", "c.jsonl", "d.txt")
    ]
    # The run itself stops at the third, too.
    strict = [ladm(*words, "--max-bad-files", 2)]
    strict.append(ladm(*(word for word in words if word != "--dry-run"), "--max-bad-files", 2, "-o", tmp_path / "two"))
    assert [run.exit_code for run in strict] == [74, 74]
    first, second = (run.stderr.splitlines()[-1] for run in strict)
    assert first == second
    assert first.startswith(f"ladm: cannot read {corpus / 'd.txt'}: ")


def test_a_limit_for_each_value_is_counted_where_all_rows_are_known(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path
) -> None:
    """There are 4 rows of 512 tokens in each of 3 languages."""
    rows = tmp_path / "rows"
    prepare = ("prepare", shard, "--tokenizer", talking, "--length", "512", "--domain-key", "language")
    assert ladm(*prepare, "-o", rows).exit_code == 0
    for source in (shard, rows):
        words = ("run", source, "--model", talking, "--max-per", "rows.domain:1", "--max-per", "rows.url:9", *FLAGS)
        enough = ladm(*words, "--documents", "3")
        assert enough.exit_code == 0, enough.output
        line = "budget: 3 documents, 1 of the 3 that can be selected within --max-per"
        assert line in enough.stdout.splitlines(), enough.stdout
        small = ladm(*words, "--tokens", "2k", "--exclude-domain", "fra_Latn")
        line = "budget: 2,000 tokens cannot be filled with the 1,024 that can be selected within --max-per; give a "
        assert line in small.stdout, small.stdout
        found = json.loads(ladm(*words, "--tokens", "2k", "--json").stdout)
        assert (found["rows"], found["selectable_rows"], found["selectable_tokens"]) == (12, 3, 1536)
        assert found["fills_budget"] is False
    # In an estimate the values of most rows are not known.
    words = ("run", shard, "--model", talking, "--documents", "3", "--limit", "11", "--max-per", "rows.domain:1")
    for more, drop in (((), "--max-per drops any"), (("--within", "score:10%-"), "--within and --max-per drop any")):
        result = ladm(*words, *more, *FLAGS)
        line = f"budget: 3 documents, 0.273 of the about 11 that can be selected before {drop}"
        assert line in result.stdout.splitlines(), result.stdout


def test_bad_lines_count_as_documents_of_an_estimate(
    ladm: Command, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladm.pipeline.document_sample.MOST_DOCUMENTS", 12)
    source = tmp_path / "d.jsonl"
    lines = [b"bad\n" if k % 3 == 2 else json.dumps({"text": text_of(k, 600)}).encode() + b"\n" for k in range(90)]
    source.write_bytes(b"".join(lines))
    words = ("run", source, "--model", talking, "--length", "512", "--domain", "d", "--tokens", "1k", *FLAGS)
    found = json.loads(ladm(*words, "--json").stdout)
    assert (found["documents"], found["documents_looked_at"], found["rows"]) == (90, 17, 64)
    assert found["counts"] == {"kept": 12, "not_json": 5}
    assert NOT_COUNTED in ladm(*words).stdout.splitlines()


def test_a_file_may_begin_with_any_number_of_bad_lines(
    ladm: Command, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladm.pipeline.document_sample.MOST_DOCUMENTS", 4)
    source = write_lines(tmp_path / "d.jsonl", [{"text": text_of(k, 600)} for k in range(6)])
    source.write_bytes(b"# header\n" * 9 + source.read_bytes())
    words = ("run", source, "--model", talking, "--length", "512", "--domain", "d", "--tokens", "1k", *FLAGS)
    assert json.loads(ladm(*words, "--json").stdout)["counts"] == {"kept": 4, "not_json": 9}


def test_an_excluded_domain_that_no_document_has_is_found_in_the_dry_run(
    ladm: Command, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_lines(tmp_path / "d.jsonl", [{"text": text_of(k, 600), "kind": "web"} for k in range(6)])
    words = (
        "run", source, "--model", talking, "--length", "512", "--domain-key", "kind", "--tokens", "1k",
        "--exclude-domain", "wbe", *FLAGS,
    )  # fmt: skip
    result = ladm(*words)
    assert result.exit_code == 2
    assert "ladm: --exclude-domain wbe: the source has no row of that domain; did you mean web?" in result.stderr
    # Documents behind those that were looked at may have it.
    monkeypatch.setattr("ladm.pipeline.document_sample.MOST_DOCUMENTS", 4)
    result = ladm(*words)
    assert result.exit_code == 0, result.output
    note = "note      no document looked at is of the domain wbe, which --exclude-domain names"
    assert note in result.stderr.splitlines()


def test_weights_are_compared_with_the_domains_in_the_dry_run(
    ladm: Command, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [{"text": text_of(k, 600), "kind": ["web", "code"][k % 2]} for k in range(6)]
    source = write_lines(tmp_path / "d.jsonl", documents)
    words = ("run", source, "--model", talking, "--length", "512", "--domain-key", "kind", "--tokens", "1k", *FLAGS)
    assert ladm(*words, "--quota", "{web: 2, code: 1}").exit_code == 0
    misspelt, missing = "{web: 2, code: 1, wbe: 3}", "{web: 2}"
    note_of_weight = "note      no document looked at is of the domain wbe, which --quota names"
    result = ladm(*words, "--quota", misspelt)
    assert (result.exit_code, note_of_weight in result.stderr.splitlines()) == (0, True), result.output
    result = ladm(*words, "--quota", "{web: 2, '*': 1}")
    assert (result.exit_code, "--quota" in result.stderr) == (0, False), result.output
    # With --limit the run makes rows of the first documents alone, which may all be of one domain.
    first = write_lines(
        tmp_path / "f.jsonl", [each | {"kind": ["web", "code"][k > 2]} for k, each in enumerate(documents)]
    )
    for words_with_limit in (("run", first, *words[2:], "--limit", 3), (*words, "--limit", 5)):
        result = ladm(*words_with_limit, "--quota", missing)
        assert result.exit_code == 0, result.output
        note = "note      --quota has no weight for code, which it needs if --limit leaves documents of it"
        assert note in result.stderr.splitlines()
    assert ladm("run", first, *words[2:], "--limit", 6, "--quota", missing).exit_code == 2
    # Rows that exist are compared whole.
    rows = tmp_path / "rows"
    flags = ("--length", "512", "--domain-key", "kind", "--output", rows)
    assert ladm("prepare", source, "--tokenizer", talking, *flags).exit_code == 0
    of_rows = ("run", rows, "--model", talking, "--tokens", "1k", *FLAGS)
    assert ladm(*of_rows, "--quota", "{web: 2, code: 1}").exit_code == 0
    assert note_of_weight in ladm(*of_rows, "--quota", misspelt).stderr.splitlines()
    # Documents behind those that were looked at may be of a domain with a weight, and change nothing for one without.
    monkeypatch.setattr("ladm.pipeline.document_sample.MOST_DOCUMENTS", 4)
    result = ladm(*words, "--quota", misspelt)
    assert result.exit_code == 0, result.output
    assert note_of_weight in result.stderr.splitlines()
    result = ladm(*words, "--quota", missing)
    line = result.stderr.splitlines()[-1]
    assert (result.exit_code, line.startswith("ladm: --quota {web: 2} has no weight for code; 0 leaves a")) == (2, True)


def test_columns_of_the_rows_are_looked_for_in_the_dry_run(
    ladm: Command, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [{"text": text_of(k, 600), "lang": "en", "quality": k / 6} for k in range(6)]
    source = write_lines(tmp_path / "d.jsonl", documents)
    words = ("run", source, "--model", talking, "--length", "512", "--domain", "d", "--tokens", "1k", *FLAGS)
    assert ladm(*words, "--within", "rows.lang:en", "--within", "rows.quality:0-1").exit_code == 0
    wrong = {
        "rows.qualty:0-1": "the sample of documents has no column qualty; did you mean quality?",
        "rows.lang:fr": "--within rows.lang:fr: no row of the sample of documents has fr in lang; the values are en",
    }
    for guard, message in wrong.items():
        result = ladm(*words, "--within", guard)
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, f"ladm: {message}")
    rows = tmp_path / "rows"
    flags = ("--length", "512", "--domain", "d", "--output", rows)
    assert ladm("prepare", source, "--tokenizer", talking, *flags).exit_code == 0
    result = ladm("run", rows, "--model", talking, "--tokens", "1k", *FLAGS, "--within", "rows.lang:fr")
    assert (result.exit_code, f"no row of {rows} has fr in lang" in result.stderr) == (2, True)
    monkeypatch.setattr("ladm.pipeline.document_sample.MOST_DOCUMENTS", 4)
    for guard, message in wrong.items():
        result = ladm(*words, "--within", guard)
        assert result.exit_code == 0, result.output
        assert f"note      {message}" in result.stderr.splitlines()


def test_windows_count_as_often_as_a_subset_may_have_them(ladm: Command, shard: Path, talking: Path) -> None:
    words = ("run", shard, "--model", talking, "--tokens", "1k", "--windows", "all", *FLAGS, "--span-tokens", "1")
    # 600 to 611 tokens: two windows, and one that ends with the text, which may repeat most of the one before.
    for length, expected in (("256", (36, 24)), ("400", (24, 24)), ("450", (24, 12))):
        result = ladm(*words, "--length", length, "--json")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert (found["rows"], found["selectable_rows"]) == expected
    # Of 36 rows nobody would expect that so few can be selected.
    words = (*words[:4], "--tokens", "1M", *words[6:], "--length", "256")
    for flags, pool in (
        ((), "6,144 that can be selected (at most 2 rows of a document: --max-per-document)"),
        (("--by", "document_mean(score)"), "9,216 that can be selected"),
    ):
        lines = ladm(*words, *flags).stdout.splitlines()
        start = f"budget: 1,000,000 tokens cannot be filled with the {pool}; give a smaller"
        assert sum(line.startswith(start) for line in lines) == 1, lines


def test_a_budget_below_one_row_is_found_in_the_dry_run(
    ladm: Command, shard: Path, talking: Path, tmp_path: Path
) -> None:
    words = ("run", shard, "--model", talking, "--length", "512", "--tokens", "300", *FLAGS)
    result = ladm(*words)
    line = "budget: no row fits --tokens 300: the shortest has 512 tokens; give a larger budget or a smaller --length"
    assert (result.exit_code, line in result.stdout.splitlines()) == (0, True), result.output
    assert json.loads(ladm(*words, "--json").stdout)["fills_budget"] is False
    # It exceeds its budget, by a row at least.
    result = ladm(*words, "--rule", "percent")
    assert "budget: 300 tokens, 0.0488 of the 6,144 that can be selected" in result.stdout.splitlines()
    rows = tmp_path / "rows"
    flags = ("--length", "512", "--domain-key", "language", "--output", rows)
    assert ladm("prepare", shard, "--tokenizer", talking, *flags).exit_code == 0
    result = ladm("run", rows, "--model", talking, "--tokens", "300", *FLAGS)
    line = "budget: no row fits --tokens 300: the shortest has 512 tokens; give a larger budget"
    assert (result.exit_code, line in result.stdout.splitlines()) == (0, True), result.output


def test_a_stream_has_no_number_of_documents(
    ladm: Command, shard: Path, talking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert corpus_size([Source("org/stream", "dataset", "")], [0]) == "org/stream"
    monkeypatch.setattr("ladm.pipeline.forecast.corpus_size", lambda *_: "org/stream")
    result = ladm("run", shard, "--model", talking, "--tokens", "3k", *FLAGS)
    assert result.exit_code == 0, result.output
    for line in (
        "documents: not known in advance: org/stream is a stream, or does not state how many it has",
        "budget: 3,000 tokens; whether there are that many is not known",
        "for 12 rows of the documents looked at, not for all:",
    ):
        assert line in result.stdout.splitlines()
    assert not any(line.startswith("rows: ") for line in result.stdout.splitlines())


def test_rows_are_counted_and_not_estimated(ladm: Command, short_rows: str, golden_lm: Path, tmp_path: Path) -> None:
    result = ladm("run", short_rows, "--model", golden_lm, "--tokens", "2k", "-o", tmp_path / "job", *FLAGS)
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "job").exists()
    assert result.stdout.startswith("rows: ")
    assert "about" not in result.stdout.splitlines()[0]
    assert "documents" not in result.stdout


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz"])
def test_the_lines_of_a_file_are_counted_or_estimated(tmp_path: Path, name: str) -> None:
    # Packed, some 580 KB: from Python 3.12 on gzip reads 128 KB at a time, and an estimate needs three of those.
    path = write_lines(tmp_path / name, [{"text": text_of(k, 100)} for k in range(6000)])
    (source,) = find_sources([str(path)])
    whole = count_documents(source, most_bytes=1 << 30)
    part = count_documents(source, most_bytes=1 << 18)
    assert whole is not None
    assert part is not None
    assert (whole.number, whole.is_exact, part.is_exact) == (6000, True, False)
    assert part.number == pytest.approx(6000, rel=0.05)
    path.write_bytes(path.read_bytes()[:-100])
    torn = count_documents(source, most_bytes=1 << 30)
    assert torn is not None
    assert torn.number == (0 if path.suffix == ".gz" else 6000)


def test_text_files_are_counted_by_their_number(tmp_path: Path) -> None:
    for k in range(5):
        (tmp_path / f"{k}.txt").write_text("a" * (k + 1))
    size = corpus_size(find_sources([str(tmp_path)]), [0, 2])
    assert isinstance(size, CorpusSize)
    assert (size.documents, size.is_exact) == (5, False)


def test_what_a_run_refuses_is_refused(ladm: Command, shard: Path, talking: Path, tmp_path: Path) -> None:
    (tmp_path / "job" / "rows").mkdir(parents=True)
    words = ("run", shard, "--model", talking, *FLAGS)
    result = ladm(*words, "--tokens", "3k", "-o", tmp_path / "job")
    assert result.exit_code == 1
    assert f"{tmp_path}/job holds rows and no job.yaml" in result.stderr
    result = ladm(*words)
    assert (result.exit_code, result.stderr.splitlines()[0]) == (
        2, "ladm: how much to select is missing; give --tokens, --documents, --top or --min-score"
    )  # fmt: skip
    result = ladm(*words, "--tokens", "3k", "--signals", "prolong")
    assert (result.exit_code, result.stderr) == (
        2, "ladm: --score has no effect without cds among the signals (prolong)\n"
    )  # fmt: skip
    without = [word for word in words if word not in ("--score", "robust")]
    result = ladm(*without, "--tokens", "3k", "--length", "128", "--signals", "prolong")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1, "ladm: no row of the documents looked at can be scored: too_short 12"
    )  # fmt: skip
    # A job that has rows is bound to what they were made with.
    job, rows = tmp_path / "other" / "job.yaml", tmp_path / "other" / "rows"
    rows.mkdir(parents=True)
    (rows / "prepare.json").write_text("{}")
    job.write_text(f"sources: [{shard}]\nmodel: {talking}\noutput: x\ntokens: 3000\nlength: 512\ndomain_key: none\n")
    before = job.read_bytes()
    result = ladm(*words, "--tokens", "3k", "--length", "256", "-o", job.parent)
    assert (result.exit_code, result.stderr) == (
        1, f"ladm: {job.parent} was started with something else (--length); give another --output, or what it was "
        "started with:\n  --length: 512 before, 256 now\n"
    )  # fmt: skip
    assert job.read_bytes() == before
    result = ladm("run", "-", *words[2:], "--tokens", "3k")
    assert (result.exit_code, "cannot read standard input" in result.stderr) == (2, True)


def test_documents_without_a_domain_are_counted_in_the_dry_run(ladm: Command, talking: Path, tmp_path: Path) -> None:
    documents: list[dict[str, Any]] = [{"text": text_of(k, 600), "id": f"d{k // 2}", "kind": "web"} for k in range(6)]
    # Of a document without a text the domain does not matter; of a short one it does, because it is looked for first.
    del documents[4]["kind"]
    documents += [{"text": "short", "kind": None}, {"text": None}]
    source = write_lines(tmp_path / "d.jsonl", documents)
    words = ("run", source, "--model", talking, "--length", "512", "--tokens", "1k", "--domain-key", "kind", *FLAGS)
    line = (
        "no domain             2  documents without kind: the job would stop at the first one; give --domain NAME for "
        "all of them, or another --domain-key"
    )
    result = ladm(*words)
    assert (result.exit_code, line in result.stdout.splitlines()) == (0, True), result.output
    limited = line.replace("the first one;", "the first one, unless --limit is reached first;")
    assert limited in ladm(*words, "--limit", "2").stdout.splitlines()
    found = json.loads(ladm(*words, "--json").stdout)
    assert found["without_domain"] == 2
    assert found["repeated_ids"] == {"documents": 3, "id": "d0"}
    assert (found["tokens_looked_at"]["kept"], found["copies"]) == (6 * 512, 0)
    assert found["tokens_looked_at"]["read"] - found["tokens_looked_at"]["cut_off"] == 6 * 512
    # One CPU, and what eight of them would take.
    assert (found["scoring"]["devices"], [*found["scoring"]["hours"]]) == (1, ["1", "8"])
    stopped = ladm(*(word for word in words if word != "--dry-run"), "-o", tmp_path / "job")
    assert (stopped.exit_code, f"{source} line 5 has no kind" in stopped.stderr) == (1, True), stopped.stderr
    assert json.loads(ladm(*words, "--domain", "web", "--json").stdout)["without_domain"] == 0
