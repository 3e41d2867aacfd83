"""`ladm prepare`: every kind of source, every reason for a drop, restart, and its faults in full."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerFast

from ladm.corpus.documents import groups as groups_module
from ladm.corpus.preparation import blocks as blocks_module
from ladm.corpus.preparation import prepare as prepare_module
from ladm.corpus.preparation import sealing as sealing_module
from support.documents import DOCUMENTS, document, write_jsonl
from support.rows import rows_of
from support.stopped_preparation import Killed, die_after

Command = Callable[..., Result]


def without_source(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "source"} for row in rows]


@pytest.fixture
def plain(ladm: Command, tokenizer: str, tmp_path: Path) -> list[dict[str, Any]]:
    source = write_jsonl(tmp_path / "plain.jsonl", DOCUMENTS)
    result = ladm("prepare", source, "--tokenizer", tokenizer, "--output", tmp_path / "plain", "--length", "40")
    assert result.exit_code == 0, result.output
    return rows_of(tmp_path / "plain")


def test_rows_in_the_published_format(plain: list[dict[str, Any]], tokenizer: str) -> None:
    reader = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    published = ["text", "meta", "input_ids", "index"]
    more = ["domain", "source", "document", "start_token", "document_tokens"]
    assert [list(row) for row in plain] == [published + more] * 6
    for k, row in enumerate(plain):
        assert row["index"] == k
        assert row["meta"] == DOCUMENTS[k]["meta"]
        assert row["input_ids"] == reader(DOCUMENTS[k]["text"])["input_ids"][:40]
        assert row["input_ids"][0] == reader.bos_token_id
        assert DOCUMENTS[k]["text"].startswith(row["text"])
        assert reader.decode(row["input_ids"][1:]) == row["text"]


@pytest.mark.parametrize("kind", ["gz", "zst", "parquet", "dataset", "dict", "folder", "hub"])
def test_every_kind_of_source_gives_the_same_rows(
    ladm: Command, plain: Any, tokenizer: str, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source: Any = tmp_path / f"source.{kind}"
    if kind in ("gz", "zst"):
        source = write_jsonl(tmp_path / f"source.jsonl.{kind}", DOCUMENTS)
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(DOCUMENTS), source)
    elif kind == "dataset":
        Dataset.from_list(DOCUMENTS).save_to_disk(str(source))
    elif kind == "dict":
        DatasetDict(train=Dataset.from_list(DOCUMENTS)).save_to_disk(str(source))
    elif kind == "hub":
        source = "someone/corpus"
        monkeypatch.setattr("datasets.load_dataset", lambda _: DatasetDict(train=Dataset.from_list(DOCUMENTS)))
    else:
        source.mkdir()
        write_jsonl(source / "b.jsonl", DOCUMENTS[3:])
        write_jsonl(source / "a.jsonl.gz", DOCUMENTS[:3])
        (source / "notes.pdf").write_text("not read")
    result = ladm("prepare", source, "--tokenizer", tokenizer, "--output", tmp_path / "rows", "--length", "40")
    assert result.exit_code == 0, result.output
    assert without_source(rows_of(tmp_path / "rows")) == without_source(plain)


def test_a_saved_data_set_that_was_written_again_is_another_source(
    ladm: Command, tokenizer: str, tmp_path: Path
) -> None:
    source, rows = tmp_path / "source", tmp_path / "rows"
    words = ("prepare", source, "--tokenizer", tokenizer, "--length", "40", "--output", rows)
    DatasetDict(train=Dataset.from_list(DOCUMENTS), test=Dataset.from_list(DOCUMENTS[:1])).save_to_disk(str(source))
    assert ladm(*words).exit_code == 0
    # Another split is no part of it.
    shutil.rmtree(source / "test")
    Dataset.from_list(DOCUMENTS[:2]).save_to_disk(str(source / "test"))
    assert "is prepared already" in ladm(*words).stderr
    shutil.rmtree(source / "train")
    Dataset.from_list(DOCUMENTS[::-1]).save_to_disk(str(source / "train"))
    changed = ladm(*words)
    assert changed.exit_code == 1
    assert f"{rows} was started with something else (sources)" in changed.stderr


def test_text_files_are_one_document_each(ladm: Command, tokenizer: str, tmp_path: Path) -> None:
    for k in range(2):
        (tmp_path / f"{k}.txt").write_text(DOCUMENTS[k]["text"])
    sources = (tmp_path / "0.txt", tmp_path / "1.txt")
    result = ladm(
        "prepare", *sources, "--tokenizer", tokenizer, "--output", tmp_path / "rows", "--length", "40",
        "--domain", "notes", "--text-key", "body.text",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert [row["meta"] for row in rows_of(tmp_path / "rows")] == [{"pile_set_name": "notes"}] * 2


def test_drops_are_counted_with_their_reason(ladm: Command, tokenizer: str, tmp_path: Path) -> None:
    source = tmp_path / "mixed.jsonl"
    records = [*DOCUMENTS, document(1, 5), {"text": "x" * 3}, {"meta": {}}, {"text": 5}, {"text": None}, [1]]
    records = [{**r, "meta": {"pile_set_name": "a"}} if isinstance(r, dict) and "text" in r else r for r in records]
    write_jsonl(source, records)
    source.write_bytes(source.read_bytes() + b'{"text": "torn\n\n')
    result = ladm("prepare", source, "--tokenizer", tokenizer, "--output", tmp_path / "rows", "--length", "40")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "kept                  6  documents of at least 40 tokens",
        "too_short             2  documents dropped: fewer tokens than --length",
        "no_text               2  documents dropped: nothing under --text-key (default: text)",
        "not_text              1  document dropped: the text is not a string",
        "not_json              2  documents dropped: the line is not a JSON object in UTF-8",
        "tokens              305  in the documents that have rows: 234 in rows, 71 cut off; --windows all keeps them",
        f"dropped               7  documents, listed in {tmp_path / 'rows/dropped.jsonl'}",
        f"rows: {tmp_path / 'rows'} (6 rows)",
    ]
    record = json.loads((tmp_path / "rows" / "prepare.json").read_text())
    assert record["counts"] == {"kept": 6, "too_short": 2, "no_text": 2, "not_text": 1, "not_json": 2}
    assert record["asked"]["tokenizer"]["special_tokens"] == {"bos_token": "<s>", "eos_token": "</s>"}
    assert record["asked"]["tokenizer"]["bos"] is True


def test_what_all_windows_leave_out_is_named(ladm: Command, tokenizer: str, tmp_path: Path) -> None:
    """Windows that repeat earlier rows, or are beyond --limit: nothing was cut off, and no flag keeps it."""
    source = write_jsonl(tmp_path / "d.jsonl", [document(0, 400)])
    texts = " ".join(["one two three four"] * 400)
    repeated = write_jsonl(tmp_path / "r.jsonl", [{"text": texts, "meta": {"pile_set_name": "a"}}])
    limit = ("--limit", "2")
    for k, (documents, flags, rest) in enumerate((
        (source, ("all", *limit), "in windows that repeat earlier rows or are beyond --limit"),
        (repeated, ("all",), "in windows that repeat earlier rows"),
        (source, ("2", *limit), "cut off; --windows all keeps them"),
    )):  # fmt: skip
        words = ("prepare", documents, "--tokenizer", tokenizer, "--length", "200", "--output", tmp_path / f"rows-{k}")
        result = ladm(*words, "--windows", *flags)
        assert result.exit_code == 0, result.output
        (line,) = (line for line in result.stdout.splitlines() if line.startswith("tokens "))
        assert line.endswith(f" {rest}")
        assert f", 0 {rest}" not in line


def test_a_document_of_exactly_the_length_is_kept(ladm: Command, tokenizer: str, tmp_path: Path) -> None:
    reader = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    exact = len(reader(DOCUMENTS[0]["text"])["input_ids"])
    source = write_jsonl(tmp_path / "d.jsonl", DOCUMENTS[:1])
    for length, kept in [(exact, True), (exact + 1, False)]:
        result = ladm(
            "prepare", source, "--tokenizer", tokenizer, "--output", tmp_path / f"rows{length}", "--length", length
        )
        assert (result.exit_code == 0) is kept
    assert (
        result.stderr.splitlines()[-1]
        == f"ladm: no document has {exact + 1:,} tokens: 1 too_short; give a smaller --length"
    )
    flags = ("--tokenizer", tokenizer, "--output", tmp_path / "bare", "--length", exact - 1, "--no-bos")
    assert ladm("prepare", source, *flags).exit_code == 0
    assert rows_of(tmp_path / "bare")[0]["input_ids"] == reader(DOCUMENTS[0]["text"])["input_ids"][1:]


def test_another_domain_key_is_put_where_select_looks(ladm: Command, tokenizer: str, tmp_path: Path) -> None:
    records = [{"text": d["text"], "source": {"name": f"s{k}"}} for k, d in enumerate(DOCUMENTS)]
    source = write_jsonl(tmp_path / "d.jsonl", records)
    result = ladm(
        "prepare", source, "--tokenizer", tokenizer, "--output", tmp_path / "rows", "--length", "40",
        "--domain-key", "source.name", "--limit", "4",
    )  # fmt: skip
    assert result.exit_code == 0
    assert [row["meta"]["pile_set_name"] for row in rows_of(tmp_path / "rows")] == ["s0", "s1", "s2", "s3"]


def test_meta_that_fits_no_schema_stays_json_text(ladm: Command, tokenizer: str, tmp_path: Path) -> None:
    records = [dict(d, meta={"pile_set_name": "a", "x": x}) for d, x in zip(DOCUMENTS, [1, "one"], strict=False)]
    source = write_jsonl(tmp_path / "d.jsonl", records)
    ladm("prepare", source, "--tokenizer", tokenizer, "--output", tmp_path / "rows", "--length", "40")
    assert [json.loads(row["meta"])["x"] for row in rows_of(tmp_path / "rows")] == [1, "one"]


def test_metas_with_different_keys_share_one_schema(
    ladm: Command, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups_module, "BLOCK_DOCUMENTS", 1)
    metas = [{"pile_set_name": "a", "x": None}, {"pile_set_name": "b", "x": 2}, {"pile_set_name": "b", "y": "z"}]
    records = [dict(d, meta=meta) for d, meta in zip(DOCUMENTS, metas, strict=False)]
    source = write_jsonl(tmp_path / "d.jsonl", records)
    ladm("prepare", source, "--tokenizer", tokenizer, "--output", tmp_path / "rows", "--length", "40")
    expected = [{"x": None, "y": None} | meta for meta in metas]
    assert [row["meta"] for row in rows_of(tmp_path / "rows")] == expected


@pytest.mark.parametrize("stop_at", range(9))
def test_stopped_anywhere_the_same_command_resumes(
    ladm: Command, plain: Any, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    monkeypatch.setattr(groups_module, "BLOCK_DOCUMENTS", 2)
    source, flags = tmp_path / "plain.jsonl", ("--tokenizer", tokenizer, "--length", "40")
    command = ("prepare", source, *flags, "--output", tmp_path / "rows")
    real_seal = blocks_module.seal_block
    with monkeypatch.context() as patch:
        die_after(patch, stop_at)
        if stop_at < 6:
            with pytest.raises(Killed):
                ladm(*command)
    # Before the three blocks the spelling of the sources is written.
    were_sealed = min(max(stop_at - 1, 0), 3)
    sealed = []
    monkeypatch.setattr(sealing_module, "seal_block", lambda *a, **k: sealed.append(1) or real_seal(*a, **k))
    result = ladm(*command)
    assert result.exit_code == 0, result.output
    assert len(sealed) == (3 - were_sealed if stop_at < 6 else 3)
    assert rows_of(tmp_path / "rows") == plain
    assert not (tmp_path / "rows" / ".preparing").exists()
    again = ladm(*command)
    assert again.exit_code == 0
    assert again.stderr.startswith(f"{tmp_path / 'rows'} is prepared already\n")


def test_rows_that_another_launch_finished_meanwhile_stay(
    ladm: Command, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "rows"
    words = ("prepare", write_jsonl(tmp_path / "d.jsonl", DOCUMENTS), "--tokenizer", tokenizer, "--output", rows)
    look = prepare_module.require_keys

    def look_while_another_finishes(*arguments: Any) -> None:
        look(*arguments)
        monkeypatch.undo()
        assert ladm(*words, "--length", "40").exit_code == 0

    for length, code in (("30", 1), ("40", 0)):
        shutil.rmtree(rows, ignore_errors=True)
        monkeypatch.setattr(prepare_module, "require_keys", look_while_another_finishes)
        late = ladm(*words, "--length", length)
        assert (late.exit_code, len(rows_of(rows)[0]["input_ids"])) == (code, 40)
        expected = "  length: 40 before, 30 now" if code else f"{rows} is prepared already"
        assert expected in late.stderr.splitlines()


def test_prepare_faults_in_full(ladm: Command, tokenizer: str, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "d.jsonl", DOCUMENTS)
    bare = write_jsonl(tmp_path / "bare.jsonl", [*DOCUMENTS[:2], {"text": DOCUMENTS[2]["text"]}])
    (tmp_path / "empty").mkdir()
    (tmp_path / "book.pdf").write_text("")
    (tmp_path / "pipes").mkdir()
    os.mkfifo(tmp_path / "pipes" / "a.jsonl")
    (tmp_path / "torn.jsonl.gz").write_bytes(gzip.compress(b"x" * 9999)[:30])
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").write_text("")
    text = DOCUMENTS[2]["text"]
    null = [{"text": text, "topic": "a"}, {"text": text, "id": {"a": 1}, "topic": None}]
    nothing = write_jsonl(tmp_path / "null.jsonl", null)
    t, good = tmp_path, ("--tokenizer", tokenizer, "--length", "40")
    out = ("--output", tmp_path / "out")
    faults = [
        ((f"{t}/nowhere/x", *good, *out), 1,
         f"no such source: {t}/nowhere/x is neither a file, a folder nor a Hub id such as org/name"),
        ((f"{t}/*.csv", *good, *out), 1, f"no such source: {t}/*.csv matches no file"),
        ((f"{t}/empty", *good, *out), 1,
         f"{t}/empty holds no .jsonl, .parquet or .txt file and is not a data set saved by save_to_disk"),
        ((f"{t}/book.pdf", *good, *out), 1,
         f"{t}/book.pdf: unknown kind of file; its name must end in .jsonl, .parquet or .txt (.gz, .zst)"),
        # By its name, in a folder and in a pattern; opening it would wait forever.
        *(((f"{t}/{name}", *good, *out), 1,
           f"{t}/pipes/a.jsonl is a pipe or a device, which can be read only once; write its documents to a file, or "
           "pass them to ladm prepare - through standard input")
          for name in ("pipes/a.jsonl", "pipes", "pipes/*")),
        ((bare, *good, *out), 1,
         f"{bare} line 3 has no meta.pile_set_name or domain; its keys are text: give --domain-key one of them, or "
         "--domain a name for all documents without one"),
        ((nothing, *good, *out, "--domain-key", "topic"), 1,
         f"{nothing} line 2 has no topic other than null; its keys are text, id.a, topic: give --domain-key one of "
         "them, or --domain a name for all documents without one"),
        ((source, "--length", "40", "--tokenizer", f"{t}/no/x", "--output", f"{t}/out2"), 1,
         f"no such tokenizer: {t}/no/x is neither a folder nor a Hub id such as org/name"),
        ((source, *good, "--output", f"{t}/taken"), 1,
         f"{t}/taken belongs to something else (it holds x); give --output an empty folder"),
        ((source, *good, "--output", f"{t}/book.pdf"), 1, f"{t}/book.pdf is a file; give --output a folder"),
        ((source, *good, "--length", "0", "--output", f"{t}/out2"), 2, "--length must be at least 1, not 0"),
    ]  # fmt: skip
    for arguments, code, message in faults:
        result = ladm("prepare", *arguments)
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (code, f"ladm: {message}")
    result = ladm("prepare", tmp_path / "torn.jsonl.gz", *good, "--output", tmp_path / "out3")
    assert result.exit_code == 74
    assert result.stderr.splitlines()[-1].startswith(f"ladm: cannot read {t}/torn.jsonl.gz: ")
    result = ladm("prepare", source, "--length", "40", "--tokenizer", tmp_path / "empty", "--output", tmp_path / "out4")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"ladm: no such tokenizer: {t}/empty has no tokenizer.json; give a folder or Hub id that has one"
    )
    ladm("prepare", source, *good, "--output", tmp_path / "rows")
    result = ladm("prepare", source, *good, "--output", tmp_path / "rows", "--limit", "2", "--no-bos")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"ladm: {t}/rows was started with something else (--bos); give ")
    assert "\n  tokenizer.bos: true before, false now" in result.stderr


def test_globs_are_expanded_in_the_order_of_names(ladm: Command, plain: Any, tokenizer: str, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    write_jsonl(tmp_path / "deep" / "b.jsonl", DOCUMENTS[2:4])
    write_jsonl(tmp_path / "deep" / "a.jsonl.gz", DOCUMENTS[:2])
    write_jsonl(tmp_path / "deep" / "er" / "c.jsonl.zst", DOCUMENTS[4:])
    local = f"{tmp_path}/deep/**/*.jsonl*"
    for name, pattern in {"local": local, "url": f"file://{local}"}.items():
        flags = ("--tokenizer", tokenizer, "--output", tmp_path / name, "--length", "40")
        result = ladm("prepare", pattern, *flags)
        assert result.exit_code == 0, result.output
        assert without_source(rows_of(tmp_path / name)) == without_source(plain)


def test_bos_of_a_tokenizer_without_one(ladm: Command, tokenizer: str, tmp_path: Path) -> None:
    reader = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    PreTrainedTokenizerFast(tokenizer_object=reader.backend_tokenizer).save_pretrained(str(tmp_path / "bare"))
    source = write_jsonl(tmp_path / "d.jsonl", DOCUMENTS)
    result = ladm("prepare", source, "--tokenizer", tmp_path / "bare", "--output", tmp_path / "rows", "--bos")
    assert (result.exit_code, result.stderr) == (
        2,
        f"ladm: --bos: {tmp_path / 'bare'} has no BOS token; leave it out\n",
    )


def test_long_texts_are_cut_into_blocks_by_size(
    ladm: Command, plain: Any, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups_module, "BLOCK_CHARACTERS", 300)
    flags = ("--tokenizer", tokenizer, "--output", tmp_path / "rows", "--length", "40")
    ladm("prepare", tmp_path / "plain.jsonl", *flags)
    assert rows_of(tmp_path / "rows") == plain
