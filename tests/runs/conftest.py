"""Fixtures: a finished run of 40 rows, and a copy of it to do harm to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from support.models import SMALL
from support.rows import topical_rows


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, golden: dict[str, Any]) -> tuple[str, Path]:
    """40 rows in 3 units, two of them without a score, and their finished run."""
    from click.testing import CliRunner
    from datasets import Dataset

    from ladm.cli.main import main

    folder = tmp_path_factory.mktemp("upkeep")
    data = topical_rows(golden, [400 + 8 * (k % 3) for k in range(40)])
    data[3]["input_ids"] = data[3]["input_ids"][:40]
    data[33]["input_ids"] = []
    Dataset.from_list(data).save_to_disk(str(folder / "rows"))
    command = ["score", str(folder / "rows"), *SMALL, "--output", str(folder / "run")]
    assert CliRunner().invoke(main, command).exit_code == 0
    return str(folder / "rows"), folder / "run"


@pytest.fixture
def run(made: tuple[str, Path], tmp_path: Path) -> Path:
    """A copy to do harm to."""
    shutil.copytree(made[1], tmp_path / "run")
    return tmp_path / "run"
