"""Where documents come from: pipes, remote folders and globs, data sets on the Hub, Parquet by row group."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import datasets
import duckdb
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from click.testing import CliRunner, Result

from ladm.cli.main import main
from ladm.corpus.files.hub import _warn_once
from support.documents import DOCUMENTS, write_jsonl
from support.long_documents import long_document
from support.rows import rows_of

Prepare = Callable[..., Result]
LINES = b"".join(json.dumps(long_document(k)).encode() + b"\n" for k in range(5))


@pytest.fixture
def piped(tokenizer: str, tmp_path: Path) -> Callable[..., Result]:
    def run(content: bytes, *arguments: Any, output: str = "rows") -> Result:
        flags = ["--tokenizer", tokenizer, "--length", "40", "--output", str(tmp_path / output), *map(str, arguments)]
        return CliRunner().invoke(main, ["prepare", "-", *flags], input=content)

    return run


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_standard_input(piped: Callable[..., Result], tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    result = piped(pack(b"\n" + LINES))
    assert result.exit_code == 0, result.output
    assert [row["source"] for row in rows_of(tmp_path / "rows")] == [f"standard input line {k}" for k in range(2, 7)]


def test_standard_input_again(piped: Callable[..., Result], tmp_path: Path) -> None:
    assert piped(LINES, "--limit", 2).exit_code == 0
    assert "is prepared already" in piped(LINES, "--limit", 2).stderr
    assert piped(LINES).exit_code == 0
    assert len(rows_of(tmp_path / "rows")) == 5
    other = piped(LINES[LINES.index(b"\n") + 1 :])
    assert (other.exit_code, other.stderr.splitlines()[-1].startswith("  sources: - has changed: ")) == (1, True)


def test_no_line_of_standard_input_is_lost_while_its_keys_are_looked_for(
    piped: Callable[..., Result], tmp_path: Path
) -> None:
    """The first 1,000 lines can be read again, and the first one with an id may be among the last of them."""
    lines = [b"no object\n"] * 20 + [b'{"text": "short", "meta": {}}\n'] * 978
    first = [json.dumps(long_document(k) | {"doi": f"d{k}"}).encode() + b"\n" for k in range(8)]
    result = piped(b"".join(lines + first), "--id-key", "doi", "--domain", "x")
    assert result.exit_code == 0, result.output
    assert [row["id"] for row in rows_of(tmp_path / "rows")] == [f"d{k}" for k in range(8)]
    none = piped(b"".join([*lines, lines[-1] * 20, *first]), "--id-key", "doi", "--domain", "x", output="none")
    assert (none.exit_code, "none of the first 980 documents has doi" in none.stderr) == (1, True)


def test_faults_of_standard_input(piped: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"]}), buffer)
    for content, arguments, code, message in [
        (LINES, ("-",), 2, "- is given twice, but standard input can be read only once"),
        (buffer.getvalue(), (), 1,
         "Parquet cannot be read from standard input, because it is read from its end; give the path of the file"),
        (gzip.compress(LINES)[:-20], (), 74, "cannot read standard input: "),
    ]:  # fmt: skip
        result = piped(content, *arguments)
        assert (result.exit_code, result.stderr.splitlines()[0].startswith(f"ladm: {message}")) == (code, True)
    monkeypatch.setattr(
        "ladm.corpus.files.standard_input.sys.stdin", type("Terminal", (), {"isatty": lambda _: True})()
    )
    from ladm.corpus.files.standard_input import open_standard_input
    from ladm.errors import UsageError

    with pytest.raises(UsageError, match="^- stands for standard input, but nothing is piped into it$"):
        open_standard_input()


def test_remote_folders_and_globs(prepare: Prepare, tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    names = ["a.jsonl", "sub/b.jsonl.gz", ".cache/c.jsonl", "README.md", "dataset_info.json"]
    for k, name in enumerate(names):
        line = json.dumps(long_document(k)).encode() + b"\n"
        system.pipe(f"/corpus/{name}", gzip.compress(line) if name.endswith(".gz") else line)
    try:
        assert prepare("memory://corpus").exit_code == 0
        places = [row["source"] for row in rows_of(tmp_path / "rows")]
        assert places == ["memory:///corpus/a.jsonl line 1", "memory:///corpus/sub/b.jsonl.gz line 1"]
        assert prepare("memory://corpus/**", output="all").exit_code == 0
        assert [row["source"] for row in rows_of(tmp_path / "all")] == places
        assert prepare("memory://corpus/*.jsonl", output="glob").exit_code == 0
        assert len(rows_of(tmp_path / "glob")) == 1
        result = prepare("memory://nowhere", output="none")
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    finally:
        system.rm("/corpus", recursive=True)
    write_jsonl(tmp_path / "d.jsonl", DOCUMENTS[:2])
    assert prepare(f"file://{tmp_path}/d.jsonl", output="file").exit_code == 0
    assert prepare(str(tmp_path / "d*.jsonl"), output="quoted").exit_code == 0


def test_a_glob_matches_what_a_folder_holds(prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "d"
    (folder / "sub" / ".cache").mkdir(parents=True)
    for k, name in enumerate(("a.jsonl", "sub/b.jsonl", "sub/.cache/c.jsonl")):
        write_jsonl(folder / name, [long_document(k)])
    datasets.DatasetDict({"train": datasets.Dataset.from_list([long_document(3)])}).save_to_disk(str(folder / "saved"))
    for name in ("LICENSE", "_SUCCESS", "paper.pdf", "README.md", "prepare.json", "dataset_info.json", ".hidden.jsonl"):
        (folder / name).write_text("{}")
    (folder / "empty").mkdir()
    (tmp_path / "link.jsonl").symlink_to(folder / "a.jsonl")
    monkeypatch.chdir(tmp_path)
    for k, names in enumerate((["d/*"], ["d/**"], ["d/**/*", "d/a.jsonl"], [f"{folder}/**", "link.jsonl"])):
        result = prepare(names[0], *names[1:], output=f"d/rows{k}")
        assert result.exit_code == 0, result.output
        rows = rows_of(folder / f"rows{k}")
        places = [Path(row["source"].rsplit(" ", 2)[0]).name for row in rows]
        assert places == ["a.jsonl", "saved", "b.jsonl"], names
        shutil.rmtree(folder / f"rows{k}")
    result = prepare("d/*.pdf", output="none")
    assert (result.exit_code, result.stderr) == (
        1,
        "ladm: no such source: d/*.pdf matches no .jsonl, .parquet or .txt file\n",
    )
    # Alone a card is a document; beside data it is left out, whether a glob or the shell has named it.
    (folder / "README.md").write_text(" ".join(long_document(5)["text"].split()))
    for k, words in enumerate((["d/README*"], ["d/README.md", "d/a.jsonl"])):
        assert prepare(*words, "--domain", "x", output=f"card{k}").exit_code == 0
        assert len(rows_of(tmp_path / f"card{k}")) == 1


def test_links_to_folders_are_followed_once(prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus on several disks is often a folder of links; and a link may lead back."""
    monkeypatch.chdir(tmp_path)
    for k, name in enumerate(("d/a.jsonl", "d/sub/b.jsonl", "disk/deep/c.jsonl", "other/e.jsonl")):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(Path(name), [long_document(k)])
    for link, target in (
        ("d/Disk", "disk"), ("d/again", "disk/deep"), ("d/back", "d"), ("d/0", "d/sub"), ("disk/deep/other", "other"),
        ("other/disk", "disk"), ("d/rows", "output"),
    ):  # fmt: skip
        Path(link).symlink_to(tmp_path / target)
    Path("output").mkdir()
    result = prepare("d", output="output")
    assert result.exit_code == 0, result.output
    places = [row["source"].rsplit(" ", 2)[0] for row in rows_of(tmp_path / "output")]
    assert places == ["d/Disk/deep/c.jsonl", "d/Disk/deep/other/e.jsonl", "d/a.jsonl", "d/sub/b.jsonl"]
    assert "output is prepared already" in prepare("d", output="output").stderr


