"""Selections of a run of eight rows: `ladm select`, its manifest, and profiles with a band."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ladm.runs.folder import Run
from ladm.settings.profiles import Profile, profile_text
from support.commands import Command

LENGTHS = [512, 400, 450, 90, 700, 480, 512, 490]
"""The fourth row is too short for a score. Even rows are of domain 0, odd ones of domain 1."""


def selected(ladm: Command, run: Path, *flags: Any) -> dict[str, Any]:
    """The manifest of a selection; the chosen positions of its only run are under `positions`."""
    output = run.parent / "subset"
    shutil.rmtree(output, ignore_errors=True)
    result = ladm("select", run, *flags, "--output", output)
    assert result.exit_code == 0, result.output
    manifest: dict[str, Any] = json.loads((output / "manifest.json").read_text())
    return manifest | {"positions": manifest["chosen"][0]["positions"], "table": result.stdout.splitlines()}


def write_profile(run: Path, path: Path, band: dict[str, tuple[float, float, float]], **changes: Any) -> Path:
    """A profile whose score is that of the run, unless `changes` say otherwise."""
    identity = Run.read(run).identity
    model = {"type": str(identity.model["type"]), "sha256": identity.model_sha256}
    fields = {"model": model, "method": identity.method, "length_tokens": 512, "reduction": identity.reduction}
    path.write_text(profile_text(Profile(**fields | {"band": band} | changes)))  # type: ignore[arg-type]
    return path


def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return content
