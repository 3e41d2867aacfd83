"""The command line: the group of commands, and what becomes of errors. Imports no torch.

A command builds settings, calls one function, and echoes what it returns.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from ladm import __version__
from ladm.cli.data import prepare, select
from ladm.cli.evaluation import evaluate
from ladm.cli.flags import EXIT_CODES
from ladm.cli.models import calibrate, check, train
from ladm.cli.runs import inspect, report, rescore, score, status, verify
from ladm.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_IO, EXIT_PIPE, EXIT_USAGE, LadmError, one_line


class _Group(click.Group):
    """Turns the library's errors into one line and an exit code; a traceback only with LADM_DEBUG=1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LadmError as error:
            if os.environ.get("LADM_DEBUG"):
                raise
            click.echo(f"ladm: {error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("ladm: stopped by Ctrl-C", err=True)
            sys.exit(EXIT_INTERRUPTED)
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise
        except BrokenPipeError:
            # Nobody reads on; what is left to be said goes nowhere, and Python is not to fail on it at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(EXIT_PIPE)
        except OSError as error:
            click.echo(f"ladm: {one_line(error)}", err=True)
            sys.exit(EXIT_IO)
        except Exception as error:
            if os.environ.get("LADM_DEBUG"):
                raise
            what = one_line(error)
            click.echo(
                f"ladm: unexpected {type(error).__name__}: {what} (a fault of ladm; LADM_DEBUG=1 shows where)", err=True
            )
            sys.exit(EXIT_ERROR)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [name for names in SECTIONS.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].short_help or "") for name in names])


SECTIONS = {
    "From documents to a subset, in this order": ("prepare", "score", "select"),
    "What came out, and why": ("inspect", "report", "status", "verify"),
    "A score to trust": ("check", "calibrate", "rescore"),
    "Models": ("train", "evaluate"),
}


@click.group(cls=_Group, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ladm")
def main() -> None:
    """Pick the long documents worth training a long-context language model on."""


for command in (prepare, score, select, inspect, report, status, verify, check, calibrate, rescore, train, evaluate):
    main.add_command(command)


def run() -> None:
    """The command line as a program."""
    for word in sys.argv[1:]:
        try:
            word.encode()
        except UnicodeEncodeError:
            # A file's name may be any bytes to the system, and not to Arrow, JSON and YAML.
            click.echo(f"ladm: {word!a} is not UTF-8; give files and folders names that are", err=True)
            sys.exit(EXIT_USAGE)
    main()
