"""The command line: the group of commands, and what becomes of errors.

A command builds settings, calls one function, and prints what it returns. No torch, numpy or YAML is imported before a
command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any, NoReturn

import click

from ladm.cli.calibration import calibrate, check
from ladm.cli.comparison import compare, top
from ladm.cli.data import prepare
from ladm.cli.evaluation import evaluate
from ladm.cli.options import CommandGroup, fail_usage, usage_message, write_epilog
from ladm.cli.pipeline import run as run_job
from ladm.cli.runs import annotate, inspect, report, rescore, status, verify
from ladm.cli.scoring import score
from ladm.cli.selection import select
from ladm.cli.terminal import drop_output, escape_what_cannot_be_printed, show_error
from ladm.cli.training import train
from ladm.errors import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_IO,
    EXIT_PIPE,
    LadmError,
    UsageError,
    is_out_of_memory,
    lack_of_memory,
    one_line,
)
from ladm.storage.files import require_utf8
from ladm.version import __version__

SECTIONS = {
    # A test compares this table with the commands that are added below, so that none is missing in the help.
    "From documents to a subset, in one command": ("run",),
    "From documents to a subset, step by step": ("prepare", "score", "select"),
    "Results, and the reasons for them": ("top", "inspect", "report", "compare", "status", "verify"),
    "A score to trust": ("check", "calibrate", "rescore", "annotate"),
    "Models": ("train", "evaluate"),
}
EXAMPLES = (
    "ladm run corpus/*.jsonl.gz --model MODEL --tokens 10M -o job",
    "ladm prepare corpus/*.jsonl.gz --tokenizer MODEL --length 4096 -o rows",
    "ladm score rows --model MODEL -o run",
    "ladm select run --tokens 10M -o subset",
)


class _Program(CommandGroup):
    """Turns errors into one line and an exit code; a traceback only with LADM_DEBUG=1."""

    def main(self, *args: Any, **more: Any) -> Any:
        escape_what_cannot_be_printed()
        # Click prints the errors of its parser itself, in a voice of its own, unless it is not `standalone`.
        try:
            code = super().main(*args, **more | {"standalone_mode": False, "prog_name": "ladm"})
        except click.exceptions.NoArgsIsHelpError as error:
            show_error(error.format_message())
            sys.exit(error.exit_code)
        except click.UsageError as error:
            fail_usage(usage_message(error), error.ctx)
        except click.Abort:
            show_error("ladm: stopped by Ctrl-C")
            sys.exit(EXIT_INTERRUPTED)
        except OSError as error:
            # Of the help and the version, which click prints before there is a command.
            _exit_for(error)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LadmError as error:
            if os.environ.get("LADM_DEBUG"):
                raise
            show_error(f"ladm: {error}{_lost_folder()}")
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            show_error("ladm: stopped by Ctrl-C")
            sys.exit(EXIT_INTERRUPTED)
        # Click's own way out of a command: `main` turns these into messages.
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise
        except OSError as error:
            _exit_for(error)
        except Exception as error:
            if os.environ.get("LADM_DEBUG"):
                raise
            if is_out_of_memory(error):
                show_error(f"ladm: {lack_of_memory(error, action='continue')}")
                sys.exit(EXIT_ERROR)
            what = one_line(error)
            library = _failed_import(error)
            if library:
                show_error(f"ladm: cannot load {library}: {what}; check the environment variables that it reads")
                sys.exit(EXIT_ERROR)
            show_error(
                f"ladm: unexpected {type(error).__name__}: {what} (a bug in ladm; set LADM_DEBUG=1 to see where)"
            )
            sys.exit(EXIT_ERROR)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [name for names in SECTIONS.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].short_help or "") for name in names])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        write_epilog(formatter, EXAMPLES)


def _exit_for(error: OSError) -> NoReturn:
    """End for a file or stream that nothing below could deal with, without a line where the reader has left."""
    drop_output()
    if isinstance(error, BrokenPipeError):
        sys.exit(EXIT_PIPE)
    # Only an error of writing to an open file, such as standard output, names no file, or of a lost working folder.
    what = one_line(error) if error.filename or _lost_folder() else f"cannot write: {error.strerror or error}"
    show_error(f"ladm: {what}{_lost_folder()}")
    sys.exit(EXIT_IO)


def _failed_import(error: BaseException) -> str | None:
    """The library while whose modules were loaded the error was raised, such as for a variable that is no number."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "<module>"]
    names = (str(frame.f_globals.get("__name__")).partition(".")[0] for frame in reversed(frames))
    return next((name for name in names if name != "ladm"), None)


def _lost_folder() -> str:
    """The end of a message where the working folder was removed, in which libraries and relative names fail."""
    try:
        os.getcwd()
    except OSError:
        return "; the working folder no longer exists, so change to one that does"
    return ""


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="ladm")
def main() -> None:
    """Pick the long documents worth training a long-context language model on."""


for command in (
    run_job,
    prepare,
    score,
    select,
    annotate,
    top,
    inspect,
    report,
    compare,
    status,
    verify,
    check,
    calibrate,
    rescore,
    train,
    evaluate,
):
    main.add_command(command)


def run() -> None:
    """The command line as a program."""
    # Before click parses anything, which would fail on such a name with a traceback.
    for word in sys.argv[1:]:
        try:
            require_utf8(word)
        except UsageError as error:
            fail_usage(str(error), None)
    main()
