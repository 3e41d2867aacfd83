"""A profile -> its band: of each column the values between which intact documents lie. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ladm.errors import UsageError, one_line
from ladm.settings.guards import Band


def read_band(path: str | Path) -> Band:
    """The band of a profile. Raises UsageError for a file that cannot be read or has none."""
    try:
        content: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--profile {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"--profile {path} is not YAML: {one_line(error)}") from None
    band = content.get("band") if isinstance(content, dict) else None
    if not isinstance(band, dict) or not band:
        raise UsageError(f"--profile {path} has no band; ladm calibrate of this version writes one")
    for name, values in band.items():
        is_triple = isinstance(values, list) and len(values) == 3
        if not is_triple or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            raise UsageError(f"--profile {path}: the band of {name} is {values!r}, not three numbers")
    return {str(name): (float(low), float(mid), float(high)) for name, (low, mid, high) in band.items()}
