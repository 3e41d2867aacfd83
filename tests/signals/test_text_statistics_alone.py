"""Runs of statistics of texts alone: no weights, no torch, and as many processes as there are cores."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from ladm.modeling import model_files
from ladm.modeling.facts import model_facts
from ladm.runs.folder import Run
from ladm.signals import text_columns
from support.files import read_lines
from support.rows import topical_rows

Command = Callable[..., Result]
TEXT = ("--signals", "text")


@pytest.fixture
def rows(save_rows: Any, golden: Any) -> str:
    return str(save_rows(topical_rows(golden, [512] * 40)))


@pytest.fixture
def config(talking: Path, tmp_path: Path) -> Path:
    """A folder with the configuration and the tokenizer of the model `talking`, without its weights."""
    folder = tmp_path / "config"
    folder.mkdir()
    for path in talking.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_command_that_names_other_signals_than_the_run(
    ladm: Command, rows: str, config: Path, talking: Path, tmp_path: Path
) -> None:
    run, gain = tmp_path / "run", tmp_path / "gain"
    # The run computes a signal of the model, which the command that adds the statistics does not name.
    for signals in ("context-gain", "text", "text"):
        result = ladm("score", rows, "--model", talking, "--signals", signals, "--limit", 4, "--output", gain)
        assert result.exit_code == 0, result.stderr
    assert (gain / "signals" / "text" / "scores.parquet").exists()
    refused = ladm("score", rows, "--model", config, *TEXT, "--limit", 4, "--output", gain)
    assert refused.stderr.splitlines()[-1] == f"ladm: {config}: no *.safetensors there"
    # And without signals the command goes on with those of the run, here without the model.
    assert ladm("score", rows, "--model", config, *TEXT, "--limit", 20, "--output", run).exit_code == 0
    estimate = ladm("score", rows, "--model", config, "--dry-run", "--output", run, "--limit", 20)
    assert (estimate.exit_code, "process" in estimate.stdout) == (0, True), estimate.stderr
    grown = ladm("score", rows, "--model", config, "--output", run)
    assert (grown.exit_code, Run.read(run).num_rows) == (0, 40), grown.stderr
    assert not Run.read(run).identity.names_weights


def test_a_model_without_weights(ladm: Command, rows: str, config: Path, talking: Path, tmp_path: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    result = ladm("score", rows, "--model", config, *TEXT, "--output", run)
    assert result.exit_code == 0, result.output
    for line in (f"model     {config}: not run, a vocabulary of 512 tokens", "reading the data once to identify it"):
        assert line in result.stderr.splitlines()
    assert Run.read(run).identity.model_sha256.keys() == {"config.json"}
    # With the weights beside it, and on another device: the same run.
    assert ladm("score", rows, "--model", talking, *TEXT, "--output", whole).exit_code == 0
    for name in ("sorted_by_score.jsonl", "unigrams.npy"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    again = ladm("score", rows, "--model", talking, *TEXT, "--output", run)
    assert (again.exit_code, again.stdout.startswith("already finished")) == (0, True)
    assert ladm("verify", run, "--deep").exit_code == 0
    # What only the model would use has no effect, and scripts give it all the same.
    given = ("--device", "cpu", "--dtype=float32", "--attention", "auto", "--batch-size", "2", "--workers", "1")
    line = "note      without effect, because no model runs: --attention, --batch-size, --device, --dtype"
    assert line in ladm("score", rows, "--model", talking, *TEXT, *given, "--output", run).stderr.splitlines()
    (tmp_path / "c.yaml").write_text("device: cpu\ndtype: float32\n")
    quiet = ladm("score", rows, "--model", talking, *TEXT, "--config", tmp_path / "c.yaml", "--output", run)
    assert (quiet.exit_code, "without effect" in quiet.stderr) == (0, False)
    used = ladm("score", rows, "--model", talking, "--device", "cpu", "--dry-run")
    assert (used.exit_code, "without effect" in used.stderr) == (0, False)
    # Whatever runs the model needs the weights.
    for signals in ("cds", "text,context-gain"):
        refused = ladm("score", rows, "--model", config, "--signals", signals, "--output", tmp_path / "no")
        assert (refused.exit_code, refused.stderr.splitlines()[-1]) == (1, f"ladm: {config}: no *.safetensors there")


def test_no_torch_is_loaded(rows: str, config: Path, tmp_path: Path) -> None:
    arguments = ["score", rows, "--model", str(config), *TEXT, "--output", str(tmp_path / "run")]
    code = (
        "import contextlib, sys\nfrom ladm.cli.main import main\nfor more in (['--dry-run'], []):\n"
        f"    with contextlib.suppress(SystemExit):\n        main({arguments!r} + more)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "sorted_by_score.jsonl").exists()


def test_any_number_of_processes_gives_the_same_bytes(
    ladm: Command, rows: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladm.scoring.scoring_pass.ROWS_OF_A_PROCESS", 1)
    for count in (1, 2):
        result = ladm("score", rows, "--model", config, *TEXT, "--workers", count, "--output", tmp_path / str(count))
        assert result.exit_code == 0, result.output
        word = "processes" if count > 1 else "process"
        assert f"device    cpu in at most {count} {word}" in result.stderr.splitlines()
    for name in ("sorted_by_score.jsonl", "scores.parquet", "run.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_the_default_is_a_process_for_each_core(
    ladm: Command, rows: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladm.scoring.plan.available_cores", lambda: 64)
    result = ladm("score", rows, "--model", config, *TEXT, "--output", tmp_path / "run")
    # So few rows are done in this process; the line says what larger data would take.
    assert (result.exit_code, "device    cpu in at most 64 processes" in result.stderr.splitlines()) == (0, True)
    found = json.loads(ladm("score", rows, "--model", config, *TEXT, "--dry-run", "--json").stdout)
    assert (found["devices"], found["runs_model"], list(found["hours"])) == (64, False, ["1", "64"])


def test_signals_of_the_model_are_added(ladm: Command, rows: str, config: Path, talking: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert ladm("score", rows, "--model", config, *TEXT, "--output", run).exit_code == 0
    gain = ("--signals", "text,context-gain", "--limit", "40", "--output", run)
    added = ladm("score", rows, "--model", talking, *gain, "--dtype", "float32")
    assert added.exit_code == 0, added.output
    assert len(read_lines(run / "signals" / "context-gain" / "sorted_by_score.jsonl")) == 40
    assert ladm("verify", run).exit_code == 0
    # A model with another configuration is another model.
    changed = json.loads((talking / "config.json").read_text()) | {"rope_theta": 1e5}
    (talking / "config.json").write_text(json.dumps(changed))
    refused = ladm("score", rows, "--model", talking, "--signals", "longattn", "--output", run)
    assert (refused.exit_code, "sha256.config.json: " in refused.stderr) == (1, True), refused.stderr


def test_a_job_of_text_statistics_needs_no_weights(ladm: Command, config: Path, tmp_path: Path) -> None:
    source = tmp_path / "d.jsonl"
    words = ["The", "magic", "number", "of", "is", "w1", "w2", "w3"]
    lines = [{"text": " ".join(words[(k + n) % 8] for n in range(80)), "domain": "ab"[k % 2]} for k in range(8)]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    job = ("run", source, "--model", config, *TEXT, "--length", "64", "--documents", "2", "--by", "digits")
    dry = ladm(*job, "--dry-run")
    assert (dry.exit_code, "hours in 1 process: " in dry.stdout) == (0, True), dry.output
    result = ladm(*job, "--output", tmp_path / "job")
    assert result.exit_code == 0, result.output
    assert Run.read(tmp_path / "job" / "scores").is_finished
    # Another folder with the same configuration is the same model.
    moved = config.rename(tmp_path / "moved")
    again = ladm(*(moved if word is config else word for word in job), "--output", tmp_path / "job")
    assert again.exit_code == 0, again.output


def test_a_dry_run_times_the_statistics(
    ladm: Command, rows: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_text, seen = text_columns.text_statistics, []

    def slow(ids: Any, text: str | None, **more: Any) -> Any:
        seen.append((text, more["unigrams"] is not None))
        time.sleep(0.02)
        return of_text(ids, text, **more)

    monkeypatch.setattr(text_columns, "text_statistics", slow)
    found = json.loads(ladm("score", rows, "--model", config, *TEXT, "--dry-run", "--json").stdout)
    assert found["seconds_by_length"]["512"] >= 0.02
    # With what a run has for them: the text, and how common the tokens are.
    assert {has_counts for _, has_counts in seen} == {True}
    assert all(text is not None and text.startswith("document ") for text, _ in seen)


def test_the_weights_of_a_model_on_the_hub_are_not_fetched(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[list[str]] = []

    def fetch(_name: str, *, allow_patterns: list[str], **_: Any) -> str:
        wanted.append(allow_patterns)
        return str(config)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert model_facts("org/model", weights=False).vocab_size == 512
    assert "*.safetensors" not in wanted[0]
    with pytest.raises(Exception, match=r"no \*\.safetensors there"):
        model_files.model_folder("org/model")
    assert "*.safetensors" in wanted[1]


def test_a_configuration_that_names_its_layers_otherwise(
    ladm: Command, rows: str, config: Path, tmp_path: Path
) -> None:
    # As those of GPT-2 and GPT-J do, with other keys than most.
    content = {"model_type": "gpt2", "vocab_size": 512, "n_layer": 2, "n_head": 2, "n_embd": 8}
    (config / "config.json").write_text(json.dumps(content))
    result = ladm("score", rows, "--model", config, *TEXT, "--limit", 4, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
