"""Cases that few corpora, settings and machines have: rows without ids, short profiles, no home, other settings."""

from __future__ import annotations

import datetime
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from ladm.errors import LadmError, StorageError
from ladm.method.grid import Method
from support.models import SMALL
from support.paths import GOLDEN
from support.rows import topical_rows

Command = Callable[..., Result]
SPANS = ("--device", "cpu", "--dtype", "float32", "--span-tokens", "4")


@pytest.fixture
def random_rows(save_rows: Any) -> str:
    """64 rows of random ids from 8 packages, enough to calibrate on."""
    ids = np.random.default_rng(0).integers(0, 512, (64, 256)).tolist()
    return str(save_rows([{"input_ids": row, "meta": {"pile_set_name": f"p{k % 8}"}} for k, row in enumerate(ids)]))


def test_documents_are_contrasted_with_lists_and_spans_that_do_not_fit(
    ladm: Command, random_rows: str, save_rows: Any, tmp_path: Path
) -> None:
    words = ("--rows", random_rows, "--model", GOLDEN, *SPANS, "--output", tmp_path / "p.yaml")
    short = save_rows([{"input_ids": [1, 2, 3], "meta": {"pile_set_name": "p"}}], "short")
    result = ladm("calibrate", *words, "--lists", short)
    assert (result.exit_code, result.stderr) == (1, f"ladm: --lists {short}: no row of 256 tokens or more\n")
    paper = ("--variant", "paper", "--n0", "0", "--d-cds", "1", "--d-afs", "1", "--n", "1")
    result = ladm("calibrate", *words, *paper)
    assert (result.exit_code, result.stderr) == (
        2, "ladm: with these settings the forms with and without sigma score different spans; give a greater --n0\n"
    )  # fmt: skip
    assert "different spans" not in ladm("calibrate", *words, *paper, "--n0", "4", "--lists", short).stderr
    assert not (tmp_path / "p.yaml").exists()


def test_a_contrast_set_that_was_half_written(tmp_path: Path) -> None:
    from ladm.calibration.contrast import ContrastRow
    from ladm.calibration.work_folder import save_contrast

    (tmp_path / "contrast.partial").mkdir()
    (tmp_path / "contrast.partial" / "left").write_text("")
    row = ContrastRow(kind="intact", half=0, document=0, packages=("p",), ids=np.arange(4, dtype=np.int32))
    save_contrast([row], tmp_path)
    assert sorted(path.name for path in tmp_path.glob("contrast*")) == ["contrast"]


def test_rows_without_ids_and_with_a_class_label(ladm: Command, golden: Any, tmp_path: Path) -> None:
    """A row of the second run is a copy; rows without ids, which have no score, are copies of nothing."""
    from datasets import ClassLabel, Dataset, Features, List, Value

    good = [row["input_ids"] for row in topical_rows(golden, [512, 512, 512])]
    kinds = {"input_ids": List(Value("int64")), "meta": {"pile_set_name": Value("string")}}
    features = Features(kinds | {"label": ClassLabel(names=["news", "wiki"])})
    for name, ids in (("a", [good[0], None, []]), ("b", [good[0], good[1], good[2], None])):
        rows = {"input_ids": ids, "meta": [{"pile_set_name": "x"}] * len(ids), "label": [0, 0, 1, 1][: len(ids)]}
        Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / name))
        assert ladm("score", tmp_path / name, *SMALL, "-o", tmp_path / f"run-{name}").exit_code == 0
    words = ("--documents", "2", "--max-per", "rows.label:1", "-o", tmp_path / "subset")
    result = ladm("select", tmp_path / "run-a", tmp_path / "run-b", *words)
    assert result.exit_code == 0, result.output
    assert "left out as copies of another row: 1\n" in result.stdout
    assert "left out by --max-per rows.label:1: 1, of values with more rows than that\n" in result.stdout


