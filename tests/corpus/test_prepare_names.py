"""Where rows come from: ids, domains, sources and other columns from `prepare` to the subset; windows and copies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from click.testing import Result
from datasets import Dataset

from ladm.corpus.files.meta import plain, value_at
from ladm.corpus.preparation.duplicates import SHORT_ROW_TOKENS
from ladm.corpus.preparation.encoding import window_starts
from ladm.corpus.preparation.tokenization import Tokenizer
from ladm.selection.windows import Windows, first_of_each
from support.documents import DOCUMENTS, write_jsonl
from support.files import read_lines
from support.long_documents import long_document, text
from support.models import SMALL
from support.rows import rows_of

Command = Callable[..., Result]


def test_columns_of_a_document_are_carried(prepare: Callable[..., Result], tmp_path: Path) -> None:
    own = {"id": 7, "lang": "en", "rank": 2, "ratio": 1, "tags": ["a"], "source": {"name": "web"}, "index": 9}
    records = [own | {"body": {"text": text(0)}}, {"body": {"text": text(1), "n": 1}, "source": {"name": "b"}}]
    records[1] |= {"ratio": 0.5, "big": 2**64 - 1}
    source = write_jsonl(tmp_path / "d.jsonl", records)
    result = prepare(source, "--text-key", "body.text", "--domain-key", "source.name")
    assert result.exit_code == 0, result.output
    rows = rows_of(tmp_path / "rows")
    for row in rows:
        assert len(row.pop("text")) < len(text(0))
        assert len(row.pop("input_ids")) == 40 < row.pop("document_tokens")
    nothing = dict.fromkeys(("lang", "rank", "tags", "original_index", "big"))
    first = {"lang": "en", "rank": 2, "tags": '["a"]', "original_index": 9, "id": "7", "body": "{}", "ratio": 1.0}
    fixed = {"index": 0, "document": 0, "start_token": 0, "domain": "web", "meta": {"pile_set_name": "web"}}
    assert rows[0] == nothing | fixed | first | {"source": f"{source} line 1", "original_source": '{"name": "web"}'}
    second = {"index": 1, "document": 1, "domain": "b", "meta": {"pile_set_name": "b"}, "id": None, "ratio": 0.5}
    second |= {"body": '{"n": 1}', "source": f"{source} line 2", "original_source": '{"name": "b"}'}
    assert rows[1] == nothing | fixed | second | {"big": str(2**64 - 1)}


def test_a_whole_number_is_an_id_also_as_a_float(prepare: Callable[..., Result], tmp_path: Path) -> None:
    """pandas writes a column of whole numbers as floats where one is missing."""
    records = [{"text": text(k), "kind": "a"} | own for k, own in enumerate([{"id": 1000.0}, {}, {"id": 2.5}])]
    assert prepare(write_jsonl(tmp_path / "d.jsonl", records), "--domain-key", "kind").exit_code == 0
    rows = rows_of(tmp_path / "rows")
    assert [row["id"] for row in rows] == ["1000", None, None]
    assert [row["original_id"] for row in rows] == [None, None, 2.5]


def test_ids_as_databases_write_them(prepare: Callable[..., Result], tmp_path: Path) -> None:
    """Snowflake has whole numbers as decimals, DuckDB a type for UUIDs, which is stored as bytes."""
    uuids = [UUID(int=2**100 + k) for k in range(2)]
    columns = {
        "number": pa.array([Decimal(10**37), Decimal(7)], pa.decimal128(38, 0)),
        "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([each.bytes for each in uuids], pa.binary(16))),
        "part": pa.array([Decimal("1.50"), Decimal("2.25")], pa.decimal128(5, 2)),
    }
    pq.write_table(pa.table({"text": [text(0), text(1)], **columns}), tmp_path / "d.parquet")
    source = tmp_path / "d.parquet"
    expected = {"number": ["1" + "0" * 37, "7"], "uuid": [str(each) for each in uuids]}
    for key, ids in expected.items():
        assert prepare(source, "--id-key", key, "--domain", "a", output=key).exit_code == 0
        assert [row["id"] for row in rows_of(tmp_path / key)] == ids
    assert [row["uuid"] for row in rows_of(tmp_path / "number")] == expected["uuid"]
    refused = prepare(source, "--id-key", "part", "--domain", "a", output="none")
    assert refused.stderr.splitlines()[-1] == (
        "ladm: none of the first 2 documents has part that is a text or a whole number; the keys are text, number, "
        "uuid, part: give --id-key one of them"
    )


def test_a_score_can_be_joined_back_to_the_corpus(
    ladm: Command, prepare: Callable[..., Result], tmp_path: Path
) -> None:
    records = [{"id": f"doc-{k}", "text": text(k, 400), "kind": "ab"[k % 2]} for k in range(4)]
    source = write_jsonl(tmp_path / "d.jsonl", records)
    assert prepare(source, "--domain-key", "kind", "--length", "512").exit_code == 0
    result = ladm("score", tmp_path / "rows", *SMALL, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    named = {f"doc-{k}": ("ab"[k % 2], f"{source} line {k + 1}") for k in range(4)}
    lines = read_lines(tmp_path / "run" / "sorted_by_score.jsonl")
    assert {line["id"]: (line["domain"], line["source"]) for line in lines} == named
    table = pq.read_table(tmp_path / "run" / "scores.parquet").to_pylist()
    assert [(row["id"], row["score"]) for row in table] == [(line["id"], line["score"]) for line in lines]
    result = ladm("select", tmp_path / "run", "--rows", tmp_path / "rows", "--tokens", 1024, "-o", tmp_path / "subset")
    assert result.exit_code == 0, result.output
    assert {row["id"] for row in rows_of(tmp_path / "subset")} <= set(named)
    assert ladm("verify", tmp_path / "run").exit_code == 0
    assert ladm("rescore", tmp_path / "run", "--reduce", "median", "-o", tmp_path / "again").exit_code == 0
    assert {row["id"] for row in pq.read_table(tmp_path / "again" / "scores.parquet").to_pylist()} == set(named)
    assert ladm("report", tmp_path / "run").exit_code == 0
    assert "doc-3" in (tmp_path / "run" / "report.html").read_text()


def test_windows_cover_a_whole_document(prepare: Callable[..., Result], tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "d.jsonl", [DOCUMENTS[0], {"text": text(3, 300), "meta": DOCUMENTS[0]["meta"]}])
    assert prepare(source, "--windows", "all").exit_code == 0
    rows = [row for row in rows_of(tmp_path / "rows") if row["document"] == 1]
    assert [row["chunked_index"] for row in rows] == list(range(len(rows)))
    seen = {row["start_token"] + k for row in rows for k in range(39)}
    assert seen == set(range(rows[0]["document_tokens"]))
    record = json.loads((tmp_path / "rows" / "prepare.json").read_text())
    assert record["tokens"]["cut_off"] == 0 < record["tokens"]["read"] == record["tokens"]["kept"]
    assert prepare(source, "--windows", "2", output="two").exit_code == 0
    assert [row["chunked_index"] for row in rows_of(tmp_path / "two") if row["document"] == 1] == [0, 1]
    result = prepare(source, "--windows", "none", output="three")
    assert (result.exit_code, result.stderr) == (
        2, "ladm: --windows 'none' is neither first, all nor a number of at least 1\n",
    )  # fmt: skip


def test_window_starts() -> None:
    assert window_starts(10, 4, None) == [0, 4, 6]
    assert window_starts(10, 4, 2) == [0, 4]
    assert (window_starts(8, 4, None), window_starts(3, 4, None)) == ([0, 4], [])


def test_first_of_each() -> None:
    assert first_of_each(np.array([7, 7, 3, 7]), 2).tolist() == [True, True, True, False]
    assert first_of_each(np.array([1, 2, 1, 2, 1]), 1).tolist() == [True, True, False, False, False]


def test_which_windows_repeat_a_better_one() -> None:
    # Rows of 100 tokens: 0 and 3 begin at 0 and 49, 1 and 2 at 0 and 50; of 5 the start is not known; 4 has no pair.
    windows = Windows(documents_T=np.array([7, 8, 8, 7, 9, 7]), starts_T=np.array([0.0, 0.0, 50.0, 49.0, 20.0, np.nan]))
    for order, repeating in (([0, 1, 2, 3, 4, 5], [3]), ([5, 3, 2, 4, 1, 0], [0])):
        found = windows.repeating(np.array(order), np.full(6, 100))
        assert [row for row, is_repeating in zip(order, found, strict=True) if is_repeating] == repeating


def test_copies_are_dropped_and_counted(
    prepare: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 2)
    source = write_jsonl(tmp_path / "d.jsonl", [long_document(k) for k in (0, 1, 0, 2, 1)])
    long = ("--length", SHORT_ROW_TOKENS)
    result = prepare(source, *long)
    assert (
        "duplicate             2  documents dropped: every row has the ids of an earlier row"
        in result.stdout.splitlines()
    )
    assert [row["document"] for row in rows_of(tmp_path / "rows")] == [0, 1, 3]
    assert prepare(source, *long, "--limit", "3", output="three").exit_code == 0
    assert [row["document"] for row in rows_of(tmp_path / "three")] == [0, 1, 3]
    assert prepare(source, *long, "--keep-duplicates", output="all").exit_code == 0
    assert len(rows_of(tmp_path / "all")) == 5


def test_short_copies_are_marked_and_left_out_by_select(
    ladm: Command, prepare: Callable[..., Result], tmp_path: Path
) -> None:
    records = [long_document(k) for k in (0, 1, 0, 2, 1)]
    records[4]["meta"]["pile_set_name"] = "copies alone"
    source = write_jsonl(tmp_path / "d.jsonl", records)
    flags = ("--length", SHORT_ROW_TOKENS - 1)
    result = prepare(source, *flags)
    assert (
        "copies                2  short rows with the token ids of another: kept here, left out by select"
        in result.stdout
    )
    assert [row["copy_of"] for row in rows_of(tmp_path / "rows")] == [None, None, 0, None, 1]
    assert json.loads((tmp_path / "rows/prepare.json").read_text())["copies"] == 2
    result = ladm("score", tmp_path / "rows", *SMALL, "--span-tokens", "4", "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    subset = ("select", tmp_path / "run", "--tokens", "10k", "--allow-small-pool", "--output", tmp_path / "subset")
    result = ladm(*subset)
    assert "left out as copies of another row: 2" in result.stdout.splitlines(), result.output
    assert [row["document"] for row in rows_of(tmp_path / "subset")] == [0, 1, 3]
    manifest = json.loads((tmp_path / "subset/manifest.json").read_text())
    assert (manifest["copies"], list(manifest["domains"])) == (2, ["a", "b"])
    # Beside a run whose rows have no copies.
    other = write_jsonl(tmp_path / "other.jsonl", [long_document(k) for k in (5, 6)])
    assert prepare(other, *flags, output="others").exit_code == 0
    score = ("score", tmp_path / "others", *SMALL, "--span-tokens", "4", "--output", tmp_path / "run2")
    assert ladm(*score).exit_code == 0
    result = ladm(*subset[:2], tmp_path / "run2", *subset[2:-1], tmp_path / "of-both")
    assert "left out as copies of another row: 2" in result.stdout.splitlines(), result.output
    assert len(rows_of(tmp_path / "of-both")) == 5
    assert prepare(source, *flags, "--keep-duplicates", output="all").exit_code == 0
    assert "copy_of" not in rows_of(tmp_path / "all")[0]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet", "saved"])
def test_a_greater_limit_adds_rows_without_reading_the_first_again(
    prepare: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 4)
    monkeypatch.setattr("ladm.corpus.documents.reading._BATCH_ROWS", 3)
    records = [long_document(k) for k in range(10)]
    source = tmp_path / f"d{suffix}"
    if suffix == "saved":
        Dataset.from_list(records).save_to_disk(str(source))
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), source, row_group_size=3)
    else:
        write_jsonl(source, records)
    texts: list[str] = []
    cut = Tokenizer.cut
    monkeypatch.setattr(Tokenizer, "cut", lambda self, these, *a, **k: texts.extend(these) or cut(self, these, *a, **k))
    assert prepare(source, "--limit", 3).exit_code == 0
    assert len(texts) == 4
    for limit, total, documents in [("5", 5, 8), ("9", 9, 10), (None, 10, 10)]:
        result = prepare(source, *(("--limit", limit) if limit else ()))
        assert result.exit_code == 0, result.output
        assert "adding to them" in result.stderr
        assert (len(rows_of(tmp_path / "rows")), len(texts)) == (total, documents)
        assert json.loads((tmp_path / "rows/prepare.json").read_text())["rows"] == total
    assert not (tmp_path / "rows/.preparing").exists()
    assert prepare(source, output="fresh").exit_code == 0
    for name in ("prepare.json", "train/data-00000-of-00001.arrow", "dataset_dict.json", "train/dataset_info.json"):
        assert (tmp_path / "rows" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes(), name
    assert "is prepared already" in prepare(source, "--limit", 20).stderr
    result = prepare(source, "--limit", 2)
    assert (result.exit_code, result.stderr) == (
        1,
        f"ladm: {tmp_path}/rows has 10 rows already, more than --limit 2; give another --output, or score the first of "
        f"them: ladm score {tmp_path / 'rows'} --model MODEL --limit 2 -o run\n",
    )


def test_growth_that_stops_while_the_data_set_is_replaced(
    prepare: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 2)
    source = write_jsonl(tmp_path / "d.jsonl", [long_document(k) for k in range(5)])
    assert prepare(source, "--limit", 1).exit_code == 0
    with monkeypatch.context() as broken:
        broken.setattr("ladm.corpus.preparation.assemble.sync_tree", Mock(side_effect=OSError("disk is gone")))
        assert prepare(source, "--limit", 3).exit_code == 74
    assert not (tmp_path / "rows/prepare.json").exists()
    assert prepare(source, "--limit", 2).exit_code == 0
    assert len(rows_of(tmp_path / "rows")) == 2
    # Without the blocks of the first rows, all is read again.
    shutil.rmtree(tmp_path / "rows/.preparing")
    assert prepare(source).exit_code == 0
    assert [row["index"] for row in rows_of(tmp_path / "rows")] == [0, 1, 2, 3, 4]


def test_growth_removes_what_killed_launches_left_half_written(
    prepare: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks stay for a greater --limit, and with them everything beside them would."""
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 2)
    source = write_jsonl(tmp_path / "d.jsonl", [long_document(k) for k in range(9)])
    assert prepare(source, "--limit", 1).exit_code == 0
    work = tmp_path / "rows/.preparing"
    for k, name in enumerate(("asked.json", "000001.parquet", "000001.parquet")):
        (work / f"{name}.{k:032x}.partial").write_text("half")
    (work / "notes.partial").write_text("of somebody else")
    assert prepare(source, "--limit", 3).exit_code == 0
    assert sorted(path.name for path in work.iterdir()) == [
        "000000.parquet", "000001.parquet", "asked.json", "notes.partial", "sources.json",
    ]  # fmt: skip


