"""A large file -> its SHA-256, which is remembered while the file does not change, or its XXH3. Imports no torch.

Hashing the weights of a model takes seconds of every start. A file counts as unchanged when its path, size, inode, time
of modification and time of change are those of the last time. The time of change (ctime) is set by the kernel at every
write, rename or copy, and cannot be set by a program, so that weights replaced by others with an old date are noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import time
from pathlib import Path
from typing import Any, BinaryIO

from ladm.storage.files import io_errors
from ladm.storage.notes import SETTLED_SECONDS, note_of, read_note, write_note

SMALLEST_BYTES = 1 << 20
"""A smaller file is hashed faster than its digest is looked up."""
_CHUNK_BYTES = 1 << 24
_SHA256 = re.compile(r"[0-9a-f]{64}")


class DigestedFile(io.RawIOBase):
    """A file that is written from its beginning to its end, and the digest of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        import xxhash

        self._file = file
        self.digest = xxhash.xxh3_64()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._file.write(data)


def file_xxh3(path: Path) -> str:
    """XXH3-128 of a file in hexadecimal, for files of our own. Raises StorageError where it cannot be read."""
    # Imported where it is used, as elsewhere: `ladm.Scorer` works on a machine that has only torch and transformers.
    import xxhash

    digest = xxhash.xxh3_128()
    with io_errors(path, "read"), path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def file_sha256(path: Path, *, remember: bool = True) -> str:
    """SHA-256 of a file in hexadecimal; with `remember` from memory where the file has not changed. Raises OSError."""
    before = path.stat()
    note = _note_of(path) if remember and before.st_size >= SMALLEST_BYTES else None
    known = None if note is None else _read(note, path, before)
    if known is not None:
        return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    after = path.stat()
    if note is not None and _state_of(before) == _state_of(after) and time.time() - after.st_ctime > SETTLED_SECONDS:
        write_note(note, {"path": str(path.resolve()), **_state_of(after), "sha256": digest})
    return digest


def _note_of(path: Path) -> Path | None:
    with contextlib.suppress(RuntimeError, OSError):
        return note_of(path.resolve())
    return None


def _state_of(found: os.stat_result) -> dict[str, int]:
    """Numbers of which at least one differs after any change of a file."""
    return {
        "size": found.st_size, "mtime_ns": found.st_mtime_ns, "ctime_ns": found.st_ctime_ns, "inode": found.st_ino,
        "device": found.st_dev,
    }  # fmt: skip


def _read(note: Path, path: Path, found: os.stat_result) -> str | None:
    """The digest that a note holds for exactly this file; None for a note that is absent, old or damaged."""
    content = read_note(note) or {}
    digest = content.pop("sha256", None)
    same = content == {"path": str(path.resolve()), **_state_of(found)}
    return digest if same and isinstance(digest, str) and _SHA256.fullmatch(digest) else None
