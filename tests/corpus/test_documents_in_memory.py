"""`ladm.prepare` of documents that a program holds: lists, iterators, tables and data sets give the same rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pytest

import ladm
from ladm.corpus.preparation.blocks import REASONS
from support.documents import write_jsonl
from support.long_documents import text
from support.rows import rows_of

DOCUMENTS = [
    {"text": text(k), "domain": "web" if k % 2 else "code", "id": k, "quality": k / 4, "label": f"l{k % 3}"}
    for k in range(9)
]
FRAME = pd.DataFrame(DOCUMENTS)
TABLE = pa.Table.from_pandas(FRAME)
DATA_SET = datasets.Dataset.from_list(DOCUMENTS)


@pytest.fixture
def prepare(tokenizer: str, tmp_path: Path) -> Callable[..., Any]:
    def run(documents: Any, output: str = "rows", **settings: Any) -> Any:
        given = {"length": 40, "domain_key": "domain"} | settings
        return ladm.prepare(documents, tokenizer=tokenizer, output=tmp_path / output, **given)

    return run


class Query:
    """What a lazy table of polars is to Python: it has names of columns, and items only for slices."""

    columns = ("text", "domain")

    def __getitem__(self, item: object) -> None:
        raise TypeError("Query is not subscriptable (aside from slicing)")

    def collect(self) -> pd.DataFrame:
        return FRAME


def documents() -> Iterator[dict[str, Any]]:
    yield from DOCUMENTS


def numbers(document: dict[str, Any]) -> dict[str, Any]:
    return {"id": np.int64(document["id"]), "quality": np.float64(document["quality"])}


def with_transform() -> datasets.Dataset:
    reversed_texts = datasets.Dataset.from_list([each | {"text": each["text"][::-1]} for each in DOCUMENTS])
    reversed_texts.set_transform(lambda batch: batch | {"text": [each[::-1] for each in batch["text"]]})
    return reversed_texts


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(lambda: DOCUMENTS, id="list"),
        pytest.param(documents, id="generator"),
        pytest.param(lambda: FRAME, id="pandas"),
        pytest.param(lambda: FRAME.iloc[::-1].iloc[::-1], id="pandas with an index of its own"),
        pytest.param(lambda: FRAME.to_dict("records"), id="pandas records"),
        pytest.param(lambda: TABLE, id="arrow"),
        pytest.param(lambda: TABLE.to_reader(max_chunksize=2), id="record batches"),
        pytest.param(lambda: duckdb.from_arrow(TABLE), id="duckdb"),
        pytest.param(lambda: pyarrow.dataset.dataset(TABLE), id="files of arrow"),
        pytest.param(lambda: FRAME.set_index("id"), id="pandas with the ids as index"),
        pytest.param(lambda: FRAME.set_index(["id", FRAME.index]), id="pandas with an index of two levels"),
        pytest.param(lambda: DATA_SET, id="data set"),
        pytest.param(lambda: DATA_SET.select(range(8, -1, -1)).sort("id"), id="data set in another order"),
        pytest.param(with_transform, id="data set with a transform"),
        pytest.param(DATA_SET.to_iterable_dataset, id="iterable data set"),
        pytest.param(lambda: datasets.IterableDataset.from_generator(documents), id="data set of a generator"),
        pytest.param(lambda: [each | numbers(each) for each in DOCUMENTS], id="numbers of numpy"),
    ],
)
def test_every_form_gives_the_rows_of_a_file(source: Any, prepare: Any, tmp_path: Path) -> None:
    prepare([write_jsonl(tmp_path / "d.jsonl", DOCUMENTS)], output="of-file")
    expected = rows_of(tmp_path / "of-file")
    assert prepare(source()).counts == {"kept": 9}
    rows = rows_of(tmp_path / "rows")
    assert [row.pop("source") for row in rows] == [f"documents in memory number {k}" for k in range(9)]
    assert rows == [{name: value for name, value in row.items() if name != "source"} for row in expected]
    # The same documents again are finished rows, and others are another corpus.
    again = prepare(source())
    assert (again.rows, again.counts["too_short"]) == (9, 0)
    with pytest.raises(ladm.LadmError, match="documents in memory has changed"):
        prepare(DOCUMENTS[1:])


def test_a_large_table_from_a_place_inside_of_a_batch(prepare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 4)
    monkeypatch.setattr("ladm.corpus.documents.in_memory._BATCH_ROWS", 3)
    assert prepare(TABLE, limit=5).rows == 5
    assert prepare(TABLE).rows == 9
    assert prepare(TABLE, output="whole").rows == 9


@pytest.mark.parametrize(
    "error", [KeyError("mine"), RuntimeError("lost"), ConnectionResetError("connection lost"), OSError(5, "disk lost")]
)
def test_an_error_of_the_iterator_passes_through_and_the_same_call_goes_on(
    error: Exception, prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 2)
    monkeypatch.setattr("ladm.corpus.files.replayable_items.REPLAYED_ITEMS", 3)
    monkeypatch.setattr("ladm.corpus.documents.in_memory.REPLAYED_ITEMS", 3)
    prepare(documents(), output="whole")

    def broken() -> Iterator[dict[str, Any]]:
        yield from DOCUMENTS[:5]
        raise error

    with pytest.raises(type(error)) as raised:
        prepare(broken())
    assert raised.value is error
    assert len(list((tmp_path / "rows" / ".preparing").glob("*.parquet"))) == 2
    prepare(documents())
    assert rows_of(tmp_path / "rows") == rows_of(tmp_path / "whole")


def test_files_and_several_collections_in_one_call(prepare: Any, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "d.jsonl", DOCUMENTS[:2])
    prepare([file, TABLE.slice(2, 3), DOCUMENTS[5:7], iter(DOCUMENTS[7:])])
    sources = [row["source"] for row in rows_of(tmp_path / "rows")]
    assert sources == [
        *(f"{file} line {k}" for k in (1, 2)),
        *(f"documents in memory number {k}" for k in range(3)),
        *(f"documents in memory (2) number {k}" for k in range(2)),
        *(f"documents in memory (3) number {k}" for k in range(2)),
    ]


def test_arrays_and_numbers_of_numpy_are_those_of_a_file(prepare: Any, tmp_path: Path) -> None:
    times = np.array(["2024-05-06T07:08:09", "NaT"], dtype="datetime64[ns]")
    more = {
        "list": np.array([1, 2]),
        "meta": {"a": np.int64(3), "b": [np.float32(0.5)]},
        "times": times,
        "set": {"b", "a"},
    }
    records: list[Any] = [each | more | {"when": time} for each, time in zip(DOCUMENTS, times, strict=False)]
    # Of what is no domain and no id nothing is taken, whatever its type.
    records += [{"text": text(k), "domain": np.array([1, 2]), "id": np.array([1, 2])} for k in (20, 21)]
    when = "2024-05-06T07:08:09.000000000"
    of_file = [
        each | {"list": [1, 2], "meta": {"a": 3, "b": [0.5]}, "times": [when, None], "set": ["a", "b"]}
        for each in DOCUMENTS[:2]
    ]
    of_file[0]["when"] = when
    of_file += [{"text": text(k), "domain": [1, 2], "id": [1, 2]} for k in (20, 21)]
    prepare([write_jsonl(tmp_path / "d.jsonl", of_file)], output="of-file", domain="other")
    prepare(records, domain="other")
    found, expected = rows_of(tmp_path / "rows"), rows_of(tmp_path / "of-file")
    assert [row | {"source": ""} for row in found] == [row | {"source": ""} for row in expected]


def test_what_is_no_document_is_dropped_with_its_reason(prepare: Any, tmp_path: Path) -> None:
    nested: dict[str, Any] = {}
    for _ in range(3000):
        nested = {"a": nested}
    odd = [{"text": np.nan, "domain": "web"}, 3, "x", {"text": text(1), "domain": "web", "meta": nested}]
    prepared = prepare([*DOCUMENTS, *odd, {"text": text(20), "domain": float("nan")}], domain="other")
    assert set(prepared.counts) <= {"kept", *REASONS}
    assert prepared.counts == {"kept": 10, "not_text": 1, "not_json": 2, "too_deep": 1}
    # pandas has NaN where a value is missing, in a column of texts too.
    assert [row["domain"] for row in rows_of(tmp_path / "rows")][-1] == "other"


def test_a_frame_that_arrow_cannot_hold_gives_the_rows_of_its_records(prepare: Any, tmp_path: Path) -> None:
    mixed = FRAME.assign(mixed=[k if k % 2 else f"k{k}" for k in range(9)])
    assert prepare(mixed).counts == {"kept": 9}
    prepare(mixed.to_dict("records"), output="of-records")
    assert rows_of(tmp_path / "rows") == rows_of(tmp_path / "of-records")
    assert [row["mixed"] for row in rows_of(tmp_path / "rows")][:3] == ["k0", "1", "k2"]


def test_losses_are_python_warnings(prepare: Any, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    lake.mkdir()
    FRAME.to_parquet(lake / "a.parquet")
    (lake / "b.parquet").write_bytes((lake / "a.parquet").read_bytes()[:-100])
    with pytest.warns(ladm.LadmWarning, match=r"^cannot read .*b\.parquet: .*; the file is left out$"):
        assert prepare([lake]).counts == {"kept": 9}
    others = FRAME.assign(text=[text(k + 20) for k in range(9)])
    repeated = "^9 documents with the id of an earlier one, such as 0 .*: scores cannot be joined to them by id; use"
    # Also where the rows exist already.
    for _ in range(2):
        with pytest.warns(ladm.LadmWarning, match=repeated):
            assert prepare([FRAME, others], output="twice").rows == 18


def test_missing_values_of_pandas_are_missing(prepare: Any, tmp_path: Path) -> None:
    missing = {"when": pd.NaT, "n": pd.NA, "price": Decimal("NaN"), "tags": {"a": pd.NA}}
    there = {"when": pd.Timestamp("2024-02-03"), "n": 1, "price": Decimal("1.5"), "tags": {"a": 1}}
    odd = [{**each, **(missing if k % 2 else there)} for k, each in enumerate(DOCUMENTS)]
    odd[1] |= {"domain": pd.NA}
    odd[3] |= {"domain": pd.NaT, "text": pd.NA}
    assert prepare(odd, domain="other").counts == {"kept": 8, "not_text": 1}
    rows = rows_of(tmp_path / "rows")
    assert rows[1]["domain"] == "other"
    assert [rows[1][name] for name in missing] == [None, None, None, '{"a": null}']
    assert [rows[0][name] for name in missing] == ["2024-02-03 00:00:00", 1, "1.5", '{"a": 1}']


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"text": ["a"]}, "a dict alone is not a collection of documents: documents in memory are dictionaries"),
        ("Once upon a time\nthere was", "a str alone is not a collection of documents"),
        (datasets.DatasetDict(train=DATA_SET, test=DATA_SET), "the splits train, test; give one of them"),
        (5, "an object of type int is neither a name nor a collection of documents"),
        ([5], "an object of type int is neither"),
        ([None, *DOCUMENTS], "an object of type NoneType is neither"),
        ([], "there are no sources"),
        (iter(()), "the iterator of sources is empty, or was already used; make a new one"),
        (["Once upon a time " * 20] * 2, r"; of texts make them with \[\{'text': each\} for each in texts\]"),
        (["Once upon\na time"] * 2, r"; of texts make them with \[\{'text': each\} for each in texts\]"),
        ({"text": ["a"]}, "; of a dictionary of columns make a table with pandas.DataFrame"),
        (FRAME["text"], "a Series has no columns: documents in memory are .*; of texts make them with"),
        (FRAME[["text", "label", "label"]], "documents in memory have more than one column label; drop or rename"),
        (Query(), "an object of type Query is neither .*; give what its collect\\(\\) returns"),
        (FRAME.iterrows(), "18 not_json; an item that is not a dictionary counts as not_json: documents in memory are"),
    ],
)
def test_other_objects_are_refused(source: Any, message: str, prepare: Any) -> None:
    with pytest.raises(ladm.LadmError, match=message):
        prepare(source)


def test_other_calls_say_that_they_take_names(tmp_path: Path, tokenizer: str) -> None:
    with pytest.raises(ladm.LadmError, match="make rows of them with ladm.prepare"):
        ladm.run(DOCUMENTS, model=tokenizer, output=tmp_path / "job", tokens="1k")
    with pytest.raises(ladm.LadmError, match="^rows must be a name or a path, not an object of type Dataset$"):
        ladm.score(DATA_SET, model=tokenizer, output=tmp_path / "run")  # type: ignore[arg-type]


def test_errors_of_the_operating_system_are_errors_of_ladm(prepare: Any) -> None:
    # Python 3.14 finds no file of such a name, earlier ones an error: it is too long.
    with pytest.raises(ladm.LadmError, match="a{200}"):
        prepare("a" * 300)
    with pytest.raises(ladm.LadmError, match="a{200}"):
        ladm.open_run("a" * 300)
