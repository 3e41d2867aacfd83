"""Lists of ids as CSV, as columns of another type, and as ids that a Python program holds."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from click.testing import Result

import ladm as package
from ladm.corpus.ids.files import hashes_of, read_id_file
from ladm.corpus.ids.in_memory import are_ids_in_memory, read_ids_in_memory
from ladm.errors import LadmError, LadmWarning, StorageError, UsageError
from support.id_lists import excluded, named_rows, write_ids, write_uuids
from support.jobs import job_words, write_finepdfs
from support.subsets import manifest

Command = Callable[..., Result]
CSV = b'\xef\xbb\xbftext,id \n"a, ""b""\nc",007\n\nx,d\ny,d\n'


@pytest.fixture
def scored(score_once: Any, save_rows: Any, golden: Any, tmp_path: Path) -> tuple[str, Path]:
    rows = save_rows(named_rows(golden))
    return rows, score_once(rows, "--signals", "cds,longattn,text", output=tmp_path / "run")


class ArrowColumn:
    """A column by the interface of Arrow alone, as polars has it."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._column.__arrow_c_stream__(requested_schema)


def test_ids_of_csv_are_texts_as_they_are_written(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(CSV.replace(b"\n", b"\r\n")))
    (tmp_path / "c.csv.zst").write_bytes(zstandard.compress(CSV))
    long = b"id,text\nd,x\n007," + b"x" * 200_000 + b"\n"
    (tmp_path / "d.csv").write_bytes(long)
    expected = np.unique(hashes_of(["007", "d"])).tolist()
    for batch in (8_192, 1):
        monkeypatch.setattr("ladm.corpus.ids.readers.BATCH_IDS", batch)
        for path in sorted(tmp_path.iterdir()):
            assert read_id_file(str(path), flag="").hashes_M.tolist() == expected, path


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", UsageError, "--only-ids F: it has no ids"),
        (b"id\n", UsageError, "--only-ids F: it has no ids"),
        (b"id\n\n\n", UsageError, "--only-ids F: it has no ids"),
        (b"doc,text\nd1,x\n", UsageError,
         "--only-ids F: its first line names no column id (it has doc, text); rename the column that holds the ids "
         "to id"),
        (b"d1\nd2\n", UsageError,
         "--only-ids F: its first line names no column id (it has d1); rename the column that holds the ids to id, "
         "or if d1 is an id, let the name of the file end in .txt"),
        (b"\nd1\n", UsageError,
         "--only-ids F: its first line names no column id (it has d1); rename the column that holds the ids to id, "
         "or if d1 is an id, let the name of the file end in .txt"),
        (b"id,id\na,b\n", UsageError, "--only-ids F: its first line names 2 columns id; keep one of them"),
        (b"id,text\nd1,x\n,y\n", UsageError,
         "--only-ids F: line 3 has no id, which is a text or a whole number"),
        (b"id,text\nd1,x\nd2\n", StorageError,
         "cannot read F: line 3 ends a record of 1 value, not 2 as in the first line"),
        (b'id,text\nd1,"x\nd2,y\n', StorageError, "cannot read F: unexpected end of data"),
        (b"id\n\xe9\n", StorageError,
         "cannot read F: it is not UTF-8 (byte 0xe9 at 0); if it is Latin-1 or Windows-1252, convert it: iconv -f "
         "WINDOWS-1252 -t UTF-8"),
    ],
)  # fmt: skip
def test_csv_that_cannot_be_used(tmp_path: Path, content: bytes, error: Any, message: str) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(content)
    with pytest.raises(LadmError) as raised:
        read_id_file(str(path), flag="--only-ids")
    assert (type(raised.value), str(raised.value)) == (error, message.replace("F", str(path), 1))


def test_a_column_of_another_type_or_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    columns = {
        "list<element: string>": pa.array([["d1"]]), "bool": pa.array([True]), "binary": pa.array([b"d1"]),
        "timestamp[us]": pa.array([0], pa.timestamp("us")),
    }  # fmt: skip
    for kind, column in columns.items():
        pq.write_table(pa.table({"id": column}), path)
        with pytest.raises(UsageError) as raised:
            read_id_file(str(path), flag="--only-ids")
        message = f"its ids are of the type {kind}; ids are texts or whole numbers, so store them as texts"
        assert str(raised.value) == f"--only-ids {path}: {message}"
    pq.write_table(pa.table([pa.array(["d"]), pa.array(["e"])], names=["id", "id"]), path)
    with pytest.raises(UsageError, match="it has 2 columns id; keep one of them"):
        read_id_file(str(path), flag="--only-ids")


