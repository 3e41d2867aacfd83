"""`ladm annotate`: the statistics of a run's rows, the same for any number of processes, resumed, joined by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from ladm.annotation import annotate as module
from ladm.runs.columns.by_name import column_names, read_columns
from ladm.runs.folder import Run
from ladm.settings.runs import AnnotateSettings
from ladm.signals.text_statistics import COLUMNS, UnigramTable, text_statistics
from support.models import SMALL
from support.rows import topical_rows
from support.runs import results

Command = Callable[..., Result]
LENGTHS = [512, 400, 450, 90, 700, 480, 512, 490] * 5


@pytest.fixture
def scored(score_once: Any, save_rows: Any, golden: Any, tmp_path: Path) -> tuple[list[dict[str, Any]], str, Path]:
    """Rows in three units, one of them without ids, and their run, in which rows of 90 tokens have no score."""
    rows = topical_rows(golden, LENGTHS)
    rows[9]["input_ids"] = []
    folder = save_rows(rows)
    return rows, folder, score_once(folder, "--signals", "cds", output=tmp_path / "run")


def test_the_statistics_are_columns_of_the_run(ladm: Command, scored: tuple[list[dict[str, Any]], str, Path]) -> None:
    rows, _, run = scored
    before = results(run)
    assert "gzip_ratio" not in column_names(Run.read(run))
    result = ladm("annotate", run, "--num-proc", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].endswith(": 39 rows, 1 without token ids")
    assert set(COLUMNS) <= set(column_names(Run.read(run)))
    assert results(run) == before
    ids = [np.array(row["input_ids"], dtype=np.int64) for row in rows]
    table = UnigramTable.count(
        [each for each in ids if len(each)], vocab_size=1 + max(int(e.max()) for e in ids if len(e))
    )
    found = read_columns(Run.read(run), COLUMNS)
    for k, position in enumerate(found["position"].to_pylist()):
        expected = text_statistics(ids[position], rows[position]["text"], unigrams=table)
        for name in COLUMNS:
            assert found[name][k].as_py() == pytest.approx(getattr(expected, name), rel=1e-6), name
    again = ladm("annotate", run)
    assert again.stdout.splitlines()[0] == "has the text statistics already: 39 rows, 1 without token ids"
    for command in (("verify", run / "signals" / "text"), ("status", run / "signals" / "text"), ("verify", run)):
        assert ladm(*command).exit_code == 0
    subset = ladm("select", run, "--top", "50%", "--by", "gzip_ratio", "--output", run.parent / "subset")
    assert subset.exit_code == 0, subset.output


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_bytes(
    ladm: Command, scored: tuple[list[dict[str, Any]], str, Path]
) -> None:
    _, _, run = scored
    made = []
    for count in ("1", "2"):
        result = ladm("annotate", run, "--num-proc", count)
        assert result.exit_code == 0, result.output
        made.append(results(run / "signals" / "text"))
        shutil.rmtree(run / "signals")
    assert made[0] == made[1]


def test_a_stopped_annotation_goes_on(ladm: Command, scored: tuple[list[dict[str, Any]], str, Path]) -> None:
    _, _, run = scored
    assert ladm("annotate", run, "--num-proc", "1").exit_code == 0
    whole = results(run / "signals" / "text")
    shutil.rmtree(run / "signals")
    batches = []

    class Stop:
        def start(self, *, total: int, done: int, launches: int = 1) -> None:  # noqa: ARG002
            batches.append((total, done))

        def advance(self, **_: int) -> None:
            raise KeyboardInterrupt

        def close(self) -> None:
            pass

    settings = AnnotateSettings(run=str(run), num_proc=1)
    with pytest.raises(KeyboardInterrupt):
        module.annotate(settings, echo=lambda _: None, progress=Stop())
    assert batches == [(40, 0)]
    folder = run / "signals" / "text"
    assert not Run.read(folder).is_finished
    # What is unfinished is no column yet, and the run itself stays as it was.
    assert "gzip_ratio" not in column_names(Run.read(run))
    assert ladm("annotate", run, "--num-proc", "1").exit_code == 0
    assert results(folder) == whole


def test_another_table_and_other_rows(
    ladm: Command,
    score_once: Any,
    scored: tuple[list[dict[str, Any]], str, Path],
    save_rows: Any,
    golden: Any,
    tmp_path: Path,
) -> None:
    _, rows, run = scored
    np.save(tmp_path / "few.npy", np.ones(5, dtype=np.int64))
    np.save(tmp_path / "many.npy", np.ones(5000, dtype=np.int64))
    (tmp_path / "text.npy").write_text("no")
    other = save_rows(topical_rows(golden, LENGTHS[:-1]), "other")
    faults = [
        (("--rows", other), 1, f"{other} are not the rows that {run} scored: their content differs"),
        (("--unigrams", tmp_path / "nowhere.npy"), 2, f"--unigrams {tmp_path}/nowhere.npy does not exist"),
        (("--unigrams", tmp_path / "text.npy"), 1,
         f"{tmp_path}/text.npy is not a file of token counts, such as the unigrams.npy of a run"),
        (("--num-proc", "0"), 2, "--num-proc must be at least 1, not 0"),
    ]  # fmt: skip
    for flags, code, message in faults:
        result = ladm("annotate", run, *flags)
        assert (result.exit_code, result.stderr) == (code, f"ladm: {message}\n")
    few = ladm("annotate", run, "--unigrams", tmp_path / "few.npy")
    assert few.exit_code == 2
    start = f"ladm: --unigrams {tmp_path}/few.npy has counts for 5 token ids, but the rows have ids up to "
    assert few.stderr.startswith(start)
    assert few.stderr.endswith("; give counts made with their tokenizer\n")
    assert ladm("annotate", run, "--unigrams", tmp_path / "many.npy", "--num-proc", "1").exit_code == 0
    # 1 of 5,000 is rarer than exp(-8), so every token that comes back from afar counts.
    assert read_columns(Run.read(run), ["far_rare"])["far_rare"].to_numpy().max() > 0
    result = ladm("annotate", run, "--unigrams", run / "signals" / "text" / "unigrams.npy")
    assert result.stdout.startswith("has the text statistics already")
    full = tmp_path / "full"
    score_once(rows, "--signals", "cds,text", output=full)
    result = ladm("annotate", full)
    assert (result.exit_code, result.stderr.splitlines()[1:]) == (0, [])
    assert result.stdout.splitlines() == [
        "has the text statistics already: 34 rows, 6 without a score",
        f"columns: {', '.join(COLUMNS)}",
        f"token counts: {full}/unigrams.npy",
        f"results: {full}",
    ]
    assert ladm("annotate", full, "--rows", other).exit_code == 1
    (full / "scores.parquet").unlink()
    assert ladm("annotate", full).exit_code == 3


def test_annotate_and_score_go_on_with_what_the_other_made(
    ladm: Command, scored: tuple[list[dict[str, Any]], str, Path]
) -> None:
    _, rows, run = scored
    text = run / "signals" / "text"
    score = ("score", rows, *SMALL, "--signals", "text", "--output", run)
    annotate = ("annotate", run, "--num-proc", "1")
    for first, second, message in (
        (annotate, score, "already finished"), (score, annotate, "has the text statistics already: 39 rows"),
    ):  # fmt: skip
        assert ladm(*first).exit_code == 0
        finished = results(text)
        again = ladm(*second)
        assert again.exit_code == 0, again.output
        assert again.stdout.startswith(message)
        # One that was stopped: the results are gone, and a unit with them.
        for path in (text / "units" / "000001.jsonl", text / "sorted_by_score.jsonl"):
            path.unlink()
        assert ladm(*second).exit_code == 0
        assert results(text) == finished
        shutil.rmtree(text)


def test_a_grown_run_is_annotated_further(ladm: Command, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = topical_rows(golden, [512] * 21)
    for row in rows[:20]:
        row["input_ids"] = [token % 400 for token in row["input_ids"]]
    # The last row has ids behind the table of the first 18, for which it has no count.
    assert max(rows[20]["input_ids"]) > 400
    folder, run, text = save_rows(rows), tmp_path / "run", tmp_path / "run" / "signals" / "text"
    score = ("score", folder, *SMALL, "--signals", "cds", "--output", run)
    assert ladm(*score, "--limit", "18").exit_code == 0
    assert ladm("annotate", run, "--num-proc", "1").exit_code == 0
    before, table = read_columns(Run.read(run), ["far_rare"]).to_pylist(), (text / "unigrams.npy").read_bytes()
    assert ladm(*score).exit_code == 0
    result = ladm("annotate", run, "--num-proc", "1")
    assert result.exit_code == 0, result.output
    assert "adding 3 rows to the 18 of the run" in result.stderr
    after = {row["position"]: row for row in read_columns(Run.read(run), ["far_rare"]).to_pylist()}
    assert sorted(after) == list(range(21))
    assert all(after[row["position"]] == row for row in before)
    assert (text / "unigrams.npy").read_bytes() == table
    assert ladm("verify", run).exit_code == 0


def test_a_table_that_a_failed_start_left_is_not_used(
    ladm: Command, scored: tuple[list[dict[str, Any]], str, Path]
) -> None:
    _, _, run = scored
    text = run / "signals" / "text"
    assert ladm("annotate", run, "--num-proc", "1").exit_code == 0
    table = (text / "unigrams.npy").read_bytes()
    shutil.rmtree(text)
    text.mkdir()
    np.save(text / "unigrams.npy", np.arange(9))
    assert ladm("annotate", run, "--num-proc", "1").exit_code == 0
    assert (text / "unigrams.npy").read_bytes() == table


def test_a_damaged_table_is_an_error_and_is_found_by_verify(
    ladm: Command, scored: tuple[list[dict[str, Any]], str, Path]
) -> None:
    _, rows, run = scored
    path = run / "signals" / "text" / "unigrams.npy"
    assert ladm("annotate", run, "--num-proc", "1").exit_code == 0
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + b"\1" + whole[-7:])
    message = (
        f"{path} is damaged: it is not the table that the run was started with; remove it, and rerun the command that "
        "made the run to count it again"
    )
    for command in (("annotate", run), ("score", rows, *SMALL, "--signals", "text", "--output", run)):
        result = ladm(*command)
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (74, f"ladm: {message}")
    verified = ladm("verify", run)
    assert (verified.exit_code, verified.stdout) == (74, f"{message}\n")
    path.unlink()
    assert ladm("annotate", run, "--num-proc", "1").exit_code == 0
    assert path.read_bytes() == whole


def test_verify_compares_an_added_signal_with_its_run(
    ladm: Command,
    score_once: Any,
    scored: tuple[list[dict[str, Any]], str, Path],
    save_rows: Any,
    golden: Any,
    tmp_path: Path,
) -> None:
    _, _, run = scored
    other, text = tmp_path / "other_run", run / "signals" / "text"
    rows = save_rows([row | {"index": 50 + k} for k, row in enumerate(topical_rows(golden, LENGTHS))], "others")
    score_once(rows, "--signals", "cds", output=other)
    assert ladm("annotate", other, "--num-proc", "1").exit_code == 0
    shutil.copytree(other / "signals", run / "signals")
    result = ladm("verify", run)
    assert (result.exit_code, result.stdout) == (1, f"{text} was made from other rows than {run}; remove it\n")
