"""An error that ladm raises about what a program was given -> one line on standard error. No torch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from ladm.errors import LadmError


@contextlib.contextmanager
def errors_in_a_line() -> Iterator[None]:
    """End the program with the message of an error that ladm raises about what it was given."""
    try:
        yield
    except LadmError as error:
        sys.exit(str(error))
