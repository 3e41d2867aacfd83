"""The run folder: identity, units, resume after any crash, and what is not whole being named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladm.corpus.rows.reading import Rows, open_rows
from ladm.errors import IncompleteError, LadmError, LockedError, StorageError
from ladm.runs.flags import SCORE_FLAGS
from ladm.runs.folder import Run, require_own_or_empty, unit_rows_for
from ladm.runs.layout import ERRORS_FILE, PARQUET_FILE, RESULT_FILES, SORTED_FILE
from ladm.runs.lines import decode_object, encode_object
from ladm.runs.results import summarise
from ladm.runs.unit_writer import UnitWriter
from ladm.storage import files as storage
from ladm.storage.identity import require_same
from ladm.storage.locks import locked
from support import fakes
from support.crashes import complete, contents, identity, sealed_records
from support.fakes import FakeScorer, fake_rows


@pytest.fixture
def rows(save_rows: Any) -> Rows:
    data = fake_rows(50)
    data[7]["input_ids"] = None
    data[20]["input_ids"] = [3]
    return open_rows(save_rows(data))


@pytest.fixture
def reference(tmp_path: Path, rows: Rows) -> dict[str, bytes]:
    complete(tmp_path / "reference", rows)
    return contents(tmp_path / "reference")


def test_every_row_is_there_once_and_in_order(tmp_path: Path, rows: Rows) -> None:
    run = complete(tmp_path / "run", rows)
    lines = [json.loads(line) for line in (tmp_path / "run" / SORTED_FILE).read_text().splitlines()]
    errors = [json.loads(line) for line in (tmp_path / "run" / ERRORS_FILE).read_text().splitlines()]
    assert [line["rank"] for line in lines] == list(range(1, 49))
    assert sorted(line["index"] for line in lines) == sorted(set(range(50)) - {7, 20})
    assert [line["score"] for line in lines] == sorted((line["score"] for line in lines), reverse=True)
    assert [(error["index"], error["error_type"]) for error in errors] == [(7, "no_ids"), (20, "too_short")]
    assert list(lines[0]) == ["rank", "index", "chunked_index", "score", "meta", "num_tokens", "cds_per_layer"]
    summary = summarise(run)
    assert (summary.scored, summary.failed, dict(summary.errors)) == (48, 2, {"no_ids": 1, "too_short": 1})


def test_parquet_holds_the_same_columns(tmp_path: Path, rows: Rows) -> None:
    import pyarrow.parquet as pq

    complete(tmp_path / "run", rows)
    lines = [json.loads(line) for line in (tmp_path / "run" / SORTED_FILE).read_text().splitlines()]
    table = pq.read_table(tmp_path / "run" / PARQUET_FILE).to_pylist()
    assert [row.pop("position") for row in table] == [line["index"] for line in lines]
    for row, line in zip(table, lines, strict=True):
        line["cds_per_layer"] = np.array(line["cds_per_layer"], dtype=np.float32).tolist()
        assert row | {"meta": json.loads(row["meta"])} == line


def test_ties_go_by_index_and_text_indices_work(tmp_path: Path, save_rows: Any) -> None:
    same = [{"input_ids": [4, 5, 6], "index": name} for name in ("b", "a", "c")]
    rows = open_rows(save_rows(same))
    complete(tmp_path / "run", rows)
    lines = [json.loads(line) for line in (tmp_path / "run" / SORTED_FILE).read_text().splitlines()]
    assert [line["index"] for line in lines] == ["a", "b", "c"]


def test_ties_go_by_index_then_chunk_then_position(tmp_path: Path, save_rows: Any) -> None:
    labels = [(10, 1), (9, 0), (10, 0), (2, None), (10, None), (9, 0)]
    same = [{"input_ids": [4, 5, 6], "index": i, "chunked_index": c, "meta": k} for k, (i, c) in enumerate(labels)]
    complete(tmp_path / "run", open_rows(save_rows(same)))
    lines = [json.loads(line) for line in (tmp_path / "run" / SORTED_FILE).read_text().splitlines()]
    assert [line["meta"] for line in lines] == [3, 1, 5, 4, 2, 0]


@pytest.mark.parametrize("batch", [1, 2, 4, 100])
def test_the_batch_does_not_show(tmp_path: Path, rows: Rows, reference: dict[str, bytes], batch: int) -> None:
    complete(tmp_path / "run", rows, batch=batch)
    assert contents(tmp_path / "run") == reference


def test_several_processes_give_the_same_bytes(tmp_path: Path, rows: Rows, reference: dict[str, bytes]) -> None:
    complete(tmp_path / "run", rows, workers=2)
    assert contents(tmp_path / "run") == reference


def test_a_finished_run_is_left_alone(tmp_path: Path, rows: Rows) -> None:
    complete(tmp_path / "run", rows)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    complete(tmp_path / "run", rows, make_scorer=fakes.make_failing)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert {p: t for p, t in before.items() if p.name != ".lock"} == {
        p: t for p, t in after.items() if p.name != ".lock"
    }


def test_a_tail_cut_anywhere_is_redone(tmp_path: Path, rows: Rows, reference: dict[str, bytes]) -> None:
    folder = tmp_path / "run"
    with locked(folder):
        run = Run.create_or_resume(folder, identity(rows))
        unit = run.units[1]
        writer = UnitWriter(run, unit)
        records = sealed_records(complete(tmp_path / "other", rows), unit)[:4]
        writer.append(records)
        writer.close()
    path = run.open_path(unit)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        writer = UnitWriter(run, unit)
        writer.close()
        kept = whole[:cut].count(b"\n")
        assert len(writer.done) == kept
        assert path.read_bytes() == b"".join(line + b"\n" for line in whole.split(b"\n")[:kept])
    path.write_bytes(whole[: len(whole) // 2] + b"\0" * 100 + b"\n")
    complete(folder, rows)
    assert contents(folder) == reference


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda lines: [lines[0][:-1] + lines[1], *lines[2:]],
            "is damaged at byte 0: the line does not match its checksum",
        ),
        (lambda lines: [lines[0], *lines], "is damaged at byte {1}: row 0 is stored twice"),
        (lambda lines: lines[1:], "is damaged: 15 rows of 16"),
        (lambda lines: [*lines[:-1], lines[-1][:-5]], "is damaged at byte {-1}: a sealed unit ends in the mid"),
        (lambda lines: [lines[0].replace(b'"index": 0', b'"index": 1'), *lines[1:]], "is damaged at byte 0: the line"),
        (
            lambda lines: [encode_object({"position": 99}), *lines[1:]],
            "is damaged at byte 0: row 99 is not of this",
        ),
    ],
)
def test_a_damaged_sealed_unit_is_named(tmp_path: Path, rows: Rows, damage: Any, message: str) -> None:
    run = complete(tmp_path / "run", rows)
    path = run.sealed_path(run.units[0])
    lines = path.read_bytes().splitlines(keepends=True)
    lines.sort(key=lambda line: json.loads(line)["position"])
    path.write_bytes(b"".join(damage(lines)))
    with pytest.raises(StorageError) as caught:
        sealed_records(run, run.units[0])
    offsets = {"{1}": str(len(lines[0])), "{-1}": str(sum(map(len, lines[:-1])))}
    for mark, value in offsets.items():
        message = message.replace(mark, value)
    assert str(caught.value).startswith(f"{path} {message}")


def test_a_fused_line_in_an_open_unit_is_not_dropped_in_silence(tmp_path: Path, rows: Rows) -> None:
    run = complete(tmp_path / "run", rows)
    lines = run.sealed_path(run.units[0]).read_bytes().splitlines()
    run.sealed_path(run.units[0]).unlink()
    path = run.open_path(run.units[0])
    path.write_bytes(lines[0] + lines[1] + b"\n")
    with pytest.raises(StorageError) as caught:
        UnitWriter(run, run.units[0])
    assert str(caught.value) == (
        f"{path} is damaged at byte 0: the line does not match its checksum; remove it and sorted_by_score.jsonl, and "
        "rerun the command that made the run to score its rows again"
    )


def test_lines_carry_their_checksum() -> None:
    line = encode_object({"position": 1, "text": 'a "quoted", é \u2028 line'})
    decoded = decode_object(line[:-1])
    assert decoded is not None
    assert decoded[0] == {"position": 1, "text": 'a "quoted", é \u2028 line'}
    for byte in range(len(line) - 1):
        flipped = bytearray(line[:-1])
        flipped[byte] ^= 1
        assert decode_object(bytes(flipped)) is None
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_object({"score": float("nan")})


def test_a_full_disk_keeps_what_was_safe(tmp_path: Path, rows: Rows, reference: dict[str, bytes]) -> None:
    folder = tmp_path / "run"
    calls = {"n": 0}
    real = os.write

    def full(descriptor: int, data: Any) -> int:
        calls["n"] += 1
        if calls["n"] == 4:
            return real(descriptor, bytes(data)[:40])
        if calls["n"] > 4:
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage.os, "write", full)
        with pytest.raises(StorageError, match=r"^cannot write .*units/000000\.open: No space left on device$"):
            complete(folder, rows)
    assert (folder / "units" / "000000.open").read_bytes().endswith(b"\n")
    complete(folder, rows)
    assert contents(folder) == reference


def test_a_resume_with_something_else_is_refused_with_the_fields(tmp_path: Path, rows: Rows) -> None:
    complete(tmp_path / "run", rows)
    other = identity(rows, settings={"d_afs": 2, "m": 1}, about={"rows": "elsewhere"})
    with pytest.raises(LadmError) as caught:
        Run.create_or_resume(tmp_path / "run", other)
    assert str(caught.value) == (
        f"{tmp_path / 'run'} was started with something else (--d-afs); give what it was started with, another "
        "--output, or --overwrite to delete the run and start again:\n  settings.d_afs: 4 before, 2 now"
    )


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    require_own_or_empty(folder)
    (folder / "chapter1.tex").write_text("...")
    with pytest.raises(LadmError) as caught:
        require_own_or_empty(folder)
    assert str(caught.value) == (
        f"{folder} belongs to something else (it holds chapter1.tex); give --output an empty folder"
    )
    with pytest.raises(LadmError, match="is a file; give --output a folder"):
        require_own_or_empty(folder / "chapter1.tex")


def test_the_second_holder_learns_who_the_first_is(tmp_path: Path) -> None:
    code = "import pathlib, sys, ladm.storage.locks as locks; locks.locked(pathlib.Path(sys.argv[1])).__enter__()"
    with locked(tmp_path / "run"):
        second = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, check=False
        )
        assert f"is in use by process {os.getpid()} on" in second.stderr
        with pytest.raises(LockedError):
            locked(tmp_path / "run").__enter__()
        (tmp_path / "run/.holder").write_bytes(b"proc\xffss 7")
        with pytest.raises(LockedError, match="is in use by another process"):
            locked(tmp_path / "run").__enter__()
    with locked(tmp_path / "run"):
        pass


def test_a_worker_that_cannot_start_says_why(tmp_path: Path, rows: Rows) -> None:
    with pytest.raises(LadmError, match=r"^the worker on fake:\d failed: ValueError: no such weights$"):
        complete(tmp_path / "run", rows, make_scorer=fakes.make_failing, supervised=True)


def test_an_unfinished_run_is_not_summarised(tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked(tmp_path / "run"):
        run = Run.create_or_resume(tmp_path / "run", identity(rows))
    with pytest.raises(IncompleteError) as caught:
        summarise(run)
    assert (
        str(caught.value)
        == f"{tmp_path / 'run'} is not finished: 4 of 4 units are missing; run the same ladm score command again"
    )
    # In the folder of a job it is not `ladm score` that made it.
    (tmp_path / "run").rename(tmp_path / "scores")
    (tmp_path / "job.yaml").touch()
    with pytest.raises(IncompleteError, match=r"; run the same ladm run command again$"):
        summarise(Run.open(tmp_path))
    monkeypatch.chdir(tmp_path / "scores")
    with pytest.raises(IncompleteError, match=r"; run the same ladm run command again$"):
        summarise(Run.open("."))


FLAVOURS = [
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "Triton Error [CUDA]: out of memory",
    "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate",
]


@pytest.mark.parametrize(
    ("message", "fits"), [(FLAVOURS[0], 0), (FLAVOURS[0], 1), *((message, 3) for message in FLAVOURS)]
)
def test_out_of_memory_halves_the_batch(tmp_path: Path, rows: Rows, reference: Any, message: str, fits: int) -> None:
    folder = tmp_path / "run"
    scorer = FakeScorer(memory_rows=fits, memory_message=message)
    complete(folder, rows, make_scorer=lambda _: scorer, batch=7)
    if fits:
        assert contents(folder) == reference
    else:
        errors = (folder / ERRORS_FILE).read_text()
        assert errors.count('"error_type": "out_of_memory"') == 48
        assert "do not fit in the device's memory, even alone" in errors


def test_out_of_memory_once_costs_no_row(tmp_path: Path, rows: Rows, reference: Any) -> None:
    """At each call of the first unit and the next: a batch is halved, a row alone tried again with less memory."""
    for call in range(1, 11):
        scorer = FakeScorer(memory_at_call=call)
        complete(tmp_path / f"run{call}", rows, make_scorer=lambda _, scorer=scorer: scorer, batch=2)
        assert contents(tmp_path / f"run{call}") == reference


def test_a_row_that_fits_with_little_memory_only_is_scored(tmp_path: Path, rows: Rows, reference: Any) -> None:
    complete(tmp_path / "run", rows, make_scorer=lambda _: FakeScorer(memory_rows=0, can_spare=True), batch=7)
    assert contents(tmp_path / "run") == reference


def test_other_failures_of_a_scorer_are_not_taken_for_memory(tmp_path: Path, rows: Rows) -> None:
    scorer = FakeScorer(memory_rows=0, memory_message="mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(LadmError, match=r"^scoring failed .RuntimeError: mat1 and mat2 shapes cannot be multiplied"):
        complete(tmp_path / "run", rows, make_scorer=lambda _: scorer)


def test_a_score_that_is_not_a_number_is_an_error_row(tmp_path: Path, rows: Rows) -> None:
    complete(tmp_path / "run", rows, make_scorer=lambda _: FakeScorer(nan_on=12))
    errors = [json.loads(line) for line in (tmp_path / "run" / ERRORS_FILE).read_text().splitlines()]
    assert [(e["index"], e["error_type"], e["message"]) for e in errors if e["stage"] == "score"] == [
        (12, "not_finite", "cds_per_layer[1] is NaN or infinite")
    ]
    assert "NaN" not in (tmp_path / "run" / SORTED_FILE).read_text()


def test_units_depend_on_the_data_alone() -> None:
    assert [unit_rows_for(n) for n in (1, 32, 100_000, 474_444, 10**8)] == [16, 16, 25, 116, 1024]


def test_the_run_store_imports_without_torch() -> None:
    store = (
        "ladm.runs.folder, ladm.runs.finish, ladm.runs.results, ladm.corpus.rows.reading, ladm.scoring.engines.local"
    )
    code = f"import sys, {store}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_units_without_their_identity_are_not_adopted(tmp_path: Path, rows: Rows) -> None:
    run = complete(tmp_path / "run", rows)
    for name in ("run.json", *RESULT_FILES):
        (run.folder / name).unlink()
    with pytest.raises(LadmError, match=r"holds units of a run whose run\.json is missing; give another --output$"):
        require_own_or_empty(run.folder)


def test_files_of_others_are_never_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "trip"
    folder.mkdir()
    (folder / "holiday.jpg.partial").write_text("")
    (folder / "run.json").write_text("{}")
    with pytest.raises(StorageError, match="not a run's identity"):
        require_own_or_empty(folder)
    (folder / "run.json").unlink()
    with pytest.raises(LadmError, match=r"belongs to something else \(it holds holiday\.jpg\.partial\)"):
        require_own_or_empty(folder)
    with locked(folder):
        assert (folder / "holiday.jpg.partial").exists()


def test_a_sort_that_fails_is_reported_and_repeated(tmp_path: Path, rows: Rows, reference: dict[str, bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ladm.runs.sorting._SORT", "SELECT *, error('disk full') FROM read_parquet($staged)")
        with pytest.raises(StorageError, match=r"^cannot sort in .*/run/\.sorting-\w+: .*disk full"):
            complete(tmp_path / "run", rows)
    complete(tmp_path / "run", rows)
    assert contents(tmp_path / "run") == reference


@pytest.mark.parametrize("lost", RESULT_FILES)
def test_a_lost_result_file_is_made_again(tmp_path: Path, rows: Rows, reference: dict[str, bytes], lost: str) -> None:
    complete(tmp_path / "run", rows)
    (tmp_path / "run" / lost).unlink()
    complete(tmp_path / "run", rows, make_scorer=fakes.make_failing)
    assert contents(tmp_path / "run") == reference


def test_a_batch_that_did_not_fit_is_not_tried_again(tmp_path: Path, rows: Rows) -> None:
    scorer = FakeScorer(memory_rows=3)
    refused: list[int] = []
    original = FakeScorer.score

    def score(self: FakeScorer, ids_BT: Any, *, low_memory: bool = False) -> Any:
        if len(ids_BT) > 3:
            refused.append(len(ids_BT))
        return original(self, ids_BT, low_memory=low_memory)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeScorer, "score", score)
        complete(tmp_path / "run", rows, make_scorer=lambda _: scorer, batch=7)
    # Once for each length of row at most, not once for each batch.
    assert 1 <= len(refused) <= 3


def test_a_start_that_stored_no_row_fixes_no_settings(tmp_path: Path, rows: Rows) -> None:
    """The file of the first unit is there before its first rows are; it must not block other settings."""
    folder, stored = tmp_path / "run", tmp_path / "stored"
    run = Run.create_or_resume(folder, identity(rows))
    UnitWriter(run, run.units[0]).close()
    run.forget_if_empty()
    other = identity(rows, settings={"d_afs": 2, "m": 1})
    assert Run.create_or_resume(folder, other).identity.settings["d_afs"] == 2
    run = Run.create_or_resume(stored, identity(rows))
    writer = UnitWriter(run, run.units[0])
    writer.append(sealed_records(complete(tmp_path / "other", rows), run.units[0])[:1])
    writer.close()
    UnitWriter(run, run.units[1]).close()
    run.forget_if_empty()
    assert len(list((stored / "units").iterdir())) == 2
    with pytest.raises(LadmError, match="was started with something else"):
        Run.create_or_resume(stored, other)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["--domain", "--domain-key"], "--domain, --domain-key"),
        (["--model", "--m"], "--model, --m"),
        (["--layers", SCORE_FLAGS], SCORE_FLAGS),
        (["the rows or --limit", "--limit"], "the rows or --limit"),
    ],
)
def test_each_flag_that_differs_is_named_once(names: list[str], shown: str) -> None:
    with pytest.raises(LadmError) as caught:
        require_same(Path("x"), dict.fromkeys(names, 1), dict.fromkeys(names, 2), name_of_field=str)
    assert str(caught.value).startswith(f"x was started with something else ({shown}); give another --output, or what")
