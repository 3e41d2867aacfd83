"""Corpora and tokenizers as people have them, through `ladm prepare`: the rows and names that must come out."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from click.testing import Result
from datasets import ClassLabel, Dataset, Features, Value
from tokenizers import Tokenizer

from support.documents import write_jsonl
from support.word_documents import LENGTH, VOCABULARY, preparing, record, rows_after, words

Command = Callable[..., Result]


@pytest.fixture
def prepare(ladm: Command, tmp_path: Path, word_tokenizer: Path) -> Command:
    return preparing(ladm, tmp_path, word_tokenizer)


@pytest.mark.parametrize("bos", ["--bos", "--no-bos"])
@pytest.mark.parametrize("saved", ["padding", "fixed padding", "truncation", "both"])
def test_padding_and_truncation_of_a_saved_tokenizer_are_not_applied(
    prepare: Command, word_tokenizer: Path, tmp_path: Path, saved: str, bos: str
) -> None:
    """save_pretrained writes both into tokenizer.json after a call that padded or cut."""
    path = word_tokenizer / "tokenizer.json"
    backend = Tokenizer.from_file(str(path))
    if saved != "truncation":
        pad_to = 128 if saved == "fixed padding" else None
        backend.enable_padding(pad_id=0, pad_token="<pad>", length=pad_to)
    if saved in ("truncation", "both"):
        backend.enable_truncation(8)
    backend.save(str(path))
    source = write_jsonl(tmp_path / "d.jsonl", [record(k, text=words(k, (10, 60)[k % 2])) for k in range(4)])
    result = prepare(source, bos)
    rows = rows_after(result, tmp_path / "rows")
    assert [row["document"] for row in rows] == [1, 3]
    front = [VOCABULARY.index("<s>")] if bos == "--bos" else []
    for row in rows:
        ids = [VOCABULARY.index(word) for word in words(row["document"]).split()]
        assert row["input_ids"] == [*front, *ids][:LENGTH]
    assert "too_short             2  documents dropped" in result.stdout


@pytest.mark.parametrize("suffix", ["saved", ".parquet"])
def test_the_domains_of_a_class_label_are_its_names(prepare: Command, tmp_path: Path, suffix: str) -> None:
    features = Features(text=Value("string"), kind=ClassLabel(names=["web", "code"]))
    columns = {"text": [words(k) for k in range(4)], "kind": [0, 1, 1, 0]}
    source = tmp_path / f"d{suffix}"
    made = Dataset.from_dict(columns, features=features)
    # Beside a Parquet file of `to_parquet` the names are in the metadata of its schema alone.
    made.to_parquet(str(source)) if suffix == ".parquet" else made.save_to_disk(str(source))
    rows = rows_after(prepare(source, "--domain-key", "kind"), tmp_path / "rows")
    assert [row["domain"] for row in rows] == ["web", "code", "code", "web"]


def test_another_spelling_of_a_path_is_the_same_source_and_tokenizer(
    prepare: Command, word_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus").mkdir()
    write_jsonl(tmp_path / "corpus" / "x.jsonl", [record(0), record(1)])
    assert len(rows_after(prepare("corpus", tokenizer="tokenizer"), tmp_path / "rows")) == 2
    stamp = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").rglob("*.arrow")}
    tokenizers = ("./tokenizer", "tokenizer/", word_tokenizer, f"{word_tokenizer}/")
    sources = ("./corpus", "corpus/", tmp_path / "corpus", f"{tmp_path}/./corpus/")
    for source, tokenizer in zip(sources, tokenizers, strict=True):
        result = prepare(source, tokenizer=tokenizer)
        assert result.exit_code == 0, (source, tokenizer, result.output)
        assert f"{tmp_path / 'rows'} is prepared already" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").rglob("*.arrow")} == stamp
    write_jsonl(tmp_path / "other.jsonl", [record(2)])
    assert prepare("other.jsonl").exit_code == 1


def test_a_meta_that_is_text_is_a_domain(prepare: Command, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "d.jsonl", [record(k, meta=("ArXiv", "Books")[k % 2]) for k in range(3)])
    rows = rows_after(prepare(source, "--domain-key", "meta"), tmp_path / "rows")
    assert [row["domain"] for row in rows] == ["ArXiv", "Books", "ArXiv"]
    assert [row["meta"]["pile_set_name"] for row in rows] == ["ArXiv", "Books", "ArXiv"]


@pytest.mark.parametrize("window_log", [27, 28, 30, 31])
def test_zst_files_of_a_long_window_are_read(prepare: Command, tmp_path: Path, window_log: int) -> None:
    """`zstd --long=31` packs the dumps of Reddit; the library refuses more than 27 unless it is allowed to."""
    # Written as a stream: packed at once, the frame would have a window of the content's small size.
    content, packed = "".join(json.dumps(record(k)) + "\n" for k in range(3)).encode(), io.BytesIO()
    wide = zstandard.ZstdCompressionParameters(window_log=window_log, compression_level=1, enable_ldm=False)
    with zstandard.ZstdCompressor(compression_params=wide).stream_writer(packed, closefd=False) as file:
        file.write(content)
    assert zstandard.get_frame_parameters(packed.getvalue()).window_size == 1 << window_log
    (tmp_path / "d.jsonl.zst").write_bytes(packed.getvalue())
    assert len(rows_after(prepare(tmp_path / "d.jsonl.zst"), tmp_path / "rows")) == 3


@pytest.mark.parametrize("shape", ["torch", "numpy", "pandas", "arrow", "one column"])
def test_the_format_of_a_saved_data_set_changes_nothing(prepare: Command, tmp_path: Path, shape: str) -> None:
    columns = {
        "text": [words(k) for k in range(4)],
        "id": [f"doc-{k}" for k in range(4)],
        "meta": [{"pile_set_name": "a", "n": k, "ratio": k / 2} for k in range(4)],
    }
    made = Dataset.from_dict(columns)
    formatted = made.with_format("torch", columns=["id"]) if shape == "one column" else made.with_format(shape)
    formatted.save_to_disk(str(tmp_path / "saved"))
    rows = rows_after(prepare(tmp_path / "saved"), tmp_path / "rows")
    assert [row["meta"] for row in rows] == columns["meta"]
    assert [row["id"] for row in rows] == columns["id"]


@pytest.mark.parametrize("hashes", [[2**64 - 1, 2**63, 5], [2**63 - 1, 2**53 + 1, -7], [2**64 - 1, 2**63, -7]])
def test_a_hash_of_64_bits_in_meta_keeps_its_digits(prepare: Command, tmp_path: Path, hashes: list[int]) -> None:
    """Never rounded to a float: one beyond Arrow's 64 bits with a sign is text, the others are numbers."""
    metas = [{"pile_set_name": "a", "simhash": value, "more": {"deep": value}} for value in hashes]
    source = write_jsonl(tmp_path / "d.jsonl", [record(k, meta=meta) for k, meta in enumerate(metas)])
    rows = rows_after(prepare(source), tmp_path / "rows")
    # Where one document has text and another a number, the whole column is JSON text.
    found = [json.loads(row["meta"]) if isinstance(row["meta"], str) else row["meta"] for row in rows]
    kept = [value if value < 2**63 else str(value) for value in hashes]
    assert [meta["simhash"] for meta in found] == [meta["more"]["deep"] for meta in found] == kept
    assert {row["domain"] for row in rows} == {"a"}


