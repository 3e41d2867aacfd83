"""A typed field with its help, range and flag -> checks in words for people, and what the command line shows of it.

Choices, ranges, defaults and help are written once, on the field of a settings class. `ladm/cli/options.py` makes the
flags from them, `config_file.py` the keys of a YAML file, and `Settings` refuses the values that do not fit. Plain
dataclasses: `ladm --help` has to answer at once, and the same words must serve a flag, a file and a call from Python.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import math
import sys
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ladm.errors import UsageError
from ladm.settings.field_types import describe, fits
from ladm.storage.files import arrow_path, data_set_path, require_utf8

INPUT_AND_OUTPUT = "Input and output"
METHOD = "Method: the letters of the paper (arXiv 2503.02502, equations 2 to 5)"
DEVICE = "Device and speed"


@dataclass(frozen=True, kw_only=True)
class FieldSpec:
    """What is known of a field beside its type and default."""

    help: str
    section: str
    """Title of the group of flags that the help shows it in."""
    metavar: str | None = None
    """What the help shows in place of a value; None: made from the type."""
    unset: str | None = None
    """What happens without a value, shown as the default."""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    required: bool = False
    positional: bool = False
    flag: str | None = None
    """The flag's name where it is not the field's, such as `task` for one of the `tasks`."""
    short: str | None = None
    several: bool = False
    """May several values follow the flag at once, as in `--rows A B`?"""
    not_an_address: str | None = None
    """Of a place that must be on this machine: what to do instead of giving an address such as s3://bucket/run."""
    holds_rows: bool = False
    """Is a data set written there?"""
    digits: bool = False
    """Of texts: may one be a whole number, which YAML and Python write without quotes?"""
    commas: bool = False
    """Of texts: do they hold several words between commas, which YAML may have as a list?"""
    mapping: bool = False
    """May YAML and Python give it as a mapping? See `mappings`."""
    destructive: bool = False
    """It removes what exists, so that no hint may ever suggest it."""
    parse: Callable[[str], Any] | None = None
    """Text -> value, for a quantity with a spelling of its own; raises UsageError."""


def setting(default: Any, help_text: str, *, section: str = INPUT_AND_OUTPUT, **more: Any) -> Any:
    """A dataclass field with a FieldSpec. `more`: the other fields of FieldSpec."""
    spec = FieldSpec(help=help_text, section=section, **more)
    return dataclasses.field(default=default, metadata={"spec": spec})


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A field of a settings class."""

    name: str
    kind: Any
    """Its type, resolved."""
    default: Any
    spec: FieldSpec

    @property
    def key(self) -> str:
        """Its name in a YAML file: that of the flag with underscores."""
        return self.spec.flag or self.name

    @property
    def flag(self) -> str:
        """As the user writes it: `--span-tokens`, or `ROWS` where it is an argument."""
        return str(self.spec.metavar) if self.spec.positional else flag(self.key)


@functools.cache
def settings_of(kind: Any) -> tuple[Setting, ...]:
    """The fields of a settings class, in their order."""
    # Annotations are texts under `from __future__ import annotations`; to resolve them takes time, hence the cache.
    types = typing.get_type_hints(kind)
    return tuple(
        Setting(name=field.name, kind=types[field.name], default=field.default, spec=field.metadata["spec"])
        for field in dataclasses.fields(kind)
    )


class Settings:
    """Base of the settings classes, all of them frozen dataclasses made of `setting`.

    Raises UsageError for a value of the wrong type, one out of its range, or two that contradict each other.
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for field in settings_of(kind):
            value = getattr(self, field.name)
            require_type(value, field)
            problem = out_of_range(value, field.spec)
            if problem:
                raise UsageError(f"{field.flag} {problem}")
            for place in value if isinstance(value, tuple) else (value,):
                # Checked here, before anything is read: as a path, s3://bucket is a folder `s3:` of this machine.
                if field.spec.not_an_address and isinstance(place, str) and "://" in place:
                    raise UsageError(f"{field.flag} {place} is an address; {field.spec.not_an_address}")
                if field.spec.holds_rows and isinstance(place, str):
                    data_set_path(place)
                if isinstance(place, str):
                    _require_utf8(place, is_place=field.spec.not_an_address is not None)
        self.check_together()

    def check_together(self) -> None:
        """Raise UsageError where values that are right one by one contradict each other."""

    @classmethod
    def passes_over(cls, key: str, value: Any) -> bool:  # noqa: ARG003
        """Is this key of a YAML file one of another command, which this command can do without?"""
        return False


