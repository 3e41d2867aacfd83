"""The digests of rows are noted, and the note is believed only while no file of the rows changes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from ladm.corpus.rows.identity import RowDigests
from ladm.corpus.rows.reading import open_rows
from ladm.errors import StorageError
from ladm.storage.json_object import json_with_checksum
from support.files import flip


class Reads:
    """Counts the blocks of rows that are read for a digest."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.blocks, add = 0, RowDigests.add

        def count(digests: RowDigests, carried: Any, ids: Any) -> None:
            self.blocks += 1
            add(digests, carried, ids)

        monkeypatch.setattr(RowDigests, "add", count)

    def since(self) -> int:
        found, self.blocks = self.blocks, 0
        return found


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Reads:
    """With notes also of small rows, and of files that were written this moment."""
    monkeypatch.setenv("LADM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ladm.corpus.rows.known_digests.SMALLEST_BYTES", 0)
    monkeypatch.setattr("ladm.corpus.rows.known_digests.SETTLED_SECONDS", -1.0)
    return Reads(monkeypatch)


@pytest.fixture
def rows(tmp_path: Path) -> str:
    folder = tmp_path / "rows"
    Dataset.from_list([{"input_ids": [k, k + 1, 7], "text": f"t{k}"} for k in range(6)]).save_to_disk(str(folder))
    return str(folder)


def test_unchanged_rows_are_read_once(reads: Reads, rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_rows(rows)
    identity, content = first.identity(), first.content()
    assert reads.since() == 1
    again = open_rows(rows)
    assert (again.identity(), again.content()) == (identity, content)
    assert reads.since() == 0
    # Others are those of fewer rows, and those of whoever wants them read.
    assert open_rows(rows, limit=3).identity()["xxh3_128"] != identity["xxh3_128"]
    assert open_rows(rows, remember=False).identity() == identity
    assert reads.since() == 2
    # A relative name is that of the same folder.
    monkeypatch.chdir(Path(rows).parent)
    assert open_rows("rows").identity() == identity
    assert reads.since() == 0


def test_rows_with_the_same_size_and_date_are_read_again(reads: Reads, rows: str, tmp_path: Path) -> None:
    identity = open_rows(rows).identity()
    (shard,) = Path(rows).glob("*.arrow")
    found = shard.stat()
    Dataset.from_list([{"input_ids": [k, k + 1, 8], "text": f"t{k}"} for k in range(6)]).save_to_disk(
        str(tmp_path / "b")
    )
    (other,) = (tmp_path / "b").glob("*.arrow")
    shard.write_bytes(other.read_bytes())
    assert shard.stat().st_size == found.st_size
    os.utime(shard, ns=(found.st_atime_ns, found.st_mtime_ns))
    reads.since()
    assert open_rows(rows).identity() != identity
    assert reads.since() == 1
    # So is a copy in another place.
    shutil.copytree(rows, tmp_path / "copy")
    assert open_rows(str(tmp_path / "copy")).identity()["rows"] == 6
    assert reads.since() == 1


@pytest.mark.usefixtures("reads")
def test_what_lies_beside_the_rows_is_compared_again_when_it_changes(rows: str) -> None:
    digest = open_rows(rows).identity()["xxh3_128"]
    record = Path(rows) / "prepare.json"
    record.write_bytes(json_with_checksum({"xxh3_128": digest}))
    assert open_rows(rows).identity()["xxh3_128"] == digest
    record.write_bytes(json_with_checksum({"xxh3_128": "0" * 32}))
    for _ in range(2):
        with pytest.raises(StorageError, match="is damaged or was changed since ladm prepare wrote it"):
            open_rows(rows).identity()


@pytest.mark.usefixtures("reads")
def test_a_damaged_note_and_a_file_of_this_moment_are_not_believed(
    rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = open_rows(rows).identity()
    (note,) = (tmp_path / "cache" / "digests").iterdir()
    whole = note.read_bytes()
    for at in range(0, len(whole), 7):
        flip(note, at)
        assert open_rows(rows).identity() == identity
        note.write_bytes(whole)
    note.unlink()
    monkeypatch.setattr("ladm.corpus.rows.known_digests.SETTLED_SECONDS", 60.0)
    assert open_rows(rows).identity() == identity
    assert not note.exists()


def test_verify_reads_the_rows_themselves(reads: Reads, rows: str, ladm: Any) -> None:
    digest = open_rows(rows).identity()["xxh3_128"]
    (Path(rows) / "prepare.json").write_bytes(json_with_checksum({"xxh3_128": digest, "rows": 6, "counts": {}}))
    open_rows(rows).identity()
    reads.since()
    assert ladm("verify", rows).stdout == f"{rows} is sound: 6 rows\n"
    assert reads.since() == 1