def test_a_number_beside_fractions_keeps_its_digits(prepare: Command, tmp_path: Path) -> None:
    values = [{"n": 2**53 + 1, "m": 2**53}, {"n": 1.5, "m": 0.5}]
    source = write_jsonl(tmp_path / "d.jsonl", [record(k, **more) for k, more in enumerate(values)])
    rows = rows_after(prepare(source), tmp_path / "rows")
    assert [(row["n"], row["m"]) for row in rows] == [("9007199254740993", 2.0**53), ("1.5", 0.5)]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_key_may_have_a_dot_in_its_name(prepare: Command, tmp_path: Path, kind: str) -> None:
    """The columns of a flattened table, which look like paths into objects."""
    records = [{"doc.text": words(k), "meta.pile_set_name": "xy"[k % 2], "key.id": f"n{k}"} for k in range(4)]
    source = tmp_path / f"d.{kind}"
    Dataset.from_list(records).to_parquet(str(source)) if kind == "parquet" else write_jsonl(source, records)
    keys = ("--text-key", "doc.text", "--domain-key", "meta.pile_set_name", "--id-key", "key.id")
    rows = rows_after(prepare(source, *keys), tmp_path / "rows")
    assert [(row["domain"], row["id"]) for row in rows] == [("x", "n0"), ("y", "n1"), ("x", "n2"), ("y", "n3")]
    assert [row["text"].split()[:9] for row in rows] == [words(k).split()[:9] for k in range(4)]
