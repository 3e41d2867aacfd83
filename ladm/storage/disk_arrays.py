"""Arrays in files: columns that may be larger than memory. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.storage.files import io_errors


def array_on_disk(path: Path, dtype: str, length: int) -> npt.NDArray[Any]:
    """An array in a new file. Raises StorageError where it does not fit on the disk."""
    # An empty file cannot be mapped.
    if length == 0:
        return np.empty(0, dtype=dtype)
    with io_errors(path, "write"), path.open("wb") as file:
        size = length * np.dtype(dtype).itemsize
        # A sparse file on a full disk kills the process with SIGBUS when it is written through the map. Reserving
        # the blocks now turns that into an error with a message.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    return np.memmap(path, dtype=dtype, mode="r+", shape=length)
