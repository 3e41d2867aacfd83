"""Documents that are changed while `ladm prepare` reads them, and those that another launch finds changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from datasets import Dataset
from fsspec.implementations.local import LocalFileSystem

from ladm.corpus.preparation import sealing as sealing_module
from support.commands import Command
from support.documents import corpus, document, write_jsonl
from support.rows import rows_of
from support.stopped_preparation import before_block

Prepare = Callable[..., Result]
BLOCK = 3


@pytest.fixture
def prepare(ladm: Command, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", BLOCK)
    return lambda *words: ladm("prepare", *words, "--tokenizer", tokenizer, "--length", "40", "-o", tmp_path / "rows")


def message(path: Path) -> str:
    return (
        f"ladm: {path} changed while it was being read; none of its changed rows were stored: restore the file and run "
        "the same command again, or give another --output for the changed one\n"
    )


@pytest.mark.parametrize("file", [1, 2])
def test_a_file_that_is_changed_before_it_is_read_or_while_it_is(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: int
) -> None:
    """The first block has documents of file 0, the second of files 0 and 1: file 1 is open when that is sealed."""
    paths = corpus(tmp_path / "corpus")
    undisturbed = prepare(tmp_path / "corpus")
    assert undisturbed.exit_code == 0
    whole = rows_of(tmp_path / "rows")
    shutil.rmtree(tmp_path / "rows")
    copy = tmp_path / "copy"
    shutil.copy2(paths[file], copy)
    with monkeypatch.context() as patch:
        before_block(patch, 1, lambda: write_jsonl(paths[file], [document(50 + k, 70) for k in range(4)]))
        changed = prepare(tmp_path / "corpus")
    assert (changed.exit_code, changed.stderr[-len(message(paths[file])) :]) == (1, message(paths[file]))
    refused = prepare(tmp_path / "corpus")
    assert refused.exit_code == 1
    assert refused.stderr.splitlines()[0].startswith(f"ladm: {tmp_path / 'rows'} was started with something else (sour")
    (line,) = refused.stderr.splitlines()[1:]
    assert line.startswith(f"  sources: {paths[file]} has changed: json ")
    shutil.copy2(copy, paths[file])
    again = prepare(tmp_path / "corpus")
    assert again.exit_code == 0, again.output
    assert rows_of(tmp_path / "rows") == whole


def test_a_download_that_goes_on(prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any block is sealed nothing binds the folder: the same command reads the file as it is then."""
    (path,) = corpus(tmp_path / "corpus", files=1)
    real = sealing_module.read_groups

    def read_groups(*words: Any, **named: Any) -> Any:
        with path.open("a") as file:
            file.write(json.dumps(document(9, 60)) + "\n")
        return real(*words, **named)

    with monkeypatch.context() as patch:
        patch.setattr(sealing_module, "read_groups", read_groups)
        growing = prepare(path)
    assert (growing.exit_code, growing.stderr[-len(message(path)) :]) == (1, message(path))
    assert prepare(path).exit_code == 0
    assert len(rows_of(tmp_path / "rows")) == 5


