"""Rows in any order -> `scores.parquet` and `sorted_by_score.jsonl`, best first. Imports no torch.

Only the sort keys are sorted, by DuckDB, which spills them to disk; with whole rows its memory would grow with their
number. The rows themselves are moved once, into parts of neighbouring ranks, each of which fits in memory. So memory
grows by 8 bytes a row, and beyond MOST_PARTS parts also with their size; the disk must hold the results three times.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from ladm.errors import StorageError, one_line, raise_if_out_of_memory
from ladm.runs.layout import ERRORS_FILE, PARQUET_FILE, SORTED_FILE
from ladm.runs.results import digests_in_metadata
from ladm.storage.checked_parquet import add_checksum
from ladm.storage.digests import file_xxh3
from ladm.storage.files import arrow_path, io_errors, replacing
from ladm.storage.locks import SORTING_PREFIX

SORT_MEMORY = "256MB"
GROUP_ROWS = 10_000
GROUP_BYTES = 32 << 20
"""About the most bytes of a group; a group of wide rows, such as those with every head, has fewer rows."""
MOST_PARTS = 1_000
"""Each group is divided among the parts, into as many pieces."""

# An index is a number in one data set and text in another. Each has a sort key for either, one of them NULL, so that
# numbers sort as numbers: 9 before 10.
_KEYS = [
    ("index_number", pa.int64()),
    ("index_text", pa.string()),
    ("chunk_number", pa.int64()),
    ("chunk_text", pa.string()),
    ("position", pa.int64()),
]
LABELS = (("index", "index_number", "index_text"), ("chunked_index", "chunk_number", "chunk_text"))
"""A label of a result and the two sort keys that hold it, as a number or as text."""
_SHOWN = [("score", pa.float64()), ("meta", pa.string()), ("num_tokens", pa.int64())]
_LINE = ("line", pa.string())
"""A row of the sorted file without its rank: what follows `{"rank": 1, `."""
_SIZE = ("line_bytes", pa.int32())
RESULT_FIELDS = frozenset(("rank", "index", "chunked_index", "position", *(name for name, _ in _SHOWN)))
"""Columns that every `scores.parquet` has; the others are the scorer's."""
_SORT = """
    SELECT file_row_number AS row, line_bytes FROM read_parquet($staged, file_row_number = true)
    ORDER BY score DESC, index_number NULLS FIRST, index_text NULLS FIRST,
             chunk_number NULLS FIRST, chunk_text NULLS FIRST, position
"""


@contextlib.contextmanager
def sorting(folder: Path) -> Iterator[Path]:
    """A throw-away file for the rows to be sorted.

    Raises StorageError where the disk or the sort fails, LackOfMemoryError where memory is full.
    """
    with io_errors(folder, "sort in"):
        temporary = Path(tempfile.mkdtemp(prefix=SORTING_PREFIX, dir=folder))
        try:
            yield temporary / "staged.parquet"
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise_if_out_of_memory(error, action=f"sort the results of {folder}")
            if isinstance(error, OSError):
                raise
            raise StorageError(f"cannot sort in {temporary}: {one_line(error)}") from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def staged_schema(columns: Sequence[tuple[str, pa.DataType]]) -> pa.Schema:
    """The columns of the rows to be sorted; `columns`: those of the scorer."""
    return pa.schema([*_KEYS, *_SHOWN, *columns, _LINE])


