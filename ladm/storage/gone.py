"""A file that another process, perhaps on another machine, has removed meanwhile. Imports no torch."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator


def is_gone(error: BaseException | None) -> bool:
    """Does an OSError, or a StorageError made of one, report that the file is gone?"""
    found = error if isinstance(error, OSError) or error is None else error.__cause__
    # ESTALE: NFS's way of saying that another machine has removed the file.
    return isinstance(found, OSError) and found.errno in (errno.ENOENT, errno.ESTALE)


@contextlib.contextmanager
def unless_gone() -> Iterator[None]:
    """End the block without an error where the file that it reads is gone."""
    try:
        yield
    except Exception as error:
        if not is_gone(error):
            raise
