"""The name of a file, or an address -> its bytes. Imports no torch."""

from __future__ import annotations

import os
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem


def file_system(name: str) -> tuple[Any, str]:
    """The file system of a name and its path there; a name without `://` is a file of this machine.

    Raises what the file system raises for an address that nothing can open.
    """
    if "://" in name:
        system, path = fsspec.url_to_fs(name)
        return system, path
    # fsspec would take data:x.jsonl for the content of a file, and a::b.jsonl for a file inside another.
    return LocalFileSystem(), os.path.abspath(name)


def open_bytes(name: str) -> Any:
    """The file, opened to read bytes, as a context manager."""
    system, path = file_system(name)
    return system.open(path, "rb")
