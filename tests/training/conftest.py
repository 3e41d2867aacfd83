"""Fixtures: the settings of a short training, and its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.rows import topical_rows
from support.training import CONFIG


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "train.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def rows(golden: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    from datasets import Dataset

    folder = tmp_path_factory.mktemp("rows") / "rows"
    Dataset.from_list(topical_rows(golden, [128] * 9 + [100, 300])).save_to_disk(str(folder))
    return str(folder)