def test_the_page_names_the_heads_and_weights_of_a_score(
    score_once: Callable[..., Path], short_rows: str, tmp_path: Path
) -> None:
    from ladm.report.run_details import run_details
    from ladm.runs.folder import Run
    from ladm.runs.identity import RunIdentity

    content = Run.read(score_once(short_rows, output=tmp_path / "run")).identity.content
    score = {"layers": [0, 1], "heads": [[0, 1], [1, 0]], "weights": [0.5, 1.5]}
    details = dict(run_details(RunIdentity(content | {"score": content["score"] | score})))
    assert details["score"] == "mean over 2 heads of layers 0-1, weighted"


def test_rows_without_a_row(ladm: Command, tmp_path: Path) -> None:
    from datasets import Dataset, Features, List, Value

    features = Features({"input_ids": List(Value("int32"))})
    Dataset.from_dict({"input_ids": []}, features=features).save_to_disk(str(tmp_path / "rows"))
    result = ladm("score", tmp_path / "rows", *SMALL, "-o", tmp_path / "run")
    assert (result.exit_code, result.stderr) == (1, f"ladm: {tmp_path / 'rows'} has no rows\n")


def test_shorter_spans_are_advised_where_no_single_other_setting_helps() -> None:
    from ladm.scoring.row_lengths import remedy_for_short_rows

    method = Method(span_tokens=2, m=245, d_afs=64, n=4)
    remedy = remedy_for_short_rows(method, 512)
    assert remedy == "give --span-tokens 1, or longer rows"
    assert replace(method, span_tokens=1).grid(512).J


def test_a_number_that_no_float_holds(ladm: Command, tmp_path: Path) -> None:
    result = ladm("top", tmp_path, "--by", f"score + 1{'0' * 400}")
    assert result.exit_code == 2
    assert "is not allowed; an expression has columns, numbers" in result.stderr


def test_files_of_json_that_are_not_as_they_were_written(tmp_path: Path) -> None:
    from ladm.storage.json_object import json_with_checksum, read_json_object

    path = tmp_path / "x.json"
    path.write_bytes(json_with_checksum({"a": 1}))
    assert read_json_object(path) == {"a": 1}
    with pytest.raises(StorageError, match=r"x\.json is damaged: it has 34 bytes, more than any file of its kind; "):
        read_json_object(path, most_bytes=33)
    path.write_bytes(path.read_bytes().replace(b"crc32", b"crc33"))
    with pytest.raises(StorageError, match=r"x\.json is damaged: its last key should be crc32; restore it from"):
        read_json_object(path)


def test_nothing_is_noted_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    from ladm.storage.notes import note_of

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("LADM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", home)
    assert note_of("key") is None


def test_documents_are_counted_where_their_source_says_how_many(tmp_path: Path) -> None:
    from datasets import Dataset

    from ladm.corpus.documents.counts import DocumentCount, count_documents
    from ladm.corpus.documents.sources import Source
    from ladm.corpus.documents.whole_files import is_quickly_checked

    Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(str(tmp_path / "d"))
    saved = Source(name=str(tmp_path / "d"), kind="dataset", key="")
    assert count_documents(saved, most_bytes=1) == DocumentCount(number=2, is_exact=True)
    on_hub = Source(name="org/name", kind="dataset", key="")
    assert count_documents(on_hub, most_bytes=1) is None
    assert not is_quickly_checked(Source(name="memory://d.jsonl", kind="json", key=""), most_bytes=10)


def test_an_upload_that_was_stopped_before_its_list_was_whole() -> None:
    import fsspec

    from ladm.selection.formats.remote_folder import UPLOADING, RemoteFolder

    system = fsspec.filesystem("memory")
    system.pipe_file(f"/stopped/{UPLOADING}", b'["train/data')
    try:
        assert RemoteFolder("memory://stopped", system, "/stopped").require_free() is False
    finally:
        system.rm("/stopped", recursive=True)


def test_rows_that_disappear_while_they_are_scored(short_rows: str) -> None:
    import shutil

    from ladm.corpus.rows.fingerprint import RowsFingerprint

    shutil.rmtree(short_rows)
    rows = RowsFingerprint(name=short_rows, data={"rows": 7}, content="0", files={})
    with pytest.raises(LadmError) as caught:
        rows.require_same([])
    assert str(caught.value) == (
        f"the rows {short_rows} cannot be read now (no such data set: {short_rows} is neither a folder nor a Hub id "
        "such as org/name); finished rows are safe: restore the data, and run the same command again to continue"
    )


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


