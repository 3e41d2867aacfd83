"""Reading rows: layouts that `datasets` saves, what is carried through, and an identity by content."""

from __future__ import annotations

import datetime
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, Features, LargeList, List, Value, concatenate_datasets

from ladm.corpus.rows.reading import open_rows
from ladm.corpus.rows.row import Row, token_ids
from ladm.errors import LadmError, RowError, StorageError
from ladm.storage.json_object import json_with_checksum

DATA = [{"input_ids": [k, k + 1, 3], "index": 10 + k, "chunked_index": k % 2, "meta": {"d": "x"}} for k in range(9)]


def saved(data: Any, folder: Path) -> str:
    data.save_to_disk(str(folder))
    return str(folder)


def test_a_dataset_and_a_dict_with_train_are_the_same_rows(tmp_path: Path) -> None:
    alone = open_rows(saved(Dataset.from_list(DATA), tmp_path / "alone"))
    saved(DatasetDict(train=Dataset.from_list(DATA)), tmp_path / "split")
    split = open_rows(tmp_path / "split")
    assert alone.identity() == split.identity()
    assert [(row.position, row.index, row.chunked_index, row.meta) for row in split.read(7, 9)] == [
        (7, 17, 1, {"d": "x"}),
        (8, 18, 0, {"d": "x"}),
    ]


def test_columns_that_are_absent_have_defaults(tmp_path: Path) -> None:
    rows = open_rows(saved(Dataset.from_dict({"input_ids": [[1], [2]]}), tmp_path / "rows"), limit=1)
    assert len(rows) == 1
    row = rows.read(0, 1)[0]
    assert (row.index, row.chunked_index, row.meta, row.num_tokens) == (0, None, None, 1)


def test_a_mark_of_a_copy_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = open_rows(saved(Dataset.from_list([row | {"copy_of": None} for row in DATA]), tmp_path / "rows"))
    marks = rows.copies()
    assert marks is not None
    assert not marks.any()

    def fail(*_: object) -> None:
        raise pa.ArrowInvalid("no Arrow here\nat all")

    monkeypatch.setattr(Dataset, "select_columns", fail)
    with pytest.raises(StorageError, match=rf"^cannot read {tmp_path}/rows: no Arrow here"):
        rows.copies()


KINDS = [List(Value("int64")), List(Value("uint16")), LargeList(Value("int32")), List(Value("int32"), length=3)]
OTHERS = {"index": Value("int64"), "chunked_index": Value("int64"), "meta": {"d": Value("string")}}


@pytest.mark.parametrize("kind", KINDS)
def test_the_identity_is_that_of_the_content_not_of_the_storage(tmp_path: Path, kind: Any) -> None:
    plain = open_rows(saved(Dataset.from_list(DATA), tmp_path / "plain"))
    features = Features({"input_ids": kind} | OTHERS)
    parts = [Dataset.from_list(DATA[:4], features=features), Dataset.from_list(DATA[4:], features=features)]
    stored = concatenate_datasets(parts)
    stored.save_to_disk(str(tmp_path / "stored"), num_shards=3)
    other = open_rows(str(tmp_path / "stored"))
    assert other.identity() == plain.identity()
    assert [token_ids(row, vocab_size=100).tolist() for row in other.read(0, 9)] == [row["input_ids"] for row in DATA]


@pytest.mark.parametrize("change", ["reorder", "edit", "drop", "index", "meta", "boundary", "none"])
def test_any_change_of_the_content_changes_the_identity(tmp_path: Path, change: str) -> None:
    rows = [dict(row) for row in DATA]
    if change == "reorder":
        rows[3], rows[4] = rows[4], rows[3]
    elif change == "edit":
        rows[5]["input_ids"] = [5, 6, 4]
    elif change == "drop":
        del rows[8]
    elif change == "index":
        rows[2]["index"] = 99
    elif change == "meta":
        rows[2]["meta"] = {"d": "y"}
    elif change == "boundary":
        rows[2]["input_ids"], rows[3]["input_ids"] = [2, 3, 3, 3], [4, 3]
    else:
        rows[2]["input_ids"] = None
    before = open_rows(saved(Dataset.from_list(DATA), tmp_path / "before")).identity()
    after = open_rows(saved(Dataset.from_list(rows), tmp_path / "after")).identity()
    assert before != after


def test_meta_comes_back_as_json_gives_it(tmp_path: Path) -> None:
    day = datetime.datetime(2025, 1, 2)
    meta = [{"score": math.nan, "day": day, "list": [1, None], "text": "</script>\x00é"}]
    rows = open_rows(saved(Dataset.from_dict({"input_ids": [[1]], "meta": meta}), tmp_path / "rows"))
    assert rows.read(0, 1)[0].meta == {
        "score": None,
        "day": "2025-01-02 00:00:00",
        "list": [1, None],
        "text": "</script>\x00é",
    }


def test_meta_that_is_text_is_carried_through(tmp_path: Path) -> None:
    data = Dataset.from_dict({"input_ids": [[1]], "meta": ['{"a": 1}'], "index": ["doc-1"]})
    row = open_rows(saved(data, tmp_path / "rows")).read(0, 1)[0]
    assert (row.meta, row.index) == ('{"a": 1}', "doc-1")


