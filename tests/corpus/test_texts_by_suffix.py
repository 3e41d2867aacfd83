"""Text files of other kinds: read where they are named, or where a pattern ends in their suffix."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import fsspec
import pytest
from click.testing import Result
from datasets import load_from_disk

from ladm.corpus.documents.sources import find_sources
from ladm.corpus.files.names import is_named_text
from ladm.errors import LadmError
from support.documents import write_jsonl
from support.long_documents import long_document

Prepare = Callable[..., Result]


def sources_of(folder: Path) -> list[str]:
    return [Path(row["source"]).name for row in load_from_disk(str(folder))["train"]]


@pytest.fixture(autouse=True)
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of code, without data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src/sub").mkdir(parents=True)
    for k, name in enumerate(("a.py", "sub/b.py", "sub/c.h", "COPYING", ".hidden.py")):
        (tmp_path / "src" / name).write_text(long_document(k)["text"])
    (tmp_path / "src/logo.png").write_bytes(b"\x89PNG")
    (tmp_path / "src/table.csv").write_text("a,b\n")
    return tmp_path / "src"


@pytest.mark.parametrize(
    ("names", "kinds", "found"),
    [
        (["src/**/*.py"], "2 files of other kinds (2 .py)", ["a.py", "b.py"]),
        (["src/sub/*.[ch]"], "1 file of other kinds (1 .h)", ["c.h"]),
        (["src/*/c.h", "src/a*.py"], "2 files of other kinds (1 .h, 1 .py)", ["c.h", "a.py"]),
        (["src/COPYING"], "1 file of other kinds (1 without a suffix)", ["COPYING"]),
        (["*/COPYING"], "1 file of other kinds (1 without a suffix)", ["COPYING"]),
        (["src/.hidden.py"], "1 file of other kinds (1 .py)", [".hidden.py"]),
    ],
)
def test_a_text_that_is_named_is_a_document(
    prepare: Prepare, code: Path, names: list[str], kinds: str, found: list[str]
) -> None:
    result = prepare(*names, "--domain", "code")
    assert result.exit_code == 0, result.output
    assert sources_of(code.parent / "rows") == found
    assert f"{kinds}: each is read as one text" in result.stderr.splitlines()
    assert prepare(*names, "--domain", "code").exit_code == 0


def test_a_folder_of_texts_says_which_pattern_reads_them(prepare: Prepare) -> None:
    left_out = "it has 5 files of other kinds (2 .py, 1 .csv, 1 .h, 1 .png)"
    for name, message in (
        ("src", "src holds no .jsonl, .parquet or .txt file and is not a data set saved by save_to_disk; "
                f"{left_out}; 'src/**/*.py' reads the .py files as texts"),
        ("src/*", "no such source: src/* matches no .jsonl, .parquet or .txt file; a pattern that ends in .py reads "
                  "the .py files as texts"),
        ("src/logo.png", "src/logo.png: unknown kind of file; its name must end in .jsonl, .parquet or .txt (.gz, "
                         ".zst)"),
        ("src/*.csv", "no such source: src/*.csv matches no .jsonl, .parquet or .txt file"),
    ):  # fmt: skip
        result = prepare(name, "--domain", "code")
        assert (result.exit_code, result.stderr) == (1, f"ladm: {message}\n")


def test_the_pattern_that_a_message_advises_reads_the_texts(tmp_path: Path) -> None:
    text = long_document(1)["text"].encode()
    for k, (name, suffix) in enumerate((("A.TEX", ".TEX"), ("b.tex.gz", ".tex.gz"), ("c.Rst.ZST", ".Rst.ZST"))):
        folder = tmp_path / f"f{k}"
        folder.mkdir()
        (folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        with pytest.raises(LadmError, match=re.escape(f"; '{folder}/**/*{suffix}' reads the {suffix} files as texts")):
            find_sources([f"{folder}/"])
        assert [source.name for source in find_sources([f"{folder}/**/*{suffix}"])] == [str(folder / name)]
    # What is behind a dot in a sentence is no suffix.
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes v1. final").write_bytes(text)
    with pytest.raises(LadmError, match=r"it has 1 file of other kinds \(1 without a suffix\)$"):
        find_sources([str(tmp_path / "other")])


def test_many_texts_are_found_in_time(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for k in range(100):
        (code / f"{k}.tex").write_text("text")
        names.append(str(code / f"{k}.tex"))
    counting = Mock(wraps=os.path.realpath)
    monkeypatch.setattr(os.path, "realpath", counting)
    assert len(find_sources(names)) == 100
    # In proportion to the files, not to their pairs.
    assert counting.call_count < 10 * len(names)


def test_scripts_beside_data_are_read_only_by_a_pattern(prepare: Prepare, code: Path) -> None:
    write_jsonl(code / "d.jsonl", [long_document(7)])
    result = prepare("src/a.py", "src/d.jsonl", "--domain", "x")
    assert "src/a.py is not a data file; it is left out" in result.stderr.splitlines()
    assert sources_of(code.parent / "rows") == ["d.jsonl line 1"]
    result = prepare("src/*.py", "src/*", "--domain", "x", output="both")
    assert sources_of(code.parent / "both") == ["a.py", "d.jsonl line 1"]
    # Of the two scripts src/a.py is read, by the first pattern.
    left_out = "left out 4 files of other kinds (1 .csv, 1 .h, 1 .png, 1 .py)"
    assert f"src/*: {left_out}\n" in result.stderr


def test_the_pattern_for_compressed_texts_ends_as_their_names_do(prepare: Prepare, code: Path) -> None:
    for k in range(3):
        (code / f"{k}.tex.gz").write_bytes(gzip.compress(long_document(k)["text"].encode()))
    message = "no such source: src/*.gz matches no .jsonl, .parquet or .txt file; a pattern that ends in .tex.gz reads "
    result = prepare("src/*.gz", "--domain", "x")
    assert (result.exit_code, result.stderr) == (1, f"ladm: {message}the .tex.gz files as texts\n")
    result = prepare("src/*.tex.gz", "--domain", "x")
    assert (result.exit_code, len(sources_of(code.parent / "rows"))) == (0, 3)


def test_several_scripts_beside_data_are_one_line(prepare: Prepare, code: Path) -> None:
    """The shell expands src/* to all names, of which there may be thousands."""
    write_jsonl(code / "d.jsonl", [long_document(7)])
    (code / "table.csv").unlink()
    (code / "b.py").write_text("")
    names = [f"src/{path.name}" for path in sorted(code.iterdir()) if path.is_file()]
    result = prepare(*names, "--domain", "x")
    assert result.exit_code == 0, result.output
    line = (
        "left out 5 files that are not data (3 .py, 1 .png, 1 without a suffix); a pattern in quotes that ends in .py "
    )
    assert [each for each in result.stderr.splitlines() if "left out" in each] == [
        f"{line}reads the .py files as texts"
    ]


def test_compressed_texts_and_texts_in_a_store(prepare: Prepare, tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    try:
        for name in ("a.tex", "sub/b.tex", "c.pdf", "notes"):
            system.pipe_file(f"/texts/{name}", long_document(len(name))["text"].encode())
        system.pipe_file("/texts/z.tex.gz", gzip.compress(long_document(9)["text"].encode()))
        result = prepare("memory://texts/**/*.tex", "memory://texts/*.tex.gz", "--domain", "x")
        assert result.exit_code == 0, result.output
        assert sources_of(tmp_path / "rows") == ["a.tex", "b.tex", "z.tex.gz"]
    finally:
        system.rm("/texts", recursive=True)


