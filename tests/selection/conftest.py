"""Fixtures: eight rows and their run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.rows import topical_rows
from support.subsets import LENGTHS


@pytest.fixture
def scored(score_rows: Any, golden: Any) -> tuple[str, Path]:
    return score_rows(topical_rows(golden, LENGTHS))
