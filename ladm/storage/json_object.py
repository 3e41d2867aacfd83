"""A file with one JSON object <-> its content, with a checksum where ladm writes it. Imports no torch.

The checksum is the last key, `crc32`, over the content and not over the bytes: a file that an editor has indented
again stays valid. A file that is too large to be held has one over its bytes. A file without one was written by an
earlier version, and is read as it is.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ladm.errors import StorageError, one_line
from ladm.storage.files import io_errors

CHECKSUM = "crc32"
MOST_BYTES = 1 << 28
"""A larger file is refused before it is read: none of ours comes near it, and JSON takes ten times as much memory."""
_LAST_KEY = b',\n "crc32": '
_DIGITS = re.compile(r"[0-9a-f]{8}")


def read_json_object(path: Path, *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The object in a file, without its checksum.

    Raises StorageError for a file that cannot be read, holds anything else, or is not as it was written.
    """
    with io_errors(path, "read"):
        size = path.stat().st_size
        if size > most_bytes:
            raise StorageError(f"{path} is damaged: it has {size:,} bytes, more than any file of its kind")
        return parse_json_object(path.read_bytes(), path=path)


def parse_json_object(content: bytes, *, path: Path) -> dict[str, Any]:
    """The object in `content`, which was read from `path`. Raises as `read_json_object`."""
    try:
        found = json.loads(content)
    # ValueError: no JSON or no UTF-8. RecursionError: lists nested thousands deep.
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path} is damaged: {one_line(error)}") from None
    if not isinstance(found, dict):
        raise StorageError(f"{path} is damaged: it does not hold a JSON object")
    if CHECKSUM in found:
        checksum = found.pop(CHECKSUM)
        if checksum not in (_checksum_of_text(content), _checksum(found)):
            raise StorageError(f"{path} is damaged: its content does not match its checksum")
    elif found and is_checksum(list(found.values())[-1]):
        # The name of the checksum itself is damaged. Without this check the file would count as one of an old version.
        raise StorageError(f"{path} is damaged: its last key should be {CHECKSUM}")
    return found


def json_with_checksum(content: Mapping[str, Any]) -> bytes:
    """The bytes of a file with this content. Raises ValueError for NaN and infinity."""
    # As JSON gives it back: there a tuple is a list and every key a text.
    plain = json.loads(json.dumps(content, ensure_ascii=False, allow_nan=False))
    text = json.dumps(plain | {CHECKSUM: _checksum(plain)}, indent=1, ensure_ascii=False)
    return text.encode() + b"\n"


def chunks_with_checksum(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A file in parts, all but its closing brace, then the checksum of those bytes and the brace."""
    checksum = 0
    for chunk in chunks:
        checksum = zlib.crc32(chunk, checksum)
        yield chunk
    yield b'%s"%08x"\n}\n' % (_LAST_KEY, checksum)


def content_checksum(content: Mapping[str, Any]) -> str:
    """CRC-32, in eight hexadecimal digits, of an object without regard to the order of its keys or to spaces."""
    return _checksum(json.loads(json.dumps(content)))


def is_checksum(value: Any) -> bool:
    """Does it look like one?"""
    return isinstance(value, str) and _DIGITS.fullmatch(value) is not None


def _checksum_of_text(content: bytes) -> str:
    return f"{zlib.crc32(content[: max(0, content.rfind(_LAST_KEY))]):08x}"


def _checksum(content: dict[str, Any]) -> str:
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        return ""
    return f"{zlib.crc32(text.encode()):08x}"
