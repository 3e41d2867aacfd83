"""A key of a `--config` file that a command does not have -> the commands that it is a setting of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from ladm.settings.config_file import UnknownKeyError
from ladm.settings.fields import settings_of

MOST_NAMED = 3


def explain(error: UnknownKeyError, program: click.Command) -> str:
    """The message of the error, with the command that was probably meant, where there is one."""
    kinds = dict(_commands(program))
    if error.key in kinds and isinstance(error.value, dict):
        return f"{error.what}; a file has the settings of one command, without sections"
    having = [name for name, kind in kinds.items() if error.key in _keys(kind)]
    whole = [name for name in having if _keys(kinds[name]).issuperset(error.keys)]
    if whole:
        return f"{error.what}; all keys of the file are settings of {_named(whole)}"
    if having:
        return f"{error.what}; it is a setting of {_named(having)}, and a file has the settings of one command"
    return str(error)


def _commands(command: click.Command, name: str = "") -> Iterator[tuple[str, Any]]:
    """The settings class of every command, by its name, in the order of the help."""
    if isinstance(command, click.Group):
        for each in command.list_commands(click.Context(command)):
            yield from _commands(command.commands[each], f"{name} {each}".strip())
    elif hasattr(command, "kind"):
        yield name, command.kind


def _keys(kind: Any) -> set[str]:
    """The keys of a command's file, without those that delete something, which no message may propose."""
    harmless = [field for field in settings_of(kind) if not field.spec.destructive]
    return {name for field in harmless for name in (field.key, field.name)}


def _named(commands: list[str]) -> str:
    shown = [f"ladm {name}" for name in commands[:MOST_NAMED]]
    return " or ".join(shown) + (" and others" if len(commands) > MOST_NAMED else "")
