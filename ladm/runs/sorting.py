"""Rows in any order -> `scores.parquet` and `sorted_by_score.jsonl`, best first. Imports no torch.

Only the sort keys are sorted, by DuckDB, which spills to disk; of wide rows it keeps more in memory the more there are.
The rows themselves are moved once: into parts of neighbouring ranks, each of which fits in memory. So memory does not
depend on the number of rows, but for 8 bytes a row.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
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

from ladm.errors import StorageError, one_line
from ladm.runs.layout import ERRORS_FILE, PARQUET_FILE, SORTED_FILE
from ladm.runs.results import digests_in_metadata
from ladm.storage.checked_parquet import add_checksum
from ladm.storage.digests import file_xxh3
from ladm.storage.files import SORTING_PREFIX, arrow_path, io_errors, replacing

SORT_MEMORY = "256MB"
GROUP_ROWS = 10_000
GROUP_BYTES = 64 << 20
"""What a group of rows may take; of wider rows, such as those with every head, a group has fewer."""
MOST_PARTS = 1_000
"""Each group of rows is divided among all parts: the pieces are as many as the square of it."""

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
RESULT_FIELDS = frozenset(("rank", "index", "chunked_index", "position", *(name for name, _ in _SHOWN)))
"""Columns that every `scores.parquet` has; the others are the scorer's."""
_SORT = """
    SELECT file_row_number AS row FROM read_parquet($staged, file_row_number = true)
    ORDER BY score DESC, index_number NULLS FIRST, index_text NULLS FIRST,
             chunk_number NULLS FIRST, chunk_text NULLS FIRST, position
"""


@contextlib.contextmanager
def sorting(folder: Path) -> Iterator[Path]:
    """A throw-away file for the rows to be sorted. Raises StorageError for what the disk or the sort refuses."""
    with io_errors(folder, "sort in"):
        temporary = Path(tempfile.mkdtemp(prefix=SORTING_PREFIX, dir=folder))
        try:
            yield temporary / "staged.parquet"
        except (duckdb.Error, pa.ArrowException) as error:
            raise StorageError(f"cannot sort in {temporary}: {one_line(error)}") from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def staged_schema(columns: Sequence[tuple[str, pa.DataType]]) -> pa.Schema:
    """The columns of the rows to be sorted; `columns`: those of the scorer."""
    return pa.schema([*_KEYS, *_SHOWN, *columns, _LINE])


class Staging:
    """A writer of rows to be sorted; uncompressed, because they are read twice at most."""

    def __init__(self, staged: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self._writer = pq.ParquetWriter(
            arrow_path(staged), schema, compression="none", use_dictionary=False, write_statistics=False
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
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting = []
            self._rows = self._bytes = 0


def write_sorted(folder: Path, staged: Path) -> None:
    """Write the rows of `staged` in order into both result files."""
    schema = _result_schema(staged)
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
    ranks_N = _ranks(staged)
    if not len(ranks_N):
        return
    size = _rows_of_a_group(staged.stat().st_size / len(ranks_N), len(ranks_N))
    # With 25 rows and parts of 10, part 1 holds ranks 10 to 19. A group of ten rows as they come, of the ranks 3, 12,
    # 7, 21, ..., is written as up to three pieces, one for each part; and a part is read back from its pieces.
    pieces: list[list[int]] = [[] for _ in range(math.ceil(len(ranks_N) / size))]
    moved = staged.with_name("moved.arrow")
    with pq.ParquetFile(arrow_path(staged), pre_buffer=False) as file, pa.OSFile(str(moved), "wb") as target:
        schema = file.schema_arrow.append(pa.field("rank", pa.int64()))
        with pa.ipc.new_file(target, schema) as writer:
            start = written = 0
            for batch in file.iter_batches(size):
                ranks_B = ranks_N[start : start + len(batch)]
                start += len(batch)
                order_B = np.argsort(ranks_B)
                ordered = pa.RecordBatch.from_arrays([*batch.columns, pa.array(ranks_B)], schema=schema).take(order_B)
                parts, first = np.unique(ranks_B[order_B] // size, return_index=True)
                for part, begin, end in zip(parts, first, [*first[1:], len(batch)], strict=True):
                    writer.write_batch(ordered.slice(begin, end - begin))
                    pieces[part].append(written)
                    written += 1
    staged.unlink()
    with pa.OSFile(str(moved), "rb") as source, pa.ipc.open_file(source) as reader:
        for numbers in pieces:
            part = pa.Table.from_batches([reader.get_batch(number) for number in numbers]).combine_chunks()
            yield part.take(pc.sort_indices(part["rank"])).combine_chunks().to_batches()[0]


def _rows_of_a_group(row_bytes: float, rows: int) -> int:
    size = GROUP_ROWS
    # In halves, so that the files of a run do not depend on a byte more or less.
    while size > 1 and size * row_bytes > GROUP_BYTES:
        size //= 2
    return max(size, math.ceil(rows / MOST_PARTS))


def _ranks(staged: Path) -> NDArray[np.int64]:
    """The rank of each row of `staged`, from 0."""
    with pq.ParquetFile(arrow_path(staged), pre_buffer=False) as file:
        ranks_N = np.empty(file.metadata.num_rows, dtype=np.int64)
    # Few threads and little memory: the model may still be loaded, and DuckDB would take 80 % of what there is.
    settings = {"threads": 2, "memory_limit": SORT_MEMORY, "temp_directory": arrow_path(staged.parent / "spill")}
    with contextlib.closing(duckdb.connect(":memory:", config=settings)) as engine:
        rank = 0
        for batch in engine.sql(_SORT, params={"staged": arrow_path(staged)}).to_arrow_reader(GROUP_ROWS):
            ranks_N[batch["row"].to_numpy()] = np.arange(rank, rank + len(batch))
            rank += len(batch)
    return ranks_N


def _result_batch(batch: pa.RecordBatch, rank: int, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of `scores.parquet` for some sorted rows, the first of rank `rank` + 1."""
    made = {"rank": pa.array(range(rank + 1, rank + 1 + len(batch)), pa.int64())}
    for column, number, text in LABELS:
        kind = schema.field(column).type
        made[column] = pc.coalesce(batch[number].cast(kind), batch[text].cast(kind))
    arrays = [made[name] if name in made else batch[name].cast(schema.field(name).type) for name in schema.names]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _result_schema(staged: Path) -> pa.Schema:
    """The columns of `scores.parquet`; `meta` is JSON text, because its shape is the user's."""
    has_text = dict.fromkeys(("index_text", "chunk_text"), False)
    with pq.ParquetFile(arrow_path(staged), pre_buffer=False) as file:
        for batch in file.iter_batches(GROUP_ROWS, columns=list(has_text)):
            for name in has_text:
                has_text[name] |= batch[name].null_count < len(batch)
        hidden = {name for name, _ in [*_KEYS, *_SHOWN, _LINE]}
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
