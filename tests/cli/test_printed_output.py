"""The first hour after `ladm prepare`: models of several shapes, names in errors, and what each command prints."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from datasets import ClassLabel, Dataset, Features, List, Value

from ladm.modeling.facts import model_facts
from ladm.progress_bars import PreparingBar, ScoringBar
from support.files import read_lines
from support.models import SMALL, model
from support.paths import ROOT
from support.rows import topical_rows

Command = Callable[..., Result]


def log_of(log: Path, *arguments: Any) -> str:
    """What the command writes to standard error, a file as in a job's log, without the variables that tests set."""
    names = [name for name in os.environ if not name.startswith(("TRANSFORMERS_", "HF_DATASETS_"))]
    environment = {name: os.environ[name] for name in names} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "ladm", *map(str, arguments)]
    with log.open("wb") as file:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=file, check=False, env=environment)
    # Read as bytes, because text mode would turn a carriage return into a newline.
    written = log.read_bytes().decode()
    assert done.returncode == 0, written
    return written


def test_positions_of_a_yarn_scaling_under_the_key_type(
    ladm: Command, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    """As in the recipe for Qwen's models, whose config.json says `type` where newer ones say `rope_type`."""
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    edit = {"rope_parameters": ..., "rope_theta": 10000.0, "rope_scaling": scaling}
    made = model(tmp_path / "m", "qwen2", max_position_embeddings=256, edit=edit)
    assert model_facts(str(made)).max_tokens == 1024
    rows = save_rows(topical_rows(golden, [512, 700]))
    result = ladm("score", rows, *SMALL, "--model", made, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert {line["num_tokens"] for line in read_lines(tmp_path / "run" / "sorted_by_score.jsonl")} == {512, 700}


def test_a_window_beyond_the_positions_is_none(ladm: Command, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    """Phi-3.5-mini: a window of 262,144 tokens and 131,072 positions."""
    made = model(tmp_path / "m", "phi3", sliding_window=2048, max_position_embeddings=1024)
    rows = save_rows(topical_rows(golden, [512, 700]))
    result = ladm("score", rows, *SMALL, "--model", made, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert len(read_lines(tmp_path / "run" / "sorted_by_score.jsonl")) == 2


def test_select_prints_the_names_of_a_class_label(ladm: Command, golden: Any, tmp_path: Path) -> None:
    features = Features(input_ids=List(Value("int64")), kind=ClassLabel(names=["web", "code"]))
    ids = [row["input_ids"] for row in topical_rows(golden, [512] * 4)]
    columns = {"input_ids": ids, "kind": [0, 1, 0, 1]}
    Dataset.from_dict(columns, features=features).save_to_disk(str(tmp_path / "rows"))
    assert ladm("score", tmp_path / "rows", *SMALL, "--output", tmp_path / "run").exit_code == 0
    subset = ("--tokens", "2048", "--domain-key", "kind", "--allow-small-pool", "--output", tmp_path / "subset")
    result = ladm("select", tmp_path / "run", *subset)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()[1:3]] == ["code", "web"]
    manifest = json.loads((tmp_path / "subset" / "manifest.json").read_text())
    assert sorted(manifest["domains"]) == ["code", "web"]


def test_a_row_without_a_score_keeps_its_names(ladm: Command, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = topical_rows(golden, [512, 20, 512])
    for k, row in enumerate(rows):
        row |= {"id": f"doc-{k}", "domain": "ab"[k % 2], "source": f"corpus/d.jsonl line {k + 1}"}
    rows[2]["input_ids"][300] = 10**6
    result = ladm("score", save_rows(rows), *SMALL, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    errors = read_lines(tmp_path / "run" / "errors.jsonl")
    assert [(line["id"], line["domain"], line["source"], line["error_type"]) for line in errors] == [
        ("doc-1", "b", "corpus/d.jsonl line 2", "too_short"),
        ("doc-2", "a", "corpus/d.jsonl line 3", "outside_vocabulary"),
    ]


@pytest.fixture
def commands(talking: Path, tmp_path: Path) -> dict[str, tuple[Any, ...]]:
    """The three commands from a corpus to a subset."""
    source, rows, run = tmp_path / "d.jsonl", tmp_path / "rows", tmp_path / "run"
    texts = [" ".join(f"w{(k * n + n) % 300}" for n in range(600)) for k in range(1, 5)]
    source.write_text("".join(json.dumps({"text": text, "meta": {"pile_set_name": "a"}}) + "\n" for text in texts))
    score = ("score", rows, *SMALL, "--model", talking, "--output", run)
    return {
        "prepare": ("prepare", source, "--tokenizer", talking, "--length", "512", "--output", rows),
        "score": score,
        "select": ("select", run, "--tokens", "1024", "--output", tmp_path / "subset"),
    }


def test_each_command_names_the_next_one(
    ladm: Command, commands: dict[str, tuple[Any, ...]], talking: Path, tmp_path: Path
) -> None:
    rows, run = tmp_path / "rows", tmp_path / "run"
    for name, line in {
        "prepare": f"next: ladm score {rows} --model {talking} --score robust -o run",
        "score": f"next: ladm select {run} --tokens N -o subset",
        "select": f"next: ladm report {run} --subset {tmp_path / 'subset'}",
    }.items():
        result = ladm(*commands[name])
        assert result.exit_code == 0, result.output
        assert result.stderr.splitlines()[-1] == line
        assert "next:" not in result.stdout
    # The page of a run without CDS ranks as its subset does.
    text = ("--model", talking, "--signals", "text", "--output", tmp_path / "text")
    scored = ladm("score", rows, *text)
    assert scored.exit_code == 0
    # Its score, the gzip ratio, is nothing to rank by.
    following = scored.stderr.splitlines()[-1].removeprefix("next: ladm ")
    assert following == (
        f"select {tmp_path / 'text'} --tokens N --by far_rare --within far_rare:-80%/domain "
        "--within gzip_ratio:10%-/domain -o subset"
    )
    assert any(line.startswith("score (gzip_ratio): best ") for line in scored.stdout.splitlines())
    for words in ((), ("--by", "-gzip_ratio")):
        selected = ladm(
            "select", tmp_path / "text", "--tokens", "1024", *words, "--output", tmp_path / f"of{len(words)}"
        )
        report = ["report", tmp_path / "text", "--subset", tmp_path / f"of{len(words)}", *words]
        assert selected.stderr.splitlines()[-1] == f"next: ladm {shlex.join(map(str, report))}"
        assert ladm(*report).exit_code == 0
    # With CDS it explains the score, whatever the subset is ranked by.
    by_length = ladm(*commands["select"][:-1], tmp_path / "by-length", "--by", "length")
    assert by_length.stderr.splitlines()[-1] == f"next: ladm report {run} --subset {tmp_path / 'by-length'}"
    other = ladm(*commands["select"][:-1], tmp_path / "other", "--domain-key", "none")
    following = shlex.split(other.stderr.splitlines()[-1].removeprefix("next: ladm "))
    assert following[-2:] == ["--domain-key", "none"]
    assert ladm(*following).exit_code == 0


def test_with_q_the_results_alone_are_printed(
    ladm: Command, commands: dict[str, tuple[Any, ...]], tmp_path: Path
) -> None:
    last_lines = {"prepare": "rows: ", "score": "results: ", "select": "subset: "}
    for name, command in commands.items():
        result = ladm(*command, "-q")
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.splitlines()[-1].startswith(last_lines[name])
    missing = ladm("score", tmp_path / "missing", *SMALL, "-q", "--output", tmp_path / "run2")
    assert missing.exit_code != 0
    assert missing.stderr.startswith("ladm: ")
    both = ladm(*commands["prepare"], "-q", "-v")
    assert (both.exit_code, both.stderr) == (2, "ladm: -q and -v contradict each other; give one of them\n")


@pytest.mark.slow
def test_in_a_log_file_progress_is_plain_lines_and_v_adds_the_libraries(
    commands: dict[str, tuple[Any, ...]], tmp_path: Path
) -> None:
    loud = log_of(tmp_path / "loud", *commands["prepare"][:-1], tmp_path / "loud rows", "-v")
    log = log_of(tmp_path / "log", *commands["prepare"])
    for written in (loud, log):
        assert "preparing: 4 documents read, 4 rows made\n" in written
    # The bars of the datasets library.
    assert "examples/s" in loud
    assert "examples/s" not in log
    log += log_of(tmp_path / "score log", *commands["score"])
    assert "\nscoring: 100% of 4 rows, " in log
    assert "\r" not in log
    assert "\x1b" not in log


@pytest.mark.parametrize(("seconds", "lines"), [(0.0, 4), (float("inf"), 1)])
def test_progress_lines_of_a_log_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seconds: float, lines: int
) -> None:
    """One line an interval, and one at the end."""
    monkeypatch.setattr("ladm.progress_bars.LINE_SECONDS", seconds)
    scoring, preparing = ScoringBar(), PreparingBar()
    scoring.start(total=3, done=0)
    preparing.start()
    for kept in range(3):
        scoring.advance(rows=1, tokens=10)
        preparing.advance(documents=2, rows=kept)
    scoring.close()
    preparing.close()
    written = capsys.readouterr().err
    assert "\r" not in written
    kinds = [line.split(":")[0] for line in written.splitlines()]
    assert (kinds.count("scoring"), kinds.count("preparing"), len(kinds)) == (lines, lines, 2 * lines)
    assert written.splitlines()[-1] == "preparing: 6 documents read, 2 rows made"


def test_a_log_of_a_long_preparation_has_the_rate_and_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("ladm.progress_bars.time.monotonic", lambda: now[0])
    bar = PreparingBar()
    bar.start(sources=10, limit=None)
    # Half of the files were read by an earlier start, which takes no time here.
    bar.advance(documents=5000, rows=500, source=5, is_new=False)
    for source in (5, 6, 7):
        now[0] += 600
        bar.advance(documents=3000, rows=100, source=source, is_new=True)
    bar.close()
    assert capsys.readouterr().err.splitlines() == [
        "preparing: 8,000 documents read, 100 rows made; file 6 of 10, 5 documents/s",
        "preparing: 11,000 documents read, 100 rows made; file 7 of 10, 5 documents/s, about 80 min left",
        "preparing: 14,000 documents read, 100 rows made; file 8 of 10, 5 documents/s, about 45 min left",
        "preparing: 14,000 documents read, 100 rows made",
    ]
    bar.start(sources=1, limit=1000)
    now[0] += 60
    bar.advance(documents=10, rows=250, source=0, is_new=True)
    assert capsys.readouterr().err.endswith("; file 1 of 1, 0.167 documents/s, about 3 min left\n")


def test_the_time_left_of_a_launch_counts_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each log of a Slurm array of 4: 80 of 1,000 rows were there, and every launch adds 60 in 10 minutes."""
    now = [0.0]
    monkeypatch.setattr("ladm.progress_bars.time.monotonic", lambda: now[0])
    for launches, line in (
        (4, "scoring: 14% of 1,000 rows, 100 tokens/s, 28 min left if all 4 launches are as fast\n"),
        (1, "scoring: 14% of 1,000 rows, 100 tokens/s, 143 min left\n"),
    ):
        bar = ScoringBar()
        bar.start(total=1000, done=80, launches=launches)
        now[0] += 600
        bar.advance(rows=60, tokens=60_000)
        assert capsys.readouterr().err == line


def test_prepare_reports_where_it_is(
    ladm: Command, talking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladm.progress_bars.LINE_SECONDS", 0.0)
    monkeypatch.setattr("ladm.corpus.documents.groups.BLOCK_DOCUMENTS", 1)
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(f'{{"text": "{"word " * 200}{name}"}}\n')
    words = ["prepare", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--domain", "d", "--length", "16"]
    result = ladm(*words, "--tokenizer", talking, "-o", tmp_path / "rows")
    assert result.exit_code == 0, result.output
    files = re.findall(r"preparing: (\d) documents? read, \d rows? made; file (\d) of 2, ", result.stderr)
    assert files == [("1", "1"), ("2", "2")]
