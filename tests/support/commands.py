"""The type of the fixture `ladm`, which runs a command in this process, and scripts run in this process."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Command = Callable[..., Result]
"""`ladm("score", rows, "--output", run)` runs a command in this process."""


def run_script(path: Path, *arguments: Any) -> None:
    """Run a script as a program would be run, but in this process, where most of what it imports is loaded already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        # Python puts the folder of a program first.
        patch.syspath_prepend(str(path.parent))
        runpy.run_path(str(path), run_name="__main__")
