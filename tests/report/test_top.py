"""What `ladm top` shows of the texts: their beginnings as one line, as wide as the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import ladm as front
from ladm.cli.display import text_width, with_beginning
from support.rows import topical_rows

Command = Callable[..., Result]


def test_a_window_that_begins_in_a_text_shows_more_than_its_first_line(
    ladm: Command, score_rows: Any, golden: Any
) -> None:
    rows = topical_rows(golden, [512, 400])
    rows[0]["text"] = "479\n\n  Beheld the\tlight. \n" + "x" * 300
    rows[1]["text"] = "8\n"
    run: Path = score_rows(rows)[1]
    result = ladm("top", run)
    texts = sorted(line.split("  ")[-1].strip() for line in result.stdout.splitlines())
    assert texts == [f"479 Beheld the light. {'x' * 57}…", "8", "beginning"]
    first = next(document for document in front.open_run(run).top() if document.position == 0)
    assert (first.first_line, first.beginning) == ("479", f"479 Beheld the light. {'x' * 300}"[:240])


def test_the_line_is_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_beginning("12  ", "x" * 200) == f"12  {'x' * 79}…"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for columns, start, least in ((120, "12  ", 0), (60, "12  ", 0), (30, "y" * 25, 20)):
        monkeypatch.setattr("shutil.get_terminal_size", lambda width=columns: os.terminal_size((width, 24)))
        for text in ("x" * 200, "\u6f22" * 200):
            line = with_beginning(start, text)
            expected = max(columns, len(start) + least)
            assert expected - 2 < text_width(line) <= expected
    assert with_beginning("12  ", "") == "12"
