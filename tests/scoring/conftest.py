"""Fixtures: a run that keeps every layer and head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.models import SMALL
from support.rows import topical_rows


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, golden: dict[str, Any]) -> tuple[str, Path]:
    """Rows, and a run of them with every layer and head kept."""
    from click.testing import CliRunner
    from datasets import Dataset

    from ladm.cli.main import main

    folder = tmp_path_factory.mktemp("kept")
    rows = topical_rows(golden, [700, 512, 700, 650, 90, 600])
    rows[1] |= {"meta": {"pile_set_name": 'a "score": 5, name'}}
    Dataset.from_list(rows).save_to_disk(str(folder / "rows"))
    command = ["score", str(folder / "rows"), *SMALL, "--output", str(folder / "run"), "--record", "heads"]
    assert CliRunner().invoke(main, command).exit_code == 0
    return str(folder / "rows"), folder / "run"
