"""Progress bars, warnings and signals -> ours for as long as a call runs, then the program's own again.

Imports no torch.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ladm.errors import InterruptedRunError, LadmWarning, StorageError, UsageError, one_line

if TYPE_CHECKING:
    from ladm.corpus.documents.in_memory import DocumentsInMemory

_FOR_WORKERS = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # A worker is started by `python -c`, which would import a queue.py of the folder that the caller works in.
    "PYTHONSAFEPATH": "1",
}
"""The environment of a worker process, which imports the libraries itself."""

WARNING = "warning   "
"""What a line about the work begins with where a result is worth less than it looks."""

_guard = threading.Lock()
_running = 0
_undo = contextlib.ExitStack()


@contextlib.contextmanager
def quiet_libraries(held: Sequence[DocumentsInMemory] = ()) -> Iterator[None]:
    """Keep transformers, datasets and the Hub client silent while at least one thread is inside.

    A signal that stopped the work is sent again, for the program to handle: by default Ctrl-C is then a
    KeyboardInterrupt and SIGTERM ends the process. A program whose own handler returns gets the InterruptedRunError.
    An error of the operating system becomes a StorageError, except where documents that the program holds raised it.
    """
    try:
        with _silent_libraries(), system_errors_in_words(held):
            yield
    except InterruptedRunError as error:
        # A loop of calls with `except LadmError` around each must not go on after Ctrl-C, and a worker of a
        # multiprocessing.Pool that survived SIGTERM would let `Pool.terminate` wait forever.
        signal.raise_signal(error.signal_number)
        raise


@contextlib.contextmanager
def system_errors_in_words(held: Sequence[DocumentsInMemory] = ()) -> Iterator[None]:
    """Turn an error of the operating system that nothing below has a message for into a StorageError.

    Such as a name that is too long. An error of the iterator of the documents that the program holds passes through,
    such as one of its connections.
    """
    try:
        yield
    except OSError as error:
        if any(each.raised is error for each in held):
            raise
        raise StorageError(one_line(error)) from error


@contextlib.contextmanager
def _silent_libraries() -> Iterator[None]:
    global _running, _undo
    with _guard:
        # The libraries have one setting for all threads. The first call in saves it and the last one out restores
        # it; if each did so for itself, the one that leaves last would restore what another had set.
        if _running == 0:
            _undo = _silence()
        _running += 1
    try:
        yield
    finally:
        with _guard:
            _running -= 1
            if _running == 0:
                _undo.close()


def _silence() -> contextlib.ExitStack:
    """Silence the libraries; closing the stack undoes it."""
    # Imported before the environment is changed: they read it once, at import, and would then be silent for good.
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    # A machine that only scores ids in memory can do without it; what reads or writes rows imports it itself.
    has_datasets = importlib.util.find_spec("datasets") is not None
    undo = contextlib.ExitStack()
    if logging.is_progress_bar_enabled():
        logging.disable_progress_bar()
        undo.callback(logging.enable_progress_bar)
    undo.callback(logging.set_verbosity, logging.get_verbosity())
    logging.set_verbosity_error()
    if has_datasets:
        _silence_datasets(undo)
    if not are_progress_bars_disabled():
        disable_progress_bars()
        undo.callback(enable_progress_bars)
    for name, value in _FOR_WORKERS.items():
        if name not in os.environ:
            os.environ[name] = value
            undo.callback(os.environ.pop, name, None)
    return undo


def _silence_datasets(undo: contextlib.ExitStack) -> None:
    import datasets

    undo.callback(datasets.logging.set_verbosity, datasets.logging.get_verbosity())
    datasets.logging.set_verbosity_error()
    if not datasets.are_progress_bars_disabled():
        datasets.disable_progress_bars()
        undo.callback(datasets.enable_progress_bars)


def echo_to(*, progress: bool) -> Callable[[str], None]:
    """Where lines about the work go: warnings to Python's `warnings`, others to standard error if that is wanted.

    Raises UsageError for what is not True or False, such as a function that would never be called.
    """
    if not isinstance(progress, bool):
        raise UsageError(f"progress must be True or False, not {progress!r}")

    def echo(line: str) -> None:
        # With the spaces of the label: a line may begin with the name of a folder.
        if line.startswith(WARNING):
            warn(line.removeprefix(WARNING))
        elif progress:
            print(line, file=sys.stderr)

    return echo


def warn(text: str) -> None:
    """Issue a LadmWarning whose place is the line of the caller's program that called `ladm`."""
    frame, depth = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "ladm":
        frame, depth = frame.f_back, depth + 1
    warnings.warn(text, LadmWarning, stacklevel=depth)
