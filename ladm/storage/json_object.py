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
_MADE_AGAIN = {
    "run.json": "score the rows again",
    "prepare.json": "prepare the documents again",
    "manifest.json": "select again",
    "train.json": "train again",
}
"""What makes the folder of a file again that cannot be made alone. Here, because commands read each other's files."""
_LAST_KEY = b',\n "crc32": '
_DIGITS = re.compile(r"[0-9a-f]{8}")


def read_json_object(path: Path, *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The object in a file, without its checksum.

    Raises StorageError for a file that cannot be read, holds anything else, or is not as it was written.
    """
    with io_errors(path, "read"):
        size = path.stat().st_size
        if size > most_bytes:
            raise damaged_file(path, f"it has {size:,} bytes, more than any file of its kind")
        return parse_json_object(path.read_bytes(), path=path)


def parse_json_object(content: bytes, *, path: Path) -> dict[str, Any]:
    """The object in `content`, which was read from `path`. Raises as `read_json_object`."""
    try:
        found = json.loads(content)
    # ValueError: no JSON or no UTF-8. RecursionError: lists nested thousands deep.
    except (ValueError, RecursionError) as error:
        raise damaged_file(path, _problem_of_json(error)) from None
    if not isinstance(found, dict):
        raise damaged_file(path, "it does not hold a JSON object")
    if CHECKSUM in found:
        checksum = found.pop(CHECKSUM)
        if checksum not in (_checksum_of_text(content), _checksum(found)):
            raise damaged_file(path, "its content does not match its checksum")
    elif found and is_checksum(list(found.values())[-1]):
        # The name of the checksum itself is damaged. Without this check the file would count as one of an old version.
        raise damaged_file(path, f"its last key should be {CHECKSUM}")
    return found


def damaged_file(path: Path, problem: str) -> StorageError:
    """The error for a damaged file, which ends with what to do about it."""
    again = _MADE_AGAIN.get(path.name)
    remedy = "or make it again" if again is None else f"or remove {path.parent} and {again}"
    return StorageError(f"{path} is damaged: {problem}; restore it from a copy, {remedy}")


def _problem_of_json(error: Exception) -> str:
    """What is wrong with a text, without the words of the parser, which mean nothing to whoever has not written it."""
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno} is not JSON"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return f"it is not JSON: {one_line(error)}"


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
