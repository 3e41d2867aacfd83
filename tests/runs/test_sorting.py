"""The sort of a run's results: the order of the whole, whatever the parts, in little memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ladm.errors import LadmError
from ladm.runs import sorting as module
from ladm.runs.layout import ERRORS_FILE, PARQUET_FILE, SORTED_FILE
from ladm.runs.sorting import Staging, sorting, staged_schema, write_sorted

WIDTH = 2_000


def make_rows(count: int) -> list[dict[str, Any]]:
    """Rows with ties in the score, indices that are numbers or text, and a wide column."""
    draw = np.random.default_rng(0)
    rows = []
    for position in range(count):
        label = int(draw.integers(0, count))
        number = draw.random() < 0.7
        rows.append(
            {
                "index_number": label if number else None, "index_text": None if number else f"d{label}",
                "chunk_number": label % 2 if label % 3 else None, "chunk_text": None if label % 3 else "c",
                "position": position, "score": float(draw.integers(0, 5)), "meta": "{}", "num_tokens": 7,
                "wide": [float(position)] * WIDTH, "line": f'"position": {position}, "wide": "{"-" * 2 * WIDTH}"}}',
            }
        )  # fmt: skip
    return rows


def write_results(folder: Path, rows: list[dict[str, Any]], *, at_a_time: int) -> None:
    schema = staged_schema([("wide", pa.list_(pa.float32()))])
    folder.mkdir()
    (folder / ERRORS_FILE).write_text("")
    with sorting(folder) as staged:
        with Staging(staged, schema) as writer:
            for start in range(0, len(rows), at_a_time):
                writer.write_table(pa.Table.from_pylist(rows[start : start + at_a_time], schema=schema))
        write_sorted(folder, staged)


def sort_key(row: dict[str, Any]) -> tuple[Any, ...]:
    keys: list[Any] = [-row["score"]]
    # NULL comes first.
    for label in ("index", "chunk"):
        number, text = row[f"{label}_number"], row[f"{label}_text"]
        keys += [number is not None, number or 0, text is not None, text or ""]
    return *keys, row["position"]


@pytest.mark.parametrize(("rows_of_a_group", "most_parts"), [(10_000, 1_000), (64, 1_000), (1, 8)])
def test_the_order_is_that_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_of_a_group: int, most_parts: int
) -> None:
    monkeypatch.setattr(module, "GROUP_ROWS", rows_of_a_group)
    monkeypatch.setattr(module, "MOST_PARTS", most_parts)
    rows = make_rows(500)
    write_results(tmp_path / "run", rows, at_a_time=49)
    expected = [row["position"] for row in sorted(rows, key=sort_key)]
    table = pq.read_table(tmp_path / "run" / PARQUET_FILE)
    assert table["position"].to_pylist() == expected
    assert table["rank"].to_pylist() == list(range(1, 501))
    assert [wide[-1] for wide in table["wide"].to_pylist()] == expected
    lines = (tmp_path / "run" / SORTED_FILE).read_text().splitlines()
    assert lines == [f'{{"rank": {rank}, {rows[position]["line"]}' for rank, position in enumerate(expected, 1)]


def test_parts_end_at_their_bytes_however_wide_their_rows_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The widest rows are the best, and so come together. The sort itself has 24 MB for 36 MB of rows."""
    monkeypatch.setattr(module, "SORT_MEMORY", "24MB")
    monkeypatch.setattr(module, "GROUP_BYTES", 1 << 20)
    rows = make_rows(3_000)
    for row in rows[::100]:
        row |= {"score": 9.0, "wide": row["wide"] * 20, "line": f'"position": {row["position"]}, {"-" * 40 * WIDTH}}}'}
    sizes = []

    def noted(batch: pa.RecordBatch, *more: Any) -> pa.RecordBatch:
        sizes.append(batch.nbytes)
        return made(batch, *more)

    made = module._result_batch
    monkeypatch.setattr(module, "_result_batch", noted)
    write_results(tmp_path / "run", rows, at_a_time=500)
    positions = pq.read_table(tmp_path / "run" / PARQUET_FILE, columns=["position"])["position"].to_pylist()
    assert positions == [row["position"] for row in sorted(rows, key=sort_key)]
    # A part may have a row too many, and its labels and metadata.
    assert 20 < len(sizes) < 200
    assert max(sizes) < 2 << 20


def test_lack_of_memory_is_reported_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SORT_MEMORY", "1MB")
    with pytest.raises(LadmError, match="not enough memory to sort the results"):
        write_results(tmp_path / "run", make_rows(3_000), at_a_time=500)


@pytest.mark.parametrize("tables", [0, 1])
def test_no_rows_at_all(tmp_path: Path, tables: int) -> None:
    schema, run = staged_schema([]), tmp_path / "run"
    run.mkdir()
    (run / ERRORS_FILE).write_text("")
    with sorting(run) as staged:
        with Staging(staged, schema) as writer:
            for _ in range(tables):
                writer.write_table(schema.empty_table())
        write_sorted(run, staged)
    assert pq.read_metadata(run / PARQUET_FILE).num_rows == 0
    assert (run / SORTED_FILE).read_text() == ""
