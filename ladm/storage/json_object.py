"""A file with one JSON object -> its content, or an error that names the file. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ladm.errors import StorageError, one_line
from ladm.storage.files import io_errors


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a file. Raises StorageError for a file that cannot be read or holds anything else."""
    try:
        with io_errors(path, "read"):
            content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path} is damaged: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise StorageError(f"{path} is damaged: it does not hold a JSON object")
    return content
