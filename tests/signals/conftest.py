"""Fixtures: three rows and their run of CDS alone, to which signals are added."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.commands import Command
from support.rows import topical_rows

LENGTHS = [700, 512, 600]


@pytest.fixture
def small(golden_lm: Path) -> tuple[str, ...]:
    return ("--model", str(golden_lm), "--dtype", "float32", "--device", "cpu")


@pytest.fixture
def rows(save_rows: Any, golden: Any) -> str:
    return str(save_rows(topical_rows(golden, LENGTHS)))


@pytest.fixture
def run(ladm: Command, rows: str, small: Any, tmp_path: Path) -> Path:
    """A finished run of CDS alone, in spans that are not the default."""
    folder = tmp_path / "run"
    command = ("score", rows, *small, "--span-tokens", "16", "--signals", "cds", "--output", folder)
    assert ladm(*command).exit_code == 0
    return folder