@pytest.mark.parametrize("prefix", ["", "file://{}/"])
def test_a_glob_matches_the_hidden_folders_that_it_names(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for k, folder in enumerate((".parts", "d/.parts", "d/.other")):
        Path(folder).mkdir(parents=True)
        write_jsonl(Path(folder) / f"{k}.jsonl", [long_document(k)])
    cases = {"d/.p*/*.jsonl": [1], "d/.*/*.jsonl": [1, 2], ".parts/*.jsonl": [0], "d/.*": [1, 2]}
    for k, (pattern, expected) in enumerate(cases.items()):
        result = prepare(prefix.format(tmp_path) + pattern, output=f"rows{k}")
        assert result.exit_code == 0, result.output
        places = [Path(row["source"].rsplit(" ", 2)[0]).stem for row in rows_of(tmp_path / f"rows{k}")]
        assert sorted(map(int, places)) == expected, pattern
    assert prepare(f"{prefix.format(tmp_path)}d/*/*.jsonl", output="none").exit_code == 1


def test_a_file_that_is_given_twice_is_read_once(prepare: Prepare, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "d.jsonl", [long_document(0)])
    assert prepare(source, f"file://{source}", f"{tmp_path}/./d.jsonl", "--keep-duplicates").exit_code == 0
    assert len(rows_of(tmp_path / "rows")) == 1


def test_texts_of_documents_known_to_be_short_are_not_read(
    prepare: Prepare,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = [10, 20, 50, None, 39, 40, 5, 6]
    records = [long_document(k) | {"token_count": count, "image": b"x"} for k, count in enumerate(counts)]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "d.parquet", row_group_size=2)
    read: list[tuple[Any, Any]] = []
    batches = pq.ParquetFile.iter_batches
    monkeypatch.setattr("ladm.corpus.documents.bad_files.require_whole", Mock())

    def iter_batches(self: pq.ParquetFile, **options: Any) -> Any:
        if "row_groups" in options:
            read.append((options["row_groups"], options["columns"]))
        return batches(self, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    result = prepare(tmp_path / "d.parquet")
    assert result.exit_code == 0, result.output
    assert "low_count             5  documents dropped: its token_count is below --length" in result.stdout
    assert [row["document"] for row in rows_of(tmp_path / "rows")] == [2, 3, 5]
    assert [row["source"].split()[-1] for row in rows_of(tmp_path / "rows")] == ["2", "3", "5"]
    # The first group is read once, to see that the keys are there.
    assert read == [(group, ["text", "meta", "token_count"]) for group in ([0], [1], [2])]
    assert prepare(tmp_path / "d.parquet", "--token-count-key", "none", output="all").exit_code == 0
    assert len(rows_of(tmp_path / "all")) == 8


class TestHub:
    """The Hub is a folder here: the calls to it are recorded, and answered by the builders of `datasets` itself."""

    @pytest.fixture
    def calls(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
        folder = tmp_path / "hub"
        folder.mkdir()
        for split in ("train", "test"):
            table = pa.Table.from_pylist([long_document(k) | {"kind": split} for k in range(4)])
            pq.write_table(table, folder / f"{split}.parquet")
            write_jsonl(folder / f"{split}.jsonl", table.to_pylist())
        calls: list[tuple[Any, ...]] = []
        real_builder, real_load = datasets.load_dataset_builder, datasets.load_dataset

        def files(name: str) -> dict[str, Any]:
            suffix = "parquet" if name.endswith("parquet") else "jsonl"
            return {split: str(folder / f"{split}.{suffix}") for split in ("train", "test")}

        def builder(name: str, config: str | None, *, revision: str | None) -> Any:
            calls.append(("builder", name, config, revision))
            return real_builder("parquet" if name.endswith("parquet") else "json", data_files=files(name))

        def load(name: str, config: str | None = None, *, revision: str | None = None, streaming: bool = False) -> Any:
            calls.append(("load", name, config, revision, streaming))
            if streaming and name.endswith("archive"):
                raise NotImplementedError("no way\nto stream this\x1b")
            if name.endswith("nowhere"):
                raise datasets.exceptions.DatasetNotFoundError("Dataset 'nowhere' doesn't exist on the Hub")
            if name.endswith("offline"):
                raise ConnectionError("Couldn't reach 'offline' on the Hub")
            return real_load("json", data_files=files(name), streaming=streaming, cache_dir=str(tmp_path / "cache"))

        monkeypatch.setattr("datasets.load_dataset_builder", builder)
        monkeypatch.setattr("datasets.load_dataset", load)
        return calls

    def test_parquet_is_read_by_its_files(self, prepare: Prepare, tmp_path: Path, calls: Any) -> None:
        result = prepare("org/parquet@v2", "--hub-config", "small", "--split", "test", "--limit", 2)
        assert result.exit_code == 0, result.output
        assert calls == [("builder", "org/parquet", "small", "v2")]
        rows = rows_of(tmp_path / "rows")
        assert [row["source"] for row in rows] == [f"{tmp_path}/hub/test.parquet row {k}" for k in range(2)]
        assert rows[0]["kind"] == "test"
        result = prepare("org/parquet", "--split", "validation", output="other")
        assert (result.exit_code, result.stderr) == (
            1,
            "ladm: org/parquet has no split validation (it has train, test)\n",
        )

    def test_other_kinds_are_streamed(self, prepare: Prepare, tmp_path: Path, calls: Any) -> None:
        assert prepare("org/lines@v2", "--split", "test", "--limit", 2).exit_code == 0
        assert calls[1] == ("load", "org/lines", None, "v2", True)
        assert [row["source"] for row in rows_of(tmp_path / "rows")] == ["org/lines@v2 row 0", "org/lines@v2 row 1"]
        assert prepare("org/lines@v2", "--split", "test").exit_code == 0
        assert [row["document"] for row in rows_of(tmp_path / "rows")] == [0, 1, 2, 3]
        result = prepare("org/lines", "--split", "validation", output="other")
        assert (result.exit_code, result.stderr) == (
            1,
            "ladm: org/lines has no split validation (it has train, test)\n",
        )

    def test_what_cannot_be_streamed_is_fetched_whole_with_a_warning(
        self, prepare: Prepare, tmp_path: Path, calls: Any
    ) -> None:
        _warn_once.cache_clear()
        result = prepare("org/archive", "--split", "test")
        assert result.exit_code == 0, result.output
        # Once, though the data set is opened for its keys and for its rows.
        assert result.stderr.count("warning") == 1
        warning = "warning   org/archive cannot be streamed, so all of it is downloaded: no way"
        assert result.stderr.startswith(warning)
        assert "\x1b" not in result.stderr
        assert ("load", "org/archive", None, None, False) in calls
        assert [row["document"] for row in rows_of(tmp_path / "rows")] == [0, 1, 2, 3]

    @pytest.mark.parametrize(
        ("name", "reason"),
        [("nowhere", "Dataset 'nowhere' doesn't exist on the Hub"), ("offline", "Couldn't reach 'offline' on the Hub")],
    )
    def test_what_is_not_there_is_an_error_without_a_warning(
        self, prepare: Prepare, calls: Any, name: str, reason: str
    ) -> None:
        _warn_once.cache_clear()
        result = prepare(name)
        assert ("load", name, None, None, True) in calls
        assert (result.exit_code, result.stderr) == (
            1, f"ladm: no such data set: {name} is neither a folder nor on the Hub: {reason}\n"
        )  # fmt: skip


def test_a_split_of_a_saved_data_set(prepare: Prepare, tmp_path: Path) -> None:
    parts = {name: datasets.Dataset.from_list([long_document(k)]) for k, name in enumerate(("a", "b"))}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    result = prepare(tmp_path / "saved")
    assert (result.exit_code, result.stderr) == (1, f"ladm: {tmp_path}/saved has no split train (it has a, b)\n")
    assert prepare(tmp_path / "saved", "--split", "b").exit_code == 0
    assert rows_of(tmp_path / "rows")[0]["text"] in long_document(1)["text"]
    result = prepare(write_jsonl(tmp_path / "d.jsonl", DOCUMENTS), "--split", "b", output="other")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (
        2, "ladm: --hub-config and --split are for data sets, and no SOURCE is one"
    )  # fmt: skip
    result = prepare(tmp_path / "saved", "--split", "b", "--hub-config", "small", output="other")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (
        2, "ladm: --hub-config is for data sets on the Hub, and no SOURCE is one"
    )  # fmt: skip


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(prepare: Prepare, tmp_path: Path, threads: int) -> None:
    source = write_jsonl(tmp_path / "d.jsonl", [long_document(k) for k in range(5)])
    assert prepare(source, output="default").exit_code == 0
    assert prepare(source, "--num-proc", threads, output="rows").exit_code == 0
    for name in ("prepare.json", "train/data-00000-of-00001.arrow"):
        assert (tmp_path / "rows" / name).read_bytes() == (tmp_path / "default" / name).read_bytes()
    assert prepare(source, "--num-proc", 2, output="rows").exit_code == 0
    result = prepare(source, "--num-proc", 0, output="zero")
    assert (result.exit_code, "--num-proc must be at least 1, not 0" in result.stderr) == (2, True)


def test_no_line_of_standard_input_is_lost_to_damage_in_a_later_source(
    piped: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block with documents of both is made again, and of the lines behind the stored ones nothing is left to read."""
    monkeypatch.setattr("ladm.corpus.files.replayable_items.REPLAYED_ITEMS", 3)
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 2)
    datasets.Dataset.from_list([long_document(k) for k in range(9, 12)]).save_to_disk(str(tmp_path / "saved"))
    (shard,) = (tmp_path / "saved").glob("*.arrow")
    content = bytearray(shard.read_bytes())
    lengths = [len(long_document(k)["text"]) for k in range(9, 12)]
    # Where the second text ends, which shows only when it is read.
    starts = np.cumsum([0, *lengths]).astype("<i4").tobytes()
    content[content.index(starts) + 11] = 0x7F
    shard.write_bytes(content)
    command = ("--max-bad-files", "1")
    first = piped(LINES, tmp_path / "saved", *command)
    assert (first.exit_code, "standard input is used up" in first.stderr) == (74, True)
    assert piped(LINES, tmp_path / "saved", *command).exit_code == 0
    assert [row["source"] for row in rows_of(tmp_path / "rows")] == [f"standard input line {k}" for k in range(1, 6)]


def test_what_the_names_of_folders_say_of_their_files(prepare: Prepare, tmp_path: Path) -> None:
    """Hive, Spark and DuckDB leave columns that they partition by out of the files."""
    documents = [long_document(k) | {"domain": ["web", "a b/c"][k % 2], "lang": "en"} for k in range(4)]
    lake = f"COPY documents TO '{tmp_path}/lake' (FORMAT parquet, PARTITION_BY (domain, lang))"
    duckdb.from_arrow(pa.Table.from_pylist(documents)).query("documents", lake)
    inside = tmp_path / "lake" / "domain=web" / "lang=__HIVE_DEFAULT_PARTITION__"
    inside.mkdir()
    write_jsonl(inside / "more.jsonl", [long_document(4), long_document(5) | {"domain": "own"}])
    (inside / "note.txt").write_text(long_document(6)["text"])
    result = prepare(tmp_path / "lake", "--domain-key", "domain")
    assert result.exit_code == 0, result.output
    rows = rows_of(tmp_path / "rows")
    assert sorted((row["domain"], row["lang"]) for row in rows if row["lang"]) == [
        *[("a b/c", "en")] * 2,
        *[("web", "en")] * 2,
    ]
    assert sorted(row["domain"] for row in rows if row["lang"] is None) == ["own", "web", "web"]


@pytest.mark.parametrize("name", ["text", "json", "parquet", "imagefolder", "text@main"])
@pytest.mark.parametrize("command", ["prepare", "run", "score"])
def test_readers_of_files_are_no_data_sets(
    name: str, command: str, ladm: Callable[..., Result], talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasets.load_dataset("text")` reads every file below the working folder."""
    write_jsonl(tmp_path / "d.jsonl", DOCUMENTS)
    (tmp_path / "d.txt").write_text("a line\n")
    monkeypatch.chdir(tmp_path)
    model = "--tokenizer" if command == "prepare" else "--model"
    budget = ("--tokens", "1k") if command == "run" else ()
    result = ladm(command, name, model, talking, "--output", "out", *budget)
    assert result.exit_code == 1
    assert f"{name} is neither" in result.output
