"""Settings -> the command that they stand for, to be written down and repeated. Imports nothing heavy."""

from __future__ import annotations

import shlex
from typing import Any

from ladm.settings.fields import Setting, Settings, flag, settings_of


def spell_command(name: str, settings: Settings) -> str:
    """The command line of these settings, without the flags that are at their defaults."""
    kind: Any = type(settings)
    fields = settings_of(kind)
    words = ["ladm", name]
    for field in fields:
        value = getattr(settings, field.name)
        if field.spec.positional:
            words += value if isinstance(value, tuple) else [str(value)]
    for field in fields:
        value = getattr(settings, field.name)
        if not field.spec.positional and value != field.default:
            words += _flags(field, value)
    return shlex.join(words)


def _flags(field: Setting, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [field.flag] if value else [flag(f"no_{field.key}")]
    values = value if isinstance(value, tuple) else (value,)
    return [word for each in values for word in (field.flag, str(each))]
