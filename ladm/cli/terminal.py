"""Where the command line prints: results on standard output, lines and progress on standard error. Imports no torch."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from ladm.cores import share_cores
from ladm.errors import StorageError, printable
from ladm.progress_bars import PreparingBar, ScoringBar

if TYPE_CHECKING:
    from ladm.progress import Progress

QUIET, VERBOSE, AS_JSON = "ladm.quiet", "ladm.verbose", "ladm.json"
"""Keys of what `-q`, `-v` and `--json` say, in the context of the command that runs."""
WORDS = "ladm.words"
"""The key of the words that were typed behind the command."""


def is_set(key: str) -> bool:
    """Was the flag given to the command that runs?"""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(key))


def escape_what_cannot_be_printed() -> None:
    """Have standard output write a letter that its encoding lacks as `\\u6587`, as Python does on standard error."""
    # A locale of Latin-1 is enough; Python's default is to raise an error when a result is printed, after all the work.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def show(line: str, *, err: bool = False) -> None:
    """Print a line, on standard error with `err`. Everything that a command prints goes through here.

    Raises StorageError where standard output is closed or full.
    """
    # Python gives a program that is started without standard output None, which click takes for a reason to be silent.
    if not err and sys.stdout is None:
        raise StorageError("cannot write to standard output: it is closed")
    try:
        click.echo(printable(line, kept="\n\t"), err=err)
    except BrokenPipeError:
        # The reader has seen enough, which needs no message.
        raise
    except OSError as error:
        if err:
            raise
        drop_output()
        raise StorageError(f"cannot write to standard output: {error.strerror or error}") from error


def show_error(line: str) -> None:
    """Print why a command ends. Where standard error is closed or full, only the exit code says so."""
    with contextlib.suppress(OSError):
        show(line, err=True)


def drop_output() -> None:
    """Lead the rest of standard output nowhere: Python flushes it when it ends, and would fail on it again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(line: str) -> None:
    """Print a line about the work. Standard output is for results alone."""
    if not is_set(QUIET):
        show(line, err=True)


def typed_words() -> list[str]:
    """The words that were typed behind the command that runs."""
    return list(click.get_current_context().meta[WORDS])


def words_without(flag: str) -> list[str]:
    """The same without a flag."""
    return [word for word in typed_words() if word != flag]


def next_step(*words: Any) -> None:
    """Print the command that usually follows."""
    note(f"next: {shlex.join(map(str, words))}")


def print_result(lines: Iterable[str], content: Callable[[], Any]) -> None:
    """Print the lines of a result, or with `--json` its content as one object."""
    for line in [json.dumps(content(), default=str)] if is_set(AS_JSON) else lines:
        show(line)


def scoring_bar(what: str = "scoring") -> Progress:
    """Progress over rows on standard error; none with `-q`."""
    from ladm.progress import NoProgress

    return NoProgress() if is_set(QUIET) else ScoringBar(what)


def preparing_bar() -> PreparingBar:
    """Progress over documents on standard error; none with `-q`."""
    return PreparingBar(is_shown=not is_set(QUIET))


def configure_libraries() -> None:
    """Keep warnings that are not for the user off the terminal, and leave cores that are not used to other programs.

    `-v` and what is set in the environment win.
    """
    share_cores()
    # The tokenizers library warns about its own threads whenever a process forks.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not is_set(VERBOSE):
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