class Staging:
    """A writer of rows to be sorted; uncompressed, because they are read once."""

    def __init__(self, staged: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self._writer = pq.ParquetWriter(
            arrow_path(staged),
            schema.append(pa.field(*_SIZE)),
            compression="none",
            use_dictionary=False,
            write_statistics=False,
        )
        self._waiting: list[pa.Table] = []
        self._rows = self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self.close(whole=kind is None)

    def write_table(self, table: pa.Table) -> None:
        # The units of a large model hold a few dozen rows, and the directory of a file with so small groups grows
        # with the rows.
        self._waiting.append(table)
        self._rows += len(table)
        self._bytes += table.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def close(self, *, whole: bool = True) -> None:
        """Write what waits, unless the file is given up."""
        try:
            if whole:
                self._flush()
        finally:
            self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            table = pa.concat_tables(self._waiting)
            sizes = pc.binary_length(table[_LINE[0]])
            self._writer.write_table(table.append_column(pa.field(*_SIZE), sizes), row_group_size=len(table))
            self._waiting = []
            self._rows = self._bytes = 0


def write_sorted(folder: Path, staged: Path, *, without: Collection[str] = ()) -> None:
    """Write the rows of `staged` in order into both result files, some of its columns left out."""
    schema = _result_schema(staged, without)
    with (
        # Contexts close in the reverse order: the Parquet file is in place before the sorted one, whose presence
        # completes the run.
        replacing(folder / SORTED_FILE) as lines_path,
        replacing(folder / PARQUET_FILE) as parquet_path,
        lines_path.open("wb") as lines,
        pq.ParquetWriter(arrow_path(parquet_path), schema, write_page_checksum=True) as parquet,
    ):
        rank, digest = 0, xxhash.xxh3_128()
        for batch in _in_order(staged):
            texts = batch["line"].to_pylist()
            block = "".join(f'{{"rank": {rank + k}, {text}\n' for k, text in enumerate(texts, 1)).encode()
            lines.write(block)
            digest.update(block)
            parquet.write_batch(_result_batch(batch, rank, schema))
            rank += len(texts)
        # Of the files without checksums of their own, so that none of the three is damaged in silence.
        errors_digest = file_xxh3(folder / ERRORS_FILE)
        digests = {SORTED_FILE: digest.hexdigest(), ERRORS_FILE: errors_digest}
        parquet.add_key_value_metadata(digests_in_metadata(digests))
        parquet.close()
        add_checksum(parquet_path)


def _in_order(staged: Path) -> Iterator[pa.RecordBatch]:
    """The rows of `staged`, best first."""
    ranks_N, borders = _ranks(staged)
    # With parts that end at the ranks 10, 18 and 25, a group of rows as they come, of the ranks 3, 12, 7, 21, ..., is
    # written as up to three pieces, one for each part; and a part is read back from its pieces.
    pieces: list[list[int]] = [[] for _ in borders]
    moved = staged.with_name("moved.arrow")
    with pq.ParquetFile(arrow_path(staged), pre_buffer=False) as file, pa.OSFile(str(moved), "wb") as target:
        schema = file.schema_arrow.append(pa.field("rank", pa.int64()))
        with pa.ipc.new_file(target, schema) as writer:
            start = written = 0
            for number in range(file.num_row_groups):
                group = file.read_row_group(number).combine_chunks()
                ranks_B = ranks_N[start : start + len(group)]
                start += len(group)
                order_B = np.argsort(ranks_B)
                ordered = group.append_column(schema.field("rank"), pa.array(ranks_B)).take(order_B)
                parts, first = np.unique(np.searchsorted(borders, ranks_B[order_B], side="right"), return_index=True)
                for part, begin, end in zip(parts, first, [*first[1:], len(group)], strict=True):
                    for piece in ordered.slice(begin, end - begin).combine_chunks().to_batches():
                        writer.write_batch(piece)
                        pieces[part].append(written)
                        written += 1
    staged.unlink()
    with pa.OSFile(str(moved), "rb") as source, pa.ipc.open_file(source) as reader:
        for numbers in pieces:
            part = pa.Table.from_batches([reader.get_batch(number) for number in numbers]).combine_chunks()
            yield from part.take(pc.sort_indices(part["rank"])).combine_chunks().to_batches()


def _ranks(staged: Path) -> tuple[NDArray[np.int64], list[int]]:
    """The rank of each row of `staged`, from 0, and the first rank behind each part."""
    with pq.ParquetFile(arrow_path(staged), pre_buffer=False) as file:
        ranks_N = np.empty(file.metadata.num_rows, dtype=np.int64)
    share = math.ceil(len(ranks_N) / MOST_PARTS), math.ceil(staged.stat().st_size / MOST_PARTS)
    most_rows, most_bytes = max(GROUP_ROWS, share[0]), max(GROUP_BYTES, share[1])
    borders: list[int] = []
    # Few threads and little memory: the model may still be loaded, and DuckDB would take 80 % of what there is.
    settings = {"threads": 2, "memory_limit": SORT_MEMORY, "temp_directory": arrow_path(staged.parent / "spill")}
    with contextlib.closing(duckdb.connect(":memory:", config=settings)) as engine:
        rank = begin = size = 0
        for batch in engine.sql(_SORT, params={"staged": arrow_path(staged)}).to_arrow_reader(GROUP_ROWS):
            ranks_N[batch["row"].to_numpy()] = np.arange(rank, rank + len(batch))
            for line_bytes in batch["line_bytes"].to_pylist():
                # The numbers of a row are stored twice: in the JSON line, and in columns that take no more bytes than
                # it.
                size += 2 * line_bytes
                if rank > begin and (rank - begin >= most_rows or size > most_bytes):
                    borders.append(rank)
                    begin, size = rank, 2 * line_bytes
                rank += 1
    if rank != len(ranks_N):
        raise StorageError(f"cannot sort in {staged.parent}: {rank:,} of {len(ranks_N):,} rows came back")
    return ranks_N, [*borders, rank] if rank else []


def _result_batch(batch: pa.RecordBatch, rank: int, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of `scores.parquet` for some sorted rows, the first of rank `rank` + 1."""
    made = {"rank": pa.array(range(rank + 1, rank + 1 + len(batch)), pa.int64())}
    for column, number, text in LABELS:
        kind = schema.field(column).type
        made[column] = pc.coalesce(batch[number].cast(kind), batch[text].cast(kind))
    arrays = [made[name] if name in made else batch[name].cast(schema.field(name).type) for name in schema.names]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _result_schema(staged: Path, without: Collection[str]) -> pa.Schema:
    """The columns of `scores.parquet`; `meta` is JSON text, because its shape is the user's."""
    has_text = dict.fromkeys(("index_text", "chunk_text"), False)
    with pq.ParquetFile(arrow_path(staged), pre_buffer=False) as file:
        for batch in file.iter_batches(GROUP_ROWS, columns=list(has_text)):
            for name in has_text:
                has_text[name] |= batch[name].null_count < len(batch)
        hidden = {name for name, _ in [*_KEYS, *_SHOWN, _LINE, _SIZE]} | set(without)
        columns = [field for field in file.schema_arrow if field.name not in hidden]
    return pa.schema(
        [
            ("rank", pa.int64()),
            # One type for a whole column: as soon as one index is text, all are.
            ("index", pa.string() if has_text["index_text"] else pa.int64()),
            ("chunked_index", pa.string() if has_text["chunk_text"] else pa.int64()),
            *_SHOWN,
            *columns,
            ("position", pa.int64()),
        ]
    )
