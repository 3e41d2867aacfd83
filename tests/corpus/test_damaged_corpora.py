"""What is beside documents, damaged among them or misspelt about them: none of it stops the rest of a corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from datasets import Dataset, DatasetDict
from fsspec.implementations.memory import MemoryFileSystem
from tokenizers import Tokenizer

from ladm.cli.main import main
from support.documents import write_jsonl
from support.word_documents import LENGTH, preparing, record, rows_after, words

Command = Callable[..., Result]


@pytest.fixture
def prepare(ladm: Command, tmp_path: Path, word_tokenizer: Path) -> Command:
    return preparing(ladm, tmp_path, word_tokenizer)


def test_a_misspelt_id_key_stops_and_lists_the_keys(prepare: Command, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "d.jsonl", [record(k, name=f"n{k}") for k in range(3)])
    result = prepare(source, "--id-key", "nam")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1,
        "ladm: none of the first 3 documents has nam; the keys are text, meta.pile_set_name, name: give --id-key one "
        "of them",
    )
    assert not (tmp_path / "rows").exists()
    rows = rows_after(prepare(source, "--id-key", "name"), tmp_path / "rows")
    assert [row["id"] for row in rows] == ["n0", "n1", "n2"]
    # The default is a guess, and many corpora have no ids.
    assert "id" not in rows_after(prepare(source, output="default"), tmp_path / "default")[0]


BESIDE = ["LICENSE", "README", "README.md", "LICENSE.txt", "NOTICE", ".gitattributes", ".DS_Store", "SHA256SUMS",
          "CITATION.cff", "load.py", "dataset_infos.json", "logo.png"]  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_files_beside_data_that_the_shell_names_are_left_out(
    prepare: Command, tmp_path: Path, name: str
) -> None:  # fmt: skip
    source = write_jsonl(tmp_path / "a.jsonl", [record(k) for k in range(2)])
    beside = tmp_path / name
    beside.write_text("about the data")
    result = prepare(source, beside)
    assert len(rows_after(result, tmp_path / "rows")) == 2
    assert f"{beside} is not a data file; it is left out" in result.stderr.splitlines()
    assert prepare(source, beside).exit_code == 0
    alone = prepare(beside, "--domain", "x", output="alone")
    assert alone.exit_code == 1, alone.output


def test_a_table_that_is_not_read_is_refused_beside_data(prepare: Command, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [record(0)])
    for name in ("b.csv", "b.tar.gz"):
        (tmp_path / name).write_text("text\nhalf of the corpus\n")
        result = prepare(source, tmp_path / name)
        assert (result.exit_code, f"{tmp_path / name}: unknown kind of file" in result.stderr) == (1, True)


@pytest.mark.parametrize("piped", [False, True])
def test_a_line_beyond_all_bounds_is_one_document_less(
    prepare: Command, word_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piped: bool
) -> None:  # fmt: skip
    monkeypatch.setattr("ladm.corpus.files.compressed.MOST_DOCUMENT_BYTES", 2000)
    monkeypatch.setattr("ladm.corpus.files.compressed._CHUNK", 64)
    source = write_jsonl(tmp_path / "d.jsonl", [record(0), record(1, text="w1 " * 5000), record(2)])
    if piped:
        flags = ("--tokenizer", word_tokenizer, "--length", LENGTH, "--output", tmp_path / "rows")
        result = CliRunner().invoke(main, ["prepare", "-", *map(str, flags)], input=source.read_bytes())
    else:
        result = prepare(source)
    rows = rows_after(result, tmp_path / "rows")
    assert [row["document"] for row in rows] == [0, 2]
    assert rows[1]["source"].endswith("line 3")
    assert "long_line             1  document dropped: the line has more than 256 MiB" in result.stdout.splitlines()


class Store(MemoryFileSystem):
    """Files behind an address that is neither a local path nor memory."""

    protocol = "store"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("store://").strip("/")


@pytest.fixture
def remote() -> Iterator[Store]:
    fsspec.register_implementation("store", Store, clobber=True)
    system = Store()
    yield system
    Store.store.clear()


def damaged_parquet(path: Path, records: list[dict[str, Any]], *, group: int) -> bytes:
    """Row groups of two documents, of one of which the beginning of the texts' page is overwritten."""
    table = pa.Table.from_pylist(records)
    pq.write_table(table, path, row_group_size=2, use_dictionary=False, compression="snappy")
    start = pq.read_metadata(path).row_group(group).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 60] = b"\xff" * 60
    return bytes(content)


def test_damage_in_a_remote_file_leaves_out_that_file_whole(
    prepare: Command, tmp_path: Path, remote: Store, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 3)
    parts = {name: [record(10 * k + n) for n in range(8)] for k, name in enumerate("abc", 1)}
    for name, records in parts.items():
        path = tmp_path / f"{name}.parquet"
        damaged = damaged_parquet(path, records, group=2)
        remote.pipe_file(f"/d/{name}.parquet", damaged if name == "b" else path.read_bytes())
    result = prepare("store://d/*.parquet")
    rows = rows_after(result, tmp_path / "rows")
    kept = [record["text"] for name in "ac" for record in parts[name]]
    assert [row["text"].split()[:20] for row in rows] == [text.split()[:20] for text in kept]
    assert [row["document"] for row in rows] == list(range(16))
    assert sum(line.startswith("bad_file") and "b.parquet" in line for line in result.stdout.splitlines()) == 1
    strict = prepare("store://d/*.parquet", "--max-bad-files", 0, output="strict")
    assert (strict.exit_code, "b.parquet" in strict.stderr.splitlines()[-1]) == (74, True)
    # With the file allowed to be bad the same folder goes on, to the same rows.
    assert [
        row["text"] for row in rows_after(prepare("store://d/*.parquet", output="strict"), tmp_path / "strict")
    ] == [row["text"] for row in rows]


