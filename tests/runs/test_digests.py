"""The remembered SHA-256 of large files: right after every change, and never in the way."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from ladm.storage import digests
from ladm.storage.digests import file_sha256
from ladm.storage.json_object import content_checksum


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is large enough to be remembered, in a world where every file has settled."""
    monkeypatch.setenv("LADM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "SMALLEST_BYTES", 10)
    monkeypatch.setattr(digests, "SETTLED_SECONDS", -1.0)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"a" * 1000)
    return path


def true_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def notes(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.json"))


def test_an_unchanged_file_is_not_read_again(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = file_sha256(large)
    assert first == true_digest(large)
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert file_sha256(large) == first


def test_another_content_with_the_old_size_and_date_is_noticed(large: Path) -> None:
    before = large.stat()
    file_sha256(large)
    large.write_bytes(b"b" * 1000)
    os.utime(large, ns=(before.st_atime_ns, before.st_mtime_ns))
    # The clock of the file system ticks in milliseconds, and two writes may fall between two ticks.
    while large.stat().st_ctime_ns == before.st_ctime_ns:
        os.utime(large, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file_sha256(large) == true_digest(large)


def test_another_file_moved_into_its_place_is_noticed(large: Path, tmp_path: Path) -> None:
    file_sha256(large)
    other = tmp_path / "other"
    other.write_bytes(b"c" * 1000)
    stamp = large.stat()
    os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    os.replace(other, large)
    assert file_sha256(large) == true_digest(large)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"sha256": 3}', '{"path": "x", "sha256": "00"}'])
def test_a_damaged_note_is_ignored(large: Path, tmp_path: Path, content: str) -> None:
    file_sha256(large)
    (note,) = notes(tmp_path)
    note.write_text(content)
    assert file_sha256(large) == true_digest(large)


def test_a_note_is_only_for_the_file_that_it_names(large: Path, tmp_path: Path) -> None:
    file_sha256(large)
    (note,) = notes(tmp_path)
    content = json.loads(note.read_text())
    del content["crc32"]
    content |= {"path": "/elsewhere", "sha256": "0" * 64}
    note.write_text(json.dumps(content | {"crc32": content_checksum(content)}))
    assert file_sha256(large) == true_digest(large)


def test_one_flipped_bit_of_a_note_never_gives_another_digest(large: Path, tmp_path: Path) -> None:
    expected = file_sha256(large)
    (note,) = notes(tmp_path)
    whole = note.read_bytes()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        note.write_bytes(flipped)
        known = digests._read(note, large, large.stat())
        assert known in (None, expected), f"bit {bit % 8} of byte {bit // 8}"
        # The note is written again, which takes long: not for every bit.
        if bit % 97 == 0:
            assert file_sha256(large) == expected, f"bit {bit % 8} of byte {bit // 8}"


def test_a_file_that_was_just_written_is_not_remembered(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "SETTLED_SECONDS", 1e9)
    file_sha256(large)
    assert notes(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_no_error(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("LADM_CACHE", str(tmp_path / "file"))
    assert file_sha256(large) == true_digest(large)


def test_verify_reads_the_weights_themselves(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file_sha256(large)
    read: list[str] = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *words: read.append("read") or real(*words))
    assert file_sha256(large, remember=False) == true_digest(large)
    assert read == ["read"]