def test_addresses_that_are_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    system = fsspec.filesystem("memory")
    try:
        for name in ("tables/a.csv", "code/a.tex", "web/a.jsonl?download=true", "web/a.pdf?page=1"):
            system.pipe_file(f"/{name}", b"text")
        nothing = "holds no .jsonl, .parquet or .txt file; it has 1 file of other kinds"
        for name, message in (
            ("memory://tables", f"memory://tables {nothing} (1 .csv)"),
            ("memory://code/", f"memory://code/ {nothing} (1 .tex); 'memory://code/**/*.tex' reads the .tex "
                               "files as texts"),
            *(
                (f"memory://web/{file}", f"memory://web/{file}: unknown kind of file; its name must end in .jsonl, "
                                         ".parquet or .txt (.gz, .zst)")
                for file in ("a.jsonl?download=true", "a.pdf?page=1")
            ),
        ):  # fmt: skip
            with pytest.raises(LadmError) as caught:
                find_sources([name])
            assert str(caught.value) == message
        assert [source.name for source in find_sources(["memory://code/**/*.tex"])] == ["memory:///code/a.tex"]
        # To HTTP a page with links is a folder as well as a file.
        monkeypatch.setattr(type(system), "isdir", lambda *_: True)
        lines: list[str] = []
        assert [source.kind for source in find_sources(["memory://code/a.tex"], echo=lines.append)] == ["text"]
        assert lines == ["1 file of other kinds (1 .tex): each is read as one text"]
    finally:
        for name in ("/tables", "/code", "/web"):
            system.rm(name, recursive=True)


def test_lines_of_json_are_no_text(prepare: Prepare, code: Path) -> None:
    write_jsonl(code / "part-00000", [long_document(1)])
    message = "cannot read src/part-00000: it has a JSON object in a line; let its name end in .jsonl"
    result = prepare("src/part-00000", "--domain", "x")
    assert (result.exit_code, message in result.stderr) == (74, True), result.stderr
    # Code that begins with a brace is a text.
    (code / "block.c").write_text("{\n" + long_document(1)["text"])
    assert prepare("src/block.c", "--domain", "x", output="block").exit_code == 0


@pytest.mark.parametrize(
    ("name", "pattern", "is_text"),
    [
        ("a/b.py", "a/*.py", True),
        ("a/b.PY", "a/*.py", True),
        ("a/b.tex.gz", "a/*.tex.gz", True),
        ("a/b.py", "a/*", False),
        ("a/b.py", "a/*.*", False),
        ("a/b.py", "a/b.py", True),
        ("a/.b.py", "a/*.py", False),
        ("a/b.pdf", "a/*.pdf", False),
        ("a/b.csv", "a/*.csv", False),
        ("a/b.txt", "a/*.txt", False),
        ("a/b", "*/b", True),
        ("a/b", "*/b*", False),
        ("s3://a/b", "s3://*/b", False),
    ],
)
def test_which_files_a_pattern_names(name: str, pattern: str, is_text: bool) -> None:
    assert is_named_text(name, pattern) is is_text
