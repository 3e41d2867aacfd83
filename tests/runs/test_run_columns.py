"""Columns of a run by name: stored, joined from an added signal, derived; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ladm.errors import LadmError, UsageError
from ladm.runs.columns.by_name import (
    column_names,
    float32_columns,
    longattn,
    read_columns,
    standardised,
    stored_limit,
)
from ladm.runs.folder import Run
from ladm.settings.signals import OF_CDS
from support.files import read_object
from support.models import SMALL
from support.rows import topical_rows
from support.runs import add_signal

LENGTHS = [512, 400, 450, 90, 700, 480, 512, 490]


@pytest.fixture
def run(score_rows: Any, golden: Any) -> Run:
    """A finished run of eight rows, the fourth of which is too short for a score."""
    return Run.read(score_rows(topical_rows(golden, LENGTHS))[1])


def test_a_limit_for_a_column_of_float32(run: Run) -> None:
    add_signal(run, "narrow", {"light": {0: 0.7}}, kind=pa.float32())
    add_signal(run, "wide", {"weight": {0: 0.7}})
    names = ["score", "robust", "length", "gzip_ratio", "light", "weight"]
    assert float32_columns(run, names) == {"gzip_ratio", "light"}
    for shown in ("0.7", "0.1", "-0.3", "123456.7", "0", "-0.0", "1e-40"):
        assert stored_limit(float(shown)) == float(np.float32(shown)), shown
    # Beyond the range of float32 nothing is rounded: 1e-50 is more than 0, and 1e39 less than infinity.
    for limit in (1e-50, -1e-50, 1e39, -1e39):
        assert stored_limit(limit) == limit


def test_stored_and_derived_columns(run: Run) -> None:
    table = read_columns(run, ["score", "released", "median", "robust", "length", "sink_mass", "near_share"])
    stored = pq.read_table(run.folder / "scores.parquet")
    assert table["position"].to_pylist() == stored["position"].to_pylist()
    assert table["score"].to_pylist() == table["released"].to_pylist() == stored["score"].to_pylist()
    assert table["length"].to_pylist() == stored["num_tokens"].to_pylist()
    cds = np.array(stored["cds_per_layer"].to_pylist(), dtype=np.float64)
    assert table["median"].to_pylist() == np.median(cds, axis=1).tolist()
    # Of three layers the later half is the last two.
    for name, column, first in (
        ("robust", "value_cds_per_layer_no_std", 1),
        ("near_share", "near_share_per_layer", 1),
        ("sink_mass", "sink_mass_per_layer", 0),
    ):
        expected = np.array(stored[column].to_pylist(), dtype=np.float64)[:, first:].mean(axis=1)
        np.testing.assert_allclose(table[name], expected, rtol=1e-12)
    names = column_names(run)
    assert {"score", "released", "median", "robust", "copy_share", "sink_mass", "near_share", "random"} <= set(names)
    assert "paper" not in names
    assert len(names) == len(set(names))


@pytest.mark.parametrize("ablation", ["no-std", "no-length"])
def test_a_score_with_sigma_is_no_column_of_an_ablation(ladm: Any, run: Run, tmp_path: Path, ablation: str) -> None:
    command = ("score", run.identity.rows_name, *SMALL, "--signals", "cds", "--ablation", ablation)
    for record in ("layers", "forms"):
        assert ladm(*command, "--record", record, "--output", tmp_path / record).exit_code == 0
        ablated = Run.read(tmp_path / record)
        assert "released" not in column_names(ablated)
    # What has no sigma in either run is the same column.
    expected, found = (
        dict(zip(table["position"].to_pylist(), table["robust"].to_pylist(), strict=True))
        for table in (read_columns(run, ["robust"]), read_columns(ablated, ["robust"]))
    )
    assert found == pytest.approx(expected, rel=1e-5)


def test_copy_share_counts_the_layers_after_the_last_sink_layer(run: Run) -> None:
    path = run.folder / "scores.parquet"
    table = pq.read_table(path)
    rows = table.num_rows

    def with_columns(**lists: list[float]) -> None:
        changed = table
        for name, values in lists.items():
            column = pa.array([values] * rows, pa.list_(pa.float32()))
            changed = changed.set_column(changed.schema.get_field_index(name), name, column)
        pq.write_table(changed, path)

    for masses, expected in (([0.1, 0.75, 0.25], 0.5), ([0.1, 0.2, 0.3], 0.25), ([0.9, 0.1, 0.75], 0.25)):
        with_columns(sink_mass_per_layer=masses, copy_share_per_layer=[0.125, 0.125, 0.5])
        assert read_columns(run, ["copy_share"])["copy_share"].to_pylist() == [expected] * rows


def test_columns_over_some_layers_are_those_of_a_run_of_these_layers(ladm: Any, run: Run, tmp_path: Path) -> None:
    rows = run.identity.rows_name
    assert ladm("score", rows, *SMALL, "--layers", "1-2", "--output", tmp_path / "few").exit_code == 0
    few = Run.read(tmp_path / "few")
    wide, found, expected = (
        {row["position"]: row for row in table.to_pylist()}
        for table in (
            read_columns(run, OF_CDS[:1] + OF_CDS[2:]),
            read_columns(run, OF_CDS[:1] + OF_CDS[2:], layers=(1, 2)),
            read_columns(few, OF_CDS[:1] + OF_CDS[2:]),
        )
    )
    assert set(found) == set(expected)
    for position, row in expected.items():
        assert found[position] == pytest.approx(row, rel=1e-6)
        assert all(found[position][name] != wide[position][name] for name in row if name != "position")


def test_a_number_by_chance_belongs_to_a_document_and_a_seed(run: Run) -> None:
    first, again = (read_columns(run, ["random"], seed=7)["random"].to_pylist() for _ in range(2))
    other = read_columns(run, ["random"], seed=8)["random"].to_pylist()
    assert first == again
    assert len({*first, *other}) == 14
    assert all(0 <= number < 1 for number in first)


def test_rows_of_one_index_have_numbers_of_their_own(run: Run) -> None:
    path = run.folder / "scores.parquet"
    table = pq.read_table(path)
    positions = table["position"].to_pylist()

    def numbers(index: list[int], ids: list[str | None] | None = None) -> dict[int, float]:
        columns = table.set_column(table.column_names.index("index"), "index", pa.array(index))
        pq.write_table(columns if ids is None else columns.append_column("id", pa.array(ids)), path)
        found = read_columns(run, ["random"])
        return dict(zip(found["position"].to_pylist(), found["random"].to_pylist(), strict=True))

    # Two shards of four rows: 0 1 2 3 0 1 2 3, without the row that has no score.
    shards = [position % 4 for position in positions]
    assert len(set(numbers(shards).values())) == 7
    # Rows with one id and one index have one number: a copy is the same document.
    ids = ["a" if position in (0, 1) else None for position in positions]
    copies = numbers([0] * 7, ids)
    assert copies[0] == copies[1]
    assert len(set(copies.values())) == 6
    # Rows of `ladm prepare` never have one index. With repeated ids, documents of one number would be drawn together.
    assert len(set(numbers(positions, ids).values())) == 7


def test_an_added_signal_is_joined_by_position(run: Run) -> None:
    add_signal(run, "context-gain", {"gain": {0: 0.5, 7: 0.25, 3: 9.0}, "key_tokens": {0: 1.0}})
    add_signal(
        run, "longattn", {"longattn_ds": {k: k / 8 for k in range(8)}, "longattn_v": dict.fromkeys(range(8), 1.0)}
    )
    assert {"gain", "key_tokens", "longattn"} <= set(column_names(run))
    table = read_columns(run, ["gain", "longattn"])
    positions = table["position"].to_pylist()
    gain = dict(zip(positions, table["gain"].to_pylist(), strict=True))
    assert (gain[0], gain[7]) == (0.5, 0.25)
    assert 3 not in gain
    assert sum(np.isnan(value) for value in gain.values()) == 5
    np.testing.assert_allclose(table["longattn"], standardised(np.array(positions) / 8))
    (run.folder / "signals" / "longattn" / "sorted_by_score.jsonl").unlink()
    assert "longattn" not in column_names(run)


def test_a_signal_of_other_rows_is_refused(run: Run) -> None:
    folder = add_signal(run, "context-gain", {"gain": {0: 0.5}})
    identity = read_object(folder / "run.json")
    identity["data"]["xxh3_128"] = "0" * 32
    (folder / "run.json").write_text(json.dumps(identity))
    with pytest.raises(LadmError) as error:
        read_columns(run, ["gain"])
    assert "gain" not in column_names(run)
    assert str(error.value) == f"{folder} was made from other rows than {run.folder}; remove it"


def test_an_unknown_column_is_named_with_those_there_are(run: Run) -> None:
    with pytest.raises(UsageError) as error:
        read_columns(run, ["score", "zzz"])
    names = ", ".join(column_names(run))
    assert str(error.value) == f"{run.folder} has no column zzz; it has {names}"
    with pytest.raises(UsageError, match="has no column sink_mas; did you mean sink_mass"):
        read_columns(run, ["sink_mas"])


def test_longattn_by_hand() -> None:
    ds, v = np.array([1.0, 3.0, np.nan]), np.array([5.0, 5.0, 5.0])
    np.testing.assert_array_equal(longattn(ds, v), [-1.0, 1.0, np.nan])
    assert np.isnan(standardised(np.full(2, np.nan))).all()