def test_ids_in_memory_are_those_of_a_file() -> None:
    frames = pytest.importorskip("pandas")
    texts, numbers = pa.array(["7", "d", "d"]), pa.array([7, 8])
    both = np.unique(hashes_of(["7", "d"])).tolist()
    for ids in (
        {"7", "d"}, frozenset([7.0, "d"]), {"7": 0, "d": 1}.keys(), {np.int64(7), "d"}, texts,
        texts.dictionary_encode(), pa.chunked_array([texts, texts]), ArrowColumn(pa.chunked_array([texts])),
        frames.Series(["7", "d"]), frames.Series([7, "d"]), frames.Index(["d", "7"]),
        frames.Series(["7", "d"], dtype="category"), frames.Series(["7", "d", "d"]).unique(),
        np.array([7, "d"], object), frames.array(["7", "d"], dtype="string"),
    ):  # fmt: skip
        assert are_ids_in_memory(ids), ids
        found = read_ids_in_memory(ids, name="n", flag="")
        assert (found.hashes_M.tolist(), found.example in ("7", "d")) == (both, True), ids
    for ids in (numbers, {7, 8}, np.array([7, 8]), frames.Series([7, 8]), frames.Series([7.0, 8.0])):
        found = read_ids_in_memory(ids, name="n", flag="")
        assert found.hashes_M.tolist() == np.unique(hashes_of(["7", "8"])).tolist(), ids
    key = UUID(int=5)
    assert read_ids_in_memory({key}, name="n", flag="").hashes_M.tolist() == hashes_of([str(key)]).tolist()
    # The digest is of the ids, in whatever order and form they are.
    forms = ({"8", "7"}, numbers, pa.array(["8", "7", "8"]))
    digests = {read_ids_in_memory(ids, name="n", flag="").xxh3_128 for ids in forms}
    assert len(digests) == 1


def test_ids_in_memory_that_cannot_be_used(scored: tuple[str, Path], tmp_path: Path) -> None:
    frames = pytest.importorskip("pandas")
    no_id = "has no id, which is a text or a whole number"
    for ids, message in (
        (ArrowColumn(pa.chunked_array([pa.array([], pa.string())])), "ids in memory: it has no ids"),
        (np.array("d1"), "ids in memory: an array without dimensions holds one value; give ids in a set"),
        ({None}, f"ids in memory: item 0 {no_id}"),
        (pa.array(["d1", None]), f"ids in memory: item 1 {no_id}"),
        (frames.Series(["d1", None]), f"ids in memory: item 1 {no_id}"),
        (np.array([["d1"]]), "ids in memory: "),
        (pa.array([["d1"]]), "ids in memory: its ids are of the type list<item: string>"),
        (
            pa.table({"id": ["d1"]}),
            "ids in memory: this is a table, of the columns id; give the column that has the ids",
        ),
        (frames.DataFrame({"q": [1], "id": ["d1"]}), "ids in memory: this is a table, of the columns q, id; give the"),
        *(
            (given, f"takes files, and ids in a set, an array or a column, not an object of type {kind}")
            for given, kind in (
                (7, "int"),
                ([7, 8], "int"),
                (range(2), "range"),
                (iter(["d1"]), "list_iterator"),
                ({"d1": 1}, "dict"),
            )
        ),
        (["d1", "d2"], "d1: there is no such file; give ids themselves as a set"),
        ("d1", "d1: there is no such file; give ids themselves as a set"),
    ):
        with pytest.raises(UsageError) as raised:
            package.select(scored[1], output=tmp_path / "s", top="50%", exclude_ids=ids)
        assert str(raised.value).startswith(f"--exclude-ids {message}"), ids
    assert not (tmp_path / "s").exists()


def test_a_program_begins_with_no_ids_to_exclude(scored: tuple[str, Path], tmp_path: Path) -> None:
    whole = package.select(scored[1], output=tmp_path / "whole", top="50%").ids()
    for k, none in enumerate((set(), [], [set()], np.array([]), pa.array([], pa.string()), pa.table({"id": []}))):
        found = package.select(scored[1], output=tmp_path / f"s{k}", top="50%", exclude_ids=none)
        assert (found.ids(), manifest(tmp_path / f"s{k}").get("exclude_ids")) == (whole, None), none
    rest = package.select(scored[1], output=tmp_path / "rest", top="50%", exclude_ids=[set(), set(whole[:1])]).ids()
    assert whole[0] not in rest
    # To select nothing is rather a mistake.
    for none in (set(), pa.array([], pa.string())):
        with pytest.raises(UsageError, match="^--only-ids ids in memory: it has no ids$"):
            package.select(scored[1], output=tmp_path / "none", top="50%", only_ids=none)


