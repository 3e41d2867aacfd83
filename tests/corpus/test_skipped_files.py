"""Files that a folder or a glob leads to and that are not read: one line says how many, and of which kinds."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from click.testing import Result
from datasets import Dataset

from ladm.corpus.files.skipped import SkippedFiles
from support.documents import write_jsonl
from support.jobs import job_words
from support.long_documents import long_document

Prepare = Callable[..., Result]


def lines_about(result: Result, name: str) -> list[str]:
    assert result.exit_code == 0, result.output
    return [line for line in result.stderr.splitlines() if line.startswith(f"{name}: left out")]


def test_files_of_other_kinds_are_counted_in_one_line(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d/sub/.cache").mkdir(parents=True)
    for name in (
        "a.csv",
        "sub/B.CSV.gz",
        "sub/c.pdf",
        "sub/names",
        "LICENSE",
        "README.md",
        ".d.pdf",
        "sub/.cache/e.pdf",
    ):
        (tmp_path / "d" / name).write_text("x")
    write_jsonl(tmp_path / "d/d.jsonl", [long_document(0)])
    words = "left out 4 files of other kinds (2 .csv, 1 .pdf, 1 without a suffix)"
    for k, name in enumerate(("d", "d/*", "d/**", "d/**/*")):
        assert lines_about(prepare(name, output=f"rows{k}"), name) == [f"{name}: {words}"]
    assert lines_about(prepare("d/*.jsonl", output="glob"), "d") == []
    Dataset.from_list([long_document(1)]).save_to_disk(str(tmp_path / "d/saved"))
    more = f"d: {words} and 1 saved data set (d/saved); give it as a SOURCE of its own"
    assert lines_about(prepare("d", output="more"), "d") == [more]
    assert lines_about(prepare("d", "d/saved", output="both"), "d") == [f"d: {words}"]
    (tmp_path / "d/d.jsonl").unlink()
    result = prepare("d/sub", output="none")
    assert (result.exit_code, result.stderr) == (
        1,
        "ladm: d/sub holds no .jsonl, .parquet or .txt file and is not a data set saved by save_to_disk; it has 3 "
        "files of other kinds (1 .csv, 1 .pdf, 1 without a suffix)\n",
    )


def test_files_of_other_kinds_in_a_store(prepare: Prepare, tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    try:
        source = write_jsonl(tmp_path / "d.jsonl", [long_document(0)])
        for name, content in (("a.jsonl", source.read_bytes()), ("b.csv", b"x"), ("sub/c.pdf", b"x"), ("_x.pdf", b"x")):
            system.pipe_file(f"/kinds/{name}", content)
        found = lines_about(prepare("memory://kinds"), "memory://kinds")
        assert found == ["memory://kinds: left out 3 files of other kinds (2 .pdf, 1 .csv)"]
    finally:
        system.rm("/kinds", recursive=True)


def test_many_kinds_stay_one_short_line() -> None:
    skipped_files = SkippedFiles()
    for k in range(7):
        skipped_files.add_file(f"d/x.kind{k}")
    for name in ("d/v1. final thing", "d/x.\x1b[2J", "d/x." + "y" * 50):
        skipped_files.add_file(name)
    shown = "3 without a suffix, 1 .kind0, 1 .kind1, 1 .kind2, 1 .kind3, 3 more"
    assert skipped_files.words == f"10 files of other kinds ({shown})"


def test_a_job_inside_its_own_source_resumes(
    ladm: Callable[..., Result], shard: Path, talking: Path, tmp_path: Path
) -> None:  # fmt: skip
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / shard.name).write_bytes(shard.read_bytes())
    (folder / "x.csv").write_text("x")
    words = [word if word != shard else folder for word in job_words(shard, talking, folder / "job")]
    assert folder in words
    line = f"{folder}: left out 1 file of other kinds (1 .csv)"
    for _ in range(2):
        result = ladm(*words)
        assert lines_about(result, str(folder)) == [line]
    assert (folder / "job/subset/manifest.json").is_file()


def test_texts_with_names_of_cards_are_not_left_out_in_silence(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """`Notice.txt` may be an article of a corpus of texts; beside tables and lines of JSON a card is no document."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    for k, name in enumerate(("Notice.txt", "Security.txt", "Maps.txt")):
        (tmp_path / "d" / name).write_text(long_document(k)["text"])
    card = "with the name of a card or licence"
    for k, name in enumerate(("d", "d/*")):
        found = lines_about(prepare(name, "--domain", "x", output=f"rows{k}"), name)
        assert found == [f"{name}: left out 2 texts {card} (such as d/Notice.txt; under another name it is read)"]
    (tmp_path / "d/Security.txt").unlink()
    found = lines_about(prepare("d", "--domain", "x", output="one"), "d")
    assert found == [f"d: left out 1 text {card} (d/Notice.txt; under another name it is read)"]
    (tmp_path / "d/Maps.txt").unlink()
    write_jsonl(tmp_path / "d/d.jsonl", [long_document(4)])
    assert lines_about(prepare("d", "--domain", "x", output="lines"), "d") == []


def test_settings_called_job_next_to_documents_make_no_job(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """`ladm run` writes job.yaml too, but rows or scores beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    write_jsonl(tmp_path / "d/a.jsonl", [long_document(0)])
    (tmp_path / "d/job.yaml").write_text("tokens: 1B\n")
    result = prepare("d", output="rows")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("link", ["d/b.jsonl", "d/disk"])
def test_a_link_to_nothing_stops_the_command(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str
) -> None:  # fmt: skip
    """Half of the corpus may be on a disk that is not mounted. A link that cannot stand for documents is no matter."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    write_jsonl(tmp_path / "d/a.jsonl", [long_document(0)])
    for name in ("d/c.pdf", "d/.#a.jsonl", "d/LICENSE"):
        (tmp_path / name).symlink_to("/nowhere")
    assert prepare("d", output="whole").exit_code == 0
    (tmp_path / link).symlink_to("/mnt/disk")
    remedy = "remove it, or list the other files by name"
    result = prepare("d", output="rows")
    expected = f"ladm: no such source: {link} is a broken link to /mnt/disk; {remedy}\n"
    assert (result.exit_code, result.stderr) == (1, expected)
    result = prepare("d/*", output="rows")
    assert (result.exit_code, result.stderr.startswith(f"ladm: no such source: {link}")) == (1, True)


def test_a_folder_that_cannot_be_listed_stops_the_command(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in ("d/a/1.jsonl", "d/b/2.jsonl", "d/lost+found/3.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True)
        write_jsonl(tmp_path / name, [long_document(int(Path(name).stem))])
    closed = {"d/lost+found"}
    scandir = os.scandir

    def refuse(path: str = ".") -> Any:
        # Permissions would not stop root, as whom tests run in containers.
        if str(path) in closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for k, name in enumerate(("d", "d/*/*.jsonl", "d/**/*")):
        result = prepare(name, output=f"rows{k}")
        assert result.exit_code == 0, result.output
    closed |= {"d/b", "d/b/", f"{tmp_path}/d/b", f"{tmp_path}/d/b/"}
    remedy = "make it readable, or list the others by name"
    for name in ("d", "d/*", "d/*/*.jsonl", "d/**/*", f"{tmp_path}/?/[ab]/*"):
        result = prepare(name, output="other")
        assert result.exit_code == 74
        assert re.fullmatch(rf"ladm: cannot read the folder \S*d/b/?: Permission denied; {remedy}\n", result.stderr)
