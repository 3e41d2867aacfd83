"""Settings objects -> Click flags, with their types. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from ladm.settings.score import flag

EXIT_CODES = """
\b
Exit codes: 0 done, 1 error, 2 usage, 3 incomplete run, 74 file system,
75 folder in use, 130 Ctrl-C, 143 SIGTERM.
"""


def options_of(defaults: Any) -> Callable[..., Callable[..., Any]]:
    """A maker of flags whose defaults are those of a settings object, shown in the help but not repeated."""

    def option(name: str, kind: Any, help_text: str, **more: Any) -> Callable[..., Any]:
        default = getattr(defaults, name)
        if default not in (None, False, "", 0) and not isinstance(default, tuple) and "[default:" not in help_text:
            help_text += f"  [default: {default}]"
        # Click takes an explicit default of None for a value, which a required option would then be satisfied with.
        if not more.get("required"):
            more["default"] = None
        return click.option(more.pop("flag", flag(name)), name, type=kind, help=help_text, **more)

    return option


class WholeOrAuto(click.ParamType):  # type: ignore[type-arg]
    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == "auto":
            return "auto"
        if not str(value).isdecimal():
            self.fail(f"{value!r} is neither auto nor a whole number", param, ctx)
        return int(value)


class Tokens(click.ParamType):  # type: ignore[type-arg]
    name = "tokens"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ARG002
        from ladm.settings.quantities import parse_tokens

        return value if isinstance(value, int) else parse_tokens(value)


class Whole(click.ParamType):  # type: ignore[type-arg]
    """Whole numbers above 1 between commas, ascending."""

    name = "N,N,.."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = value.split(",")
        if not all(part.strip().isdecimal() and int(part) > 1 for part in parts):
            self.fail(f"{value!r} is not a list of numbers of tokens such as 2048,4096", param, ctx)
        return tuple(sorted({int(part) for part in parts}))


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given."""
    return {name: value for name, value in flags.items() if value not in (None, ())}


def note(line: str) -> None:
    click.echo(line, err=True)


def quieten_libraries() -> None:
    """Keep warnings that are not for the user off the terminal; what the user sets in the environment wins."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