def test_a_missing_key_stops_early_and_lists_the_keys(prepare: Callable[..., Result], tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "d.jsonl", [{"body": text(k), "info": {"url": "u", "kind": "k"}} for k in range(3)])
    for flags, message in [
        ((), "none of the first 3 documents has text; the keys are body, info.url, info.kind: give --text-key one of "
         "them"),
        (("--text-key", "body"),
         "none of the first 3 documents has meta.pile_set_name or domain; the keys are body, info.url, info.kind: give "
         "--domain-key one of them, or --domain a name for all documents without one"),
    ]:  # fmt: skip
        result = prepare(source, *flags)
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, f"ladm: {message}")
    result = prepare(source, "--text-key", "body", "--domain-key", "info.kind")
    assert result.exit_code == 0, result.output


def test_a_document_without_domain_is_mended_in_the_same_folder(
    prepare: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 2)
    source = write_jsonl(tmp_path / "d.jsonl", [*DOCUMENTS[:3], {"text": DOCUMENTS[4]["text"]}])
    result = prepare(source)
    assert result.exit_code == 1
    assert "line 4 has no meta.pile_set_name" in result.stderr
    assert prepare(source, "--no-bos").exit_code == 1
    assert prepare(source, "--domain", "other").exit_code == 0
    assert [row["domain"] for row in rows_of(tmp_path / "rows")] == ["a", "b", "a", "other"]


