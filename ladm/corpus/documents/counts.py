"""A source -> about how many documents it has, from its size and its beginning. Imports no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pyarrow.parquet as pq

from ladm.corpus.documents.sources import Source
from ladm.corpus.files.compressed import cut_lines, unpacked
from ladm.corpus.files.data_set import load_split
from ladm.corpus.files.opening import file_system, open_bytes
from ladm.errors import raise_if_out_of_memory


@dataclass(frozen=True, kw_only=True)
class DocumentCount:
    """The documents of a source, perhaps estimated."""

    number: float
    is_exact: bool


def count_documents(source: Source, *, most_bytes: int) -> DocumentCount | None:
    """How many documents a source has; None where nothing says so, as of a stream.

    Of a file of lines about `most_bytes` are read, unpacked; the rest is taken to have lines of the same mean length.
    A file that cannot be read counts for nothing, as it is left out when rows are made.
    """
    if not source.has_place:
        return None
    if source.kind == "text":
        return DocumentCount(number=1, is_exact=True)
    if source.kind == "dataset" and not os.path.isdir(source.name):
        return None
    try:
        if source.kind == "dataset":
            return DocumentCount(number=len(load_split(source.name, split=source.split)), is_exact=True)
        if source.kind == "parquet":
            with open_bytes(source.name) as file:
                return DocumentCount(number=pq.read_metadata(file).num_rows, is_exact=True)
        return _count_lines(source.name, most_bytes)
    except Exception as error:
        # Each of gzip, zstandard, Arrow and the file systems behind fsspec raises exceptions of its own.
        raise_if_out_of_memory(error, action=f"read {source.name}")
        return DocumentCount(number=0, is_exact=False)


def _count_lines(name: str, most_bytes: int) -> DocumentCount | None:
    """The lines that are not blank, estimated from those in the part that is read."""
    system, path = file_system(name)
    size = system.info(path).get("size")
    lines = read = 0
    # A compressed file is fetched in blocks, and at most moments a part of a block is still in a buffer. Just before
    # the next one is fetched that part is equally small each time, so it is left out of the difference of two marks.
    position = 0
    marks: list[tuple[int, int]] = []
    with open_bytes(name) as file:
        for line in cut_lines(unpacked(file)):
            if (now := file.tell()) != position:
                # The first and the latest moment: lines seen, and bytes fetched.
                marks = [*marks[:1], (lines, position)] if position else []
                position = now
            lines += bool(line.strip())
            read += len(line)
            if read >= most_bytes and len(marks) == 2:
                if size is None:
                    return None
                (first, start), (last, end) = marks
                return DocumentCount(number=(last - first) * size / (end - start), is_exact=False)
    return DocumentCount(number=lines, is_exact=True)
