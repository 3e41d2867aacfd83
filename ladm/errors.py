"""The errors of ladm: each is one line for the user, with the exit code of the command."""

import contextlib
import errno
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INCOMPLETE = 3
# 74 is EX_IOERR and 75 EX_TEMPFAIL of sysexits.h: try again later.
EXIT_IO = 74
EXIT_LOCKED = 75
EXIT_INTERRUPTED = 130
# 128 and the number of SIGPIPE, 13, which is what a shell reports for a program that a signal ended.
EXIT_PIPE = 141


def _restored(kind: type[Exception], args: tuple[Any, ...], attributes: dict[str, Any]) -> Exception:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class _PicklableError(Exception):
    """An exception that crosses the border of a process, whatever its constructor takes."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default `args`, which is the text alone, is given to the constructor. Where that takes more, a
        # multiprocessing.Pool whose worker raised the error would wait for its result forever.
        return _restored, (type(self), self.args, self.__dict__)


class LadmError(_PicklableError):
    """A problem that the user can fix; its text is the whole message."""

    exit_code = EXIT_ERROR


class UsageError(LadmError):
    """A setting that cannot work with any data, or a command line that cannot be understood."""

    exit_code = EXIT_USAGE


class IncompleteError(LadmError):
    """The run still lacks rows; the same command continues it."""

    exit_code = EXIT_INCOMPLETE


class StorageError(LadmError):
    """A file could not be read or written, or its content is damaged."""

    exit_code = EXIT_IO


class LockedError(LadmError):
    """Another process is working in the run folder."""

    exit_code = EXIT_LOCKED


class InterruptedRunError(LadmError):
    """A signal stopped the run; its finished rows were saved before."""

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


class LackOfMemoryError(LadmError):
    """The machine or a device has too little memory for the work; no file is at fault."""


class LadmWarning(UserWarning):
    """A fact that makes results worth less than they look; where Python calls `ladm`, it is a Python warning."""


class RowError(_PicklableError):
    """One row cannot be scored; `kind` is a short word that never changes, the text gives the reason."""

    # Not a LadmError, because it ends nothing: it becomes a line of errors.jsonl, and the run continues.

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


# Of texts in small letters.
_MEMORY_SIGNS = (
    "out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "allocate memory",
    "not enough memory",
    "std::bad_alloc",
    # DuckDB, below the limit that it was given.
    "could not allocate block",
    "failed to pin block",
)
_DEVICE_SIGNS = (
    *("cuda out of memory", "cuda error", "cuda driver error", "cuda failure", "cublas_status", "cudnn_status"),
    *("hip out of memory", "hip error", "xpu out of memory", "mps backend out of memory"),
)
_MAPPING_SIGN = "failed to map segment"
"""What glibc reports for a library, such as torch's, that does not fit under a limit, or that is mounted noexec."""
_STATIC_TLS_SIGN = "static tls block"
"""A small area that libraries share, and that some order of imports fills; memory is not at fault."""
DEVICE_REMEDY = "use a device with more free memory, or --dtype bfloat16"


def is_out_of_memory(error: BaseException) -> bool:
    """Is this one of the many ways in which a system, a library or a device reports that memory is full?

    True also for a library on a noexec mount, where glibc gives the same text for both reasons.
    """
    return _text_of_lack(error) is not None


def _text_of_lack(error: BaseException) -> str | None:
    """The text, in small letters, of the error in a chain that reports full memory; None where none does."""
    text = str(error).lower()
    if isinstance(error, OSError) and error.errno is not None:
        # Its text repeats the name of a file, which may be anything.
        return "" if error.errno == errno.ENOMEM else None
    if _STATIC_TLS_SIGN in text or (_MAPPING_SIGN in text and "operation not permitted" in text):
        return None
    signs = (*_MEMORY_SIGNS, _MAPPING_SIGN)
    if isinstance(error, MemoryError | LackOfMemoryError) or any(sign in text for sign in signs):
        return text
    # Libraries wrap it: transformers turns a MemoryError into an OSError about the file that it was reading.
    inner = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None if inner is None else _text_of_lack(inner)