def test_a_subset_is_bound_to_ids_in_memory(
    ladm: Command,
    scored: tuple[str, Path],
    tmp_path: Path,
) -> None:
    drop, output = excluded(tmp_path), tmp_path / "s"

    def select(**lists: Any) -> list[tuple[str, str, int, int]]:
        subset = package.select(scored[1], output=output, top="100%", **lists)
        return [(each.option, each.file, each.ids, each.documents) for each in subset.manifest.id_lists]

    lists = {"exclude_ids": [drop, {"d2", "d8"}], "only_ids": pa.array(["d0", "d1"])}
    expected = [
        ("exclude_ids", str(drop), 5, 3), ("exclude_ids", "ids in memory", 2, 1),
        ("only_ids", "ids in memory (2)", 2, 2),
    ]  # fmt: skip
    assert select(**lists) == expected
    assert manifest(output)["chosen"][0]["ids"] == ["d0", "d1"]
    assert select(**lists | {"exclude_ids": (drop, frozenset(["d8", "d2"]))}) == expected
    with pytest.raises(LadmError, match="it was made from other data"):
        select(**lists | {"exclude_ids": [drop, {"d2", "d9"}]})
    command = ("select", scored[1], "--top", "100%", "--exclude-ids", "ids in memory", "-o", tmp_path / "other")
    result = ladm(*command)
    message = "a Python program gave these; make the same call there, or write the ids to a file"
    assert (result.exit_code, result.stderr) == (2, f"ladm: --exclude-ids ids in memory: {message}\n")
    output = tmp_path / "none"
    with pytest.warns(LadmWarning, match="--exclude-ids ids in memory: no row has any of its 1 id"):
        select(exclude_ids={"x"})


def test_a_job_is_bound_to_ids_in_memory(talking: Path, tmp_path: Path) -> None:
    shard = write_finepdfs(tmp_path / "000_00000.parquet")
    more: dict[str, Any] = {"dtype": "float32", "device": "cpu", "span_tokens": 16, "format": "megatron"}

    def run(ids: Any) -> Any:
        return package.run(shard, model=talking, output=tmp_path / "job", tokens="3k", exclude_ids=ids, **more)

    ids = {f"<urn:uuid:{k}>" for k in range(4)}
    assert [each.documents for each in run(ids).subset.manifest.id_lists] == [4]
    assert run(pa.array(sorted(ids))).subset.manifest.id_lists[0].file == "ids in memory"
    with pytest.raises(LadmError, match="--exclude-ids ids in memory: "):
        run(ids | {"x"})
    # An estimate takes them too.
    arguments = {"model": talking, "tokens": "3k", **more}
    assert package.estimate_run(shard, exclude_ids=ids, **arguments).rows
    with pytest.raises(LadmError, match="--only-ids ids in memory: "):
        package.estimate_run(shard, only_ids={"x"}, **arguments)


def test_a_job_reads_a_list_once_and_warns_once(ladm: Command, talking: Path, tmp_path: Path, monkeypatch: Any) -> None:
    shard, other = write_finepdfs(tmp_path / "000_00000.parquet"), write_ids(tmp_path / "other.txt", ["x"])
    read: list[str] = []

    def counted(name: str, *, flag: str) -> Any:
        read.append(name)
        return read_id_file(name, flag=flag)

    monkeypatch.setattr("ladm.selection.id_lists.read_id_file", counted)
    words = [*job_words(shard, talking, tmp_path / "job"), "--exclude-ids", other]
    # A dry run, the job, and the same command again.
    for more in (["--dry-run", "--quota", "{eng_Latn: 1, deu_Latn: 1, fra_Latn: 1}"], [], []):
        read.clear()
        result = ladm(*words, *more)
        warnings = [line for line in result.stderr.splitlines() if "no row has any of its 1 id" in line]
        assert (result.exit_code, len(warnings), read) == (0, 1, [str(other)]), result.output
    write_uuids(other, range(4))
    assert ladm(*words).exit_code == 1
    other.unlink()
    result = ladm(*words)
    last = f"ladm: --exclude-ids {other}: there is no such file"
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, last)
