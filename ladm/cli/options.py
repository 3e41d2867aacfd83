"""A settings class -> a command with its flags, its help in sections, and errors in one voice.

Everything that a flag shows or accepts comes from the field of the settings class (`ladm/settings/fields.py`).
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from ladm.cli.parameters import parameter_of
from ladm.cli.repeated_flags import repeat_flags
from ladm.cli.terminal import AS_JSON, QUIET, VERBOSE, WORDS, show_error
from ladm.errors import EXIT_USAGE, UsageError
from ladm.settings.fields import INPUT_AND_OUTPUT, nearest, settings_of

EXIT_CODES = "0 done, 1 error, 2 usage, 3 incomplete run, 74 file system, 75 folder in use, 130 Ctrl-C, 143 SIGTERM."
GENERAL = "General"
WIDEST_FLAGS = 26
"""Characters of the column of flags; the help of a longer one starts on the next line."""
CONFIG_HELP = "YAML file of these flags, such as span_tokens: 128; flags override it."

_EXTRA = re.compile(r"Got unexpected extra arguments? \((.+)\)")
"""Click's words for further positional arguments."""
JSON_HELP = "Print one JSON object instead of text."

Example = tuple[str, ...]
Loader = Callable[[type, str | None, dict[str, Any]], Any]


class SettingsCommand(click.Command):
    """A command whose options stand in sections, followed by examples."""

    def __init__(self, *args: Any, kind: type, examples: Example, **more: Any) -> None:
        super().__init__(*args, **more)
        self.kind = kind
        self.sections = {field.name: field.spec.section for field in settings_of(kind)}
        self.destructive = {field.name for field in settings_of(kind) if field.spec.destructive}
        self.examples = examples
        self.several = {field.flag for field in settings_of(kind) if field.spec.several}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a section after the other."""
        written: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if record is not None:
                written.setdefault(self.sections.get(option.name or "", GENERAL), []).append(record)
        general = written.pop(GENERAL)
        # Padded to one width, or the help texts would start in another column in each section.
        width = max(len(flags) for records in (*written.values(), general) for flags, _ in records)
        width = min(width, WIDEST_FLAGS)
        # Inherited fields come first in a class; what is read and written comes first in a help.
        sections = sorted(written.items(), key=lambda section: section[0] != INPUT_AND_OUTPUT)
        for title, records in [*sections, (GENERAL, general)]:
            with formatter.section(title):
                formatter.write_dl([(f"{flags:<{width}}", text) for flags, text in records], col_max=WIDEST_FLAGS)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        write_epilog(formatter, self.examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[WORDS] = list(args)
        try:
            return super().parse_args(ctx, repeat_flags(args, self.params, several=self.several))
        except UsageError as error:
            fail_usage(str(error), ctx)
        except click.UsageError as error:
            # Click leaves the context out of an error about an option's missing value.
            fail_usage(_one_run_each(error, ctx) or usage_message(error), error.ctx or ctx)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            fail_usage(_message(error, ctx), ctx)


class CommandGroup(click.Group):
    """A group of commands; an unknown one is a usage error like any other."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            fail_usage(f"no such command {args[0]!r}{nearest(args[0], self.commands)}", ctx)
        return super().resolve_command(ctx, args)


def write_epilog(formatter: click.HelpFormatter, examples: Example) -> None:
    """The end of a help: examples as they are typed, then the exit codes."""
    with formatter.section("Examples" if len(examples) > 1 else "Example"):
        for example in examples:
            for line in example.splitlines():
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
    with formatter.section("Exit codes"):
        formatter.write_text(EXIT_CODES)


def _one_run_each(error: click.UsageError, ctx: click.Context) -> str | None:
    """What to type where a command of one RUN was given several, as `ladm select` takes them; None for other errors."""
    run, words = ctx.params.get("run"), ctx.meta[WORDS]
    extra = _EXTRA.fullmatch(error.format_message().rstrip("."))
    further = extra[1].split(" ") if extra else []
    if not isinstance(run, str) or any(words.count(word) != 1 for word in (run, *further)):
        return None
    refusal = f"{ctx.command.name} takes one RUN; give it each"
    if any(word.startswith(("-o", "--output")) for word in words):
        return f"{refusal}, with an --output of its own"
    others = [word for word in words if word not in further]
    commands = ([each if word == run else word for word in others] for each in (run, *further))
    return f"{refusal}: {' && '.join(shlex.join([*ctx.command_path.split(), *command]) for command in commands)}"


def _message(error: UsageError, ctx: click.Context) -> str:
    # Imported here, because YAML and the profiles' numpy are not needed to show help.
    from ladm.cli.config_keys import explain
    from ladm.settings.config_file import UnknownKeyError

    return explain(error, ctx.find_root().command) if isinstance(error, UnknownKeyError) else str(error)


def fail_usage(message: str, ctx: click.Context | None) -> NoReturn:
    """Print a usage error as all of them are printed, and exit with code 2."""
    command = "ladm" if ctx is None else ctx.command_path
    show_error(f"ladm: {message}\ntry: {command} --help")
    sys.exit(EXIT_USAGE)


def load(kind: type, config: str | None, flags: dict[str, Any]) -> Any:
    """The settings of a command from its flags and its YAML file."""
    # Imported here, because YAML and the profiles' numpy are not needed to show help.
    from ladm.settings.config_file import load_settings

    return load_settings(kind, config, flags)


def settings_command(
    kind: type, *, short_help: str, examples: Example, loader: Loader = load
) -> Callable[[Callable[[Any], None]], SettingsCommand]:
    """Decorate a function of one settings object into a command with a flag for each field, and `--config`."""

    def decorate(function: Callable[[Any], None]) -> SettingsCommand:
        def callback(
            config: str | None, quiet: bool | None, verbose: bool | None, as_json: bool | None, **flags: Any
        ) -> None:
            if quiet and verbose:
                raise UsageError("-q and -v contradict each other; give one of them")
            click.get_current_context().meta.update({QUIET: quiet, VERBOSE: verbose, AS_JSON: as_json})
            # A repeated flag that was not given is an empty tuple to click.
            given = {key: value for key, value in flags.items() if value not in (None, ())}
            function(loader(kind, config, given))

        config = click.Option(["config", "--config"], metavar="FILE", help=CONFIG_HELP)
        general = [
            config,
            click.Option(["as_json", "--json"], is_flag=True, default=None, help=JSON_HELP),
            click.Option(["quiet", "--quiet", "-q"], is_flag=True, default=None, help="Print only results and errors."),
            click.Option(
                ["verbose", "--verbose", "-v"], is_flag=True, default=None, help="Also show what the libraries print."
            ),
        ]
        return SettingsCommand(
            name=function.__name__,
            callback=callback,
            params=[*map(parameter_of, settings_of(kind)), *general],
            help=function.__doc__,
            short_help=short_help,
            kind=kind,
            examples=examples,
        )

    return decorate


def usage_message(error: click.UsageError) -> str:
    """Click's message as ladm's own are written; a flag that deletes something is never suggested."""
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        command = error.ctx.command
        options = [option for option in command.get_params(error.ctx) if isinstance(option, click.Option)]
        flags = {flag: option.name for option in options for flag in option.opts}
        never = [flag for flag, name in flags.items() if name in getattr(command, "destructive", ())]
        hint = nearest(error.option_name, [flag for flag in flags if flag not in never], never=never)
        return f"no such option {error.option_name}{hint}"
    message = error.format_message().rstrip(".")
    return message[:1].lower() + message[1:]
