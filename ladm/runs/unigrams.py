"""`unigrams.npy` of a run -> how often every token occurs in a corpus. Imports no torch."""

from __future__ import annotations

import tokenize
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ladm.errors import LackOfMemoryError, LadmError, StorageError, UsageError, is_out_of_memory, reading_problem
from ladm.runs.folder import Run
from ladm.runs.layout import IDENTITY_FILE, UNIGRAMS_FILE
from ladm.settings.signals import TEXT
from ladm.storage.files import io_errors, write_whole

Counts = npt.NDArray[np.int64]
# numpy parses the head of such a file as Python, so that a flipped bit may be a mistake of almost any kind.
_UNREADABLE = (OSError, ValueError, EOFError, TypeError, SyntaxError, MemoryError, OverflowError, tokenize.TokenError)


class CountsError(LadmError):
    """A file is no table of token counts."""


def read_counts(path: Path) -> Counts:
    """The counts in a file, one for each token id: (V,).

    Raises UsageError where there is no such file, CountsError for one that is no table of counts, and
    LackOfMemoryError.
    """
    try:
        counts = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UsageError(f"--unigrams {path} does not exist") from None
    except _UNREADABLE as error:
        if is_out_of_memory(error):
            raise LackOfMemoryError(f"cannot read {path}: {reading_problem(error)}") from None
        raise CountsError(f"{path} is not a file of token counts, such as the unigrams.npy of a run") from None
    if not isinstance(counts, np.ndarray) or counts.ndim != 1 or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise CountsError(f"{path} is not a list of counts, one for each token id")
    return counts.astype(np.int64)


def read_given_counts(path: Path) -> Counts:
    """The counts in the file that `--unigrams` names: (V,). That of a run must be the table that the run records.

    Raises as `read_counts`, and StorageError for a damaged one of a run.
    """
    of_run = None
    if path.name == UNIGRAMS_FILE and (path.parent / IDENTITY_FILE).is_file():
        of_run = counts_of_run(Run.read(path.parent))
    return read_counts(path) if of_run is None else of_run


def digest_of_counts(counts_V: Counts) -> str:
    """XXH3 of the counts: part of the identity of whatever is made with them."""
    import xxhash

    return xxhash.xxh3_128_hexdigest(counts_V.tobytes())


def copy_counts(run: Run, folder: Path) -> None:
    """Give a run that is made from `run` its table too: with it, `far_rare` of further runs can be compared."""
    source = run.folder / UNIGRAMS_FILE
    if TEXT in run.identity.signals and source.exists():
        with io_errors(source, "read"):
            content = source.read_bytes()
        write_whole(folder / UNIGRAMS_FILE, [content])


def counts_of_run(run: Run) -> Counts | None:
    """The table that a run was started with: (V,); None where it has no statistics of texts, or no file of them yet.

    Raises StorageError where the file is not that table, and LackOfMemoryError.
    """
    path, expected = run.folder / UNIGRAMS_FILE, run.identity.signals.get(TEXT, {}).get("unigrams")
    if expected is None or not path.exists():
        return None
    try:
        counts = read_counts(path)
    except CountsError:
        counts = None
    if counts is None or digest_of_counts(counts) != expected:
        raise StorageError(
            f"{path} is damaged: it is not the table that the run was started with; remove it, and rerun the command "
            "that made the run to count it again"
        )
    return counts
