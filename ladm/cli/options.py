"""A settings class -> a command with its flags, its help in sections, and errors in one voice.

Everything that a flag shows or accepts comes from the field of the settings class (`ladm/settings/fields.py`).
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable
from typing import Any, NoReturn

import click

from ladm.cli.completion import completer_of
from ladm.cli.repeated_flags import repeat_flags
from ladm.cli.terminal import AS_JSON, QUIET, VERBOSE, show
from ladm.errors import EXIT_USAGE, UsageError
from ladm.settings.fields import Setting, alternatives, choices, describe, flag, nearest, settings_of

EXIT_CODES = "0 done, 1 error, 2 usage, 3 incomplete run, 74 file system, 75 folder in use, 130 Ctrl-C, 143 SIGTERM."
GENERAL = "General"
WIDEST_FLAGS = 26
"""Characters of the column of flags; the help of a longer one starts on the next line."""
CONFIG_HELP = "YAML file of these flags, such as span_tokens: 128; a flag beats it."

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
        for title, records in [*written.items(), (GENERAL, general)]:
            with formatter.section(title):
                formatter.write_dl([(f"{flags:<{width}}", text) for flags, text in records], col_max=WIDEST_FLAGS)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        write_epilog(formatter, self.examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, repeat_flags(args, self.params, several=self.several))
        except UsageError as error:
            fail_usage(str(error), ctx)
        except click.UsageError as error:
            # Click leaves the context out of an error about an option's missing value.
            fail_usage(usage_message(error), error.ctx or ctx)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            fail_usage(str(error), ctx)


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


def fail_usage(message: str, ctx: click.Context | None) -> NoReturn:
    """Print a usage error as all of them are printed, and exit with code 2."""
    command = "ladm" if ctx is None else ctx.command_path
    show(f"ladm: {message}\ntry: {command} --help", err=True)
    sys.exit(EXIT_USAGE)


class SettingType(click.ParamType):  # type: ignore[type-arg]
    """The text of a flag -> a value of the field's type. Raises UsageError in the words that a YAML file gets."""

    def __init__(self, field: Setting) -> None:
        self.field = field
        self.name = field.name

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return metavar(self.field)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        if not isinstance(value, str):
            return value
        if self.field.spec.parse is not None:
            try:
                return self.field.spec.parse(value)
            except UsageError as error:
                raise UsageError(f"{self.field.flag} {error}") from None
        # Click calls this for each of the values of a repeated flag.
        kinds = typing.get_args(self.field.kind)[:1] if is_repeated(self.field) else alternatives(self.field.kind)
        words = choices(self.field.kind)
        if value in words or str in kinds:
            return value
        for kind in (int, float):
            if kind in kinds:
                try:
                    return kind(value)
                except ValueError:
                    continue
        expected = describe(self.field.kind, null=False)
        raise UsageError(f"{self.field.flag} {value!r} is not {expected}{nearest(value, words)}")


def metavar(field: Setting) -> str:
    """What the help shows for a value."""
    if field.spec.metavar is not None and not field.spec.positional:
        return field.spec.metavar
    words = choices(field.kind)
    if int in alternatives(field.kind):
        words.append("N")
    return "|".join(words) or "TEXT"


def is_repeated(field: Setting) -> bool:
    """May the flag be given several times?"""
    return isinstance(field.default, tuple) and field.spec.parse is None


def help_text(field: Setting) -> str:
    """The field's help with its default."""
    if field.spec.required:
        return f"{field.spec.help}  [required]"
    if field.spec.unset is not None:
        return f"{field.spec.help}  [default: {field.spec.unset}]"
    if field.default is False or field.default in ((), None):
        return field.spec.help
    shown = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
    if isinstance(shown, bool):
        shown = "yes"
    return f"{field.spec.help}  [default: {shown}]"


def parameter_of(field: Setting) -> click.Parameter:
    """The click parameter of a field.

    Its own default is always None, which shows that the flag was not given: only given flags beat a YAML file. Required
    ones are checked after the file is read, because the file may give them.
    """
    if field.spec.positional:
        count = -1 if isinstance(field.default, tuple) else 1
        shown = f"{field.spec.metavar}{'...' if count < 0 else ''}"
        return click.Argument(
            [field.name], nargs=count, required=False, metavar=shown, type=str, shell_complete=completer_of(field)
        )
    names = [field.name, field.flag, *([field.spec.short] if field.spec.short else [])]
    # A switch that is off by default has no `--no-` form: leaving it out says the same.
    if bool in alternatives(field.kind):
        if field.default is not False:
            names[1] = f"{field.flag}/{flag('no_' + field.key)}"
        return click.Option(names, is_flag=True, default=None, help=help_text(field), type=bool)
    return click.Option(
        names,
        type=SettingType(field),
        multiple=is_repeated(field),
        default=None,
        help=help_text(field),
        shell_complete=completer_of(field),
    )


def load(kind: type, config: str | None, flags: dict[str, Any]) -> Any:
    """The settings of a command from its flags and its YAML file."""
    # Imported here, because YAML and the profiles' numpy are not needed to show help.
    from ladm.settings.config_file import load_settings

    return load_settings(kind, config, flags)


def settings_command(
    kind: type, *, short_help: str, examples: Example, loader: Loader = load, name: str | None = None
) -> Callable[[Callable[[Any], None]], SettingsCommand]:
    """Decorate a function of one settings object into a command with a flag for each field, and `--config`."""

    def decorate(function: Callable[[Any], None]) -> SettingsCommand:
        def callback(
            config: str | None, quiet: bool | None, verbose: bool | None, as_json: bool | None = None, **flags: Any
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
            click.Option(
                ["quiet", "--quiet", "-q"], is_flag=True, default=None, help="Print results and errors alone."
            ),
            click.Option(
                ["verbose", "--verbose", "-v"], is_flag=True, default=None, help="Also show what the libraries print."
            ),
        ]
        if "json" not in (field.name for field in settings_of(kind)):
            general.insert(1, click.Option(["as_json", "--json"], is_flag=True, default=None, help=JSON_HELP))
        return SettingsCommand(
            name=name or function.__name__,
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
