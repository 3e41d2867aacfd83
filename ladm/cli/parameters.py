"""A field of a settings class -> its click parameter: names, type, help with the default, completion."""

from __future__ import annotations

import typing
from typing import Any

import click

from ladm.cli.completion import completer_of
from ladm.errors import UsageError
from ladm.settings.field_types import alternatives, choices, describe
from ladm.settings.fields import Setting, flag, nearest
from ladm.settings.quantities import abbreviation_hint


class SettingType(click.ParamType):  # type: ignore[type-arg]
    """The text of a flag -> a value of the field's type. Raises UsageError in the words that a YAML file gets."""

    def __init__(self, field: Setting) -> None:
        self.field = field
        self.name = field.name

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return metavar(self.field)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
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
        hint = nearest(value, words) or (abbreviation_hint(value) if int in kinds else "")
        raise UsageError(f"{self.field.flag} {value!r} is not {expected}{hint}")


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
