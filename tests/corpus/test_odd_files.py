"""Files and values that are not what they seem: each has its own line, and costs no other document anything."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from click.testing import Result
from datasets import Array2D, Dataset, Features, Value

from support.long_documents import long_document
from support.models import SMALL
from support.rows import rows_of

Command = Callable[..., Result]
TWO = b"".join(json.dumps(long_document(k)).encode() + b"\n" for k in range(2))
ARRAY = json.dumps([long_document(0), long_document(1)]).encode()
PRETTY = json.dumps(long_document(0), indent=1).encode()
SKIPPED = b"\x50\x2a\x4d\x18\x04\0\0\0size"
"""A frame without content, as pzstd writes one in front of every other."""
SEVERAL_LINES = (
    "it is one JSON value over several lines or an array, not one object per line; convert it to JSONL: jq -c 'if "
    'type == "array" then .[] else . end\''
)
UTF_16 = "it is UTF-16; convert it: iconv -f UTF-16 -t UTF-8"
TO_UTF_8 = "if it is Latin-1 or Windows-1252, convert it: iconv -f WINDOWS-1252 -t UTF-8"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mark.jsonl", b"\xef\xbb\xbf" + TWO),
        ("windows.jsonl", TWO.replace(b"\n", b"\r\n")),
        ("zeros.jsonl", TWO[: TWO.index(b"\n") + 1] + b"\0" * 500 + b"\n" + TWO[TWO.index(b"\n") + 1 :]),
        ("UPPER.JSONL.GZ", gzip.compress(TWO)),
        ("plain.jsonl.gz", TWO),
        ("packed.jsonl", gzip.compress(TWO)),
        ("other.jsonl.gz", zstandard.compress(TWO)),
        ("two frames.jsonl.gz", gzip.compress(TWO[:700]) + gzip.compress(TWO[700:])),
        ("pzstd.jsonl.zst", b"".join(SKIPPED + zstandard.compress(part) for part in (TWO[:700], TWO[700:]))),
        ("last frame.jsonl.zst", zstandard.compress(TWO) + SKIPPED),
        ("empty lines.ndjson", b"\n \n" + TWO + b"\n\n"),
        ("no newline.json", TWO.rstrip()),
    ],
)
def test_files_that_are_read(prepare: Command, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    result = prepare(tmp_path / name)
    assert result.exit_code == 0, result.output
    assert len(rows_of(tmp_path / "rows")) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wide.jsonl", TWO.decode().encode("utf-16"), UTF_16),
        ("wide.txt", "caf\xe9".encode("utf-16"), UTF_16),
        ("wider.txt", "caf\xe9".encode("utf-32"), UTF_16.replace("16", "32")),
        ("marked.txt", b"\xef\xbb\xbfcaf\xe9", "it is not UTF-8 (byte 0xe9 at 6); " + TO_UTF_8),
        ("array.json", ARRAY, SEVERAL_LINES),
        ("pretty.json", PRETTY, SEVERAL_LINES),
        ("pretty array.json", json.dumps([long_document(0)], indent=1).encode(), SEVERAL_LINES),
        ("torn.jsonl", gzip.compress(TWO)[:-9], "Compressed file ended before the end-of-stream marker was reached"),
        ("zero.parquet", b"", "Parquet file size is 0 bytes"),
        ("zero.jsonl.ZST", b"", "the file is empty, which no compressed file is"),
        ("latin.txt", b"caf\xe9", "it is not UTF-8 (byte 0xe9 at 3); " + TO_UTF_8),
        ("latin.md", b"x" * 9999 + b"\xa0x", "it is not UTF-8 (byte 0xa0 at 9,999); " + TO_UTF_8),
    ],
)
def test_files_that_are_left_out(
    prepare: Command, tmp_path: Path, name: str, content: bytes, message: str
) -> None:  # fmt: skip
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / name).write_bytes(content)
    result = prepare(folder, "--domain", "x")
    assert result.exit_code == 74, result.output
    assert result.stderr.splitlines()[-1] == f"ladm: cannot read {folder / name}: {message}"
    (folder / "z.jsonl").write_bytes(TWO)
    result = prepare(folder, "--domain", "x", output="others")
    assert result.exit_code == 0, result.output
    assert len(rows_of(tmp_path / "others")) == 2
    left_out = f"bad_file              1  file left out: cannot read {folder / name}: {message}"
    assert left_out in result.stdout.splitlines()


def test_several_files_none_of_which_can_be_read(prepare: Command, tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("a.txt", "b.txt", "c.txt")]
    for name in names:
        name.write_bytes(b"caf\xe9")
    result = prepare(*names, "--domain", "x")
    assert result.exit_code == 74
    problems = [f"cannot read {name}: it is not UTF-8 (byte 0xe9 at 3); {TO_UTF_8}" for name in names]
    warnings = "".join(f"warning   {problem}; the file is left out\n" for problem in problems)
    assert result.stderr == f"{warnings}ladm: {problems[0]}; 2 other files cannot be read either\n"


def test_names_that_are_not_utf8(prepare: Command, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / os.fsdecode(b"caf\xe9.jsonl")).write_bytes(TWO)
    (corpus / os.fsdecode(b"torn\xff.jsonl.gz")).write_bytes(gzip.compress(TWO)[:-9])
    for _ in range(2):
        result = prepare(corpus, "--domain", "x")
        assert result.exit_code == 0, result.output
        assert f"left out: cannot read {corpus}/torn\\xff.jsonl.gz: " in result.stdout
    assert "is prepared already" in result.stderr
    assert rows_of(tmp_path / "rows")[0]["source"] == f"{corpus}/caf\ufffd.jsonl line 1"
    assert json.loads((tmp_path / "rows" / "prepare.json").read_text())["asked"]["sources"][0]["name"] == (
        f"{corpus}/caf\\xe9.jsonl"
    )


def test_a_document_nested_too_deep_is_dropped(prepare: Command, tmp_path: Path) -> None:
    start = TWO.splitlines()[0][:-1] + b', "d": '
    deep, deepest = (start + b"[" * n + b"]" * n + b"}\n" for n in (202, 201))
    meta = b'{"text": "a", "meta": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}\n"
    (tmp_path / "d.jsonl").write_bytes(meta + deep + deepest + TWO.splitlines(keepends=True)[1])
    result = prepare(tmp_path / "d.jsonl")
    assert result.exit_code == 0, result.output
    assert "too_deep              2  documents dropped: a column is nested more than 200 levels deep" in result.stdout
    assert len(rows_of(tmp_path / "rows")) == 2


@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a": ', "}")])
def test_a_meta_nested_deeper_than_arrow_writes_is_text(
    prepare: Command, tmp_path: Path, start: str, end: str
) -> None:  # fmt: skip
    for levels, kind in ((40, dict), (41, str), (199, str)):
        meta = '{"pile_set_name": "d", "x": ' + start * levels + "1" + end * levels + "}"
        line = json.dumps(long_document(0) | {"meta": 0}).replace('"meta": 0', f'"meta": {meta}')
        (tmp_path / "d.jsonl").write_text(line + "\n" + TWO.decode().splitlines()[1] + "\n")
        result = prepare(tmp_path / "d.jsonl", output=f"rows{levels}")
        assert result.exit_code == 0, result.output
        found = [row["meta"] for row in rows_of(tmp_path / f"rows{levels}")]
        assert [type(each) for each in found] == [kind, kind]
        assert (found[0] if kind is dict else json.loads(found[0])) == json.loads(meta)


def test_a_zero_character_in_the_name_of_a_field(prepare: Command, tmp_path: Path) -> None:
    """Arrow would end the names there, so that two of them are the same."""
    meta = {"pile_set_name": "d", "x\0y": 1, "x\0z": {"a\0": 2}}
    document = long_document(0) | {"meta": meta, "\0": 3, "b\0c": 4, "b\0d": "e\0f"}
    (tmp_path / "d.jsonl").write_text(json.dumps(document))
    result = prepare(tmp_path / "d.jsonl")
    assert result.exit_code == 0, result.output
    found = rows_of(tmp_path / "rows")[0]
    assert found["meta"] == {"pile_set_name": "d", "x\ufffdy": 1, "x\ufffdz": {"a\ufffd": 2}}
    assert (found["\ufffd"], found["b\ufffdc"], found["b\ufffdd"]) == (3, 4, "e\0f")


def test_a_mark_in_front_of_a_text_is_no_part_of_it(prepare: Command, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + long_document(0)["text"].encode())
    assert prepare(tmp_path / "a.txt", "--domain", "x").exit_code == 0
    assert rows_of(tmp_path / "rows")[0]["text"].startswith(long_document(0)["text"][:10])


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.large_string(), pa.string_view(), "dictionary"])
def test_types_of_text_in_parquet(prepare: Command, tmp_path: Path, kind: Any) -> None:
    texts = pa.array([long_document(0)["text"]])
    texts = texts.dictionary_encode() if kind == "dictionary" else texts.cast(kind)
    pq.write_table(pa.table({"text": texts, "kind": ["a"]}), tmp_path / "d.parquet")
    result = prepare(tmp_path / "d.parquet", "--domain-key", "kind")
    assert result.exit_code == 0, result.output
    assert len(rows_of(tmp_path / "rows")) == 1


def test_a_table_without_a_column_that_is_read(prepare: Command, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"a", b"b"]}), tmp_path / "images.parquet")
    (tmp_path / "d.jsonl").write_bytes(TWO)
    result = prepare(tmp_path / "images.parquet", tmp_path / "d.jsonl", "--domain", "x")
    assert (
        result.exit_code,
        "no_text               2  documents dropped: nothing under --text-key (default: text)" in result.stdout,
    ) == (
        0,
        True,
    )
    assert [row["document"] for row in rows_of(tmp_path / "rows")] == [2, 3]


def test_columns_of_one_name(prepare: Command, tmp_path: Path) -> None:
    texts = pa.array([long_document(0)["text"]])
    one, two = pa.array(["a"]), pa.array(["b"])
    pq.write_table(pa.Table.from_arrays([texts, one, two], names=["text", "k", "k"]), tmp_path / "d.parquet")
    assert prepare(tmp_path / "d.parquet", "--domain", "x").exit_code == 0
    assert rows_of(tmp_path / "rows")[0]["k"] == "a"
    pq.write_table(pa.Table.from_arrays([texts, texts], names=["text", "text"]), tmp_path / "e.parquet")
    result = prepare(tmp_path / "e.parquet", "--domain", "x", output="two")
    assert (result.exit_code, "text" in result.stderr.splitlines()[-1]) == (74, True)


def test_ids_in_several_dimensions_are_refused(ladm: Command, tmp_path: Path) -> None:
    features = Features(input_ids=Array2D(shape=(1, 8), dtype="int32"), n=Value("int64"))
    Dataset.from_dict({"input_ids": [[list(range(8))]], "n": [1]}, features=features).save_to_disk(str(tmp_path / "d"))
    result = ladm("score", tmp_path / "d", *SMALL, "-o", tmp_path / "run")
    assert result.exit_code == 1
    assert "not lists of token ids; tokenise it first: ladm prepare" in result.stderr
