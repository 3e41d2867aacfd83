"""A file that may be compressed -> its bytes, with an error where it ends too early. Imports no torch."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import fsspec

_CHUNK = 1 << 20
_LARGEST_WINDOW = 2**31
"""What `zstd --long=31` needs; the library refuses more than 128 MiB unless it is allowed to."""


@contextlib.contextmanager
def open_unpacked(name: str) -> Iterator[BinaryIO]:
    """The unpacked bytes of a file or address. Raises EOFError and the like at the place where a file is torn."""
    if not name.lower().endswith(".zst"):
        with fsspec.open(name, "rb", compression="infer") as file:
            yield file
        return
    with fsspec.open(name, "rb") as packed:
        yield unpacked_zstd(packed)


def unpacked_zstd(packed: Any) -> BinaryIO:
    """The unpacked bytes of a stream of Zstandard frames."""
    # The stream reader of zstandard takes a torn frame for the end of the file, without a word.
    return io.BufferedReader(_ZstdReader(packed), _CHUNK)


class _ZstdReader(io.RawIOBase):
    """The frames of a .zst file, one behind the other, as one stream."""

    def __init__(self, packed: Any) -> None:
        self._packed = packed
        self._unpacked = b""
        self._frame: Any = None
        """The decompressor of the unfinished frame; None between two frames."""
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._unpacked:
            chunk = self._rest or self._packed.read(_CHUNK)
            self._rest = b""
            if not chunk:
                if self._frame is not None:
                    raise EOFError("the file ends in the middle of a Zstandard frame")
                return 0
            self._unpacked = self._decompress(chunk)
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
