"""A file that may be compressed -> its bytes, with an error where it ends too early. Imports no torch."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from ladm.corpus.files.opening import open_bytes

_CHUNK = 1 << 20
MOST_DOCUMENT_BYTES = 1 << 28
"""A kilobyte of gzip may stand for a megabyte, and a megabyte of it for a line without an end."""
_MAGIC = {"gz": b"\x1f\x8b", "zst": b"\x28\xb5\x2f\xfd", "bz2": b"BZh", "xz": b"\xfd7zXZ\x00"}
_MAGIC_BYTES = 6
_SKIPPED_ZSTD = tuple(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))
"""A frame without content, with which pzstd begins its files."""
_ZSTD_CHUNK = 1 << 13
"""A block of 128 KiB may take four bytes, so that no chunk unpacks to more than a document may have."""
_LARGEST_WINDOW = 2**31
"""What `zstd --long=31` needs; the library refuses more than 128 MiB unless it is allowed to."""


@contextlib.contextmanager
def open_unpacked(name: str) -> Iterator[BinaryIO]:
    """The unpacked bytes of a file or address. Raises EOFError and the like at the place where a file is torn."""
    with open_bytes(name) as file:
        yield unpacked(file)


def bounded_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file. Raises ValueError for one of more than MOST_DOCUMENT_BYTES, before it fills the memory."""
    while line := file.readline(MOST_DOCUMENT_BYTES + 1):
        if len(line) > MOST_DOCUMENT_BYTES:
            raise ValueError(f"it has a line of more than {MOST_DOCUMENT_BYTES:,} bytes")
        yield line


def cut_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of one for which `is_too_long` holds only the beginning."""
    while line := file.readline(MOST_DOCUMENT_BYTES + 1):
        yield line
        rest = line
        # In pieces, so that the rest of a line without an end never fills the memory.
        while is_too_long(line) and rest and not rest.endswith(b"\n"):
            rest = file.readline(_CHUNK)


def is_too_long(line: bytes) -> bool:
    """Has the line more bytes than a document may have?"""
    return len(line) > MOST_DOCUMENT_BYTES


def read_bounded(file: BinaryIO) -> bytes:
    """The whole file. Raises ValueError for one of more than MOST_DOCUMENT_BYTES."""
    content = file.read(MOST_DOCUMENT_BYTES + 1)
    if len(content) > MOST_DOCUMENT_BYTES:
        raise ValueError(f"it has more than {MOST_DOCUMENT_BYTES:,} bytes, and would be one document")
    return content


def packing_of(name: str) -> str | None:
    """How a file is compressed; None where it is not."""
    with open_bytes(name) as file:
        return _packing(file.read(_MAGIC_BYTES))


def unpacked(stream: Any) -> BinaryIO:
    """The bytes of a stream without its compression, which its first bytes show, whatever its name says."""
    buffered: Any = stream if hasattr(stream, "peek") else io.BufferedReader(stream)
    packing = _packing(buffered.peek(_MAGIC_BYTES)[:_MAGIC_BYTES])
    if packing == "zst":
        # The stream reader of zstandard takes a torn frame for the end of the file, without a word.
        return io.BufferedReader(_ZstdReader(buffered), _CHUNK)
    openers: dict[str, Any] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    return cast(BinaryIO, openers[packing](buffered) if packing else buffered)


def _packing(first_bytes: bytes) -> str | None:
    if first_bytes.startswith(_SKIPPED_ZSTD):
        return "zst"
    return next((name for name, magic in _MAGIC.items() if first_bytes.startswith(magic)), None)


class _ZstdReader(io.RawIOBase):
    """The frames of a .zst file, one behind the other, as one stream."""

    def __init__(self, packed: Any) -> None:
        self._packed = packed
        self._unpacked = memoryview(b"")
        self._frame: Any = None
        """The decompressor of the unfinished frame; None between two frames."""
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._unpacked:
            chunk = self._rest or self._packed.read(_ZSTD_CHUNK)
            self._rest = b""
            if not chunk:
                if self._frame is not None:
                    raise EOFError("the file ends in the middle of a Zstandard frame")
                return 0
            # A view, because bytes would be copied again for each part of them that is taken.
            self._unpacked = memoryview(self._decompress(chunk))
        count = min(len(buffer), len(self._unpacked))
        buffer[:count] = self._unpacked[:count]
        self._unpacked = self._unpacked[count:]
        return count

    def _decompress(self, chunk: bytes) -> bytes:
        import zstandard

        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()
        unpacked: bytes = self._frame.decompress(chunk)
        if self._frame.eof:
            self._rest, self._frame = self._frame.unused_data, None
        return unpacked