def test_a_domain_key_that_no_document_has_is_named_where_another_domain_is_given(
    prepare: Callable[..., Result], tmp_path: Path
) -> None:
    records = [{"text": text(k), "topic": "t", "info": {"url": "u"}} for k in range(3)]
    source = write_jsonl(tmp_path / "d.jsonl", records)
    result = prepare(source, "--domain-key", "topik", "--domain", "other")
    warning = (
        "warning   documents get the domain other (--domain), because none of the first 3 has topik (--domain-key); "
        "the keys are text, topic, info.url"
    )
    assert result.exit_code == 0, result.stderr
    assert warning in result.stderr.splitlines()
    result = prepare(source, "--domain-key", "topic", "--domain", "other", output="rows2")
    assert "warning" not in result.stderr


def test_a_list_is_no_domain_and_is_named_as_one(prepare: Callable[..., Result], tmp_path: Path) -> None:
    remedy = "--domain a name for all documents without one"
    for k, kinds in enumerate((["a", ["b", "c"]], [{}, {"b": 1}])):
        records = [{"text": text(k), "kind": kind} for kind in kinds]
        result = prepare(write_jsonl(tmp_path / f"{k}.jsonl", records), "--domain-key", "kind", output=f"rows{k}")
        where = ("none of the first 2 documents has", f"{tmp_path}/0.jsonl line 2 has no")[k == 0]
        assert result.stderr.splitlines()[-1].startswith(f"ladm: {where} kind that is a text or a number; ")
        assert result.stderr.endswith(f"{remedy}\n")