def test_a_shard_of_a_saved_data_set(prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "set"
    Dataset.from_list([document(k, 60) for k in range(8)]).save_to_disk(str(folder))
    (shard,) = folder.glob("*.arrow")
    before_block(monkeypatch, 0, lambda: os.utime(shard, ns=(0, 0)))
    changed = prepare(folder)
    assert (changed.exit_code, changed.stderr[-len(message(shard)) :]) == (1, message(shard))


def test_files_that_are_read_already_or_are_gone_do_not_matter(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = corpus(tmp_path / "corpus")

    def act() -> None:
        write_jsonl(paths[0], [document(99, 60)])
        paths[1].unlink()

    # The third block is of the end of file 1 and the beginning of file 2.
    before_block(monkeypatch, 2, act)
    done = prepare(tmp_path / "corpus")
    assert done.exit_code == 0, done.output
    assert len(rows_of(tmp_path / "rows")) == 12


def test_sources_that_differ_are_named(prepare: Prepare, tmp_path: Path) -> None:
    paths = corpus(tmp_path / "corpus")
    assert prepare(tmp_path / "corpus").exit_code == 0
    os.utime(paths[1], ns=(0, 1_500_000_000_250_000_000))
    paths[2].unlink()
    for k in range(30):
        write_jsonl(tmp_path / "corpus" / f"x{k:02}.jsonl", [document(k, 60)])
    lines = prepare(tmp_path / "corpus").stderr.splitlines()[1:]
    size = paths[1].stat().st_size
    assert lines[0].startswith(f"  sources: {paths[1]} has changed: json {size:,} bytes of 20")
    assert lines[0].endswith(f" before, json {size:,} bytes of 2017-07-14 02:40:00.250000 now")
    assert lines[1:] == [
        f"  sources: {paths[2]} was a source before, and is not now",
        *(f"  sources: {tmp_path}/corpus/x{k:02}.jsonl is new" for k in range(3)),
        "  sources: and 27 more",
    ]


def test_another_order_of_the_sources_is_named(prepare: Prepare, tmp_path: Path) -> None:
    first, second = corpus(tmp_path / "corpus", files=2)
    assert prepare(first, second).exit_code == 0
    lines = prepare(second, first).stderr.splitlines()[1:]
    assert lines == [f"  sources: the same files in another order: number 1 was {first}, now {second}"]


def test_another_working_folder_does_not_mix_two_names_of_a_file_in_the_rows(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows repeat the name of their file as it was given, and a resume must give the same bytes."""
    corpus(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    assert prepare("in", "--limit", "5").exit_code == 0
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    for name in ("../in", tmp_path / "in"):
        refused = prepare(name)
        assert refused.exit_code == 1
        assert refused.stderr.splitlines()[-1] == (
            f"ladm: {tmp_path}/rows was started in the folder {tmp_path} with in/0.jsonl, which its rows repeat; now "
            f"it is {name}/0.jsonl: run the original command again in that folder"
        )
    # Nothing is read any more.
    assert prepare("../in", "--limit", "5").exit_code == 0
    monkeypatch.chdir(tmp_path)
    assert prepare("in").exit_code == 0
    assert {row["source"].split(" ")[0] for row in rows_of(tmp_path / "rows")} == {f"in/{k}.jsonl" for k in range(3)}


def test_a_link_whose_target_has_changed(prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsspec before 2026 gives the date of the link itself, which stays."""
    real = LocalFileSystem.info

    def info(self: LocalFileSystem, path: str, **named: Any) -> dict[str, Any]:
        found: dict[str, Any] = real(self, path, **named)
        return found | {"mtime": os.lstat(found["name"]).st_mtime}

    monkeypatch.setattr(LocalFileSystem, "info", info)
    (target,) = corpus(tmp_path / "d", files=1)
    link = tmp_path / "link.jsonl"
    link.symlink_to(target)
    assert prepare(link).exit_code == 0
    os.utime(target, (1, 1))
    result = prepare(link)
    assert result.exit_code == 1
    assert f"sources: {link} has changed: json" in result.stderr


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The removals and the syncs of folders, in their order."""
    found: list[tuple[str, str]] = []
    fsync, unlink = os.fsync, os.unlink

    def sync(descriptor: int) -> None:
        fsync(descriptor)
        found.append(("sync", Path(f"/proc/self/fd/{descriptor}").resolve().name))

    def remove(path: Any, **more: Any) -> None:
        unlink(path, **more)
        found.append(("remove", Path(path).name))

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "unlink", remove)
    return found


def test_a_power_loss_undoes_no_removal_of_a_block_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[tuple[str, str]]
) -> None:
    """Else the rows of a damaged file might stay, or a block behind a gap be taken for one of the next try."""
    monkeypatch.setattr(sealing_module, "record_of_block", lambda _path: None)
    work = tmp_path / "work"
    work.mkdir()
    for number in range(3):
        (work / f"{number:06d}.parquet").write_bytes(b"x")
    sealing_module._remove_blocks_from(work, 0)
    assert events == [event for k in (2, 1, 0) for event in (("remove", f"{k:06d}.parquet"), ("sync", "work"))]


def test_rows_that_grow_are_unfinished_before_any_of_them_is_replaced(
    prepare: Prepare, tmp_path: Path, events: list[tuple[str, str]]
) -> None:
    source = write_jsonl(tmp_path / "d.jsonl", [document(k, 60) for k in range(4)])
    assert prepare(source, "--limit", "2").exit_code == 0
    events.clear()
    assert prepare(source).exit_code == 0
    first = events.index(("remove", "prepare.json"))
    assert events[first + 1] == ("sync", "rows")
    assert first < events.index(("remove", "dataset_dict.json"))
