"""The program around the commands: its help, Ctrl-C while it loads, closed pipes, files of somebody else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ladm.cli.main import SECTIONS, main
from support.rows import topical_rows


def test_every_command_is_in_the_help_with_a_short_description(ladm: Any) -> None:
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(main.commands)
    shown = ladm("--help").stdout
    for name, command in main.commands.items():
        assert command.short_help
        assert re.search(rf"^  {name} +{re.escape(command.short_help)}$", shown, re.MULTILINE)
    below = shown + ladm("evaluate", "--help").stdout
    assert "..." not in below.replace("[ARGS]...", "")


def test_ctrl_c_while_the_program_loads(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from ladm.__main__ import main as program

    class Interrupted:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "ladm.cli.main":
                raise KeyboardInterrupt

    monkeypatch.setenv("PYTHONSAFEPATH", "")  # The program sets it, and this test must not leave it behind.
    monkeypatch.delitem(sys.modules, "ladm.cli.main")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit) as stopped:
        program()
    assert (stopped.value.code, capsys.readouterr().err) == (130, "ladm: stopped by Ctrl-C\n")


def test_a_closed_pipe_and_a_name_that_is_not_utf8(score_once: Any, short_rows: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    score_once(short_rows, output=run)
    command = [sys.executable, "-m", "ladm"]
    # Of `status`: test_scarce_resources.py.
    started = subprocess.Popen([*command, "report", str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert started.stdout is not None
    assert started.stderr is not None
    started.stdout.close()
    assert (started.stderr.read(), started.wait()) == (b"", 141)
    started.stderr.close()
    assert (run / "report.html").exists()
    odd = bytes(tmp_path) + b"/r\xff"
    run.rename(Path(odd.decode(errors="surrogateescape")))
    done = subprocess.run([*command, "report", odd], capture_output=True, check=False)
    message = f"ladm: '{tmp_path}/r\\udcff' is not UTF-8; rename the file or folder\ntry: ladm --help\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", message.encode())


def test_a_library_that_cannot_be_loaded_is_named(score_once: Any, short_rows: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    score_once(short_rows, output=run)
    command = [sys.executable, "-m", "ladm", "top", str(run)]
    environment = os.environ | {"HF_HUB_ETAG_TIMEOUT": "10s"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    message = (
        "ladm: cannot load huggingface_hub: invalid literal for int() with base 10: '10s'; check the environment "
        "variables that it reads\n"
    )
    # The library itself prints a line on standard output.
    assert (done.returncode, done.stderr) == (1, message)


def test_a_letter_that_the_terminal_lacks(score_once: Any, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    """A domain called 文 in a locale of Latin-1."""
    rows = [row | {"domain": "café 文"} for row in topical_rows(golden, [400] * 3)]
    run = tmp_path / "run"
    score_once(save_rows(rows), output=run)
    words = ["select", str(run), "--domain-key", "domain", "--tokens", "1k", "--dry-run", "--output", "subset"]
    for charset, name in (("latin-1", "café \\u6587"), ("utf-8", "café 文")):
        done = CliRunner(charset=charset).invoke(main, words)
        assert (done.exit_code, [line for line in done.stdout.splitlines() if line.startswith(name)] != []) == (0, True)


@pytest.mark.parametrize("words", [["perplexity"], ["needle"]])
def test_a_file_of_somebody_else_is_not_overwritten(ladm: Any, tmp_path: Path, words: list[str]) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text('{"mine": 1}')
    result = ladm("evaluate", *words, "--model", tmp_path, "--rows", tmp_path, "--output", mine)
    message = f"ladm: --output {mine} exists already and was not written by this command; give another\n"
    assert (result.exit_code, result.stderr, mine.read_text()) == (2, message, '{"mine": 1}')


def test_a_pipe_or_a_device_is_not_replaced(ladm: Any, tmp_path: Path) -> None:
    """To look into a pipe would wait for ever; a page in the place of /dev/null would break the machine."""
    os.mkfifo(tmp_path / "pipe")
    for place in (Path("/dev/null"), tmp_path / "pipe"):
        # Without a model, so that nothing is written whatever becomes of the check.
        result = ladm("evaluate", "perplexity", "--model", tmp_path, "--rows", tmp_path, "--output", place)
        message = f"ladm: cannot write {place}: it is not a regular file; give another --output\n"
        assert (result.exit_code, result.stderr) == (74, message)
    assert Path("/dev/null").is_char_device()


def test_a_picture_of_somebody_else_is_not_overwritten(ladm: Any, tmp_path: Path) -> None:
    (tmp_path / "n.png").write_text("mine")
    command = ("evaluate", "needle", "--model", tmp_path, "--rows", tmp_path, "--output", tmp_path / "n.json")
    result = ladm(*command)
    message = f"ladm: --output {tmp_path}/n.json: {tmp_path}/n.png exists and was not written by this command; give "
    assert (result.exit_code, result.stderr) == (2, f"{message}another --output\n")
