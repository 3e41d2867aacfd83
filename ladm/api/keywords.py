"""Keyword arguments of a Python call -> the settings of a command, with the same names, defaults and checks.

Imports no torch.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any, get_origin

from ladm.errors import UsageError
from ladm.settings.field_types import fits
from ladm.settings.fields import Setting, nearest, require_not_empty, require_type, settings_of, with_digits
from ladm.settings.mappings import from_mapping
from ladm.settings.quantities import is_beyond_text

AnyPath = str | os.PathLike[str]
_DRY_RUNS = {
    "ladm.score": "ladm.estimate",
    "ladm.run": "ladm.estimate_run",
    "ladm.check": "ladm.estimate_check",
    "ladm.calibrate": "ladm.estimate_calibration",
}
"""The functions that stand for the flag --dry-run of a command."""


def spell_path(path: AnyPath, argument: str) -> str:
    """A path as the settings hold it; `argument` is what the caller's program calls it.

    Raises UsageError for what is no path, and for an empty one, which would be the working folder.
    """
    try:
        # A text of NumPy is more than a text, and `fsdecode` leaves it so.
        spelled = str(os.fsdecode(path))
    except TypeError:
        kind = "None" if path is None else f"an object of type {type(path).__name__}"
        raise UsageError(f"{argument} must be a name or a path, not {kind}") from None
    if not spelled or "\0" in spelled:
        kind = "a text with a NUL character" if spelled else "an empty text"
        raise UsageError(f"{argument} must be a name or a path, not {kind}")
    return spelled


def spell_config(config: AnyPath | None) -> str | None:
    """The YAML file of a command, if there is one. Raises as `spell_path`."""
    return None if config is None else spell_path(config, "config")


def parse_keywords(
    kind: type, call: str, given: Mapping[str, Any], *, without: Iterable[str] = (), beside: Iterable[str] = ()
) -> dict[str, Any]:
    """The keyword arguments `given` to the function `call`, as the settings class `kind` takes them.

    `beside`: other arguments of the call, which a misspelt name may be meant as.
    Paths become texts, and lists tuples. Raises UsageError for a name that the class does not have, or that is one of
    `without`, for two names of one, and for a value of another type.
    """
    # A flag that may be repeated has the singular, `--exclude-domain`, and its setting the plural.
    names = {field.key: field.name for field in settings_of(kind)}
    for name in given:
        if names.get(name, name) != name and names[name] in given:
            raise UsageError(f"{call} was given {name} and {names[name]}, which are the same setting; give one of them")
    given = {names.get(name, name): value for name, value in given.items()}
    known = [field.name for field in dataclasses.fields(kind) if field.name not in without]
    for name in given:
        if name not in known:
            every = [*beside, *known]
            hint = nearest(name, every) or f"; it has {', '.join(every)}"
            if name == "dry_run" and call in _DRY_RUNS:
                hint = f"; call {_DRY_RUNS[call]} in its place"
            raise UsageError(f"{call} has no setting {name}{hint}")
    settings = {field.name: field for field in settings_of(kind)}
    made = {name: _of_field(_value(value), settings[name]) for name, value in given.items() if value is not None}
    for name, value in made.items():
        # Before settings are derived from each other, as those of a profile are.
        require_type(value, settings[name])
        require_not_empty(value, settings[name])
    return made


def _of_field(value: Any, field: Setting) -> Any:
    """A value in the form that the field has: a text as the flag reads it, one of several values, a list of words."""
    if _holds_number_beyond_text(value):
        raise UsageError(f"{field.flag} is too large a number")
    if isinstance(value, str) and field.spec.parse is not None:
        try:
            return field.spec.parse(value)
        except UsageError as error:
            raise UsageError(f"{field.flag} {error}") from None
    if isinstance(value, Mapping):
        return from_mapping({name: _value(each) for name, each in value.items()}, field)
    # What is one word on the command line may be a list of words here.
    if isinstance(value, tuple) and field.spec.commas:
        if not value:
            raise UsageError(f"{field.flag} is an empty list; leave it out, or give at least one")
        return ",".join(map(str, value))
    # `tokens=1e9`, as `--tokens 1e9` on the command line, is a float in Python.
    if isinstance(value, float) and value.is_integer() and not fits(value, field.kind) and fits(int(value), field.kind):
        value = int(value)
    value = with_digits(value, field.spec)
    # One of several: `index=7` is `index=["7"]`.
    return (value,) if isinstance(value, str) and get_origin(field.kind) is tuple else value


def _holds_number_beyond_text(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_number_beyond_text, (*value, *value.values())))
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(_holds_number_beyond_text, value))
    return is_beyond_text(value)


def _value(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    # A number or an array of NumPy or torch, such as a quantile of scores; by their attributes, to import neither.
    if hasattr(value, "tolist") and hasattr(value, "ndim") and not isinstance(value, type):
        value = value.tolist()
    if isinstance(value, (set, frozenset)):
        # In one order in every process: a set of texts has another in each.
        value = sorted(value, key=lambda each: (str(type(each)), each if isinstance(each, (int, float)) else str(each)))
    return tuple(map(_value, value)) if isinstance(value, (list, range)) else value
