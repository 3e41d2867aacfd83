"""What can go wrong -> one line for the user and the exit code that goes with it."""

EXIT_DONE = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INCOMPLETE = 3
EXIT_IO = 74
EXIT_LOCKED = 75
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141
EXIT_TERMINATED = 143


class LadmError(Exception):
    """Something the user can mend; the text is the whole message."""

    exit_code = EXIT_ERROR


class UsageError(LadmError):
    """A setting that can never work, whatever the data."""

    exit_code = EXIT_USAGE


class IncompleteError(LadmError):
    """Rows are still missing; the same command goes on."""

    exit_code = EXIT_INCOMPLETE


class StorageError(LadmError):
    """A file could not be read or written, or does not hold what it should."""

    exit_code = EXIT_IO


class LockedError(LadmError):
    """Another process holds the run folder."""

    exit_code = EXIT_LOCKED


class InterruptedRunError(LadmError):
    """A signal stopped the run after its finished rows were made safe."""

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class RowError(Exception):
    """One row has no score; `kind` is a short stable word, the text says why."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def install_hint(extra: str) -> str:
    """What to run to get the packages of one of the extras in `pyproject.toml`, for the end of a message."""
    # A local path, because `ladm` on PyPI is somebody else's package: pip would replace this one by it.
    return f"run pip install '.[{extra}]' in ladm's source folder"


def one_line(error: BaseException) -> str:
    """The text of somebody else's error on one line of at most 300 characters, or its kind when it has none."""
    return " ".join(str(error).split())[:300] or type(error).__name__