@pytest.mark.parametrize(
    ("changes", "has_breaks"),
    [
        ({}, True),
        ({"pre_tokenizer": {"type": "Whitespace"}}, True),
        ({"pre_tokenizer": {"type": "UnicodeScripts"}}, False),
        ({"post_processor": {"type": "Sequence", "processors": [BYTES]}}, True),
        ({"post_processor": {"type": "Sequence", "processors": [BYTES | {"add_prefix_space": True}]}}, False),
    ],
)
def test_where_the_texts_of_a_tokenizer_may_be_cut(changes: dict[str, Any], has_breaks: bool) -> None:
    from ladm.corpus.preparation.text_pieces import find_breaks

    content = {"model": {"type": "BPE", "vocab": {}}, "normalizer": None, "pre_tokenizer": BYTES}
    assert (find_breaks(content | changes) is not None) is has_breaks


@pytest.mark.parametrize(
    ("budget", "line"),
    [
        (("--min-score", "0.5"), "every document with at least 0.5; their number is known only after scoring"),
        (("--tokens", "50%"), "50% of the tokens"),
        (("--tokens", "50M", "--allow-small-pool"), "50,000,000 tokens, more than the 1,024 that can be selected, so "
         "all of them are taken"),
        (("--tokens", "512", "--max-per-document", "1"), "512 tokens, 0.5 of the 1,024 that can be selected"),
    ],
)  # fmt: skip
def test_the_budget_in_a_dry_run(
    ladm: Command, talking_model: Path, tmp_path: Path, budget: tuple[str, ...], line: str
) -> None:
    """Of a table with dates and counts of tokens: too short by its count is too short, and a date is no obstacle."""
    texts = [f"w{k} The magic number " * 200 for k in range(2)]
    day = datetime.date(2024, 2, 29)
    table = {"text": [*texts, "short"], "token_count": [800, 800, 1], "domain": ["a", "b", "a"], "day": [day] * 3}
    pq.write_table(pa.table(table), tmp_path / "d.parquet")
    words = ("run", tmp_path / "d.parquet", "--model", talking_model, *SMALL[2:], "--length", "512", "-o")
    result = ladm(*words, tmp_path / "job", *budget, "--dry-run")
    assert result.exit_code == 0, result.output
    assert f"budget: {line}\n" in result.stdout
    assert "low_count             1" in result.stdout


def test_the_marks_of_tasks_are_printed_as_a_table(ladm: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from ladm.evaluation import tasks

    marks = [
        {"task": "arc_easy", "metric": "acc", "value": 0.5, "error": 0.25, "filter": "none", "examples": 25},
        {"task": "mmlu", "metric": "acc", "value": 0.125, "error": None, "filter": "none", "examples": 5},
    ]
    monkeypatch.setattr(tasks, "tasks", lambda *_, **__: {"marks": marks})
    result = ladm("evaluate", "tasks", "--model", GOLDEN)
    assert (result.exit_code, result.stdout) == (
        0, "task     metric              value    error\n"
        "arc_easy acc                0.5000   0.2500\n"
        "mmlu     acc                0.1250         \n",
    )  # fmt: skip
    assert tasks.with_mean(marks[:0]) == []


def test_ruler_needs_the_positions_of_its_shortest_task(monkeypatch: pytest.MonkeyPatch) -> None:
    from ladm.evaluation.tasks import tasks
    from ladm.settings.evaluation import TasksSettings

    class Manager:
        def __init__(self, include_path: Any) -> None:
            self.include_path = include_path

        def match_tasks(self, names: list[str]) -> list[str]:
            return names

    of_tasks = types.ModuleType("lm_eval.tasks")
    of_tasks.TaskManager = Manager  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lm_eval", types.ModuleType("lm_eval"))
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", of_tasks)
    with pytest.raises(LadmError) as caught:
        tasks(TasksSettings(model=str(GOLDEN), tasks=("ruler",), length=100, device="cpu"), echo=print)
    assert str(caught.value) == (f"the shortest RULER tasks have 4,096 tokens, but --length or {GOLDEN} allows fewer")