def test_a_document_without_domain_is_mended_where_the_first_rows_are_finished(
    prepare: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 2)
    source = write_jsonl(tmp_path / "d.jsonl", [*DOCUMENTS[:3], {"text": DOCUMENTS[4]["text"]}])
    assert prepare(source, "--limit", "2").exit_code == 0
    assert "or --domain a name for all documents without one" in prepare(source).stderr
    mended = prepare(source, "--domain", "other")
    assert mended.exit_code == 0, mended.output
    assert [row["domain"] for row in rows_of(tmp_path / "rows")] == ["a", "b", "a", "other"]
    for flags, code in ((("--domain", "other"), 0), ((), 1), (("--domain", "third"), 1)):
        assert prepare(source, *flags).exit_code == code


def test_a_preparation_without_a_block_binds_nothing(prepare: Callable[..., Result], tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "d.jsonl", [*DOCUMENTS[:1], {"text": DOCUMENTS[1]["text"]}])
    assert prepare(source).exit_code == 1
    assert prepare(source, "--domain-key", "meta.k", "--domain", "x", "--no-bos").exit_code == 0


def test_torn_and_odd_files_are_left_out_whole(prepare: Callable[..., Result], tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", DOCUMENTS[:2])
    noise = [{**DOCUMENTS[k % 6], "n": np.random.default_rng(k).bytes(200).hex()} for k in range(900)]
    packed = zstandard.ZstdCompressor().compress(b"".join(json.dumps(r).encode() + b"\n" for r in noise))
    (folder / "torn.jsonl.zst").write_bytes(packed[: len(packed) * 2 // 3])
    (folder / "latin.txt").write_bytes(b"caf\xe9 " + text(1).encode())
    result = prepare(folder)
    assert result.exit_code == 0, result.output
    assert len(rows_of(tmp_path / "rows")) == 2
    left_out = [line for line in result.stdout.splitlines() if line.startswith("bad_file")]
    assert len(left_out) == 2
    for line, name in zip(left_out, ("latin.txt", "torn.jsonl.zst"), strict=True):
        assert name in line
    result = prepare(folder, "--max-bad-files", "0", output="strict")
    assert result.exit_code == 74
    assert "latin.txt" in result.stderr.splitlines()[-1]


def test_what_is_beside_the_documents_is_not_one(prepare: Callable[..., Result], tmp_path: Path) -> None:
    folder = tmp_path / "d"
    for name in ("data", ".cache", ".ipynb_checkpoints"):
        (folder / name).mkdir(parents=True)
        write_jsonl(folder / name / "p.jsonl", DOCUMENTS[:2])
    for name in ("README.md", "LICENSE.txt", "LICENSE-data.txt", "._p.jsonl"):
        (folder / name).write_text(text(2))
    for expected in ("rows: ", "is prepared already"):
        result = prepare(folder, "--output", folder / "rows", "--keep-duplicates")
        assert result.exit_code == 0, result.output
        assert expected in result.output
    assert len(rows_of(folder / "rows")) == 2


def test_values_that_arrow_or_json_cannot_hold(prepare: Callable[..., Result], tmp_path: Path) -> None:
    assert plain({"a": [2**64, b"x", "\ud83d", True]}) == {"a": [str(2**64), None, "\ufffd", True]}
    broken = pa.Array.from_buffers(pa.string(), 2, pa.array([b"caf\xe9"] * 2, pa.binary()).buffers())
    when = pa.array([1_200_000_000_000_000_000, 1], pa.timestamp("us"))
    columns = {"text": [text(0), text(1)], "meta": [{"pile_set_name": "A"}] * 2, "title": broken, "when": when}
    pq.write_table(pa.table(columns | {"raw": pa.array([b"1"] * 2)}), tmp_path / "d.parquet")
    assert prepare(tmp_path / "d.parquet").exit_code == 0
    rows = rows_of(tmp_path / "rows")
    assert [row["title"] for row in rows] == ["caf\ufffd"] * 2
    assert "raw" not in rows[0]
    assert "1970" in rows[1]["when"]
    source = write_jsonl(tmp_path / "d.jsonl", [DOCUMENTS[0], {**DOCUMENTS[1], "text": text(1) + " \ud83d"}])
    result = prepare(source, output="surrogate")
    assert "bad_text              1  document dropped: the text is not valid Unicode" in result.stdout.splitlines()


def test_keys_with_dots() -> None:
    assert value_at({"meta.pile_set_name": "A"}, "meta.pile_set_name") == "A"
    assert value_at({"a": {"b.c": {"d": 1}}}, "a.b.c.d") == 1
    assert value_at({"a.b": {"c": 2}, "a": 5}, "a.b.c") == 2
    assert value_at({"a": {"b": 1}}, "a.c") is None


def test_a_subset_takes_two_different_windows_of_a_document(
    ladm: Command, prepare: Callable[..., Result], tmp_path: Path
) -> None:
    records = [{"text": text(k, 400 + 500 * k), "kind": "a"} for k in range(3)]
    source = write_jsonl(tmp_path / "d.jsonl", records)
    assert prepare(source, "--domain-key", "kind", "--length", "512", "--windows", "all").exit_code == 0
    rows = rows_of(tmp_path / "rows")
    assert ladm("score", tmp_path / "rows", *SMALL, "--output", tmp_path / "run").exit_code == 0
    ranked = [rows[line["index"]] for line in read_lines(tmp_path / "run" / "sorted_by_score.jsonl")]
    # The last windows of two of the documents repeat more than half of the one before.
    different = different_rows(ranked)
    repeating = len(rows) - len(different)
    assert repeating == 3
    for flags, most in (((), 2), (("--max-per-document", "1"), 1), (("--max-per-document", "99"), 99)):
        subset = tmp_path / f"subset{most}"
        common = ("--rows", tmp_path / "rows", "--tokens", 10**6, "--allow-small-pool", "--output", subset)
        result = ladm("select", tmp_path / "run", *common, *flags)
        assert result.exit_code == 0, result.output
        expected = [row for k in range(3) for row in [row for row in different if row["document"] == k][:most]]
        assert sorted(row["index"] for row in rows_of(subset)) == sorted(row["index"] for row in expected)
        manifest = json.loads((subset / "manifest.json").read_text())
        assert manifest["max_per_document"] == most
        # Who counts the rows of the run must learn why the table has fewer.
        beyond = len(different) - len(expected)
        assert manifest["repeating_windows"] == repeating
        assert manifest.get("beyond_max_per_document", 0) == beyond
        lines = result.stdout.splitlines()
        assert f"left out as windows that mostly repeat a better one of their document: {repeating}" in lines
        line = f"left out by --max-per-document {most}: {beyond}, of documents with more rows than that"
        assert (line in lines) == (beyond > 0)
    result = ladm("select", tmp_path / "run", "--rows", tmp_path / "rows", "--tokens", "9", "-o", tmp_path / "none")
    assert (result.exit_code, result.stderr) == (
        1, "ladm: no document fits --tokens 9: the shortest has 512 tokens\n",
    )  # fmt: skip
    left_out = sum(max(0, sum(row["document"] == k for row in different) - 2) for k in range(3))
    for budget in (("--documents", len(rows)), ("--tokens", 512 * len(rows))):
        result = ladm("select", tmp_path / "run", "--rows", tmp_path / "rows", *budget, "-o", tmp_path / "none")
        assert result.exit_code == 1
        assert result.stderr.endswith(
            f"; {repeating} rows left out because more than half is in a better row of the document"
            f"; --max-per-document 2 leaves {left_out} rows out\n"
        )
    # Whole documents: every window belongs to one.
    whole = ("--by", "document_mean(score)", "--documents", len(rows), "--output", tmp_path / "whole")
    assert ladm("select", tmp_path / "run", "--rows", tmp_path / "rows", *whole).exit_code == 0


def different_rows(ranked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows, best first, without those that have more than half of their tokens in a better one of their document."""
    kept: list[dict[str, Any]] = []
    for row in ranked:
        length = len(row["input_ids"])
        distances = [abs(row["start_token"] - one["start_token"]) for one in kept if one["document"] == row["document"]]
        if all(length - distance <= length / 2 for distance in distances):
            kept.append(row)
    return kept


def test_a_domain_column_of_foreign_rows_is_found(ladm: Command, tmp_path: Path) -> None:
    ids = [[(k * k * (3 + row) + 7 * k + row) % 500 for k in range(512)] for row in range(4)]
    data = {"input_ids": ids, "domain": ["web", "code", "web", "code"], "n": list(range(4))}
    for name, meta, expected in [
        ("alone", {}, ["code", "web"]),
        ("beside", {"meta": [{"k": k} for k in range(4)]}, ["code", "web"]),
        ("below", {"meta": [{"pile_set_name": "A" if k else None} for k in range(4)]}, ["A", "web"]),
    ]:
        Dataset.from_dict(data | meta).save_to_disk(str(tmp_path / name))
        assert ladm("score", tmp_path / name, *SMALL, "-o", tmp_path / f"run-{name}").exit_code == 0
        result = ladm("select", tmp_path / f"run-{name}", "--tokens", "1024", "-o", tmp_path / f"subset-{name}")
        assert result.exit_code == 0, result.output
        manifest = json.loads((tmp_path / f"subset-{name}/manifest.json").read_text())
        assert list(manifest["domains"]) == expected
        assert ladm("report", tmp_path / f"run-{name}").exit_code == 0
        assert f">{expected[-1]}<" in (tmp_path / f"run-{name}/report.html").read_text()
    assert ladm("report", tmp_path / "run-below", "--domain-key", "domain").exit_code == 0
    assert ">code<" in (tmp_path / "run-below/report.html").read_text()