def lack_of_memory(error: BaseException, *, action: str, device_remedy: str = DEVICE_REMEDY) -> LackOfMemoryError:
    """The error for the user: what could not be done, the library's text, and what helps against this kind of lack."""
    text, what, remedy = _text_of_lack(error) or "", "", "free some, or raise a limit such as ulimit -v"
    if any(sign in text for sign in _DEVICE_SIGNS):
        remedy = device_remedy
    elif _MAPPING_SIGN in text and not any(sign in text for sign in _MEMORY_SIGNS):
        what = ", or the folder of a library is mounted noexec"
        remedy += ", or use a folder whose files may be executed"
    return LackOfMemoryError(f"not enough memory to {action}{what} ({one_line(error)}); {remedy}")


def raise_if_out_of_memory(error: BaseException, *, action: str, device_remedy: str = DEVICE_REMEDY) -> None:
    """Raise LackOfMemoryError for an error of full memory that would otherwise be blamed on the file being read.

    For every place that catches whatever a library raises; `action` is what could not be done, and `device_remedy`
    what helps where the memory of a device is full.
    """
    if is_out_of_memory(error):
        raise lack_of_memory(error, action=action, device_remedy=device_remedy) from None


def reading_problem(error: BaseException) -> str:
    """The text of an error in reading data whose damage may ask for any size: then memory may be the reason or not."""
    text = one_line(error)
    return f"not enough memory for it, or it is damaged ({text})" if is_out_of_memory(error) else text


def install_hint(extra: str) -> str:
    """What to run to get the packages of one of the extras in `pyproject.toml`, for the end of a message."""
    # A local path, because `ladm` on PyPI is somebody else's package: pip would replace this one by it.
    return f"run pip install '.[{extra}]' in ladm's source folder"


def one_line(error: BaseException) -> str:
    """The text of an error from a library on one line of at most 300 characters, or its type where it has no text."""
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextlib.contextmanager
def library_errors(name: str, action: str) -> Iterator[None]:
    """Turn whatever a library raises into a StorageError; what is a LadmError already stays as it is."""
    try:
        yield
    except LadmError:
        raise
    except Exception as error:
        raise_if_out_of_memory(error, action=f"{action} {name}")
        raise StorageError(f"cannot {action} {name}: {one_line(error)}") from None


def require_whole_number(name: str, value: Any, *, least: int) -> None:
    """Raise LadmError for what is no whole number, those of NumPy among them, or less than `least`."""
    # True is 1 to Python.
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise LadmError(f"{name} must be a whole number of at least {least}, not {value!r}")


def printable(text: str, *, kept: str = "") -> str:
    """The text without what could move the cursor, rewrite the screen or turn the direction of writing.

    Ids, domains, texts, and the names of files that a message repeats, are whatever a data set has. `kept`: control
    characters that stay.
    """
    if text.isprintable():
        return text
    # A no-break space, which Python calls not printable, is common in texts of pages and in French.
    return "".join(c if c.isprintable() or c in kept or unicodedata.category(c) == "Zs" else "?" for c in text)


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """`1 row`, `2,000 rows`; `plural` where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Such as `2 d 03 h`, `1 h 05 min`, `7 min`, `12 s`."""
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours:02} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min" if minutes else f"{whole} s"


def hours_text(hours: float) -> str:
    """Hours as a number that can be compared, and below one of them also as a person says it: `0.0189 (1 min)`."""
    return three_digits(hours) + (f" ({duration(3600 * hours)})" if hours < 1 else "")


def three_digits(value: float) -> str:
    """A measured quantity for people, without an exponent: `1,667`, `46.2`, `0.0000649`."""
    return f"{value:,.0f}" if value >= 100 else f"{Decimal(f'{value:.3g}'):f}"
