"""A Parquet file <-> the same with a checksum of all its bytes: no flipped bit of it is read in silence. No torch.

Parquet has checksums for the data of its pages, and none for the headers of pages and for its footer, which say how
many numbers a page has, of what type, and where it starts. The checksum is put between the last page and the footer,
where no reader looks:

    PAR1  pages ..  b"ladm-xxh" + XXH3-64 of the pages and of the footer  footer  length of the footer  PAR1
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ladm.errors import StorageError, is_out_of_memory, one_line, reading_problem
from ladm.storage.files import arrow_path, io_errors

_MARK = b"ladm-xxh"
_CHECKSUM_BYTES = 8
_MAGIC = b"PAR1"
_TAIL_BYTES = 8
"""The length of the footer in 4 bytes, then the magic."""
_CHUNK_BYTES = 1 << 24
REMEMBERED_BYTES = 1 << 26
"""The checksum of a file of at least this size is verified once in a process, of a smaller one at every opening."""
_verified: set[tuple[str, int, int, int]] = set()
"""Path, size, time of modification and inode of the large files whose checksums were verified."""


def add_checksum(path: Path) -> None:
    """Put the checksum into a Parquet file that has just been written."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(-_TAIL_BYTES, os.SEEK_END)
        body = size - _TAIL_BYTES - int.from_bytes(file.read(4), "little")
        file.seek(body)
        footer = file.read()
        checksum = _checksum(file, body, footer)
        file.seek(body)
        file.write(_MARK + checksum + footer)


@contextlib.contextmanager
def reading_parquet(path: Path, *, remedy: str) -> Iterator[None]:
    """Turn what Arrow finds wrong with a Parquet file into a StorageError that names it and ends with `remedy`."""
    try:
        yield
    # A flipped byte of the footer may ask for anything: an unknown type, a name that is no UTF-8, an absurd size.
    except (pa.ArrowException, OSError, ValueError, MemoryError, SystemError, KeyError, IndexError) as error:
        if is_out_of_memory(error):
            raise StorageError(f"cannot read {path}: {reading_problem(error)}; if it is damaged, {remedy}") from None
        raise StorageError(f"{path} is damaged: {one_line(error)}; {remedy}") from None


def open_parquet(path: Path, *, remedy: str) -> pq.ParquetFile:
    """A file to be read; its checksum is verified here. Raises StorageError."""
    with io_errors(path, "read"):
        found = path.stat()
        state = (str(path.absolute()), found.st_size, found.st_mtime_ns, found.st_ino)
        if state not in _verified:
            with path.open("rb") as file:
                is_whole = _is_whole(file, found.st_size)
            if not is_whole:
                raise StorageError(f"{path} is damaged: it does not match its checksum; {remedy}")
            if found.st_size >= REMEMBERED_BYTES:
                _verified.add(state)
    with reading_parquet(path, remedy=remedy):
        # Arrow's default reads ahead and holds all of the file until the last batch, which is for stores far away.
        return pq.ParquetFile(arrow_path(path), page_checksum_verification=True, pre_buffer=False)


def _is_whole(file: BinaryIO, size: int) -> bool:
    """Does the file match its checksum? True as well where there is none, as in files of earlier versions."""
    if size < 2 * _TAIL_BYTES:
        return True
    file.seek(size - _TAIL_BYTES)
    footer_start = size - _TAIL_BYTES - int.from_bytes(file.read(4), "little")
    body = footer_start - _CHECKSUM_BYTES - len(_MARK)
    if body < len(_MAGIC):
        return True
    file.seek(body)
    if file.read(len(_MARK)) != _MARK:
        return True
    checksum, footer = file.read(_CHECKSUM_BYTES), file.read()
    return checksum == _checksum(file, body, footer)


def _checksum(file: BinaryIO, body: int, footer: bytes) -> bytes:
    """Of the first `body` bytes of the file, and of the footer with its length and the magic."""
    import xxhash

    digest = xxhash.xxh3_64()
    file.seek(0)
    while chunk := file.read(min(_CHUNK_BYTES, body - file.tell())):
        digest.update(chunk)
    digest.update(footer)
    return digest.digest()