def test_a_broken_connection_is_no_damage(
    prepare: Command, tmp_path: Path, remote: Store, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """What was made of the file stays, and the same command goes on behind it."""
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 2)
    pq.write_table(pa.Table.from_pylist([record(k) for k in range(8)]), tmp_path / "a.parquet", row_group_size=2)
    remote.pipe_file("/d/a.parquet", (tmp_path / "a.parquet").read_bytes())
    from ladm.corpus.documents import reading as documents

    whole = documents._rows_of_group

    def broken(table: Any, group: int, *rest: Any) -> Any:
        if group == 2:
            raise ConnectionResetError(104, "Connection reset by peer")
        return whole(table, group, *rest)

    with monkeypatch.context() as offline:
        offline.setattr(documents, "_rows_of_group", broken)
        assert prepare("store://d/a.parquet").exit_code == 74
    assert len(list((tmp_path / "rows/.preparing").glob("*.parquet"))) == 2
    assert len(rows_after(prepare("store://d/a.parquet"), tmp_path / "rows")) == 8


@pytest.mark.parametrize("place", ["local", "remote"])
def test_parquet_with_two_columns_of_text_is_one_file_less(
    prepare: Command, tmp_path: Path, remote: Store, place: str
) -> None:  # fmt: skip
    folder = tmp_path / "d"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", [record(k) for k in range(3)])
    texts = pa.array([words(9)])
    pq.write_table(pa.Table.from_arrays([texts, texts], names=["text", "text"]), folder / "b.parquet")
    for path in folder.iterdir():
        remote.pipe_file(f"/d/{path.name}", path.read_bytes())
    result = prepare(folder if place == "local" else "store://d/*")
    assert len(rows_after(result, tmp_path / "rows")) == 3
    line = next(line for line in result.stdout.splitlines() if line.startswith("bad_file"))
    assert "it has 2 columns named text" in line


@pytest.mark.parametrize("damage", ["torn", "torn between batches", "empty", "missing"])
@pytest.mark.parametrize("kind", ["data set", "dictionary"])
def test_a_torn_shard_of_a_saved_data_set_is_one_file_less(
    prepare: Command, tmp_path: Path, damage: str, kind: str
) -> None:  # fmt: skip
    made = Dataset.from_list([record(k) for k in range(8)])
    saved = tmp_path / "saved"
    if kind == "data set":
        made.save_to_disk(str(saved), num_shards=4)
    else:
        DatasetDict(train=made).save_to_disk(str(saved), num_shards={"train": 4})
    (shard,) = saved.rglob("data-00001-of-00004.arrow")
    content = shard.read_bytes()
    shard.write_bytes({"torn": content[: len(content) // 2], "torn between batches": content[:-8]}.get(damage, b""))
    if damage == "missing":
        shard.unlink()
    result = prepare(saved)
    rows = rows_after(result, tmp_path / "rows")
    assert [row["text"].split()[:9] for row in rows] == [words(k).split()[:9] for k in (0, 1, 4, 5, 6, 7)]
    left_out = [line for line in result.stdout.splitlines() if line.startswith("bad_file")]
    assert len(left_out) == 1
    assert str(shard) in left_out[0]
    assert prepare(saved, "--max-bad-files", 0, output="strict").exit_code == 74
    for each in saved.rglob("*.arrow"):
        each.write_bytes(b"")
    assert prepare(saved, output="nothing").exit_code == 74


def test_rows_made_with_other_flags_are_refused_by_their_flags(prepare: Command, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "d.jsonl", [record(k, name=f"n{k}") for k in range(3)])
    other = write_jsonl(tmp_path / "e.jsonl", [record(k) for k in range(3)])
    assert prepare(source).exit_code == 0
    rows = tmp_path / "rows"
    score = f"its rows are finished and can be used without the documents: ladm score {rows} --model MODEL -o run; or "
    for arguments, flags, way in [
        ((source, "--bos"), "--bos", ""),
        ((source, "--id-key", "name", "--windows", "all"), "--id-key, --windows", ""),
        ((other,), "sources", ""),
        # A corpus that is gone from its place may have been moved.
        ((other,), "sources", score),
    ]:
        if way:
            source.unlink()
        result = prepare(*arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith(
            f"ladm: {rows} was started with something else ({flags}); {way}give another --output, "
        )


def test_saved_padding_makes_no_other_tokenizer(
    prepare: Command, word_tokenizer: Path, tmp_path: Path
) -> None:  # fmt: skip
    source = write_jsonl(tmp_path / "d.jsonl", [record(k) for k in range(3)])
    assert prepare(source).exit_code == 0
    path = word_tokenizer / "tokenizer.json"
    backend = Tokenizer.from_file(str(path))
    backend.enable_padding(pad_id=0, pad_token="<pad>")
    backend.enable_truncation(8)
    backend.save(str(path))
    again = prepare(source)
    assert "is prepared already" in again.stderr, again.output
