"""Profiles that name the model and the method of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ladm.method.grid import Method
from ladm.method.reduction import Reduction
from ladm.settings.profiles import Profile, profile_text, read_profile


def write_profile(path: Path, run: Path, reduction: Reduction, **settings: Any) -> Path:
    identity = json.loads((run / "run.json").read_text())
    method = Method.from_dict(identity["settings"] | settings)
    profile = Profile(model=identity["model"], method=method, length_tokens=512, reduction=reduction, found={"auc": 1})
    path.write_text(profile_text(profile))
    assert read_profile(path) == profile
    return path
