"""A file -> an error where it cannot be read to its end, or is not what its name says. Imports no torch."""

from __future__ import annotations

import contextlib
import json
import os

from ladm.corpus.documents.reading import read_documents, require_one_text
from ladm.corpus.documents.sources import Source
from ladm.corpus.files.compressed import bounded_lines, open_unpacked, packing_of
from ladm.corpus.files.names import is_packed_name, kind_of
from ladm.corpus.files.opening import open_bytes
from ladm.corpus.files.tables import parquet_file, wanted_columns
from ladm.corpus.files.utf8 import require_no_other_mark
from ladm.errors import StorageError, library_errors

_CHUNK = 1 << 20
_BATCH_ROWS = 256


def require_whole(source: Source, *, text_key: str) -> None:
    """Read a file that can be torn to its end. Raises StorageError where that fails.

    A plain JSONL file is not read: a torn one has a torn last line, which is dropped with its reason. Nor is Parquet
    over a network, of which only what is wanted is fetched; damage in it shows when its documents are read.
    """
    with library_errors(source.name, "read"):
        if source.kind == "parquet":
            _require_whole_parquet(source, text_key)
        elif source.kind == "text":
            if kind_of(source.name) is None:
                with open_unpacked(source.name) as file:
                    _require_no_lines(source.name, file.readline(_CHUNK))
            for _ in read_documents(source, text_key=text_key):
                pass
        elif source.kind == "json" and source.lines is None:
            is_packed = packing_of(source.name) is not None
            with open_unpacked(source.name) as file:
                first_line = file.readline(_CHUNK)
                # What packs nothing still writes a head, so such a file is a download that was not started.
                if not first_line and not is_packed and is_packed_name(source.name):
                    raise EOFError("the file is empty, which no compressed file is")
                _require_lines(source.name, first_line)
                # A plain file is whole as far as it goes: where it is torn, its last line is no JSON object.
                if is_packed:
                    for _ in bounded_lines(file):
                        pass


def is_quickly_checked(source: Source, *, most_bytes: int) -> bool:
    """Does `require_whole` read at most `most_bytes` of a file of this machine, as it is compressed there?"""
    if not os.path.isfile(source.name):
        return False
    is_plain = source.kind == "json" and packing_of(source.name) is None
    return is_plain or os.path.getsize(source.name) <= most_bytes


def _require_lines(name: str, first_line: bytes) -> None:
    """Raise StorageError where the first line of a JSONL file shows that it is something else."""
    require_no_other_mark(name, first_line)
    first = first_line.strip().removeprefix(b"\xef\xbb\xbf")
    # Of an array the first line is a bracket, or all of it; of an object over several lines a brace alone.
    if first in (b"[", b"{") or (first.startswith(b"[") and b"{" in first):
        raise StorageError(
            f"cannot read {name}: it is one JSON value over several lines or an array, not one object per line; "
            "convert it to JSONL: jq -c 'if type == \"array\" then .[] else . end'"
        )


def _require_no_lines(name: str, first_line: bytes) -> None:
    """Raise StorageError for JSONL in a file that would be read as one text, such as Spark's `part-00000`."""
    if not first_line.lstrip().startswith(b"{"):
        return
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(json.loads(first_line), dict):
            raise StorageError(f"cannot read {name}: it has a JSON object in a line; let its name end in .jsonl")


def _require_whole_parquet(source: Source, text_key: str) -> None:
    with open_bytes(source.name) as file:
        # Its end says where everything is: a file that was cut off does not even open.
        table = parquet_file(file, is_remote=source.is_remote)
        require_one_text(source.name, table.schema_arrow, text_key)
        if not source.is_remote:
            for _ in table.iter_batches(batch_size=_BATCH_ROWS, columns=wanted_columns(table.schema_arrow, text_key)):
                pass
