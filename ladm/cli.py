"""The command line: the group of commands, and what becomes of errors. Imports no torch.

A command builds settings, calls one function, and echoes what it returns.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from ladm import __version__
from ladm.commands.data import prepare, select
from ladm.commands.evaluate import evaluate
from ladm.commands.flags import EXIT_CODES
from ladm.commands.models import calibrate, check, train
from ladm.commands.runs import inspect, report, rescore, score, status, verify
from ladm.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_IO, LadmError, one_line


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
            sys.exit(EXIT_INTERRUPTED)
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise
        except BrokenPipeError:
            raise
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


@click.group(cls=_Group, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ladm")
def main() -> None:
    """Pick the long documents worth training a long-context language model on."""


for command in (prepare, score, select, status, verify, calibrate, check, rescore, inspect, report, train, evaluate):
    main.add_command(command)