def row_of(raw: Any) -> Row:
    return Row(position=0, index=0, chunked_index=None, meta=None, raw_ids=raw)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (None, "no_ids"),
        ([], "empty"),
        (np.array([], dtype=np.int32), "empty"),
        ([1, True], "wrong_type"),
        (7, "wrong_type"),
        ([2**70], "outside_vocabulary"),
        (np.array([99, 100]), "outside_vocabulary"),
        (np.array([2**63], dtype=np.uint64), "outside_vocabulary"),
    ],
)
def test_ids_that_cannot_be_scored(raw: Any, kind: str) -> None:
    with pytest.raises(RowError) as caught:
        token_ids(row_of(raw), vocab_size=100)
    assert caught.value.kind == kind


def test_the_last_id_of_the_vocabulary_is_one_of_it() -> None:
    assert token_ids(row_of(np.array([0, 99], dtype=np.int16)), vocab_size=100).dtype == np.int64


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"run.json": "{}"}, "is a run of ladm score, not rows; give the rows that it scored"),
        ({"job.yaml": "", "rows/dataset_dict.json": "{}"}, "is a job of ladm run, not rows; its rows are {}/rows"),
        ({"job.yaml": "", "scores/run.json": "{}"},
         "is a job of ladm run, not rows; give the rows that it scored"),
        ({".preparing/asked.json": "{}", ".lock": ""},
         "has no rows yet: its ladm prepare was stopped; run that command again"),
        ({"manifest.json": '{"format": "jsonl", "taken_tokens": 1}', "data/train-00000-of-00001.jsonl": ""},
         "is a subset in the format jsonl, but rows are read from the format arrow; select again with --format arrow"),
        ({"manifest.json": '{"format": "npy", "taken_tokens": 1}', "tokens.npy": ""},
         "is a subset in the format npy, but rows are read from the format arrow; select again with --format arrow"),
        ({}, "is a file, not a folder of rows; make rows of documents: ladm prepare {} --tokenizer MODEL -o ROWS"),
    ],
)  # fmt: skip
def test_what_another_command_reads_or_wrote_is_named(tmp_path: Path, files: dict[str, str], problem: str) -> None:
    place = tmp_path / "x"
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    if not files:
        place.write_text("{}")
    with pytest.raises(LadmError) as raised:
        open_rows(str(place))
    assert str(raised.value) == f"{place} {problem.format(place)}"


def test_hub_id_is_requested_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub is not at hand; that its data set would be read is."""
    requests = []

    def load_dataset(name: str) -> DatasetDict:
        requests.append(name)
        return DatasetDict(train=Dataset.from_list(DATA))

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert len(open_rows("UltraRonin/pile-LlamaTokenizerFast-32k-truncated-toy")) == 9
    assert requests == ["UltraRonin/pile-LlamaTokenizerFast-32k-truncated-toy"]


@pytest.mark.parametrize("kind", ["torch", "numpy", "pandas", "arrow"])
def test_a_saved_format_changes_nothing(tmp_path: Path, kind: str) -> None:
    plain = open_rows(saved(Dataset.from_list(DATA), tmp_path / "plain"))
    formatted = open_rows(saved(Dataset.from_list(DATA).with_format(kind, columns=["input_ids"]), tmp_path / kind))
    assert formatted.identity() == plain.identity()
    assert [(r.index, r.meta) for r in formatted.read(0, 9)] == [(r.index, r.meta) for r in plain.read(0, 9)]


def test_a_column_of_labels_has_one_type(tmp_path: Path) -> None:
    texts = open_rows(saved(Dataset.from_dict({"input_ids": [[1], [2]], "index": ["a", None]}), tmp_path / "texts"))
    assert [row.index for row in texts.read(0, 2)] == ["a", "1"]
    numbers = open_rows(saved(Dataset.from_dict({"input_ids": [[1], [2]], "index": [7, None]}), tmp_path / "numbers"))
    assert [row.index for row in numbers.read(0, 2)] == [7, 1]


def test_a_column_comes_in_batches_that_end_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ladm.corpus.rows.reading.ROWS_AT_A_TIME", 3)
    rows = open_rows(saved(Dataset.from_list(DATA), tmp_path / "rows"), limit=7)
    assert list(rows.batches()) == [(0, 3), (3, 6), (6, 7)]
    assert list(rows.column_batches("index")) == [[10, 11, 12], [13, 14, 15], [16]]
    with pytest.raises(LadmError, match="has no column other"):
        list(rows.column_batches("other"))


def test_rows_that_prepare_replaces_while_they_are_open_are_not_damaged(save_rows: Any, tmp_path: Path) -> None:
    """The old files are still mapped, and prepare.json speaks of the new ones."""
    folder = Path(save_rows([{"input_ids": [k, k + 1], "index": k} for k in range(3)]))
    rows = open_rows(str(folder))
    grown = Path(shutil.move(folder, tmp_path / "old"))
    shutil.copytree(grown, folder)
    (folder / "prepare.json").write_bytes(json_with_checksum({"xxh3_128": "of other rows"}))
    assert rows.identity()["rows"] == 3
    with pytest.raises(StorageError, match="is damaged or was changed"):
        open_rows(str(folder)).identity()


def test_no_row_beyond_the_limit_is_read(tmp_path: Path) -> None:
    rows = open_rows(saved(Dataset.from_list(DATA), tmp_path / "rows"), limit=2)
    assert [row.position for row in rows.read(0, 4)] == [0, 1]
    assert rows.column("index", 0, 4) == [10, 11]
    assert len(rows.stored("index", 0, 4)) == 2
    assert len(rows.lengths(0, 4)) == 2
    assert (rows.read(1, 1), rows.lengths(1, 1).tolist()) == ([], [])