def require_type(value: Any, field: Setting) -> None:
    """Raise UsageError for a value of another type than the field's."""
    if not fits(value, field.kind):
        raise UsageError(f"{field.flag} {value!r} is not {describe(field.kind)}")


def require_not_empty(value: Any, field: Setting) -> None:
    """Raise UsageError for an empty text that a caller gave, such as an unset variable between quotes."""
    # No domain or key has such a name, and as a path it would be the folder that the user happens to be in.
    if value == "" or (isinstance(value, tuple) and "" in value):
        raise UsageError(f"{field.flag} is an empty text; leave it out, or give a name")


def _require_utf8(text: str, *, is_place: bool) -> None:
    """Raise UsageError for a text that is not UTF-8, and for a place on this machine in a folder whose name is not.

    Now, and not when hours of work are to be written there.
    """
    require_utf8(text)
    # A current folder that was removed has no name; whatever opens the place says so.
    with contextlib.suppress(OSError):
        if is_place and text:
            arrow_path(text)


def flag(name: str) -> str:
    """The command-line spelling of a setting: `span_tokens` -> `--span-tokens`."""
    return "--" + name.replace("_", "-")


def with_digits(value: Any, spec: FieldSpec) -> Any:
    """A whole number as its digits, for a field that holds texts: `layers: 14` in YAML is `--layers 14`."""
    if isinstance(value, tuple):
        return tuple(with_digits(each, spec) for each in value)
    return str(value) if spec.digits and type(value) is int else value


def out_of_range(value: Any, spec: FieldSpec) -> str | None:
    """`must be at least 1, not 0` for a number, or a list with one, that lies outside of the field's range."""
    # A list of windows is checked number by number; None, texts and switches have no range.
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if not isinstance(number, int | float) or isinstance(number, bool):
            continue
        # A whole number of Python may have any number of digits, and arithmetic with floats none of more than 308.
        if isinstance(number, int) and abs(number) > sys.float_info.max:
            return "is too large a number"
        if _inside(number, spec):
            continue
        bounds = {
            "at least": spec.at_least,
            "above": spec.above,
            "below": spec.below,
            "at most": spec.at_most,
        }
        words = " and ".join(f"{word} {_spell(bound)}" for word, bound in bounds.items() if bound is not None)
        return f"must be {words or 'finite'}, not {_spell(number)}"
    return None


def _inside(number: float, spec: FieldSpec) -> bool:
    return (
        math.isfinite(number)
        and (spec.at_least is None or number >= spec.at_least)
        and (spec.above is None or number > spec.above)
        and (spec.below is None or number < spec.below)
        and (spec.at_most is None or number <= spec.at_most)
    )


def _spell(number: float) -> str:
    # `:g` alone would round 1048577 to 1.04858e+06.
    return str(number) if isinstance(number, int) else f"{number:g}"


def nearest(word: str, words: Iterable[str], *, never: Iterable[str] = ()) -> str:
    """`; did you mean median?` where one of the words is close, else nothing.

    `never`: words that are not suggested; where one of them is the closest, nothing is.
    """
    near = difflib.get_close_matches(word, [*words, *never], n=1)
    return f"; did you mean {near[0]}?" if near and near[0] not in never else ""
